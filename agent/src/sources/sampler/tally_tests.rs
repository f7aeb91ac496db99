//! What one moment after another makes of the distributions.

use tailgauge_ebpf::layout::SampledQueue;

use super::*;

const SECOND: u64 = 1_000_000_000;
const INTERVAL: Duration = Duration::from_millis(100);

fn sample(at: u64) -> Sample {
    let sockets = [SampledQueue { bytes: UNKNOWN_32, room: 0 }; _];
    Sample { number: 1, at, ran: UNKNOWN, sockets, backlogs: [UNKNOWN; _], cost: 1000, ..Sample::EMPTY }
}

fn beside<'a>(devices: &'a Devices, online: &'a [u32]) -> Beside<'a> {
    Beside {
        is_current: true,
        second: 7,
        interval: INTERVAL,
        online,
        has_pressure: true,
        is_process: true,
        has_tunnel: true,
        sockets: 0,
        devices,
    }
}

/// Adds samples that are an interval apart, with these CPUs.
fn add_all(steps: &[&[CpuSample]], online: &[u32]) -> Sampled {
    let (mut tally, mut into, devices) = (Tally::default(), Sampled::default(), Devices::new(String::new()));
    for (place, cpus) in (0..).zip(steps) {
        tally.add(&sample(SECOND + place * SECOND / 10), cpus, &beside(&devices, online), &mut into);
    }
    into
}

fn cpu(busy: u64, softirq: u64) -> CpuSample {
    CpuSample { busy, softirq, ..CpuSample::default() }
}

#[test]
fn a_cpu_is_busy_for_the_part_of_the_time_that_it_was() {
    let steps = [[cpu(0, 0)], [cpu(50_000_000, 20_000_000)], [cpu(154_000_000, 20_000_000)]];
    let into = add_all(&steps.each_ref().map(|cpus| &cpus[..]), &[0]);
    let found = &into.cpus[0];
    assert_eq!((found.busy.count(), found.busy.sum()), (2, 1.5), "a tick too many is none");
    assert!((found.softirq.sum() - 0.2).abs() < 1e-9);
    assert_eq!((into.samples, into.missed, into.cpu_time), (3, 0, Duration::from_micros(3)));
}

#[test]
fn offline_cpus_and_clocks_that_went_back_are_no_samples() {
    let steps = [[cpu(5, 5), cpu(9, 0)], [cpu(6, 4), cpu(9, 0)], [cpu(7, 5), cpu(UNKNOWN, 0)]];
    let into = add_all(&steps.each_ref().map(|cpus| &cpus[..]), &[0]);
    assert_eq!((into.cpus.len(), into.cpus[0].busy.count()), (1, 1));
    let into = add_all(&steps.each_ref().map(|cpus| &cpus[..]), &[1]);
    assert_eq!((into.cpus[0].cpu, into.cpus[0].busy.count()), (1, 1), "unknown for the third");
}

fn part(waiting: u32, nonidle: u32) -> CpuSample {
    CpuSample { waiting, nonidle, ..CpuSample::default() }
}

#[test]
fn pressure_that_cannot_be_is_no_sample() {
    let tenth = 100_000_000;
    let waiting = |steps: [CpuSample; 3]| {
        // Beside a CPU that is half waited for.
        let halves = [0, 1, 2].map(|step| part(step * tenth / 2, step * tenth));
        let steps = [0, 1, 2].map(|step| [steps[step], halves[step]]);
        let into = add_all(&steps.each_ref().map(|cpus| &cpus[..]), &[0, 1]);
        (into.cpu_waiting.count(), into.cpu_waiting.sum())
    };
    assert_eq!(waiting([part(0, 0), part(0, 0), part(0, 0)]), (2, 1.0), "idle");
    assert_eq!(waiting([part(0, 0), part(UNKNOWN_32, UNKNOWN_32), part(0, 0)]), (0, 0.0));
    assert_eq!(waiting([part(0, 9), part(0, 8), part(0, 8)]), (1, 0.5), "it went back");
    assert_eq!(waiting([part(9, 9), part(8, 9), part(8, 9)]), (1, 0.5), "so did this");
    // A CPU that stood still for long, and is accounted for at once.
    assert_eq!(waiting([part(0, 0), part(0, 0), part(0, 3_000_000_000)]), (1, 0.5));
    // What the moments of reading make of a whole tenth is a tenth.
    let more = tenth + 1_000_000;
    assert_eq!(waiting([part(0, 0), part(more, more), part(2 * more, 2 * more)]), (2, 1.5));
}

