//! One WireGuard session's row: what it says, and what is due for it.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};

use tailgauge_ebpf::layout::{
    ROLE_INITIATOR, ROLE_UNSEEN, SESSION_BLOCKS, Session, UNATTRIBUTED, WINDOW_NANOSECONDS,
};
use tailgauge_ebpf::sequence::{Field, Memory, RING, settle};

use crate::model::kernel::SessionTotals;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
/// A session is not used for longer than this (`REJECT_AFTER_TIME`, WireGuard paper, 6.1).
const REJECT_AFTER: u64 = 180 * SECOND;
/// Silence after which a session that was followed by another is over.
const FOLLOWED_AFTER: u64 = 30 * SECOND;
/// An initiation is sent anew after `REKEY_TIMEOUT`, 5 s, and up to 334 ms (wireguard-go).
pub(super) const UNANSWERED_AFTER: u64 = 6 * SECOND;
/// Then nobody waits for its answer any more.
const GIVEN_UP_AFTER: u64 = 10 * SECOND;

/// Messages of a session that is taken for none when it was found by them alone. If it is one, it is found again.
const STRAY: u64 = 2;

/// Words of a row.
pub(super) const WORDS: usize = size_of::<Session>() / size_of::<u64>();

/// The words of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a>(&'a [AtomicU64; WORDS]);

impl<'a> Row<'a> {
    /// `None` when there are not as many words as a row has.
    pub(super) fn new(words: &'a [AtomicU64]) -> Option<Self> {
        words.try_into().ok().map(Self)
    }

    fn ring(&self, block: u64) -> &AtomicU64 {
        &self.0[RING + block as usize % SESSION_BLOCKS]
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        &self.0[offset / size_of::<u64>()]
    }

    /// Reads what the row says.
    pub(super) fn read(&self) -> Said {
        let get = |offset| self.word(offset).load(Ordering::Relaxed);
        // Written last by the programs.
        let (slot, role) = halves(self.word(offset_of!(Session, slot)).load(Ordering::Acquire));
        Said {
            slot,
            role,
            started_at: get(offset_of!(Session, started_at)),
            answered: get(offset_of!(Session, answered)) != 0,
            data_at: get(offset_of!(Session, data_window)).saturating_mul(WINDOW_NANOSECONDS),
            next: get(offset_of!(Session, next)),
            settled: get(offset_of!(Session, settled)),
            totals: self.totals(|field| self.get(field)),
        }
    }

    fn totals(&self, read: impl Fn(Field) -> u64) -> SessionTotals {
        SessionTotals {
            received: read(Field::Received),
            reordered: read(Field::Reordered),
            duplicated: read(Field::Duplicated),
            lost: read(Field::Lost),
            unjudged: read(Field::Unjudged),
        }
    }

    /// Judges every counter for good, zeroes the row and frees its `key`. Returns what was counted up to the end.
    pub(super) fn free(&self, key: &AtomicU64) -> SessionTotals {
        settle(self, self.get(Field::Next));
        let take = |field| self.0[field as usize].swap(0, Ordering::Relaxed);
        let mut totals = self.totals(take);
        self.0.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        // A message that came this moment found the row half empty.
        add(&mut totals, &self.totals(take));
        self.0.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        key.store(0, Ordering::Release);
        totals
    }

    /// Makes it nobody's session, until the programs know better.
    pub(super) fn disown(&self) {
        let word = self.word(offset_of!(Session, slot));
        let _ = word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |both| {
            let (_, role) = halves(both);
            Some(joined(UNATTRIBUTED, role))
        });
    }
}

/// Slot and role, which share a word.
fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}

