//! What the text formats say, read back by an independent reader, by promtool, and by people (golden files).
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests may panic")]

mod support;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use proptest::prelude::*;
use support::model::{histogram, rich_model};
use support::reader::{Exposition, Sample, parse};
use tailgauge::model::slots::SlotTable;
use tailgauge::model::tailnet::Peer;
use tailgauge::model::{Model, synthetic};
use tailgauge::outputs::own::SelfMetrics;
use tailgauge::outputs::prometheus::{Build, Encoder, Format, render};
use tailgauge::sources::tailscale::parse_user_metrics;
use tailgauge_ebpf::layout::{RECEIVE, TRANSMIT, Tcp};

/// Fixed, so that golden files do not depend on the machine.
const BUILD: Build =
    Build { version: "0.1.0", revision: "abc123", rustc: "1.95.0", target: "x86_64-unknown-linux-gnu" };

const FORMATS: [Format; 2] = [Format::Text, Format::OpenMetrics];

fn encode(model: &Model, now: Instant, format: Format) -> String {
    let mut out = BytesMut::new();
    Encoder::new(BUILD).encode(model, now, format, &mut out);
    if format == Format::OpenMetrics {
        out.extend_from_slice(b"# EOF\n");
    }
    String::from_utf8(out.to_vec()).expect("UTF-8")
}

fn read(model: &Model, now: Instant, format: Format) -> Exposition {
    parse(&encode(model, now, format), format == Format::OpenMetrics).expect("well-formed")
}

fn value(exposition: &Exposition, name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |sample: &&&Sample| {
        labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
    };
    let named = exposition.named(name);
    let found: Vec<_> = named.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}");
    found[0].value
}

#[test]
fn golden_files() {
    let now = Instant::now();
    let model = rich_model(now);
    for (format, name) in FORMATS.into_iter().zip(["rich.txt", "rich.openmetrics.txt"]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let text = encode(&model, now, format);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).expect("golden file is writable");
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        let difference = golden.lines().zip(text.lines()).find(|(was, is)| was != is);
        assert!(
            golden == text,
            "{} differs, first at (was, is): {difference:?}; if that is meant, run with UPDATE_GOLDEN=1",
            path.display()
        );
    }
}

#[test]
fn promtool_finds_nothing() {
    let now = Instant::now();
    let own = SelfMetrics::new().unwrap();
    let mut model = rich_model(now);
    model.kernel.device = "\0\r\t\u{7f}\u{202e}\u{fffd}".to_owned();
    let mut out = BytesMut::new();
    render(&mut Encoder::new(BUILD), &model, &own, now, Format::Text, &mut out);
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("SKIPPED promtool_finds_nothing: promtool is missing (Debian: apt install prometheus)");
            return;
        }
        Err(error) => panic!("cannot start promtool: {error}"),
    };
    child.stdin.take().unwrap().write_all(&out).unwrap();
    let output = child.wait_with_output().unwrap();
    let findings = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && findings.is_empty(), "{}", String::from_utf8_lossy(&findings));
}

#[test]
fn the_whole_exposition_ends_once() {
    let now = Instant::now();
    let own = SelfMetrics::new().unwrap();
    for format in FORMATS {
        let mut out = BytesMut::new();
        render(&mut Encoder::new(BUILD), &rich_model(now), &own, now, format, &mut out);
        let text = std::str::from_utf8(&out).unwrap();
        let read = parse(text, format == Format::OpenMetrics).expect("well-formed");
        assert_eq!(text.matches("# EOF").count(), usize::from(format == Format::OpenMetrics));
        assert!(value(&read, "process_threads", &[]) >= 1.0);
        assert_eq!(value(&read, "tailgauge_peers_without_slot", &[]), 1.0);
    }
}

#[test]
fn both_formats_say_the_same() {
    let now = Instant::now();
    let model = rich_model(now);
    let [text, openmetrics] = FORMATS.map(|format| read(&model, now, format));
    assert_eq!(text.samples, openmetrics.samples);
    assert_eq!(text.types.len(), openmetrics.types.len());
}

#[test]
fn an_empty_model_is_well_formed() {
    for format in FORMATS {
        let exposition = read(&Model::default(), Instant::now(), format);
        assert_eq!(value(&exposition, "tailgauge_tailscaled_up", &[]), 0.0);
        assert!(exposition.named("tailgauge_peer_info").is_empty());
    }
}