#[test]
fn cpus_weigh_as_much_as_they_had_tasks() {
    // One wholly busy and waited for half the time, one hardly in use. The counts have 32 bits.
    let start = u32::MAX - 10;
    let before = [part(start, 0), part(0, 0)];
    let after = [part(start.wrapping_add(50_000_000), 100_000_000), part(0, 100_000)];
    let into = add_all(&[&before, &after], &[0, 1]);
    assert_eq!(into.cpu_waiting.count(), 1);
    assert!((into.cpu_waiting.sum() - 0.4995).abs() < 1e-4, "{}", into.cpu_waiting.sum());
    let into = add_all(&[&before, &before], &[0, 1]);
    assert_eq!((into.cpu_waiting.count(), into.cpu_waiting.sum()), (1, 0.0));
}

#[test]
fn a_gap_says_how_many_are_missing_and_pressure_has_no_sample_when_it_is_long() {
    let (mut tally, mut into, devices) = (Tally::default(), Sampled::default(), Devices::new(String::new()));
    for at in [0, SECOND / 2, SECOND * 10] {
        tally.add(&sample(at), &[CpuSample::default()], &beside(&devices, &[0]), &mut into);
    }
    assert_eq!((into.missed, into.cpu_waiting.count(), into.cpus[0].busy.count()), (4 + 94, 1, 2));
}

#[test]
fn what_threads_that_ended_waited_is_not_known() {
    let (mut tally, mut into, devices) = (Tally::default(), Sampled::default(), Devices::new(String::new()));
    let mut add = |at: u64, ran, waited, ended, is_current| {
        let sample = Sample { ran, waited, ended, ..sample(at * SECOND / 10) };
        tally.add(&sample, &[], &Beside { is_current, ..beside(&devices, &[]) }, &mut into);
        (into.tailscaled_cpu.count(), into.tailscaled_delay.count())
    };
    assert_eq!(add(1, 100, 10, 0, true), (0, 0));
    assert_eq!(add(2, 50_000_100, 10, 0, true), (1, 1));
    assert_eq!(add(3, 50_000_200, 4, 7, true), (2, 1), "a thread ended");
    assert_eq!(add(4, 50_000_300, 4, 7, false), (2, 1), "of what was watched before");
    assert_eq!(add(5, UNKNOWN, 0, 0, true), (2, 1), "gone");
    assert_eq!(add(7, 150_000_200, 4, 7, true), (3, 2), "over four intervals");
    assert!((into.tailscaled_cpu.sum() - 0.75).abs() < 1e-3, "{}", into.tailscaled_cpu.sum());
}

#[test]
fn the_fullest_socket_counts_if_all_are_known() {
    let (mut tally, mut into, devices) = (Tally::default(), Sampled::default(), Devices::new(String::new()));
    let mut add = |first, second| {
        let mut sample = sample(SECOND);
        sample.sockets[0] = SampledQueue { bytes: first, room: 100 };
        sample.sockets[1] = SampledQueue { bytes: second, room: 100 };
        tally.add(&sample, &[], &Beside { sockets: 2, ..beside(&devices, &[]) }, &mut into);
        (into.udp_receive_queue.count(), into.udp_receive_queue.sum())
    };
    assert_eq!(add(25, 50), (1, 0.5));
    assert_eq!(add(UNKNOWN_32, 50), (1, 0.5));
}

#[test]
fn drops_of_the_ring_count_while_there_is_a_tunnel() {
    let (mut tally, mut into, devices) = (Tally::default(), Sampled::default(), Devices::new(String::new()));
    for (place, drops, has_tunnel) in [(1, 5, true), (2, 9, true), (3, 9, false), (4, 10, true)] {
        let sample = Sample { ring_drops: drops, ..sample(place * SECOND / 10) };
        tally.add(&sample, &[], &Beside { has_tunnel, ..beside(&devices, &[]) }, &mut into);
    }
    assert_eq!((into.tunnel_drops.count(), into.tunnel_drops.sum()), (2, 5.0));
}