fn joined(slot: u32, role: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (slot.to_ne_bytes(), role.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

impl Memory for Row<'_> {
    fn get(&self, field: Field) -> u64 {
        self.0[field as usize].load(Ordering::Relaxed)
    }

    fn set(&self, field: Field, value: u64) {
        self.0[field as usize].store(value, Ordering::Relaxed);
    }

    fn add(&self, field: Field, value: u64) {
        self.0[field as usize].fetch_add(value, Ordering::Relaxed);
    }

    fn exchange(&self, field: Field, old: u64, new: u64) -> u64 {
        exchange(&self.0[field as usize], old, new)
    }

    fn block(&self, block: u64) -> u64 {
        self.ring(block).load(Ordering::Relaxed)
    }

    fn exchange_block(&self, block: u64, old: u64, new: u64) -> u64 {
        exchange(self.ring(block), old, new)
    }
}

fn exchange(word: &AtomicU64, old: u64, new: u64) -> u64 {
    let exchanged = word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed);
    exchanged.unwrap_or_else(|found| found)
}

/// What a row says. Moments are nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) slot: u32,
    /// 0 while nobody has filled in the row.
    pub(super) role: u32,
    pub(super) started_at: u64,
    pub(super) answered: bool,
    /// Of the last data; at the beginning of a session perhaps of the one before.
    pub(super) data_at: u64,
    pub(super) next: u64,
    pub(super) settled: u64,
    pub(super) totals: SessionTotals,
}

impl Said {
    /// Whether any data came.
    pub(super) const fn has_data(&self) -> bool {
        self.next > 0 || self.totals.unjudged > 0
    }

    /// Whether it is an initiation that had no answer when the next one was due at the latest.
    pub(super) const fn is_unanswered(&self, now: u64) -> bool {
        self.is_unanswered_after(now, UNANSWERED_AFTER)
    }

    const fn is_unanswered_after(&self, now: u64, nanoseconds: u64) -> bool {
        self.role == ROLE_INITIATOR
            && !self.answered
            && !self.has_data()
            && now.saturating_sub(self.started_at) > nanoseconds
    }

    /// Whether nothing more will come. The row is known since `since`; `newest` is the start of the newest session with
    /// data of the same peer.
    pub(super) fn is_over(&self, since: u64, newest: Option<u64>, now: u64) -> bool {
        let silent = now.saturating_sub(self.data_at.max(self.started_at));
        if self.role == 0 {
            // Whoever took it fills it in at once.
            return now.saturating_sub(since) > GIVEN_UP_AFTER;
        }
        // Indexes that somebody invented behind a peer's address come once or twice.
        let is_stray = self.role == ROLE_UNSEEN && self.totals.received <= STRAY && silent > GIVEN_UP_AFTER;
        let is_followed = newest.is_some_and(|newest| newest > self.started_at);
        silent > REJECT_AFTER
            || is_stray
            || is_followed && silent > FOLLOWED_AFTER
            || self.is_unanswered_after(now, GIVEN_UP_AFTER)
    }
}

/// Adds to totals.
pub(super) const fn add(into: &mut SessionTotals, totals: &SessionTotals) {
    into.received += totals.received;
    into.reordered += totals.reordered;
    into.duplicated += totals.duplicated;
    into.lost += totals.lost;
    into.unjudged += totals.unjudged;
}

/// What was added to totals since they were `before`.
pub(super) const fn since(totals: &SessionTotals, before: &SessionTotals) -> SessionTotals {
    SessionTotals {
        received: totals.received.saturating_sub(before.received),
        reordered: totals.reordered.saturating_sub(before.reordered),
        duplicated: totals.duplicated.saturating_sub(before.duplicated),
        lost: totals.lost.saturating_sub(before.lost),
        unjudged: totals.unjudged.saturating_sub(before.unjudged),
    }
}

#[cfg(test)]
mod tests {
    use tailgauge_ebpf::layout::ROLE_RESPONDER;
    use tailgauge_ebpf::sequence::receive;

    use super::*;

