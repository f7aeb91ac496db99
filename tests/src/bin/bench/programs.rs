//! What the programs cost a packet: `BPF_PROG_TEST_RUN`, nanoseconds above an empty classifier, as ratios to
//! a minimal per-address counter measured in the same rounds.

use std::net::Ipv4Addr;

use aya::{Ebpf, EbpfLoader, programs::SchedClassifier};
use tailgauge_ebpf::layout::{
    CLASS_LOCAL, CLASS_SUBNET, Control, ETHERNET_HEADER, MARK_FORWARDED, MARK_TAILSCALED, RECEIVE, TRANSMIT,
    Underlay, UnderlayDevice, maps,
};
use tailgauge_testbed::programs::{Context, Error, Programs, Sizes, classifier, test_run};

use crate::table::{Row, Spread, digits};
use crate::{Outcome, Plan};

static BASELINE: &[u8] = aya::include_bytes_aligned!("../../../../ebpf/object/bench.bpf.o");

/// Repetitions within a call; the median call counts.
const REPEAT: u32 = 400_000;
const PEERS: [u32; 4] = [1, 100, 1_000, 10_000];
/// Times the minimal counter.
const COUNTING: f64 = 1.6;
/// Times the minimal counter, with handshakes followed.
const ESTABLISHED: f64 = 2.2;
/// Nanoseconds for a packet that is none of ours.
const UNRELATED: f64 = 15.0;
/// Cost with the most peers by the cost with one: what is still flat.
const FLAT: f64 = 1.1;

pub fn measure(plan: &Plan) -> Outcome {
    let mut baseline = EbpfLoader::new().load(BASELINE)?;
    for name in ["empty", "minimal"] {
        classifier(&mut baseline, name)?.load()?;
    }
    let mut rows = underlay(&mut baseline, plan.rounds(15, 5))?;
    let mut counting = Vec::new();
    for peers in PEERS {
        let cost = cost(&mut baseline, peers, plan.rounds(15, 5))?;
        counting.push(cost.counting);
        for (what, nanoseconds, target) in [
            ("UDP packet", cost.counting, COUNTING),
            ("TCP packet, established", cost.established, ESTABLISHED),
            ("TCP packet, established, class exit", cost.exit, ESTABLISHED),
        ] {
            let ratio = nanoseconds / cost.minimal;
            rows.push(
                Row::new(format!("{what}, peers: {peers}"), format!("{} ns", digits(nanoseconds)))
                    .against(format!("minimal counter {} ns", digits(cost.minimal)), ratio)
                    .target(format!("≤ {target}×"), ratio <= target),
            );
        }
    }
    if let [one, .., most] = counting[..] {
        let most_peers = PEERS[PEERS.len() - 1];
        let ratio = most / one;
        rows.push(
            Row::new(format!("UDP packet, peers: {most_peers}"), format!("{} ns", digits(most)))
                .against(format!("1 peer {} ns", digits(one)), ratio)
                .target(format!("flat, ≤ {FLAT}×"), ratio <= FLAT),
        );
    }
    Ok(rows)
}

/// What the programs on the underlay cost, on an Ethernet device.
fn underlay(baseline: &mut Ebpf, rounds: usize) -> Result<Vec<Row>, Error> {
    let mut programs = Programs::load(Sizes::default())?;
    let mut underlay = Underlay::default();
    underlay.devices[0] = UnderlayDevice { ifindex: 1, link_header: ETHERNET_HEADER, row: 0 };
    programs.set_underlay(&underlay)?;
    programs.set_ports([&[PORT], &[]])?;
    programs.add_prefix(maps::ROUTES_V4, ipnet::Ipv4Net::new_assert(LOCAL, 32), CLASS_LOCAL)?;
    programs.set_control(&Control { has_routes_v4: 1, ..Control::default() })?;

    let datagram = packet(peer_address(1), LOCAL, UDP);
    test_run(classifier(baseline, "minimal")?, &datagram, Context::default(), 1)?;
    let mut arriving = datagram.clone();
    arriving[22..24].copy_from_slice(&PORT.to_be_bytes());
    let cases = [
        ("unrelated TCP packet, receive", RECEIVE, 0, packet(peer_address(1), LOCAL, TCP)),
        ("unrelated UDP packet, receive", RECEIVE, 0, datagram.clone()),
        ("unrelated packet, transmit", TRANSMIT, 0, datagram.clone()),
        ("packet for tailscaled, receive", RECEIVE, 0, arriving),
        ("packet of tailscaled, transmit", TRANSMIT, MARK_TAILSCALED, datagram.clone()),
        ("forwarded packet, transmit", TRANSMIT, MARK_FORWARDED, datagram.clone()),
    ]
    .map(|(what, direction, mark, packet)| {
        let frame = [&[2; 12][..], &[8, 0], &packet].concat();
        (what, direction, Context { mark, gso_size: 0 }, frame)
    });
    let mut samples = vec![Vec::new(); cases.len()];
    let (mut empty, mut minimal) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        empty.push(once(classifier(baseline, "empty")?, &datagram)?);
        minimal.push(once(classifier(baseline, "minimal")?, &datagram)?);
        for ((_, direction, context, frame), sample) in cases.iter().zip(&mut samples) {
            sample.push(nanoseconds(programs.run_underlay(*direction, frame, *context, REPEAT)?.duration));
        }
    }
    let empty = Spread::of(empty).median;
    let minimal = Spread::of(minimal).median - empty;
    let row = |((what, ..), sample): (&(&str, u32, Context, Vec<u8>), Vec<f64>)| {
        let cost = Spread::of(sample).median - empty;
        let row = Row::new(format!("underlay: {what}"), format!("{} ns", digits(cost)))
            .against(format!("minimal counter {} ns", digits(minimal)), cost / minimal);
        if what.starts_with("unrelated") {
            row.target(format!("≤ {UNRELATED} ns"), cost <= UNRELATED)
        } else {
            row.target(format!("≤ {COUNTING}×"), cost / minimal <= COUNTING)
        }
    };
    Ok(cases.iter().zip(samples).map(row).collect())
}

