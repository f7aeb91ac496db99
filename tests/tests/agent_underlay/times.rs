//! Times as a histogram has them.

use std::time::Duration;

use tailgauge_testbed::exposition::Exposition;

/// A histogram of seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Times {
    /// Samples.
    pub count: u64,
    sum: f64,
    /// Upper bounds, and samples up to each.
    buckets: Vec<(f64, u64)>,
}

impl Times {
    /// The one that bears `labels`; empty when there is none.
    pub fn of(scrape: &Exposition, name: &str, labels: &[(&str, &str)]) -> Self {
        let buckets = format!("{name}_bucket");
        let buckets = scrape.matching(&buckets, labels).map(|sample| {
            let bound = sample.label("le").unwrap().parse().unwrap();
            (bound, sample.value as u64)
        });
        Self {
            count: scrape.sum(&format!("{name}_count"), labels) as u64,
            sum: scrape.sum(&format!("{name}_sum"), labels),
            buckets: buckets.collect(),
        }
    }

    /// What was added since `before`, when there may have been none.
    pub fn since(&self, before: &Self) -> Self {
        assert!(before.count == 0 || before.buckets.len() == self.buckets.len());
        let old = |place: usize| before.buckets.get(place).map_or(0, |(_, old)| *old);
        let buckets = self.buckets.iter().enumerate();
        Self {
            count: self.count - before.count,
            sum: self.sum - before.sum,
            buckets: buckets.map(|(place, (bound, now))| (*bound, now - old(place))).collect(),
        }
    }

    /// Exact but for rounding down to whole microseconds.
    pub fn mean(&self) -> Duration {
        assert!(self.count > 0, "{self:?}");
        Duration::from_secs_f64(self.sum / self.count as f64)
    }

    /// The bounds of the bucket that holds the median.
    pub fn median(&self) -> (Duration, Duration) {
        let at = self.buckets.iter().position(|(_, up_to)| up_to * 2 > self.count).unwrap();
        let low = at.checked_sub(1).map_or(0.0, |below| self.buckets[below].0);
        (Duration::from_secs_f64(low), Duration::from_secs_f64(self.buckets[at].0))
    }
}

/// The mean of times.
pub fn mean(times: &[Duration]) -> Duration {
    times.iter().sum::<Duration>() / times.len() as u32
}

/// The upper median of times.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}
