//! By which path a peer is reached, and for how long it was on each: the one place that decides.
//!
//! tailscaled's word comes every few seconds and is repeated with each piece of other news. Only a new word counts.

use std::time::{Duration, Instant};

use super::tailnet::Path;

/// The paths of one peer, as long as it has a slot.
#[derive(Clone, Debug, Default)]
pub struct PathHistory {
    current: Path,
    /// What tailscaled said last; `None` while it does not say.
    said: Option<Path>,
    /// Up to when `spent` has been added to; `None` while the path is unknown.
    counted: Option<Instant>,
    /// Time by `Path as usize`; `None` for a path that the peer never had.
    spent: [Option<Duration>; Path::ALL.len()],
    /// The last path that carried something.
    used: Option<Path>,
    changes: u64,
}

impl PathHistory {
    /// Takes tailscaled's word, `None` while it has none.
    pub fn hear(&mut self, said: Option<Path>, now: Instant) {
        if self.said == said {
            return;
        }
        self.said = said;
        match said {
            Some(path) => self.set(path, now),
            None => self.lose(now),
        }
    }

    /// The peer is reached by `path` from now on, whatever was said before. An earlier moment than the present would
    /// take back time that was read already.
    fn set(&mut self, path: Path, now: Instant) {
        self.settle(now);
        self.counted = self.counted.max(Some(now));
        self.spent[path as usize].get_or_insert_default();
        self.current = path;
        if path != Path::Idle {
            let before = self.used.replace(path);
            self.changes += u64::from(before.is_some_and(|before| before != path));
        }
    }

    /// Nobody knows the path from now on.
    fn lose(&mut self, now: Instant) {
        self.settle(now);
        self.counted = None;
    }

    /// Gives the time up to now to the current path.
    fn settle(&mut self, now: Instant) {
        if let Some(counted) = &mut self.counted {
            *self.spent[self.current as usize].get_or_insert_default() +=
                now.saturating_duration_since(*counted);
            *counted = now.max(*counted);
        }
    }

    /// The last known path.
    #[must_use]
    pub const fn current(&self) -> Path {
        self.current
    }

    /// Time on a path up to now, without the time in which nobody knew it; `None` if the peer never had it.
    #[must_use]
    pub fn spent(&self, path: Path, now: Instant) -> Option<Duration> {
        let running = self.counted.filter(|_| path == self.current);
        let running = running.map_or(Duration::ZERO, |counted| now.saturating_duration_since(counted));
        self.spent[path as usize].map(|spent| spent + running)
    }

    /// Times that traffic went on by another path than before; idle in between is none.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Seconds on each path that the peer had, in the order of export.
    fn seconds(history: &PathHistory, now: Instant) -> Vec<(&'static str, u64)> {
        let spent = |path: Path| Some((path.as_str(), history.spent(path, now)?.as_secs()));
        Path::ALL.into_iter().filter_map(spent).collect()
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn time_goes_to_the_path_that_the_peer_is_on() {
        let start = Instant::now();
        let mut history = PathHistory::default();
        assert_eq!(seconds(&history, after(start, 5)), []);
        for (at, path) in [
            (0, Path::DirectIpv4),
            (10, Path::DirectIpv4),
            (30, Path::Derp),
            (50, Path::PeerRelayIpv6),
            (55, Path::DirectIpv4),
        ] {
            history.hear(Some(path), after(start, at));
        }
        let expected = [("direct_ipv4", 45), ("derp", 20), ("peer_relay_ipv6", 5)];
        assert_eq!(seconds(&history, after(start, 70)), expected);
        assert_eq!(seconds(&history, after(start, 70)), expected, "reading changes nothing");
        assert_eq!((history.current(), history.changes()), (Path::DirectIpv4, 3));
    }

    #[test]
    fn idle_between_is_no_change_but_has_its_time() {
        let start = Instant::now();
        let mut history = PathHistory::default();
        for (at, path) in [(0, Path::Idle), (10, Path::DirectIpv4), (20, Path::Idle), (30, Path::DirectIpv4)]
        {
            history.hear(Some(path), after(start, at));
        }
        assert_eq!(seconds(&history, after(start, 40)), [("direct_ipv4", 20), ("idle", 20)]);
        assert_eq!(history.changes(), 0);
        history.hear(Some(Path::Idle), after(start, 50));
        history.hear(Some(Path::Derp), after(start, 60));
        assert_eq!(history.changes(), 1, "another one than before the rest");
    }

    #[test]
    fn unknown_time_belongs_to_no_path() {
        let start = Instant::now();
        let mut history = PathHistory::default();
        history.hear(Some(Path::Derp), start);
        history.hear(None, after(start, 10));
        history.hear(None, after(start, 60));
        assert_eq!(seconds(&history, after(start, 100)), [("derp", 10)]);
        assert_eq!(history.current(), Path::Derp, "the last known one");
        history.hear(Some(Path::Derp), after(start, 100));
        assert_eq!(seconds(&history, after(start, 103)), [("derp", 13)]);
        assert_eq!(history.changes(), 0);
    }

    #[test]
    fn an_old_word_again_changes_nothing() {
        let start = Instant::now();
        let mut history = PathHistory::default();
        history.hear(Some(Path::DirectIpv4), start);
        history.set(Path::Derp, after(start, 4));
        history.hear(Some(Path::DirectIpv4), after(start, 6));
        assert_eq!((history.current(), history.changes()), (Path::Derp, 1), "the old word again");
        history.hear(Some(Path::Derp), after(start, 10));
        assert_eq!(history.changes(), 1, "counted already");
        history.hear(Some(Path::DirectIpv4), after(start, 20));
        assert_eq!(seconds(&history, after(start, 30)), [("direct_ipv4", 14), ("derp", 16)]);
        assert_eq!(history.changes(), 2);
    }

    #[test]
    fn moments_out_of_order_are_never_counted_twice() {
        let start = Instant::now();
        let mut history = PathHistory::default();
        history.set(Path::Derp, after(start, 10));
        history.set(Path::DirectIpv4, after(start, 20));
        history.set(Path::DirectIpv6, after(start, 15));
        assert_eq!(
            seconds(&history, after(start, 18)),
            [("direct_ipv4", 0), ("direct_ipv6", 0), ("derp", 10)]
        );
        assert_eq!(
            seconds(&history, after(start, 21)),
            [("direct_ipv4", 0), ("direct_ipv6", 1), ("derp", 10)]
        );
    }

    proptest! {
        /// Whatever is said, the seconds of all paths are those in which the path was known, and none falls.
        #[test]
        fn seconds_add_up_to_the_time_known(
            steps in prop::collection::vec((0_u64..30, prop::option::of(0..Path::ALL.len())), 0..50),
        ) {
            let mut now = Instant::now();
            let mut history = PathHistory::default();
            let (mut known, mut is_known) = (0, false);
            let mut before = [0; Path::ALL.len()];
            for (pause, said) in steps {
                now += Duration::from_secs(pause);
                known += if is_known { pause } else { 0 };
                is_known = said.is_some();
                history.hear(said.map(|index| Path::ALL[index]), now);
                let spent =
                    Path::ALL.map(|path| history.spent(path, now).map_or(0, |spent| spent.as_secs()));
                prop_assert_eq!(spent.iter().sum::<u64>(), known);
                prop_assert!(spent.iter().zip(before).all(|(now, before)| *now >= before));
                before = spent;
            }
        }
    }
}