#[test]
fn totals_are_the_sum_of_peers_unattributed_and_retired() {
    let now = Instant::now();
    let model = rich_model(now);
    let exposition = read(&model, now, Format::Text);
    for (direction, name) in [(RECEIVE, "receive"), (TRANSMIT, "transmit")] {
        for unit in ["bytes", "packets"] {
            let sum = |name: &str| exposition.named(name).iter().map(|sample| sample.value).sum::<f64>();
            let retired = model.kernel.retired.direction[direction as usize].wire;
            let retired = retired.map(|wire| if unit == "bytes" { wire.bytes } else { wire.packets });
            assert_eq!(
                sum(&format!("tailgauge_tunnel_{name}_{unit}_total")),
                sum(&format!("tailgauge_peer_{name}_{unit}_total"))
                    + sum(&format!("tailgauge_unattributed_{name}_{unit}_total"))
                    + retired.iter().sum::<u64>() as f64,
                "{name} {unit}"
            );
        }
    }
}

#[test]
fn what_was_not_seen_under_the_tunnel_is_absent() {
    let now = Instant::now();
    let mut model = rich_model(now);
    let exposition = read(&model, now, Format::Text);
    let peers = |name: &str| {
        let mut peers: Vec<_> =
            exposition.named(name).iter().map(|sample| sample.labels["peer_id"].clone()).collect();
        peers.dedup();
        peers
    };
    let [one, two] = ["n000001CNTRL", "n000002CNTRL"];
    for name in [
        "tailgauge_peer_underlay_receive_bytes_total",
        "tailgauge_peer_wireguard_handshake_seconds_count",
        "tailgauge_peer_wireguard_handshakes_total",
        "tailgauge_peer_wireguard_cookie_replies_receive_total",
        "tailgauge_peer_wireguard_lost_packets_total",
        "tailgauge_peer_wireguard_sent_packets_total",
    ] {
        assert_eq!(peers(name), [one], "{name}");
    }
    for name in ["tailgauge_peer_disco_rtt_seconds_count", "tailgauge_peer_disco_pings_transmit_total"] {
        assert_eq!(peers(name), [two], "{name}");
    }
    let paths = exposition.named("tailgauge_peer_underlay_receive_packets_total");
    let paths: Vec<_> = paths.iter().map(|sample| (sample.labels["path"].as_str(), sample.value)).collect();
    assert_eq!(paths, [("direct_ipv4", 300.0), ("peer_relay_ipv6", 0.0)], "it was sent to by both");
    assert_eq!(value(&exposition, "tailgauge_unattributed_underlay_receive_packets_total", &[]), 30.0);
    assert_eq!(value(&exposition, "tailgauge_peer_wireguard_sent_packets_total", &[]), 894.0);
    let pongs = [("kind", "disco_pong")];
    assert_eq!(value(&exposition, "tailgauge_underlay_messages_transmit_total", &pongs), 70.0);
    model.kernel.peer_underlay.clear();
    model.kernel.messages = None;
    let unseen = read(&model, now, Format::Text);
    for part in
        ["peer_underlay", "unattributed_underlay", "underlay_messages", "_response_seconds", "sent_packets"]
    {
        assert!(!unseen.samples.iter().any(|sample| sample.name.contains(part)), "{part}");
    }
}

#[test]
fn usable_cpus_are_known_when_affinity_and_quota_are() {
    let now = Instant::now();
    let mut model = rich_model(now);
    for (quota, expected) in [(Some(0.5), Some(0.5)), (Some(f64::INFINITY), Some(2.0)), (None, None)] {
        model.host.cgroup.as_mut().unwrap().cpu_quota = quota;
        let exposition = read(&model, now, Format::Text);
        let usable = exposition.named("tailgauge_tailscaled_usable_cpus");
        assert_eq!(usable.first().map(|sample| sample.value), expected, "{quota:?}");
    }
}

#[test]
fn when_the_clock_is_set_so_is_when_things_began() {
    let now = Instant::now();
    let mut model = rich_model(now);
    let mut began = |boot_time| {
        model.host.cpu.as_mut().unwrap().boot_time = boot_time;
        let exposition = read(&model, now, Format::Text);
        ["tailgauge_host_boot_timestamp_seconds", "tailgauge_tailscaled_start_timestamp_seconds"]
            .map(|name| exposition.named(name).first().map(|sample| sample.value))
    };
    assert_eq!(began(Some(10)), [Some(10.0), Some(110.25)]);
    assert_eq!(began(Some(1_790_000_007)), [Some(1_790_000_007.0), Some(1_790_000_107.25)]);
    assert_eq!(began(None), [None, None], "nobody says");
    assert_eq!(began(Some(u64::MAX)), [None, None], "no such time");
}

