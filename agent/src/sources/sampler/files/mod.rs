//! Samples by files and sockets, where the kernel cannot take them itself.
//!
//! Every part stands alone: what this host does not offer is not sampled, and takes no other part down.
//!
//! A sample costs more than what it reads, as the caches are cold after 100 ms of other work: four to eight times what it
//! costs in a loop. So every second one is left out, and the next one, over both intervals, counts twice,
//!
//! - while nothing is up (no CPU half busy, next to nobody waits for one, all queues empty), and
//! - while the budget of a thousandth of a CPU is used up. What is saved while nothing is up pays for
//!   the full pace when something is.
//!
//! Never are two left out in a row: a stall of 200 ms is to show, and that comes before the budget. A host where one
//! sample takes more than 200 µs (tens of CPUs, or of threads of tailscaled) exceeds it, and the metric says so. The other
//! way, fewer signals a sample, would let one that is needed be missing when it is.

mod budget;
mod clock;
mod cpu;
mod process;
mod queues;
mod thread;

use std::time::{Duration, Instant};

use super::{COLLECTOR, Elapsed, missed, since};
use crate::model::sampled::Sampled;
use crate::sources::host::{Complaints, HostError, Paths, complain};
use crate::sources::kernel::RingDrops;
use crate::sources::thread_time;

pub(super) use thread::Samples;

/// Less than this part of the time is next to nobody who waits.
const NOBODY: f64 = 0.05;

/// Reads, and remembers what it read before.
#[derive(Debug)]
pub(super) struct FileSampler {
    paths: Paths,
    interval: Duration,
    last: Option<Instant>,
    cpus: cpu::Cpus,
    process: process::Tailscaled,
    queues: queues::Queues,
    complaints: Complaints,
    budget: budget::Budget,
    /// CPU time of this thread at the end of the last sample.
    spent: Duration,
    /// Whether the next sample is left out.
    rests: bool,
}

impl FileSampler {
    /// Samples this host; `ring` is what the tunnel's ring drops, where that is counted.
    pub(super) fn new(paths: Paths, ring: Option<RingDrops>, interval: Duration) -> Self {
        Self {
            queues: queues::Queues::new(paths.interface.clone(), ring),
            paths,
            interval,
            last: None,
            cpus: cpu::Cpus::default(),
            process: process::Tailscaled::default(),
            complaints: Complaints::default(),
            budget: budget::Budget::default(),
            spent: Duration::ZERO,
            rests: false,
        }
    }

    /// Intervals from the last sample to the next one.
    pub(super) fn intervals(&self) -> u32 {
        1 + u32::from(self.rests)
    }

    /// Takes a sample, so many intervals after the one before as [`Self::intervals`] says. False when a part failed, and
    /// the others were sampled all the same. A failure is logged when it begins or changes.
    ///
    /// All CPU time of the thread counts as its cost: also what it takes to wake it, a fifth of it.
    pub(super) fn sample(&mut self, into: &mut Sampled) -> bool {
        let intervals = self.intervals();
        let now = Instant::now();
        let elapsed = self.last.replace(now).map(|last| {
            let since = now.saturating_duration_since(last);
            into.missed += missed(since, self.interval, intervals);
            Elapsed { seconds: since.as_secs_f64().max(1e-6), second: into.second(now), intervals }
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
        let is_quiet = self.cpus.is_quiet() && self.process.is_quiet() && self.queues.is_quiet();
        let spent = thread_time();
        let cost = spent.saturating_sub(std::mem::replace(&mut self.spent, spent));
        into.cpu_time += cost;
        self.budget.earn(elapsed.map_or(0.0, |elapsed| elapsed.seconds));
        self.budget.spend(cost);
        self.rests = elapsed.is_some() && (is_quiet || self.budget.is_used_up());
        success
    }
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
    use std::path::Path;

    use super::*;

    /// A host with one CPU, and no tailscaled.
    fn sampler(procfs: &Path) -> FileSampler {
        let paths = Paths {
            procfs: procfs.to_owned(),
            localapi: procfs.join("none"),
            interface: "lo".to_owned(),
            ..Paths::default()
        };
        FileSampler::new(paths, None, Duration::from_millis(100))
    }

    /// Ticks that it was busy and idle.
    fn tick(procfs: &Path, user: u64, idle: u64) {
        let line = format!(" {user} 0 0 {idle} 0 0 0 0 0 0\n");
        let rest = "ctxt 1\nbtime 1\nprocesses 1\nprocs_running 1\nprocs_blocked 0\nintr 1 0\n";
        std::fs::write(procfs.join("stat"), format!("cpu {line}cpu0{line}{rest}")).unwrap();
    }

    #[test]
    fn who_has_nothing_left_takes_every_second_sample_though_something_is_up() {
        let root = tempfile::tempdir().unwrap();
        let mut sampler = sampler(root.path());
        let mut sampled = Sampled::default();
        let mut sample = |user, spent| {
            tick(root.path(), user, 0);
            sampler.budget = budget::Budget::default();
            sampler.budget.earn(3600.0);
            sampler.budget.spend(spent);
            assert!(sampler.sample(&mut sampled));
            sampler.intervals()
        };
        let intervals = [1, 2, 3].map(|user| sample(user, Duration::ZERO));
        assert_eq!(intervals, [1; 3]);
        let intervals = [4, 5, 6].map(|user| sample(user, Duration::from_secs(1)));
        assert_eq!(intervals, [2; 3]);
        assert_eq!((sampled.cpus[0].busy.count(), sampled.samples), (7, 6), "each interval counts");
    }

    #[test]
    fn while_nothing_is_up_every_second_sample_counts_twice() {
        let root = tempfile::tempdir().unwrap();
        let mut sampler = sampler(root.path());
        let mut sampled = Sampled::default();
        let mut sample = |user, idle| {
            tick(root.path(), user, idle);
            let is_first = sampler.last.is_none();
            assert!(sampler.sample(&mut sampled));
            // Datagrams of other tests may wait on this host.
            sampler.rests = !is_first && sampler.cpus.is_quiet();
            (sampler.intervals(), sampled.cpus.first().map_or(0, |cpu| cpu.busy.count()))
        };
        assert_eq!(sample(0, 0), (1, 0), "one reading is no sample");
        assert_eq!(sample(1, 9), (2, 1));
        assert_eq!(sample(3, 27), (2, 3), "for both");
        assert_eq!(sample(13, 37), (1, 5), "one of both was busy: from now on each is taken");
        assert_eq!(sample(23, 37), (1, 6));
        assert_eq!(sample(33, 37), (1, 7));
    }

    fn loopback() -> Paths {
        Paths { interface: "lo".to_owned(), ..Paths::default() }
    }

    #[test]
    fn this_host_is_sampled() {
        let mut sampler = FileSampler::new(loopback(), None, Duration::from_millis(100));
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
