//! From what the kernel saw at one moment after the other to the distributions of the model.

use std::time::Duration;

use tailgauge_ebpf::layout::{CpuSample, Sample, UNKNOWN, UNKNOWN_32};

use super::devices::Devices;
use super::missed;
use crate::model::sampled::Sampled;

/// Beyond this, counts of nanoseconds that have 32 bits may have gone round.
const MOST_SECONDS: f64 = 4.0;
/// Nanoseconds between the moment that a sample bears and that at which a CPU was read, at most; virtual CPUs stand
/// still now and then.
const SLACK: f64 = 10e6;

/// What was seen at the moment before.
#[derive(Debug, Default)]
pub(super) struct Tally {
    at: Option<u64>,
    cpus: Vec<CpuSample>,
    ring_drops: u64,
    process: Option<Process>,
}

/// What tailscaled had used by then.
#[derive(Clone, Copy, Debug)]
struct Process {
    at: u64,
    ran: u64,
    waited: u64,
    ended: u64,
}

/// What is known beside a sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside<'a> {
    /// Whether the sample is of what is watched now.
    pub(super) is_current: bool,
    /// Second that it belongs to.
    pub(super) second: u64,
    /// Time between two samples, as it should be.
    pub(super) interval: Duration,
    /// CPUs that are online.
    pub(super) online: &'a [u32],
    /// Whether pressure is known.
    pub(super) has_pressure: bool,
    /// Whether the kernel means the process that is tailscaled.
    pub(super) is_process: bool,
    /// Whether there is a tunnel, and drops of its ring are counted.
    pub(super) has_tunnel: bool,
    /// Sockets that are watched.
    pub(super) sockets: usize,
    /// Devices that are watched, in this order.
    pub(super) devices: &'a Devices,
}

impl Tally {
    /// tailscaled is another process from now on.
    pub(super) const fn forget_process(&mut self) {
        self.process = None;
    }

    /// Adds a sample.
    pub(super) fn add(
        &mut self,
        sample: &Sample,
        cpus: &[CpuSample],
        beside: &Beside<'_>,
        into: &mut Sampled,
    ) {
        into.samples += 1;
        into.cpu_time += Duration::from_nanos(sample.cost);
        if let Some(last) = self.at.replace(sample.at) {
            let since = Duration::from_nanos(sample.at.saturating_sub(last));
            into.missed += missed(since, beside.interval, 1);
            let seconds = since.as_secs_f64().max(1e-6);
            self.cpus(cpus, seconds, beside, into);
            if beside.has_tunnel {
                let packets = sample.ring_drops.saturating_sub(self.ring_drops);
                into.tunnel_drops.add(beside.second, packets as f64);
            }
        }
        self.ring_drops = sample.ring_drops;
        self.cpus.clear();
        self.cpus.extend_from_slice(cpus);
        if beside.is_current {
            self.process(sample, beside, into);
            sockets(sample, beside, into);
            for (device, bytes) in beside.devices.iter().zip(sample.backlogs) {
                if bytes != UNKNOWN {
                    device.backlog(into).add(beside.second, bytes as f64);
                }
            }
        }
    }

    fn cpus(&self, cpus: &[CpuSample], seconds: f64, beside: &Beside<'_>, into: &mut Sampled) {
        for ((number, now), before) in (0..).zip(cpus).zip(&self.cpus) {
            if !beside.online.contains(&number) || now.busy == UNKNOWN || before.busy == UNKNOWN {
                continue;
            }
            let busy = now.busy.checked_sub(before.busy);
            // Clocks that went back are those of a CPU that returned.
            let Some((busy, softirq)) = busy.zip(now.softirq.checked_sub(before.softirq)) else { continue };
            // Both come in ticks, so a CPU that had no rest may have one more than fits.
            let part = |nanoseconds: u64| (nanoseconds as f64 / 1e9 / seconds).min(1.0);
            let cpu = into.cpu(number);
            cpu.busy.add(beside.second, part(busy));
            cpu.softirq.add(beside.second, part(softirq));
        }
        let is_known = beside.has_pressure && seconds < MOST_SECONDS;
        if let Some(part) = is_known.then(|| waiting(cpus, &self.cpus, seconds * 1e9)).flatten() {
            into.cpu_waiting.add(beside.second, part);
        }
    }

    fn process(&mut self, sample: &Sample, beside: &Beside<'_>, into: &mut Sampled) {
        if sample.ran == UNKNOWN || !beside.is_process {
            return;
        }
        let Sample { at, ran, waited, ended, .. } = *sample;
        let Some(before) = self.process.replace(Process { at, ran, waited, ended }) else { return };
        let seconds = at.saturating_sub(before.at) as f64 / 1e9;
        let rate = |nanoseconds: u64| nanoseconds as f64 / 1e9 / seconds.max(1e-6);
        if let Some(ran) = ran.checked_sub(before.ran) {
            into.tailscaled_cpu.add(beside.second, rate(ran));
        }
        // A thread that ended took along what it waited.
        if let Some(waited) = waited.checked_sub(before.waited).filter(|_| ended == before.ended) {
            into.tailscaled_delay.add(beside.second, rate(waited));
        }
    }
}

/// The part of the time, so many nanoseconds, in which a task waited for a CPU; `None` when that is not known of one of
/// them.
fn waiting(now: &[CpuSample], before: &[CpuSample], nanoseconds: f64) -> Option<f64> {
    // What went back, or on for longer than the time did, was read while it changed.
    let grown = |now: u32, before: u32| {
        let grown = f64::from(now.wrapping_sub(before));
        let is_sound = now != UNKNOWN_32 && before != UNKNOWN_32 && grown <= nanoseconds + SLACK;
        is_sound.then_some(grown.min(nanoseconds))
    };
    let (mut waiting, mut nonidle) = (0.0, 0.0);
    for (now, before) in now.iter().zip(before) {
        // As the kernel does (`collect_percpu_times`): a CPU weighs as much as it had tasks.
        let had_tasks = grown(now.nonidle, before.nonidle)?;
        waiting += grown(now.waiting, before.waiting)? * had_tasks;
        nonidle += had_tasks;
    }
    Some(if nonidle > 0.0 { (waiting / nonidle / nanoseconds).min(1.0) } else { 0.0 })
}

/// The fullest one, if all of them are known.
fn sockets(sample: &Sample, beside: &Beside<'_>, into: &mut Sampled) {
    let watched = sample.sockets.iter().take(beside.sockets);
    let fill = watched.map(|queue| {
        (queue.bytes != UNKNOWN_32).then(|| f64::from(queue.bytes) / f64::from(queue.room.max(1)))
    });
    let fill = fill.collect::<Option<Vec<_>>>().and_then(|fill| fill.into_iter().reduce(f64::max));
    if let Some(fill) = fill {
        into.udp_receive_queue.add(beside.second, fill);
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
