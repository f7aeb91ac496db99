//! By which path a peer is reached, and for how long it was on each: the one place that decides.
//!
//! tailscaled's word comes from `/status`, each ten seconds at least, and is repeated with each piece of other news.
//! Between two words the underlay may show better: the path by which WireGuard data was sent to the peer within the
//! last second. It counts at once, and a word that says otherwise counts only if it was asked for after such data had
//! ended.
//!
//! DERP is the exception: tailscaled that does not trust its address sends everything both there and over UDP, for
//! some seconds, and before 1.98 for as long as there was something to send (`discoPingTimeout` in
//! wgengine/magicsock/endpoint.go). So DERP is believed beside such data, too, once tailscaled keeps saying it. From
//! then on the data shows nothing new, until tailscaled trusts an address again.

use std::time::{Duration, Instant};

use super::tailnet::Path;

/// Silence after which data has ended: it is looked for once a second.
const STOPPED: Duration = Duration::from_secs(3);
/// DERP beside data over UDP is believed after it was said for so long. A pong that is late costs tailscaled its trust
/// for up to a heartbeat, 3 s.
const SURE: Duration = Duration::from_millis(3_500);

/// The paths of one peer, as long as it has a slot.
#[derive(Clone, Debug, Default)]
pub struct PathHistory {
    current: Path,
    /// What tailscaled said last; `None` while it does not say.
    said: Option<Path>,
    /// What the underlay showed last; `None` once tailscaled's word is newer.
    shown: Option<Shown>,
    /// Up to when `spent` has been added to; `None` while the path is unknown.
    counted: Option<Instant>,
    /// Time by `Path as usize`; `None` for a path that the peer never had.
    spent: [Option<Duration>; Path::ALL.len()],
    /// The last path that carried something.
    used: Option<Path>,
    changes: u64,
}

/// Data over UDP that went on without a break.
#[derive(Clone, Copy, Debug)]
struct Shown {
    path: Path,
    since: Instant,
    last: Instant,
    /// When tailscaled first said that it uses DERP meanwhile.
    denied: Option<Instant>,
    /// It is believed to: the data goes both ways.
    doubled: bool,
}

impl PathHistory {
    /// Takes tailscaled's word and the moment at which it was asked; `None` while it has none.
    pub fn hear(&mut self, said: Option<(Path, Instant)>, now: Instant) {
        self.settle(now);
        let Some((path, asked)) = said else {
            self.said = None;
            self.shown = self.shown.filter(|shown| !shown.doubled);
            return self.settle(now);
        };
        let before = self.said.replace(path);
        let believed = self.believes(path, asked, before);
        self.set(if believed { path } else { self.current }, now);
    }

    /// The underlay has just shown data sent to the peer by `path`. To be called about once a second while it does.
    pub fn see(&mut self, path: Path, now: Instant) {
        self.settle(now);
        match &mut self.shown {
            Some(shown) if shown.path == path && (shown.doubled || !shown.ended(now)) => {
                shown.last = shown.last.max(now);
                if shown.doubled {
                    return;
                }
            }
            _ => self.shown = Some(Shown { path, since: now, last: now, denied: None, doubled: false }),
        }
        self.set(path, now);
    }

    /// The peer left: nobody knows its path from now on.
    pub fn leave(&mut self, now: Instant) {
        self.settle(now);
        self.said = None;
        self.shown = None;
        self.counted = None;
    }

    /// Whether a word counts beside what the underlay showed. `before` is the word before it.
    fn believes(&mut self, path: Path, asked: Instant, before: Option<Path>) -> bool {
        let Some(shown) = &mut self.shown else { return true };
        if path == shown.path {
            shown.denied = None;
            shown.doubled = false;
            return true;
        }
        if path == Path::Derp && shown.doubled {
            return true;
        }
        if shown.ended(asked) {
            self.shown = None;
            return true;
        }
        if path != Path::Derp || asked <= shown.since {
            return false;
        }
        let denied = *shown.denied.get_or_insert(asked);
        // `sources::tailscale` passes on DERP after another path only when it was said twice.
        let is_news = before.is_some_and(|before| before != Path::Derp);
        let since = if is_news { shown.since } else { denied };
        shown.doubled = asked.saturating_duration_since(since) >= SURE;
        shown.doubled
    }

    /// The peer is on `path` from now on, but never from before what was counted: that would take back time which was
    /// read already.
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

    /// Gives the time up to now to the current path, as far as that is known.
    fn settle(&mut self, now: Instant) {
        let Some(counted) = self.counted else { return };
        let Some(end) = self.known_until(now) else {
            self.counted = None;
            return;
        };
        *self.spent[self.current as usize].get_or_insert_default() += end.saturating_duration_since(counted);
        self.counted = (end >= now).then_some(end.max(counted));
    }

    /// Up to when the current path is known; at most now.
    fn known_until(&self, now: Instant) -> Option<Instant> {
        if self.said.is_some() { Some(now) } else { self.shown.map(|shown| now.min(shown.last + STOPPED)) }
    }

    /// The last known path.
    #[must_use]
    pub const fn current(&self) -> Path {
        self.current
    }

    /// Time on a path up to now, without the time in which nobody knew it; `None` if the peer never had it.
    #[must_use]
    pub fn spent(&self, path: Path, now: Instant) -> Option<Duration> {
        let running = self.counted.filter(|_| path == self.current).zip(self.known_until(now));
        let running = running.map_or(Duration::ZERO, |(from, end)| end.saturating_duration_since(from));
        self.spent[path as usize].map(|spent| spent + running)
    }

    /// Times that traffic went on by another path than before; idle in between is none.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }
}

impl Shown {
    /// At `now`, nothing has been seen for a while.
    fn ended(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= STOPPED
    }
}

#[cfg(test)]
#[path = "paths_tests.rs"]
mod tests;
