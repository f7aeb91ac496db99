//! What became of the messages of a session, by the counter that WireGuard gives each of them in clear.
//!
//! The words of a [`Session`] are changed by the programs on any CPU and by the agent, so every change is one atomic
//! operation. A ring of blocks says which of the last [`crate::layout::SESSION_WINDOW`] counters came. Nothing is called lost while
//! it may still come: a counter is lost when its block makes room for a later one, or when the agent settles what is
//! older than some seconds. A stretch that may have come another way is void: it is neither received nor lost.

use core::mem::offset_of;

use crate::layout::{BLOCK, SESSION_BLOCKS, Session};

/// Tries against other writers of the same word.
const TRIES: u32 = 4;
/// No session gets this far: it ends after 180 s (`REJECT_AFTER_TIME`). Blocks of lower counters fit into their word.
const TOO_HIGH: u64 = 1 << 32;

/// More cannot get lost while a session is followed: that is ten million a second.
const TOO_MANY: u64 = 1 << 25;

/// The words of a session that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// [`Session::next`].
    Next = offset_of!(Session, next) as isize / 8,
    /// [`Session::void_from`].
    VoidFrom = offset_of!(Session, void_from) as isize / 8,
    /// [`Session::void_to`].
    VoidTo = offset_of!(Session, void_to) as isize / 8,
    /// [`Session::settled`].
    Settled = offset_of!(Session, settled) as isize / 8,
    /// [`Session::received`].
    Received = offset_of!(Session, received) as isize / 8,
    /// [`Session::reordered`].
    Reordered = offset_of!(Session, reordered) as isize / 8,
    /// [`Session::duplicated`].
    Duplicated = offset_of!(Session, duplicated) as isize / 8,
    /// [`Session::lost`].
    Lost = offset_of!(Session, lost) as isize / 8,
    /// [`Session::unjudged`].
    Unjudged = offset_of!(Session, unjudged) as isize / 8,
}

/// Word at which [`Session::ring`] begins.
pub const RING: usize = offset_of!(Session, ring) / 8;

/// The memory of a session. Every operation is atomic on its word.
pub trait Memory {
    /// Reads a word.
    fn get(&self, field: Field) -> u64;
    /// Writes a word.
    fn set(&self, field: Field, value: u64);
    /// Adds to a word.
    fn add(&self, field: Field, value: u64);
    /// Replaces `old` by `new`; returns what was there.
    fn exchange(&self, field: Field, old: u64, new: u64) -> u64;
    /// Reads a word of the ring; `block` is taken modulo [`SESSION_BLOCKS`].
    fn block(&self, block: u64) -> u64;
    /// Replaces a word of the ring; returns what was there.
    fn exchange_block(&self, block: u64, old: u64, new: u64) -> u64;
    /// The same number. The programs hide from the verifier what it knows of it.
    fn hidden(&self, value: u64) -> u64 {
        value
    }
    /// Calls [`open_block`] for every block from `first` to `last`, which are no more than the ring has. False if these
    /// are too many to do so.
    fn open_blocks(&self, first: u64, last: u64) -> bool
    where
        Self: Sized,
    {
        (first..=last).for_each(|block| open_block(self, block));
        true
    }
}

/// A word of the ring for `block` with the counters `seen`.
#[inline(always)]
const fn word(block: u64, seen: u32) -> u64 {
    (block + 1) << 32 | seen as u64
}

/// The block of a word plus one, 0 for a word that was never used.
#[inline(always)]
const fn tag(word: u64) -> u64 {
    word >> 32
}

/// Takes in a message. `continuous` says that nothing hints at messages having gone another way since the last one:
/// then the counters between are missing, not void.
#[inline(always)]
pub fn receive<M: Memory>(session: &M, counter: u64, continuous: bool) {
    let next = session.get(Field::Next);
    // What was found in the place of `next`.
    let mut found = !next;
    let compared = session.hidden(counter);
    if compared == next && compared < TOO_HIGH {
        found = session.exchange(Field::Next, next, next + 1);
        // Usually its block is open.
        if found == next && see_once(session, counter) {
            session.add(Field::Received, 1);
            return;
        }
    }
    unusual(session, counter, next, session.hidden(found), session.hidden(u64::from(continuous)));
}

/// Takes in a message that is not the next one of an open block. If `next` was `found`, the session went from there to
/// beyond it; otherwise it is late, or ahead, or another CPU was faster.
#[inline(never)]
fn unusual<M: Memory>(session: &M, counter: u64, next: u64, found: u64, continuous: u64) {
    let (mut next, mut won) = (next, found == next);
    let is_absurd = session.hidden(counter) >= TOO_HIGH;
    for _ in 0..TRIES {
        if won || is_absurd {
            break;
        }
        next = session.get(Field::Next);
        if session.hidden(counter) < next {
            break;
        }
        won = session.exchange(Field::Next, next, counter + 1) == next;
    }
    let next = session.hidden(next);
    if won {
        advance(session, counter, next, continuous != 0);
    } else if session.hidden(counter) < next {
        late(session, counter, next);
    } else {
        session.add(Field::Unjudged, 1);
    }
}

/// The session went from `next` to beyond `counter`, which came just now.
#[inline(always)]
fn advance<M: Memory>(session: &M, counter: u64, next: u64, continuous: bool) {
    session.add(Field::Received, 1);
    let is_judged = counter == next || continuous && counter - next < TOO_MANY;
    if is_judged && open(session, counter, next) {
        see(session, counter);
    } else {
        skip(session, counter, next);
    }
}

