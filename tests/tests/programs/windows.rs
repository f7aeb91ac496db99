//! Bytes per window: conserved, and in the right buckets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tailgauge_ebpf::histogram::index;
use tailgauge_ebpf::layout::{PEAK_SECONDS, RECEIVE, WINDOW_NANOSECONDS, Window};
use tailgauge_testbed::programs::{BOTH, Programs, Sizes};

use crate::inner::udp;
use crate::{MEASURED, load};

fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn packet(peer: u8, length: usize) -> Vec<u8> {
    let peer = SocketAddr::from(([100, 64, 0, peer], 1000));
    udp(peer, SocketAddr::from(([9, 9, 9, 9], 53)), length - 28)
}

fn window(programs: &Programs, row: u32, direction: u32) -> Window {
    programs.windows(row).unwrap().direction[direction as usize]
}

#[test]
fn no_byte_is_lost_or_counted_twice_when_cpus_meet_at_the_edge() {
    let sizes = Sizes { shards: 1, ..Sizes::default() };
    let Some(mut programs) = load("no_byte_is_lost_or_counted_twice", sizes) else { return };
    programs.add_peer_v4("100.64.0.1".parse().unwrap(), 1).unwrap();
    programs.add_peer_v4("100.64.0.2".parse().unwrap(), 2).unwrap();
    let programs = &programs;
    // One shard and two rows for four threads: the most they can be in each other's way.
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            scope.spawn(move || {
                let packet = packet(1 + thread % 2, 100 + usize::from(thread));
                let end = Instant::now() + Duration::from_secs(1);
                while Instant::now() < end {
                    programs.repeat(RECEIVE, &packet, 0, 997).unwrap();
                }
            });
        }
    });
    let mut total = 0;
    for slot in 1..=2 {
        let line = programs.line(slot, RECEIVE).unwrap();
        let window = window(programs, slot, RECEIVE);
        assert_eq!(window.histogram.sum + window.bytes, line.wire.iter().map(|wire| wire.bytes).sum::<u64>());
        assert_eq!(line.skbs % 997, 0, "every run was counted");
        assert!(window.histogram.count > 5, "{} windows closed", window.histogram.count);
        assert_eq!(window.histogram.buckets.iter().sum::<u64>(), window.histogram.count);
        let peak = window.peaks.iter().map(|peak| peak & u64::from(u32::MAX)).max().unwrap();
        assert!(peak >= window.histogram.sum / window.histogram.count, "a peak is no less than the mean");
        total += line.skb_bytes;
    }
    let tunnel = window(programs, programs.slots(), RECEIVE);
    assert_eq!(tunnel.histogram.sum + tunnel.bytes, total);
}

#[test]
fn a_burst_is_one_sample_of_its_size_and_the_peak_of_its_second() {
    let Some(mut programs) = load("a_burst_is_one_sample", Sizes::default()) else { return };
    programs.add_peer_v4("100.64.0.1".parse().unwrap(), 1).unwrap();
    let _alone = MEASURED.lock();
    let packet = packet(1, 1000);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < deadline, "no burst fell into one window in 20 s");
        // In the middle of a window that has seen nothing of an earlier try, so that a clock tick has shown its
        // beginning to the programs.
        let fresh = monotonic() / WINDOW_NANOSECONDS + 2;
        while monotonic() < fresh * WINDOW_NANOSECONDS + WINDOW_NANOSECONDS / 2 {
            std::hint::spin_loop();
        }
        let before = window(&programs, 1, RECEIVE);
        let start = monotonic();
        for _ in 0..20 {
            programs.run(RECEIVE, &packet, 0).unwrap();
        }
        let id = start / WINDOW_NANOSECONDS;
        let open = window(&programs, 1, RECEIVE);
        if monotonic() / WINDOW_NANOSECONDS != id || open.id != id || open.bytes != 20_000 {
            continue;
        }
        assert!(open.histogram.sum == before.histogram.sum + before.bytes, "the window before was closed");
        // Any packet of a later window closes it, once a tick has shown the programs that it is later.
        while monotonic() / WINDOW_NANOSECONDS < id + 2 {
            std::hint::spin_loop();
        }
        programs.run(RECEIVE, &packet, 0).unwrap();
        let closed = window(&programs, 1, RECEIVE);
        assert!(closed.id > id);
        assert_eq!(closed.histogram.sum, open.histogram.sum + 20_000);
        let bucket = index(20_000);
        assert_eq!(closed.histogram.buckets[bucket], open.histogram.buckets[bucket] + 1);
        assert_eq!(closed.histogram.count, open.histogram.count + 1);
        let second = id / 100;
        let peak = closed.peaks[second as usize % PEAK_SECONDS];
        assert_eq!(peak >> 32, second);
        assert!(peak & u64::from(u32::MAX) >= 20_000);
        break;
    }
}

#[test]
fn the_row_of_the_tunnel_sums_the_slots_and_directions_stay_apart() {
    let Some(mut programs) = load("the_row_of_the_tunnel_sums_the_slots", Sizes::default()) else { return };
    programs.add_peer_v4("100.64.0.1".parse().unwrap(), 1).unwrap();
    for (peer, length) in [(1, 300), (2, 40)] {
        for _ in 0..3 {
            programs.run(RECEIVE, &packet(peer, length), 0).unwrap();
        }
    }
    let total = |row, direction| {
        let window = window(&programs, row, direction);
        window.histogram.sum + window.bytes
    };
    assert_eq!([0, 1, programs.slots()].map(|row| total(row, BOTH[0])), [120, 900, 1020]);
    assert_eq!([0, 1, programs.slots()].map(|row| total(row, BOTH[1])), [0, 0, 0]);
}
