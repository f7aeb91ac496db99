//! How each source is doing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Last run of one collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectorStatus {
    /// How long the last run took.
    pub duration: Duration,
    /// Whether it succeeded.
    pub success: bool,
    /// When a run last succeeded.
    pub last_success: Option<Instant>,
}

/// Status by collector name.
#[derive(Clone, Debug, Default)]
pub struct Collectors(BTreeMap<&'static str, CollectorStatus>);

impl Collectors {
    /// Notes a run of `name` that began at `started` and ended at `ended`.
    pub fn record(&mut self, name: &'static str, started: Instant, ended: Instant, success: bool) {
        let previous = self.0.get(name).and_then(|status| status.last_success);
        let last_success = if success { Some(ended) } else { previous };
        let duration = ended.saturating_duration_since(started);
        self.0.insert(name, CollectorStatus { duration, success, last_success });
    }

    /// All collectors by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &CollectorStatus)> {
        self.0.iter().map(|(name, status)| (*name, status))
    }

    /// One collector, if it ever ran.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&CollectorStatus> {
        self.0.get(name)
    }
}
