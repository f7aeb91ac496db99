//! What was sampled ten times a second: stalls too short for the mean over a scrape interval.

use std::time::{Duration, Instant};

/// Aligned seconds whose maxima are kept: a peak covers at least one second less.
const PEAK_SECONDS: usize = 16;
/// No second.
const NEVER: u64 = u64::MAX;
/// Upper bounds for parts of a whole.
pub const PART_BOUNDS: &[f64] = &[0.1, 0.25, 0.5, 0.75, 0.9];
/// Upper bounds for seconds a second, added up over threads.
pub const RATE_BOUNDS: &[f64] = &[0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 4.0, 8.0];
/// Upper bounds for packets.
pub const PACKET_BOUNDS: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0];
/// Upper bounds for bytes that wait.
pub const BYTE_BOUNDS: &[f64] = &[0.0, 1500.0, 15_000.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

/// Every sample of one quantity: how many were at most each bound, and the largest of the last seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    bounds: &'static [f64],
    /// By bound, then those above the last; not cumulative.
    buckets: Vec<u64>,
    sum: f64,
    /// Second since the sampler began ([`NEVER`] before the first), and its largest sample.
    peaks: [(u64, f64); PEAK_SECONDS],
}

impl Distribution {
    /// No samples yet.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, buckets: vec![0; bounds.len() + 1], sum: 0.0, peaks: [(NEVER, 0.0); PEAK_SECONDS] }
    }

    /// Adds a sample taken in `second` since the sampler began.
    pub fn add(&mut self, second: u64, value: f64) {
        self.add_times(second, value, 1);
    }

    /// Adds a sample that stands for as many intervals.
    pub fn add_times(&mut self, second: u64, value: f64, times: u32) {
        if times == 0 {
            return;
        }
        let bucket = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.buckets[bucket] += u64::from(times);
        self.sum += value * f64::from(times);
        let place = &mut self.peaks[(second % PEAK_SECONDS as u64) as usize];
        *place = if place.0 == second { (second, place.1.max(value)) } else { (second, value) };
    }

    /// Upper bounds, each with the number of samples at most that large.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        self.bounds.iter().zip(&self.buckets).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((*bound, *sum))
        })
    }

    /// Number of samples.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Sum of all samples.
    #[must_use]
    pub const fn sum(&self) -> f64 {
        self.sum
    }

    /// Largest sample of the running second and the 15 before it; `None` when there was none: what cannot be
    /// sampled now is unknown.
    #[must_use]
    pub fn peak(&self, second: u64) -> Option<f64> {
        let oldest = (second + 1).saturating_sub(PEAK_SECONDS as u64);
        let recent = self.peaks.iter().filter(|(at, _)| (oldest..=second).contains(at));
        recent.map(|(_, value)| *value).reduce(f64::max)
    }
}

/// One CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledCpu {
    /// Its number.
    pub cpu: u32,
    /// Part of the time that it had something to do.
    pub busy: Distribution,
    /// Part of the time that it spent in soft interrupts.
    pub softirq: Distribution,
}

/// Filled by `sources::sampler`.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// When it began; seconds of peaks are counted from here.
    pub began: Instant,
    /// Time between two samples, as it should be; zero while sampling is off.
    pub interval: Duration,
    /// Samples taken; one over two intervals is one.
    pub samples: u64,
    /// Samples left out because the one before came too late.
    pub missed: u64,
    /// CPU time that sampling took: in the kernel and here, or all of its thread's.
    pub cpu_time: Duration,
    /// By CPU number; CPUs that went offline stay.
    pub cpus: Vec<SampledCpu>,
    /// CPU time of tailscaled a second; 2 is two CPUs.
    pub tailscaled_cpu: Distribution,
    /// Seconds a second that threads of tailscaled were ready to run and had to wait, added up.
    pub tailscaled_delay: Distribution,
    /// Fullest receive buffer of tailscaled's UDP sockets, as part of its size.
    pub udp_receive_queue: Distribution,
    /// Packets to tailscaled that its ring had no room for, since the look before.
    pub tunnel_drops: Distribution,
    /// Bytes that wait in the queueing disciplines of the tunnel and of the devices on the way to the internet.
    pub qdisc_backlog: Vec<(String, Distribution)>,
    /// Part of the time that some task waited for a CPU.
    pub cpu_waiting: Distribution,
}

impl Default for Sampled {
    fn default() -> Self {
        let part = || Distribution::new(PART_BOUNDS);
        let rate = || Distribution::new(RATE_BOUNDS);
        Self {
            began: Instant::now(),
            interval: Duration::ZERO,
            samples: 0,
            missed: 0,
            cpu_time: Duration::ZERO,
            cpus: Vec::new(),
            tailscaled_cpu: rate(),
            tailscaled_delay: rate(),
            udp_receive_queue: part(),
            tunnel_drops: Distribution::new(PACKET_BOUNDS),
            qdisc_backlog: Vec::new(),
            cpu_waiting: part(),
        }
    }
}

impl Sampled {
    /// A CPU by its number.
    pub fn cpu(&mut self, number: u32) -> &mut SampledCpu {
        let place = self.cpus.binary_search_by_key(&number, |cpu| cpu.cpu).unwrap_or_else(|place| {
            let none = || Distribution::new(PART_BOUNDS);
            self.cpus.insert(place, SampledCpu { cpu: number, busy: none(), softirq: none() });
            place
        });
        &mut self.cpus[place]
    }

    /// Second of `now`, as peaks count.
    #[must_use]
    pub fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_in_every_bucket_from_its_own_on() {
        let mut samples = Distribution::new(PACKET_BOUNDS);
        for value in [0.0, 1.0, 5.0, 20_000.0] {
            samples.add(0, value);
        }
        let counts: Vec<u64> = samples.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 2, 3, 3, 3, 3]);
        assert_eq!((samples.count(), samples.sum()), (4, 20_006.0));
        samples.add_times(0, 5.0, 2);
        samples.add_times(0, 5.0, 0);
        assert_eq!((samples.count(), samples.sum()), (6, 20_016.0));
    }

    #[test]
    fn a_peak_stays_for_fifteen_seconds_and_reading_does_not_take_it() {
        let mut samples = Distribution::new(PART_BOUNDS);
        assert_eq!(samples.peak(0), None);
        assert_eq!(Distribution::new(PART_BOUNDS).peak(u64::MAX - 1), None);
        samples.add(100, 0.9);
        samples.add(100, 0.2);
        for second in 101..=115 {
            samples.add(second, 0.1);
            assert_eq!(samples.peak(second), Some(0.9), "second {second}");
        }
        samples.add(116, 0.1);
        assert_eq!(samples.peak(116), Some(0.1));
        assert_eq!(samples.peak(500), None, "nothing lately");
    }

    #[test]
    fn a_cpu_that_returns_is_the_same_row() {
        let mut sampled = Sampled::default();
        for number in [2, 0, 2] {
            sampled.cpu(number).busy.add(0, 0.5);
        }
        let counts: Vec<_> = sampled.cpus.iter().map(|cpu| (cpu.cpu, cpu.busy.count())).collect();
        assert_eq!(counts, [(0, 1), (2, 2)]);
    }
}