#[test]
fn drops_of_tailscaled_are_absent_until_one_of_its_sockets_was_seen() {
    let now = Instant::now();
    let mut model = rich_model(now);
    let names = |model: &Model| {
        let samples = read(model, now, Format::Text).samples;
        let udp = samples.iter().filter(|sample| {
            sample.name.starts_with("tailgauge_tailscaled_udp_") && sample.labels.contains_key("family")
        });
        udp.map(|sample| sample.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&model).len(), 12, "both address families");
    let udp = model.host.udp.as_mut().unwrap();
    (udp.ipv4.buffers, udp.ipv6.buffers) = (None, None);
    assert_eq!(names(&model), ["tailgauge_tailscaled_udp_sockets"; 2]);
}

#[test]
fn a_peer_that_left_is_offline_and_then_gone() {
    let now = Instant::now();
    let mut model = rich_model(now);
    let gone = ("peer_id", "n000003CNTRL");
    let exposition = read(&model, now, Format::Text);
    assert_eq!(value(&exposition, "tailgauge_peer_online", &[gone]), 0.0);
    assert_eq!(value(&exposition, "tailgauge_peer_path", &[gone, ("path", "idle")]), 1.0);
    assert!(value(&exposition, "tailgauge_peer_receive_bytes_total", &[gone, ("class", "exit")]) > 0.0);
    let mut encoder = Encoder::new(BUILD);
    let mut out = BytesMut::new();
    encoder.encode(&model, now, Format::Text, &mut out);
    model.slots.release(3);
    out.clear();
    encoder.encode(&model, now, Format::Text, &mut out);
    assert!(!std::str::from_utf8(&out).unwrap().contains(gone.1), "released, yet exported");
}

