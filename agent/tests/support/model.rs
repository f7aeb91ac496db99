//! A model with something in every field.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tailgauge::model::kernel::{
    Coverage, DeviceCounters, DropDevice, DropReasons, Hook, HookMode, MapUse, ProgramRun, SlotCounters,
    UnderlayCounters,
};
use tailgauge::model::sampled::{BYTE_BOUNDS, Distribution, PART_BOUNDS, Sampled, SampledCpu};
use tailgauge::model::slots::SlotTable;
use tailgauge::model::tailnet::{Path, Peer, Tailnet, WireGuardSession, WireGuardState};
use tailgauge::model::user_metrics::{UserMetric, UserMetricKind, UserMetrics};
use tailgauge::model::{Model, synthetic};
use tailgauge_ebpf::histogram::{Histogram, index};
use tailgauge_ebpf::layout::{Carried, Health, PEAK_SECONDS, Tcp, UnderlayLine, Window, Windows, Wire};

/// Three peers: an ordinary one, a hostile one, and one that left; every other field has something in it.
pub(crate) fn rich_model(now: Instant) -> Model {
    let mut model = synthetic::model(3);
    let ordinary = Arc::new(synthetic::peer(1));
    let mut hostile = synthetic::peer(2);
    hostile.name = "\"} 1\nevil_total{x=\"\\".to_owned();
    hostile.tags = vec!["tag:a".to_owned(), "tag:b".to_owned()];
    hostile.addresses.remove(0);
    hostile.last_handshake = None;
    hostile.path = Path::DirectIpv4;
    hostile.wireguard = Some(WireGuardSession { state: WireGuardState::Expired, since: None });
    let moved = Peer { path: Path::Derp, ..hostile.clone() };
    let members = vec![ordinary, Arc::new(moved)];
    // One peer more than there are slots for.
    let overflow = Arc::new(synthetic::peer(4));
    model.slots = SlotTable::new(4);
    let third = Arc::new(synthetic::peer(3));
    model.slots.update(&[members[0].clone(), Arc::new(hostile), third.clone()], now);
    model.slots.hear_paths(Some(now - Duration::from_secs(100)), now - Duration::from_secs(100));
    model.slots.update(&[members[0].clone(), members[1].clone(), third], now);
    model.slots.hear_paths(Some(now - Duration::from_millis(77_500)), now - Duration::from_millis(77_500));
    let known: Vec<_> = members.into_iter().chain([overflow]).collect();
    model.slots.update(&known, now);
    model.slots.hear_paths(Some(now - Duration::from_secs(10)), now - Duration::from_secs(10));
    model.tailnet = Arc::new(Tailnet { peers: known, home_derp_changes: 2, ..(*model.tailnet).clone() });
    fill_kernel(&mut model);
    model.host = super::host::host();
    model.sampled = sampled(now);
    model.user_metrics = Some(UserMetrics {
        families: vec![
            user_metric("tailscaled_health_messages", UserMetricKind::Gauge, "{type=\"warning\"} 0"),
            user_metric("tailscaled_inbound_bytes_total", UserMetricKind::Counter, "{path=\"derp\"} 148"),
        ],
    });
    let start = now - Duration::from_secs(10);
    model.collectors.record("kernel", start, start + Duration::from_micros(250), true);
    model.collectors.record("tailscale", start, start + Duration::from_millis(3), true);
    model.collectors.record("tailscale", now, now + Duration::from_secs(1), false);
    model.collectors.record("softnet", start, start, false);
    model
}

/// One sample of everything, twenty seconds ago, and a small one now of what can still be sampled.
fn sampled(now: Instant) -> Sampled {
    let mut sampled = Sampled {
        began: now - Duration::from_secs(100),
        interval: Duration::from_millis(100),
        samples: 1000,
        missed: 3,
        cpu_time: Duration::from_micros(80_500),
        ..Sampled::default()
    };
    let cpu = |number| {
        let none = || Distribution::new(PART_BOUNDS);
        SampledCpu { cpu: number, busy: none(), softirq: none() }
    };
    sampled.cpus = vec![cpu(0), cpu(1)];
    sampled.qdisc_backlog = vec![("eth0".to_owned(), Distribution::new(BYTE_BOUNDS))];
    for (second, part) in [(80, 0.875), (100, 0.125)] {
        sampled.cpus[0].busy.add(second, part);
        sampled.cpus[0].softirq.add(second, part / 2.0);
        sampled.cpu_waiting.add(second, part);
        sampled.tailscaled_cpu.add(second, part * 2.0);
        sampled.udp_receive_queue.add(second, part);
        sampled.tunnel_drops.add(second, (part * 8.0).floor());
        sampled.qdisc_backlog[0].1.add(second, part * 100_000.0);
    }
    // A CPU that went offline.
    sampled.cpus[1].busy.add(80, 1.0);
    sampled
}

