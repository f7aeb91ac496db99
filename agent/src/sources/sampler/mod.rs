//! The few signals that make or break an exit node, ten times a second. A scrape every 15 s would see a stall of
//! 200 ms as a percent of its mean; here it is one sample of a histogram, and a peak.
//!
//! The kernel takes the samples itself where it can (`kernel`): some microseconds each. Where it cannot, a thread
//! reads files and sockets (`files`), which costs ten times as much, so it keeps to a budget.

mod agreement;
mod devices;
mod files;
mod kernel;
mod tally;

use std::io;
use std::time::Duration;

use super::host::Paths;
use super::kernel::KernelSource;
use crate::model::collector::Collectors;
use crate::model::sampled::Sampled;

/// Name in the self metrics.
pub const COLLECTOR: &str = "sampler";

/// What is sampled, and how often.
#[derive(Clone, Debug)]
pub struct SamplerConfig {
    /// Where the host's file systems are.
    pub paths: Paths,
    /// Time between two samples.
    pub interval: Duration,
}

/// Samples this host from now on, until it is dropped.
#[derive(Debug)]
pub struct Sampler {
    config: SamplerConfig,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Kernel(Box<kernel::KernelSampler>),
    Files(files::Samples),
}

impl Sampler {
    /// Begins.
    ///
    /// # Errors
    /// When the kernel cannot take samples, and there may be no more threads.
    pub fn start(
        config: SamplerConfig,
        kernel: &mut KernelSource,
        sampled: &mut Sampled,
    ) -> io::Result<Self> {
        sampled.interval = config.interval;
        let way = match kernel::KernelSampler::start(&config, kernel) {
            Ok(sampler) => Way::Kernel(Box::new(sampler)),
            Err(reason) => Way::Files(by_files(&config, kernel, &reason, sampled.clone())?),
        };
        Ok(Self { config, way })
    }

    /// Looks whether what is sampled is still the same. Call it about once a second.
    ///
    /// # Errors
    /// When the kernel takes samples no more, and there may be no more threads.
    pub fn look(&mut self, kernel: &mut KernelSource, sampled: &mut Sampled) -> io::Result<()> {
        if let Way::Kernel(sampler) = &mut self.way
            && let Err(reason) = sampler.look(kernel, sampled)
        {
            self.way = Way::Files(by_files(&self.config, kernel, &reason, sampled.clone())?);
        }
        Ok(())
    }

    /// Writes all samples so far into the model.
    pub fn read(&mut self, kernel: &mut KernelSource, sampled: &mut Sampled, collectors: &mut Collectors) {
        match &mut self.way {
            Way::Kernel(sampler) => sampler.read(kernel, sampled, collectors),
            Way::Files(samples) => samples.read(sampled, collectors),
        }
    }
}

fn by_files(
    config: &SamplerConfig,
    kernel: &mut KernelSource,
    reason: &str,
    sampled: Sampled,
) -> io::Result<files::Samples> {
    tracing::info!(reason, "sampling by files: dearer, and seldomer when it gets too dear");
    kernel.stop_sampling(reason);
    let SamplerConfig { paths, interval } = config.clone();
    files::Samples::start(files::FileSampler::new(paths, kernel.ring_drops(), interval), sampled)
}

/// Time between two readings of a counter.
#[derive(Clone, Copy, Debug)]
struct Elapsed {
    seconds: f64,
    /// Second that the sample belongs to.
    second: u64,
    /// Intervals that the sample stands for.
    intervals: u32,
}

/// Whole intervals that passed beyond those that should.
fn missed(since: Duration, interval: Duration, expected: u32) -> u64 {
    let intervals = since.as_secs_f64() / interval.as_secs_f64().max(1e-3);
    (intervals.round() as u64).saturating_sub(expected.into())
}

/// What came since `last`; `None` for the first reading, and for a counter that went back.
fn since(last: &mut Option<u64>, now: u64) -> Option<u64> {
    let before = last.replace(now)?;
    now.checked_sub(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_sample_says_how_many_are_missing() {
        let interval = Duration::from_millis(100);
        for (milliseconds, expected) in [(90, 0), (100, 0), (149, 0), (160, 1), (1000, 9)] {
            assert_eq!(missed(Duration::from_millis(milliseconds), interval, 1), expected, "{milliseconds}");
        }
        assert_eq!([150, 249, 260].map(|since| missed(Duration::from_millis(since), interval, 2)), [0, 0, 1]);
    }

    #[test]
    fn a_counter_that_went_back_begins_anew() {
        let mut last = None;
        let steps = [5, 8, 2, 3].map(|now| since(&mut last, now));
        assert_eq!(steps, [None, Some(3), None, Some(1)]);
    }
}