    fn memory() -> Vec<AtomicU64> {
        (0..WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    const fn seconds(seconds: u64) -> u64 {
        seconds * SECOND
    }

    #[test]
    fn a_row_is_read_as_the_programs_write_it() {
        let memory = memory();
        let row = Row::new(&memory).unwrap();
        let session = Session {
            slot: 7,
            role: ROLE_RESPONDER,
            started_at: 11,
            answered: 1,
            data_window: 3,
            next: 5,
            settled: 4,
            received: 21,
            reordered: 22,
            duplicated: 23,
            lost: 24,
            unjudged: 25,
            ..Session::EMPTY
        };
        // SAFETY: `Session` is plain old data of as many words, without padding.
        let words: [u64; WORDS] = unsafe { std::mem::transmute(session) };
        for (word, value) in memory.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        let said = Said {
            slot: 7,
            role: ROLE_RESPONDER,
            started_at: 11,
            answered: true,
            data_at: 3 * WINDOW_NANOSECONDS,
            next: 5,
            settled: 4,
            totals: SessionTotals { received: 21, reordered: 22, duplicated: 23, lost: 24, unjudged: 25 },
        };
        assert_eq!(row.read(), said);
        row.disown();
        assert_eq!(row.read(), Said { slot: UNATTRIBUTED, ..said }, "all else stays");
        assert!(Row::new(&memory[1..]).is_none());
    }

    #[test]
    fn a_freed_row_is_empty_and_every_counter_is_judged() {
        let memory = memory();
        let row = Row::new(&memory).unwrap();
        for counter in [0, 1, 3, 4, 3, 40] {
            receive(&row, counter, true);
        }
        let key = AtomicU64::new(9);
        let totals = row.free(&key);
        let expected = SessionTotals { received: 5, duplicated: 1, lost: 41 - 5, ..SessionTotals::default() };
        assert_eq!(totals, expected);
        assert_eq!(key.load(Ordering::Relaxed), 0);
        assert!(memory.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn an_initiation_is_unanswered_after_the_next_was_due_and_over_when_it_is_given_up() {
        let said = Said { role: ROLE_INITIATOR, started_at: seconds(100), ..Said::default() };
        let at = |said: Said, now| (said.is_unanswered(seconds(now)), said.is_over(0, None, seconds(now)));
        assert_eq!(at(said, 106), (false, false));
        assert_eq!(at(said, 107), (true, false));
        assert_eq!(at(said, 111), (true, true));
        assert_eq!(at(Said { answered: true, ..said }, 111), (false, false));
        assert_eq!(at(Said { next: 1, ..said }, 111), (false, false), "data is an answer");
        assert_eq!(at(Said { role: ROLE_RESPONDER, ..said }, 111), (false, false));
    }

    #[test]
    fn a_session_is_over_when_it_is_rejected_or_was_followed_and_is_silent() {
        let said = Said {
            role: ROLE_UNSEEN,
            started_at: seconds(100),
            data_at: seconds(200),
            next: 9,
            totals: SessionTotals { received: 9, ..SessionTotals::default() },
            ..Said::default()
        };
        let is_over = |newest: Option<u64>, now| said.is_over(0, newest.map(seconds), seconds(now));
        assert!(!is_over(None, 380));
        assert!(is_over(None, 381));
        assert!(!is_over(Some(100), 231), "itself is no newer one");
        assert!(!is_over(Some(150), 230));
        assert!(is_over(Some(150), 231));
        assert!(!said.is_over(0, Some(seconds(150)), 0), "a clock read before the data came");
        let stray = Said { totals: SessionTotals { received: 2, ..said.totals }, ..said };
        assert!(!stray.is_over(0, None, seconds(210)));
        assert!(stray.is_over(0, None, seconds(211)));
        assert!(!Said { role: ROLE_RESPONDER, ..stray }.is_over(0, None, seconds(211)), "tailscaled's own");
    }

    #[test]
    fn a_row_that_nobody_fills_in_is_free_again_in_the_end() {
        let said = Said::default();
        assert!(!said.is_over(seconds(500), None, seconds(510)));
        assert!(said.is_over(seconds(500), None, seconds(511)));
    }
}
