//! What sampling may cost.

use std::time::Duration;

/// Part of a CPU that may be spent. A thousandth is promised, and one stretch of some seconds holds a sample more than the
/// next.
const SHARE: f64 = 0.000_95;
/// CPU seconds that can be saved up for when something is up: half a minute, about, at the full pace.
const MOST_SAVED: f64 = 0.010;

/// CPU seconds that may be spent. From the start on that is a [`SHARE`] of the time and one sample, and in any stretch of
/// time no more than [`MOST_SAVED`] on top, as long as a rest earns what a sample costs.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Below zero, what is owed: never more than can be saved, or a host that was slow once would pay for hours.
    seconds: f64,
}

impl Budget {
    /// Time passed, so many seconds.
    pub(super) fn earn(&mut self, seconds: f64) {
        self.seconds = (self.seconds + seconds * SHARE).min(MOST_SAVED);
    }

    /// A sample took so much CPU time.
    pub(super) fn spend(&mut self, cost: Duration) {
        self.seconds = (self.seconds - cost.as_secs_f64()).max(-MOST_SAVED);
    }

    /// Whether nothing is left.
    pub(super) fn is_used_up(&self) -> bool {
        self.seconds <= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: f64 = 0.1;
    const PROMISE: f64 = 0.001;

    /// Samples taken out of so many, each so dear, and CPU seconds that they took.
    fn take(budget: &mut Budget, intervals: u32, cost: Duration) -> (u32, f64) {
        let (mut taken, mut rested) = (0, false);
        for _ in 0..intervals {
            budget.earn(INTERVAL);
            rested = !rested && budget.is_used_up();
            if !rested {
                budget.spend(cost);
                taken += 1;
            }
        }
        (taken, f64::from(taken) * cost.as_secs_f64())
    }

    #[test]
    fn it_takes_less_than_a_thousandth() {
        for (microseconds, least) in [(50, 36_000), (94, 36_000), (130, 26_000), (189, 18_000)] {
            let cost = Duration::from_micros(microseconds);
            for intervals in [100, 1000, 36_000] {
                let (taken, spent) = take(&mut Budget::default(), intervals, cost);
                let time = f64::from(intervals) * INTERVAL;
                assert!(spent <= time * SHARE + cost.as_secs_f64(), "{microseconds} µs: {spent}");
                assert!(intervals == 100 || spent <= time * PROMISE, "{microseconds} µs: {spent}");
                assert!(taken >= least * intervals / 36_000, "{microseconds} µs: {taken}");
            }
        }
    }

    #[test]
    fn what_was_saved_is_about_half_a_minute_at_the_full_pace() {
        let mut budget = Budget::default();
        budget.earn(3600.0);
        assert_eq!(budget.seconds, MOST_SAVED);
        assert_eq!(take(&mut budget, 280, Duration::from_micros(130)).0, 280);
        let later = take(&mut budget, 300, Duration::from_micros(130)).0;
        assert!((200..300).contains(&later), "{later}");
    }

    #[test]
    fn a_sample_too_dear_is_taken_every_second_time_and_owed_for_seconds_only() {
        let mut budget = Budget::default();
        let taken = take(&mut budget, 36_000, Duration::from_millis(1)).0;
        assert!((18_000..18_020).contains(&taken), "{taken}");
        budget.earn(2.0 * MOST_SAVED / SHARE);
        assert!(!budget.is_used_up());
    }
}