fn user_metric(name: &str, kind: UserMetricKind, sample: &str) -> UserMetric {
    let samples = format!("{name}{sample}\n");
    UserMetric { name: name.to_owned(), kind, help: "As tailscaled says.".to_owned(), samples }
}

fn fill_kernel(model: &mut Model) {
    let kernel = &mut model.kernel;
    let hook = |hook, mode| Hook { device: "tailscale0".to_owned(), hook, mode, reason: None };
    kernel.hooks = vec![hook("tunnel_ingress", HookMode::Tcx), hook("tunnel_egress", HookMode::None)];
    kernel.reattached_total = 2;
    kernel.retired = SlotCounters { direction: kernel.slots[1].direction };
    kernel.monotonic_second = 1000;
    kernel.windows = vec![(0, windows(0)), (1, windows(300)), (3, windows(70_000))];
    kernel.tunnel_windows = Some(Box::new(windows(1_000_000)));
    kernel.tcp = vec![(0, tcp(1)), (1, tcp(1_500)), (2, tcp(u64::MAX >> 8))];
    let device = DeviceCounters {
        receive_packets: 1000,
        transmit_packets: 990,
        transmit_dropped: 10,
        ..DeviceCounters::default()
    };
    kernel.coverage = Some(Coverage { counted_skbs: [1000, 999], counted_bytes: [1, 1], device });
    kernel.hooks.push(Hook {
        device: String::new(),
        hook: "drops",
        mode: HookMode::RawTracepoint,
        reason: None,
    });
    kernel.hooks.push(Hook {
        device: String::new(),
        hook: "sampling",
        mode: HookMode::PerfEvent,
        reason: None,
    });
    kernel.drop_reasons = Arc::new(DropReasons {
        names: vec![None, Some("1".to_owned()), Some("FULL_RING".to_owned())],
        full_ring: Some(2),
    });
    kernel.drops = vec![
        DropDevice { device: "unknown".to_owned(), counts: vec![(0, 5), (1, 6)] },
        DropDevice { device: "tailscale0".to_owned(), counts: vec![(2, 7), (9, 8)] },
    ];
    kernel.drop_windows = Some(Box::new(windows(30)));
    let carried = |start| Carried {
        wire: Wire { packets: start, bytes: start + 1 },
        skbs: start + 2,
        skb_bytes: start + 3,
    };
    let line = |start| UnderlayLine { kind: [carried(start), carried(start + 10)] };
    kernel.underlay = vec![UnderlayCounters { device: "eth0".to_owned(), direction: [line(100), line(200)] }];
    super::underlay::fill(kernel);
    kernel.health = Health {
        malformed: 1,
        fragments: 2,
        handshake_insert_failures: 3,
        connection_insert_failures: 4,
        drops_without_namespace: 7,
        sessions_without_room: 8,
        messages_unread: 9,
        disco_insert_failures: 10,
    };
    kernel.maps = vec![
        MapUse { name: "PEERS_V4", entries: 3, capacity: 4096 },
        MapUse { name: "HANDSHAKES", entries: 17, capacity: 65536 },
    ];
    kernel.map_update_errors_total = 5;
    kernel.keys_without_room = 6;
    kernel.programs = vec![ProgramRun { name: "tunnel_ingress", nanoseconds: 1_234_567_890, count: 42 }];
}

/// A histogram of `values`.
pub(crate) fn histogram(values: &[u64]) -> Histogram {
    let mut histogram = Histogram::EMPTY;
    for value in values {
        histogram.buckets[index(*value)] += 1;
        histogram.count += 1;
        histogram.sum = histogram.sum.wrapping_add(*value);
    }
    histogram
}

fn windows(bytes: u64) -> Windows {
    let mut window =
        Window { id: 0, bytes: 0, peaks: [0; PEAK_SECONDS], histogram: histogram(&[bytes, bytes / 2]) };
    window.peaks[999 % PEAK_SECONDS] = 999 << 32 | bytes;
    window.peaks[900 % PEAK_SECONDS] = 900 << 32 | 4_000_000_000;
    Windows { direction: [window, window] }
}

fn tcp(microseconds: u64) -> Tcp {
    let handshake = [histogram(&[microseconds, 1023, 1024]), Histogram::EMPTY];
    Tcp {
        handshake,
        duration: histogram(&[20, 4_000]),
        opened: [1, 2],
        refused: [3, 4],
        timed_out: [5, 6],
        closed_fin: 7,
        closed_reset: 8,
        syn_retransmits: [9, 10],
        syn_ack_retransmits: [11, 12],
        ambiguous: 13,
        lost: 14,
    }
}
