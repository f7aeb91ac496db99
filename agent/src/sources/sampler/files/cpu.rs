//! Each CPU's time, and how long tasks waited for one.

use super::{Elapsed, NOBODY, since, unless_unavailable};
use crate::model::host::CpuTime;
use crate::model::sampled::Sampled;
use crate::sources::host::{CpuReader, HostError, Paths, PressureReader};

/// A CPU that is busy for a larger part of the time may be why something is slow.
const HALF_BUSY: f64 = 0.5;

/// What was read before.
#[derive(Debug, Default)]
pub(super) struct Cpus {
    reader: CpuReader,
    last: Vec<(u32, CpuTime)>,
    now: Vec<(u32, CpuTime)>,
    pressure: PressureReader,
    waited_microseconds: Option<u64>,
    is_busy: bool,
}

impl Cpus {
    pub(super) fn sample(
        &mut self,
        paths: &Paths,
        elapsed: Option<Elapsed>,
        into: &mut Sampled,
    ) -> Result<(), HostError> {
        self.is_busy = false;
        let waiting = self.waiting(paths, elapsed, into);
        self.reader.read_times(paths, &mut self.now)?;
        for (number, time) in &self.now {
            let Some((_, before)) = self.last.iter().find(|(other, _)| other == number) else { continue };
            let (Some(elapsed), Some((busy, softirq))) = (elapsed, shares(before, time)) else { continue };
            let cpu = into.cpu(*number);
            cpu.busy.add_times(elapsed.second, busy, elapsed.intervals);
            cpu.softirq.add_times(elapsed.second, softirq, elapsed.intervals);
            self.is_busy |= busy > HALF_BUSY;
        }
        std::mem::swap(&mut self.last, &mut self.now);
        unless_unavailable(waiting)
    }

    /// Whether no CPU was half busy, and next to nobody waited for one.
    pub(super) const fn is_quiet(&self) -> bool {
        !self.is_busy
    }

    fn waiting(
        &mut self,
        paths: &Paths,
        elapsed: Option<Elapsed>,
        into: &mut Sampled,
    ) -> Result<(), HostError> {
        let now = self.pressure.cpu_microseconds(paths)?;
        let waited = since(&mut self.waited_microseconds, now);
        if let Some((elapsed, waited)) = elapsed.zip(waited) {
            // The two clocks are not read at the same moment.
            let part = (waited as f64 / 1e6 / elapsed.seconds).min(1.0);
            into.cpu_waiting.add_times(elapsed.second, part, elapsed.intervals);
            self.is_busy |= part > NOBODY;
        }
        Ok(())
    }
}

/// Parts of the time that the kernel accounted for: busy, and in soft interrupts. `None` when a clock went back, as
/// idle time does by itself and all of them do when a CPU returns, and when no tick passed.
fn shares(before: &CpuTime, now: &CpuTime) -> Option<(f64, f64)> {
    let mut total = 0.0;
    for ((_, before), (_, now)) in before.modes().iter().zip(now.modes()) {
        if now < *before {
            return None;
        }
        total += now - before;
    }
    let idle = (now.idle - before.idle) + (now.iowait - before.iowait);
    (total > 0.0).then(|| (((total - idle) / total).max(0.0), (now.softirq - before.softirq) / total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(user: f64, idle: f64, softirq: f64) -> CpuTime {
        CpuTime { user, idle, softirq, ..CpuTime::default() }
    }

    #[test]
    fn shares_are_of_what_was_accounted_for() {
        let before = time(1.0, 5.0, 0.5);
        let (busy, softirq) = shares(&before, &time(1.04, 5.02, 0.54)).unwrap();
        assert!((busy - 0.8).abs() < 1e-9 && (softirq - 0.4).abs() < 1e-9, "{busy} {softirq}");
        assert_eq!(shares(&before, &time(1.1, 4.9, 0.5)), None, "idle time went back");
        assert_eq!(shares(&before, &before), None, "no tick");
    }
}