/// Opens the blocks of all counters from `next` to `counter`; false if these are too many.
#[inline(never)]
fn open<M: Memory>(session: &M, counter: u64, next: u64) -> bool {
    let (first, last) = (next / BLOCK, counter / BLOCK);
    let blocks = last - first;
    let fit = session.hidden(blocks.min(SESSION_BLOCKS as u64 - 1));
    if !session.open_blocks(last - fit, last) {
        return false;
    }
    if blocks > fit {
        // Blocks that do not even fit into the ring are lost as a whole; but the first of them may have been in use.
        let in_use = (next % BLOCK).div_ceil(BLOCK);
        session.add(Field::Lost, (blocks - fit - in_use) * BLOCK);
    }
    true
}

/// The counters from `next` to before `counter` may have come another way.
#[inline(never)]
fn skip<M: Memory>(session: &M, counter: u64, next: u64) {
    session.set(Field::VoidFrom, next);
    session.set(Field::VoidTo, counter);
    let (before, last) = (next / BLOCK, counter / BLOCK);
    let (from, to) = ((next % BLOCK) as u32, (counter % BLOCK) as u32);
    // Void counters of a block that is in use are marked as seen, so that they are never missing.
    let up_to = u32::MAX >> (31 - to);
    if from != 0 {
        let in_use = u32::MAX << from;
        if before == last {
            return fill(session, last, up_to & in_use);
        }
        fill(session, before, in_use);
    }
    open_block(session, last);
    fill(session, last, up_to);
}

/// Gives a block its word of the ring. What is missing of the block that had it is lost.
#[inline(always)]
pub fn open_block<M: Memory>(session: &M, block: u64) {
    for _ in 0..TRIES {
        let before = session.block(block);
        if tag(before) > block {
            return;
        }
        if session.exchange_block(block, before, word(block, 0)) == before {
            if before != 0 {
                session.add(Field::Lost, u64::from((!(before as u32)).count_ones()));
            }
            return;
        }
        // A message of the block that goes came at the last moment.
    }
}

/// Marks counters of an open block as seen.
#[inline(always)]
fn fill<M: Memory>(session: &M, block: u64, seen: u32) {
    for _ in 0..TRIES {
        let before = session.block(block);
        if tag(before) != block + 1
            || session.exchange_block(block, before, before | u64::from(seen)) == before
        {
            break;
        }
    }
}

/// What the ring says of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It had not been seen, and is now.
    First,
    /// It had been seen.
    Again,
    /// Its block is not in the ring.
    Gone,
}

/// Marks a counter as seen.
#[inline(always)]
fn see<M: Memory>(session: &M, counter: u64) -> Seen {
    let block = counter / BLOCK;
    let bit = 1 << (counter % BLOCK);
    for _ in 0..TRIES {
        let before = session.block(block);
        if tag(before) != block + 1 {
            break;
        }
        if before & bit != 0 {
            return Seen::Again;
        }
        if session.exchange_block(block, before, before | bit) == before {
            return Seen::First;
        }
    }
    Seen::Gone
}

/// Marks a counter as seen if nothing is in the way.
#[inline(always)]
fn see_once<M: Memory>(session: &M, counter: u64) -> bool {
    let block = counter / BLOCK;
    let bit = 1 << (counter % BLOCK);
    let before = session.block(block);
    tag(before) == block + 1
        && before & bit == 0
        && session.exchange_block(block, before, before | bit) == before
}

/// A message with a counter below the highest one.
#[inline(never)]
fn late<M: Memory>(session: &M, counter: u64, next: u64) {
    let in_ring = (next - 1) / BLOCK - counter / BLOCK < SESSION_BLOCKS as u64;
    let is_void = counter >= session.get(Field::VoidFrom) && counter < session.get(Field::VoidTo);
    let seen = if in_ring && !is_void && counter >= session.get(Field::Settled) {
        see(session, counter)
    } else {
        Seen::Gone
    };
    match seen {
        Seen::First => {
            session.add(Field::Received, 1);
            session.add(Field::Reordered, 1);
        }
        // Below the void stretch, the mark may be that of an earlier one; and the agent may have made it just now.
        Seen::Again if counter >= session.get(Field::VoidTo).max(session.get(Field::Settled)) => {
            session.add(Field::Duplicated, 1);
        }
        _ => session.add(Field::Unjudged, 1),
    }
}

/// Judges all counters below `up_to` for good: what has not come is lost, what still comes is not judged. For the
/// agent, once they are old enough.
pub fn settle<M: Memory>(session: &M, up_to: u64) {
    session.set(Field::Settled, up_to);
    for place in 0..SESSION_BLOCKS as u64 {
        for _ in 0..TRIES {
            let before = session.block(place);
            let Some(block) = tag(before).checked_sub(1) else { break };
            let due = up_to.saturating_sub(block * BLOCK).min(BLOCK);
            let missing = !(before as u32) & (((1u64 << due) - 1) as u32);
            if missing == 0 {
                break;
            }
            if session.exchange_block(place, before, before | u64::from(missing)) == before {
                session.add(Field::Lost, u64::from(missing.count_ones()));
                break;
            }
        }
    }
}