#[test]
fn labels_follow_the_peer() {
    let now = Instant::now();
    let mut encoder = Encoder::new(BUILD);
    let mut model = synthetic::model(2);
    let mut names = |model: &Model| {
        let mut out = BytesMut::new();
        encoder.encode(model, now, Format::Text, &mut out);
        let exposition = parse(std::str::from_utf8(&out).unwrap(), false).unwrap();
        let info = exposition.named("tailgauge_peer_info");
        info.iter().map(|sample| sample.labels["peer_name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&model), ["peer-1", "peer-2"]);
    let renamed = Peer { name: "new".to_owned(), ..synthetic::peer(1) };
    model.slots.update(&[Arc::new(renamed), Arc::new(synthetic::peer(2))], now);
    assert_eq!(names(&model), ["new", "peer-2"]);
    model.slots.release(2);
    model.slots.update(&[Arc::new(synthetic::peer(1)), Arc::new(synthetic::peer(9))], now);
    assert_eq!(names(&model), ["peer-1", "peer-9"], "a slot that has a new owner");
}

/// Cumulative counts by `le` in whole units.
fn buckets(exposition: &Exposition, name: &str, decimals: i32) -> Vec<(u64, f64)> {
    let bounds = exposition.named(&format!("{name}_bucket"));
    let finite = bounds.iter().filter(|sample| sample.labels["le"] != "+Inf");
    let unit = 10f64.powi(decimals);
    finite
        .map(|sample| ((sample.labels["le"].parse::<f64>().unwrap() * unit).round() as u64, sample.value))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever a peer calls itself, it is one peer with that name, and nobody else's series change.
    #[test]
    fn any_label_value_survives(
        texts in prop::collection::vec(prop::array::uniform6(any::<String>()), 1..5),
        openmetrics: bool,
    ) {
        let format = FORMATS[usize::from(openmetrics)];
        let members: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(number, [id, rest @ ..])| {
                let [name, os, user, node_key, derp_region] = rest.clone();
                let Peer { last_handshake, wireguard, .. } = synthetic::peer(1);
                let id = format!("{number}{id}");
                let rest = Peer { last_handshake, wireguard, ..Peer::default() };
                Arc::new(Peer { id, name, os, user, node_key, derp_region, ..rest })
            })
            .collect();
        let now = Instant::now();
        let mut model = Model { slots: SlotTable::new(8), ..Model::default() };
        model.kernel.device = texts[0][0].clone();
        model.slots.update(&members, now);
        model.slots.hear_paths(Some(now), now);
        let exposition = read(&model, now, format);
        let info = exposition.named("tailgauge_peer_info");
        prop_assert_eq!(info.len(), members.len());
        for (sample, peer) in info.iter().zip(&members) {
            let expected = [
                ("peer_id", &peer.id), ("peer_name", &peer.name), ("os", &peer.os), ("user", &peer.user),
                ("node_key", &peer.node_key), ("ip", &String::new()), ("ipv6", &String::new()),
                ("tags", &String::new()), ("home_derp", &peer.derp_region),
            ];
            let expected: BTreeMap<_, _> =
                expected.map(|(label, value)| (label.to_owned(), value.clone())).into();
            prop_assert_eq!(&sample.labels, &expected);
        }
        let mut plain = synthetic::model(members.len() as u32);
        plain.kernel = model.kernel.clone();
        plain.tailnet = Arc::default();
        prop_assert_eq!(exposition.samples.len(), read(&plain, now, format).samples.len());
    }

    /// Whatever tailscaled says of itself: it breaks nothing, and adds to nothing that is ours.
    #[test]
    fn user_metrics_stay_among_themselves(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, prop_oneof![
            "[\\PC\n]{0,4}",
            prop::sample::select(&["\n", "\"", "\\", "{", "}", "# EOF\n", "_total", "# TYPE tailgauge_peer_online gauge\n",
                "tailgauge_peer_online{peer_id=\"x\"} 1\n", "# TYPE tailscaled_x untyped\n", " 1700000000"][..])
                .prop_map(str::to_owned),
        ]), 0..4),
        openmetrics: bool,
    ) {
        let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/recordings/usermetrics-peer-relay.prom");
        let mut text = std::fs::read(recorded).unwrap();
        for (place, length, piece) in &edits {
            let start = place.index(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, piece.bytes());
        }
        let format = FORMATS[usize::from(openmetrics)];
        let now = Instant::now();
        let mut model = synthetic::model(1);
        let ours = read(&model, now, format).samples;
        model.user_metrics = parse_user_metrics(&text).ok();
        prop_assert!(model.user_metrics.is_some() || !edits.is_empty());
        let all = read(&model, now, format).samples;
        prop_assert_eq!(&all[..ours.len()], &ours[..]);
        prop_assert!(all[ours.len()..].iter().all(|sample| sample.name.starts_with("tailscaled_")));
    }

    /// `le` includes its bound: each count is the number of values that are at most the bound, exactly.
    #[test]
    fn bucket_counts_are_exact(values in prop::collection::vec(prop_oneof![0u64..5000, any::<u32>().prop_map(u64::from), any::<u64>()], 0..60)) {
        let values: Vec<_> = values.iter().map(|value| value >> 8).collect();
        let now = Instant::now();
        let mut model = synthetic::model(1);
        let distribution = histogram(&values);
        model.kernel.tcp = vec![(1, Tcp {
            handshake: [distribution; 2], duration: distribution, opened: [0; 2], refused: [0; 2], timed_out: [0; 2],
            closed_fin: 0, closed_reset: 0, syn_retransmits: [0; 2], syn_ack_retransmits: [0; 2], ambiguous: 0, lost: 0,
        })];
        let exposition = read(&model, now, Format::Text);
        let name = "tailgauge_peer_tcp_connection_duration_seconds";
        for (bound, count) in buckets(&exposition, name, 3) {
            prop_assert_eq!(count, values.iter().filter(|value| **value <= bound).count() as f64, "le {}", bound);
        }
        prop_assert_eq!(value(&exposition, &format!("{name}_count"), &[]), values.len() as f64);
        prop_assert_eq!(value(&exposition, &format!("{name}_bucket"), &[("le", "+Inf")]), values.len() as f64);
        let sum = values.iter().fold(0u64, |sum, value| sum.wrapping_add(*value));
        let text = encode(&model, now, Format::Text);
        let line = text.lines().find(|line| line.starts_with(&format!("{name}_sum"))).unwrap();
        let exact = line.rsplit_once(' ').unwrap().1;
        let (whole, fraction) = exact.split_once('.').unwrap_or((exact, "0"));
        prop_assert_eq!(format!("{whole}{fraction:0<3}").parse::<u64>().unwrap(), sum, "{}", line);
    }
}
