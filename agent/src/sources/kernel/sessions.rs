//! The accounts of all WireGuard sessions: judged for good when they are old enough, summed by slot, and freed when
//! they are over, so that a peer's totals survive its sessions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use tailgauge_ebpf::layout::{ROLE_INITIATOR, Session, SessionSet, UNATTRIBUTED, maps};
use tailgauge_ebpf::sequence::settle;

use super::KernelError;
use super::initiations::Initiation;
use super::mmap::Rows;
use super::object::Object;
use super::session::{Row, Said, WORDS, add, since};
use crate::model::kernel::{Kernel, MapUse, SessionTotals};

/// A message that is later than this is called lost. Nanoseconds.
const SETTLE_AFTER: u64 = 3_000_000_000;
/// Marks are at least this far apart.
const MARK_EVERY: u64 = 900_000_000;
/// Marks kept; enough to reach back over [`SETTLE_AFTER`].
const MARKS: usize = 4;

/// How far a session was at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at: u64,
    next: u64,
}

/// What is remembered of a session.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Its key in the set.
    key: u64,
    /// When it was first seen.
    since: u64,
    /// What is in the totals already.
    summed: SessionTotals,
    /// Newest first.
    marks: [Mark; MARKS],
    /// It is an initiation that was found to have no answer.
    is_unanswered: bool,
}

impl Known {
    fn new(key: u64, now: u64) -> Self {
        Self { key, since: now, ..Self::default() }
    }

    /// Where the session was [`SETTLE_AFTER`] ago or earlier; notes where it is.
    fn mark(&mut self, next: u64, now: u64) -> u64 {
        let old = self.marks.iter().find(|mark| now.saturating_sub(mark.at) >= SETTLE_AFTER);
        let due = old.map_or(0, |mark| mark.next);
        if now.saturating_sub(self.marks[0].at) >= MARK_EVERY {
            self.marks.rotate_right(1);
            self.marks[0] = Mark { at: now, next };
        }
        due
    }
}

/// The memory of all sessions.
#[derive(Clone, Copy)]
struct Table<'a> {
    keys: &'a [AtomicU64],
    rows: &'a [AtomicU64],
}

impl<'a> Table<'a> {
    /// Sessions there are: row, key and what the row says.
    fn taken(self) -> impl Iterator<Item = (u32, &'a AtomicU64, Row<'a>)> {
        let taken = (0..).zip(self.keys).filter(|(_, key)| key.load(Ordering::Acquire) != 0);
        taken.filter_map(move |(row, key)| {
            let start = row as usize * WORDS;
            Some((row, key, Row::new(self.rows.get(start..start + WORDS)?)?))
        })
    }

    /// When this node asked the peer of a slot for a session again, after it had done so at `started_at`.
    fn next_initiation(self, slot: u32, started_at: u64) -> Option<u64> {
        let all = self.taken().map(|(_, _, session)| session.read());
        let own = all.filter(|said| said.slot == slot && said.role == ROLE_INITIATOR);
        own.map(|said| said.started_at).filter(|at| *at > started_at).min()
    }
}

/// The totals of a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    totals: SessionTotals,
    /// They changed since they were copied.
    is_changed: bool,
}

/// Totals by slot, and what they are made of.
#[derive(Debug)]
struct Ledger {
    known: HashMap<u32, Known>,
    accounts: Vec<Account>,
    retired: SessionTotals,
    /// Slots whose totals changed since they were copied.
    changed: Vec<u32>,
    /// By slot: start of the newest session with data.
    newest: HashMap<u32, u64>,
    taken: u64,
    slots: u32,
}

impl Ledger {
    fn new(slots: u32) -> Self {
        Self {
            known: HashMap::new(),
            accounts: Vec::new(),
            retired: SessionTotals::default(),
            changed: Vec::new(),
            newest: HashMap::new(),
            taken: 0,
            slots,
        }
    }

    fn known(&mut self, row: u32, key: u64, now: u64) -> &mut Known {
        let known = self.known.entry(row).or_insert_with(|| Known::new(key, now));
        if known.key != key {
            *known = Known::new(key, now);
        }
        known
    }

    /// Adds to a slot's totals.
    fn credit(&mut self, slot: u32, totals: &SessionTotals) {
        if *totals == SessionTotals::default() {
            return;
        }
        let slot = if slot < self.slots { slot } else { UNATTRIBUTED };
        if self.accounts.len() <= slot as usize {
            self.accounts.resize(slot as usize + 1, Account::default());
        }
        add(&mut self.accounts[slot as usize].totals, totals);
        self.note(slot);
    }

    /// Notes that a slot's totals changed, once.
    fn note(&mut self, slot: u32) {
        if let Some(account) = self.accounts.get_mut(slot as usize)
            && !std::mem::replace(&mut account.is_changed, true)
        {
            self.changed.push(slot);
        }
    }

    /// Takes over what came since the last time. It is the present owner's.
    fn sum(&mut self, row: u32, key: u64, said: &Said, now: u64) {
        let known = self.known(row, key, now);
        let new = since(&said.totals, &known.summed);
        known.summed = said.totals;
        self.credit(said.slot, &new);
    }