/// Nanoseconds a packet above the empty classifier.
struct Cost {
    minimal: f64,
    counting: f64,
    established: f64,
    exit: f64,
}

fn cost(baseline: &mut Ebpf, peers: u32, rounds: usize) -> Result<Cost, Error> {
    let mut programs = Programs::load(Sizes { slots: peers + 1, ..Sizes::default() })?;
    for peer in 1..=peers {
        programs.add_peer_v4(peer_address(peer), peer)?;
        test_run(
            classifier(baseline, "minimal")?,
            &packet(peer_address(peer), LOCAL, UDP),
            Context::default(),
            1,
        )?;
    }
    for (prefix, class) in [
        (ipnet::Ipv4Net::new_assert(LOCAL, 32), CLASS_LOCAL),
        (ipnet::Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 1, 2), 32), CLASS_LOCAL),
        (ipnet::Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 1, 0), 24), CLASS_SUBNET),
        (ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 20, 0, 0), 16), CLASS_SUBNET),
    ] {
        programs.add_prefix(maps::ROUTES_V4, prefix, class)?;
    }
    programs.set_control(&Control { has_routes_v4: 1, ..Control::default() })?;

    let peer = peer_address(peers.div_ceil(2));
    let datagram = packet(peer, LOCAL, UDP);
    let segment = packet(peer, LOCAL, TCP);
    let onward = packet(peer, Ipv4Addr::new(203, 0, 113, 9), TCP);
    let mut samples: [Vec<f64>; 5] = Default::default();
    for _ in 0..rounds {
        samples[0].push(once(classifier(baseline, "empty")?, &datagram)?);
        samples[1].push(once(classifier(baseline, "minimal")?, &datagram)?);
        for (sample, packet) in samples[2..].iter_mut().zip([&datagram, &segment, &onward]) {
            sample.push(nanoseconds(programs.repeat(RECEIVE, packet, 0, REPEAT)?.duration));
        }
    }
    let [empty, minimal, counting, established, exit] = samples.map(|sample| Spread::of(sample).median);
    let above = |nanoseconds: f64| nanoseconds - empty;
    Ok(Cost {
        minimal: above(minimal),
        counting: above(counting),
        established: above(established),
        exit: above(exit),
    })
}

const LOCAL: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const PORT: u16 = 41641;
const TCP: u8 = 6;
const UDP: u8 = 17;

fn peer_address(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 70, 0, 0)) + peer)
}

/// A packet of 60 bytes, a TCP one with nothing but ACK set.
fn packet(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Vec<u8> {
    let mut packet = vec![0u8; 60];
    packet[0] = 0x45;
    packet[3] = 60;
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet[20..24].copy_from_slice(&[0xc0, 0x00, 0x01, 0xbb]);
    packet[24..32].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    packet[32] = 0x50;
    packet[33] = 0x10;
    packet
}

fn once(program: &SchedClassifier, packet: &[u8]) -> Result<f64, Error> {
    Ok(nanoseconds(test_run(program, packet, Context::default(), REPEAT)?.duration))
}

fn nanoseconds(duration: std::time::Duration) -> f64 {
    duration.as_nanos() as f64
}
