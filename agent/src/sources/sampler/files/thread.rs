//! The thread that samples. On the agent's own, each sample would wake a runtime for timers and sockets, which takes as
//! long as the sample itself (100 µs with cold caches, a sleeping thread 30), would wait for a scrape to be written, and
//! could not tell its own CPU time from that of everything else.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::{COLLECTOR, FileSampler};
use crate::model::collector::Collectors;
use crate::model::sampled::Sampled;

/// What the thread has sampled so far; it ends when this is dropped.
#[derive(Debug)]
pub(in crate::sources::sampler) struct Samples(Arc<Mutex<Latest>>);

#[derive(Debug)]
struct Latest {
    sampled: Sampled,
    /// Begin and end of the last sample, and whether all parts of it were taken.
    run: Option<(Instant, Instant, bool)>,
}

impl Samples {
    /// Starts the thread, which goes on with what was `sampled`.
    pub(in crate::sources::sampler) fn start(sampler: FileSampler, sampled: Sampled) -> io::Result<Self> {
        let samples = Self(Arc::new(Mutex::new(Latest { sampled, run: None })));
        let latest = Arc::downgrade(&samples.0);
        thread::Builder::new().name(COLLECTOR.to_owned()).spawn(move || run(sampler, &latest))?;
        Ok(samples)
    }

    /// Copies everything into the model.
    pub(in crate::sources::sampler) fn read(&self, sampled: &mut Sampled, collectors: &mut Collectors) {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sampled.clone_from(&latest.sampled);
        if let Some((started, ended, success)) = latest.run {
            collectors.record(COLLECTOR, started, ended, success);
        }
    }
}

fn run(mut sampler: FileSampler, latest: &Weak<Mutex<Latest>>) {
    let mut due = Instant::now();
    while let Some(latest) = latest.upgrade() {
        {
            let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
            let started = Instant::now();
            let success = sampler.sample(&mut latest.sampled);
            latest.run = Some((started, Instant::now(), success));
        }
        drop(latest);
        let now = Instant::now();
        due = next(due, sampler.interval, sampler.intervals(), now);
        thread::sleep(due.saturating_duration_since(now));
    }
}

/// When the next sample is due, so many intervals after the one before: a burst of late ones would say nothing, so those
/// that would be in the past are left out.
fn next(due: Instant, interval: Duration, intervals: u32, now: Instant) -> Instant {
    let next = due + interval * intervals;
    let late = now.saturating_duration_since(next).as_nanos();
    match late {
        0 => next,
        // Less than an interval.
        late => now + interval - Duration::from_nanos((late % interval.as_nanos().max(1)) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::host::Paths;

    #[test]
    fn samples_are_due_at_multiples_of_the_interval() {
        let start = Instant::now();
        let milliseconds = Duration::from_millis;
        for (intervals, now, expected) in
            [(1, 1, 100), (2, 1, 200), (1, 99, 100), (1, 101, 200), (1, 950, 1000), (2, 201, 300)]
        {
            let found = next(start, milliseconds(100), intervals, start + milliseconds(now));
            assert_eq!(found - start, milliseconds(expected), "{intervals} {now}");
        }
    }

    #[test]
    fn the_thread_samples_until_nobody_wants_to_know() {
        let sampler = FileSampler::new(Paths::default(), None, Duration::from_millis(20));
        let samples = Samples::start(sampler, Sampled::default()).unwrap();
        let (mut sampled, mut collectors) = (Sampled::default(), Collectors::default());
        let started = Instant::now();
        while sampled.samples < 3 {
            assert!(started.elapsed() < Duration::from_secs(20), "{sampled:?}");
            thread::yield_now();
            samples.read(&mut sampled, &mut collectors);
        }
        assert!(sampled.cpu_time > Duration::ZERO && sampled.cpus.iter().any(|cpu| cpu.busy.count() > 0));
        assert!(collectors.get(COLLECTOR).unwrap().success);
        let latest = Arc::downgrade(&samples.0);
        drop(samples);
        while latest.strong_count() > 0 {
            assert!(started.elapsed() < Duration::from_secs(20), "it goes on");
            thread::yield_now();
        }
    }
}
