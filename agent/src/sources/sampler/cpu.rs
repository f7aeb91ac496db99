//! Each CPU's time, and how long tasks waited for one.

use super::{Elapsed, since, unless_unavailable};
use crate::model::host::CpuTime;
use crate::model::sampled::{Distribution, PART_BOUNDS, Sampled, SampledCpu};
use crate::sources::host::{CpuReader, HostError, Paths, PressureReader};

/// Less than this part of the time is next to nobody who waits.
const NOBODY: f64 = 0.05;

/// What was read before.
#[derive(Debug, Default)]
pub(super) struct Cpus {
    reader: CpuReader,
    last: Vec<(u32, CpuTime)>,
    pressure: Pressure,
}

/// Who waited for a CPU.
#[derive(Debug, Default)]
struct Pressure {
    reader: PressureReader,
    waited_microseconds: Option<u64>,
    /// Seconds of a sample that was left out.
    rested: Option<f64>,
    /// Whether the next sample is left out.
    rests: bool,
}

impl Cpus {
    pub(super) fn sample(
        &mut self,
        paths: &Paths,
        elapsed: Option<Elapsed>,
        into: &mut Sampled,
    ) -> Result<(), HostError> {
        let waiting = self.pressure.sample(paths, elapsed, into);
        let now = self.reader.read(paths)?.per_cpu;
        for (number, time) in &now {
            let Some((_, before)) = self.last.iter().find(|(other, _)| other == number) else { continue };
            let (Some(elapsed), Some((busy, softirq))) = (elapsed, shares(before, time)) else { continue };
            let cpu = row(&mut into.cpus, *number);
            cpu.busy.add(elapsed.second, busy);
            cpu.softirq.add(elapsed.second, softirq);
        }
        self.last = now;
        unless_unavailable(waiting)
    }
}

impl Pressure {
    /// Looks at every second sample only, as long as next to nobody waits: the kernel adds up what was in between.
    fn sample(
        &mut self,
        paths: &Paths,
        elapsed: Option<Elapsed>,
        into: &mut Sampled,
    ) -> Result<(), HostError> {
        if std::mem::take(&mut self.rests) {
            self.rested = elapsed.map(|elapsed| elapsed.seconds);
            return Ok(());
        }
        let some = self.reader.cpu(paths)?.some_seconds;
        let waited = since(&mut self.waited_microseconds, (some * 1e6).round() as u64);
        let rested = self.rested.take().unwrap_or_default();
        if let Some((elapsed, waited)) = elapsed.zip(waited) {
            // The two clocks are not read at the same moment.
            let part = (waited as f64 / 1e6 / (elapsed.seconds + rested)).min(1.0);
            into.cpu_waiting.add(elapsed.second, part);
            self.rests = part < NOBODY;
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

fn row(cpus: &mut Vec<SampledCpu>, number: u32) -> &mut SampledCpu {
    let place = cpus.binary_search_by_key(&number, |cpu| cpu.cpu).unwrap_or_else(|place| {
        let none = || Distribution::new(PART_BOUNDS);
        cpus.insert(place, SampledCpu { cpu: number, busy: none(), softirq: none() });
        place
    });
    &mut cpus[place]
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

    #[test]
    fn what_was_left_out_is_in_the_next_share_of_waiting() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("pressure")).unwrap();
        let paths = Paths { procfs: root.path().to_owned(), ..Paths::default() };
        let (mut pressure, mut sampled) = (Pressure::default(), Sampled::default());
        let mut sample = |second, microseconds: u64| {
            let text = format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={microseconds}\n");
            std::fs::write(root.path().join("pressure/cpu"), text).unwrap();
            let elapsed = (second > 0).then_some(Elapsed { seconds: 0.1, second });
            pressure.sample(&paths, elapsed, &mut sampled).unwrap();
            (sampled.cpu_waiting.count(), (sampled.cpu_waiting.sum() * 1e3).round())
        };
        assert_eq!(sample(0, 7_000), (0, 0.0), "one reading is no sample");
        assert_eq!(sample(1, 8_000), (1, 10.0), "next to nobody waits");
        assert_eq!(sample(2, 108_000), (1, 10.0), "left out");
        assert_eq!(sample(3, 108_000), (2, 510.0), "half of the time since the sample before");
        assert_eq!(sample(4, 158_000), (3, 1010.0), "somebody waits: every sample");
    }

    #[test]
    fn a_cpu_that_returns_is_the_same_row() {
        let mut cpus = Vec::new();
        for number in [2, 0, 2] {
            row(&mut cpus, number).busy.add(0, 0.5);
        }
        let counts: Vec<_> = cpus.iter().map(|cpu| (cpu.cpu, cpu.busy.count())).collect();
        assert_eq!(counts, [(0, 1), (2, 2)]);
    }
}