    fn sum_all(&mut self, table: Table<'_>, now: u64) {
        for (row, key, session) in table.taken() {
            self.sum(row, key.load(Ordering::Relaxed), &session.read(), now);
        }
    }

    /// Judges what is old enough, frees what is over. `unanswered` gets initiations without an answer, each once.
    fn sweep(&mut self, table: Table<'_>, now: u64, unanswered: &mut Vec<Initiation>) {
        self.newest.clear();
        self.taken = 0;
        for (row, key, session) in table.taken() {
            self.taken += 1;
            let key = key.load(Ordering::Relaxed);
            let said = session.read();
            let known = self.known(row, key, now);
            let due = known.mark(said.next, now);
            if said.is_unanswered(now) && !known.is_unanswered {
                known.is_unanswered = true;
                let Said { slot, started_at, .. } = said;
                let followed_at = table.next_initiation(slot, started_at);
                unanswered.push(Initiation { slot, started_at, followed_at });
            }
            if due > said.settled {
                settle(&session, due);
            }
            self.sum(row, key, &session.read(), now);
            if said.has_data() && said.slot != UNATTRIBUTED {
                let newest = self.newest.entry(said.slot).or_default();
                *newest = said.started_at.max(*newest);
            }
        }
        for (row, key, session) in table.taken() {
            let said = session.read();
            let known = *self.known(row, key.load(Ordering::Relaxed), now);
            if said.is_over(known.since, self.newest.get(&said.slot).copied(), now) {
                self.credit(said.slot, &since(&session.free(key), &known.summed));
                self.known.remove(&row);
                self.taken = self.taken.saturating_sub(1);
            }
        }
    }

    /// Moves a slot's totals to the retired ones, and makes its sessions nobody's.
    fn retire(&mut self, table: Table<'_>, slot: u32, now: u64) {
        self.sum_all(table, now);
        for (_, _, session) in table.taken().filter(|(_, _, session)| session.read().slot == slot) {
            session.disown();
        }
        if let Some(account) = self.accounts.get_mut(slot as usize) {
            add(&mut self.retired, &std::mem::take(&mut account.totals));
            self.note(slot);
        }
    }

    /// Copies what changed; returns the slots.
    fn copy(&mut self, kernel: &mut Kernel, rows: u32) -> impl Iterator<Item = u32> {
        kernel.retired_sessions = self.retired;
        if kernel.sessions.len() != rows as usize {
            let totals = self.accounts.iter().map(|account| account.totals).take(rows as usize);
            kernel.sessions.clear();
            kernel.sessions.extend(totals);
            kernel.sessions.resize(rows as usize, SessionTotals::default());
        }
        for slot in &self.changed {
            if let Some(account) = self.accounts.get_mut(*slot as usize) {
                account.is_changed = false;
                if let Some(into) = kernel.sessions.get_mut(*slot as usize) {
                    *into = account.totals;
                }
            }
        }
        self.changed.drain(..)
    }
}

/// The maps of sessions, and their accounts.
#[derive(Debug)]
pub(super) struct Sessions {
    sets: Rows<SessionSet>,
    rows: Rows<Session>,
    ledger: Ledger,
    capacity: u32,
}

impl Sessions {
    pub(super) fn open(object: &mut Object) -> Result<Self, KernelError> {
        let sizes = object.sizes();
        let mut sets = Rows::new(maps::SESSION_SETS, object.take_map(maps::SESSION_SETS)?)?;
        sets.ensure(sizes.sets)?;
        let mut rows = Rows::new(maps::SESSIONS, object.take_map(maps::SESSIONS)?)?;
        rows.ensure(sizes.sessions())?;
        Ok(Self { sets, rows, ledger: Ledger::new(sizes.slots), capacity: sizes.sessions() })
    }

    fn parts(&mut self) -> (Table<'_>, &mut Ledger) {
        let keys = self.sets.words();
        // The mapping is rounded up to whole pages.
        let keys = &keys[..keys.len().min(self.capacity as usize)];
        (Table { keys, rows: self.rows.words() }, &mut self.ledger)
    }

    /// Judges what is old enough at `now`, nanoseconds of CLOCK_MONOTONIC, and frees what is over. `unanswered` gets
    /// initiations without an answer, each once. Call it about once a second.
    pub(super) fn sweep(&mut self, now: u64, unanswered: &mut Vec<Initiation>) {
        let (table, ledger) = self.parts();
        ledger.sweep(table, now, unanswered);
    }

    /// Copies the totals of `rows` slots into the model; `changed` gets slots of which any changed.
    pub(super) fn read(&mut self, kernel: &mut Kernel, rows: u32, now: u64, changed: impl FnMut(u32)) {
        let (table, ledger) = self.parts();
        ledger.sum_all(table, now);
        ledger.copy(kernel, rows).for_each(changed);
    }

    /// Moves a slot's totals to the retired ones.
    pub(super) fn retire(&mut self, slot: u32, now: u64) {
        let (table, ledger) = self.parts();
        ledger.retire(table, slot, now);
    }

    /// Sessions at the last sweep.
    pub(super) const fn fill(&self) -> MapUse {
        MapUse { name: maps::SESSIONS, entries: self.ledger.taken, capacity: self.capacity as u64 }
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
