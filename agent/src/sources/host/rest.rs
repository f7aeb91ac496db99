//! Pauses of collectors whose runs cost much or whose figures change seldom.

use std::time::{Duration, Instant};

/// Until when what was read last is to stay.
#[derive(Debug, Default)]
pub(super) struct Rest(Option<Instant>);

impl Rest {
    /// Begins now.
    pub(super) fn begin(&mut self, duration: Duration) {
        self.0 = Some(Instant::now() + duration);
    }

    /// Whether it has begun and not ended.
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some_and(|end| Instant::now() < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_as_long_as_it_was_told_to() {
        let mut rest = Rest::default();
        assert!(!rest.is_on());
        rest.begin(Duration::from_secs(600));
        assert!(rest.is_on());
        rest.begin(Duration::ZERO);
        assert!(!rest.is_on());
    }
}
