//! The few signals that make or break an exit node, ten times a second. A scrape every 15 s would see a stall of
//! 200 ms as a percent of its mean; here it is one sample of a histogram, and a peak.
//!
//! Every part stands alone: what this host does not offer is not sampled, and takes no other part down.

mod clock;
mod cpu;
mod process;
mod queues;

use std::time::{Duration, Instant};

use super::host::{Complaints, HostError, Paths, complain};
use super::thread_time;
use crate::model::sampled::Sampled;

/// Name in the self metrics.
pub const COLLECTOR: &str = "sampler";

/// Time between two readings of a counter.
#[derive(Clone, Copy, Debug)]
struct Elapsed {
    seconds: f64,
    /// Second that the sample belongs to.
    second: u64,
}

/// Reads, and remembers what it read before.
#[derive(Debug)]
pub struct Sampler {
    paths: Paths,
    interval: Duration,
    last: Option<Instant>,
    cpus: cpu::Cpus,
    process: process::Tailscaled,
    queues: queues::Queues,
    complaints: Complaints,
}

impl Sampler {
    /// Samples this host; `tunnel` is the tunnel device.
    #[must_use]
    pub fn new(paths: Paths, tunnel: String, interval: Duration) -> Self {
        Self {
            paths,
            interval,
            last: None,
            cpus: cpu::Cpus::default(),
            process: process::Tailscaled::default(),
            queues: queues::Queues::new(tunnel),
            complaints: Complaints::default(),
        }
    }

    /// Takes a sample; false when a part failed, and the others were sampled all the same. A failure is logged when
    /// it begins or changes.
    pub fn sample(&mut self, into: &mut Sampled) -> bool {
        let began = thread_time();
        let now = Instant::now();
        into.interval = self.interval;
        let elapsed = self.last.replace(now).map(|last| {
            let since = now.saturating_duration_since(last);
            into.missed += missed(since, self.interval);
            Elapsed { seconds: since.as_secs_f64().max(1e-6), second: into.second(now) }
        });
        let outcomes = [
            ("sampler of CPUs", self.cpus.sample(&self.paths, elapsed, into)),
            ("sampler of tailscaled", self.process.sample(&self.paths, elapsed, into)),
            ("sampler of queues", self.queues.sample(elapsed, into)),
        ];
        let success = outcomes.iter().all(|(_, outcome)| outcome.is_ok());
        for (part, outcome) in outcomes {
            complain(&mut self.complaints, part, outcome.err());
        }
        into.samples += 1;
        into.cpu_time += thread_time().saturating_sub(began);
        success
    }
}

/// Whole intervals that passed without a sample.
fn missed(since: Duration, interval: Duration) -> u64 {
    let intervals = since.as_secs_f64() / interval.as_secs_f64().max(1e-3);
    (intervals.round() as u64).saturating_sub(1)
}

/// What came since `last`; `None` for the first reading, and for a counter that went back.
fn since(last: &mut Option<u64>, now: u64) -> Option<u64> {
    let before = last.replace(now)?;
    now.checked_sub(before)
}

/// A part that this host does not offer is no failure.
fn unless_unavailable(outcome: Result<(), HostError>) -> Result<(), HostError> {
    match outcome {
        Err(HostError::Unavailable { .. }) => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_sample_says_how_many_are_missing() {
        let interval = Duration::from_millis(100);
        for (milliseconds, expected) in [(90, 0), (100, 0), (149, 0), (160, 1), (1000, 9)] {
            assert_eq!(missed(Duration::from_millis(milliseconds), interval), expected, "{milliseconds}");
        }
    }

    #[test]
    fn a_counter_that_went_back_begins_anew() {
        let mut last = None;
        let steps = [5, 8, 2, 3].map(|now| since(&mut last, now));
        assert_eq!(steps, [None, Some(3), None, Some(1)]);
    }

    #[test]
    fn this_host_is_sampled() {
        let mut sampler = Sampler::new(Paths::default(), "lo".to_owned(), Duration::from_millis(100));
        let mut sampled = Sampled::default();
        assert!(sampler.sample(&mut sampled));
        assert!(sampled.cpus.iter().all(|cpu| cpu.busy.count() == 0), "one reading is no sample");
        // At least two ticks of every CPU.
        std::thread::sleep(Duration::from_millis(50));
        assert!(sampler.sample(&mut sampled));
        assert!(sampled.cpus.iter().any(|cpu| cpu.busy.count() == 1 && cpu.softirq.count() == 1));
        assert_eq!(sampled.tunnel_drops.count(), 1);
        assert_eq!(sampled.samples, 2);
        assert!(sampled.cpu_time > Duration::ZERO);
    }
}
