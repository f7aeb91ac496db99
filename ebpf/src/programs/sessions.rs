//! WireGuard sessions by this node's own index. A row is taken when tailscaled chooses the index, or when a known peer
//! uses one whose handshake went unseen; the agent frees it.

use core::{
    ffi::c_void,
    ptr::{self, addr_of_mut},
};

use aya_ebpf::helpers::bpf_loop;
use tailgauge_ebpf::{
    layout::{
        ROLE_RESPONDER, ROLE_UNSEEN, SESSION_BLOCKS, SESSION_TAKEN, SESSION_WAYS, SILENCE_WINDOWS, Session,
        UNATTRIBUTED, WireGuard, session_set,
    },
    sequence::{self, Field, Memory, RING},
};

use super::{
    atomic::{add, compare_exchange},
    forget::hidden,
    health,
    maps::{HAS_LOOP, SESSION_SETS, SESSIONS, SETS, WIREGUARD},
    windows,
};

/// Ways of a set that sessions whose handshake went unseen may take.
const UNSEEN_WAYS: usize = SESSION_WAYS / 2;

/// No row.
pub(super) const NONE: u32 = u32::MAX;

/// A row as the memory of a sequence.
struct Row {
    session: *mut Session,
    /// Of which the verifier knows nothing.
    noise: u64,
}

impl Row {
    /// `session` is a row of the map.
    #[inline(always)]
    const unsafe fn new(session: *mut Session) -> Self {
        // SAFETY: the caller vouches for the row.
        Self { session, noise: unsafe { (*session).started_at } }
    }

    #[inline(always)]
    fn field(&self, field: Field) -> *mut u64 {
        // SAFETY: a word of the row.
        unsafe { self.session.cast::<u64>().add(field as usize) }
    }

    #[inline(always)]
    fn ring(&self, block: u64) -> *mut u64 {
        // SAFETY: the mask keeps it within the ring.
        unsafe { self.session.cast::<u64>().add(RING + (block as usize & (SESSION_BLOCKS - 1))) }
    }
}

impl Memory for Row {
    #[inline(always)]
    fn get(&self, field: Field) -> u64 {
        // SAFETY: within the row; words are read and written whole.
        unsafe { self.field(field).read_volatile() }
    }

    #[inline(always)]
    fn set(&self, field: Field, value: u64) {
        // SAFETY: as above.
        unsafe { self.field(field).write_volatile(value) }
    }

    #[inline(always)]
    fn add(&self, field: Field, value: u64) {
        // SAFETY: as above.
        unsafe { add(self.field(field), value) }
    }

    #[inline(always)]
    fn exchange(&self, field: Field, old: u64, new: u64) -> u64 {
        // SAFETY: as above.
        unsafe { compare_exchange(self.field(field), old, new) }
    }

    #[inline(always)]
    fn block(&self, block: u64) -> u64 {
        // SAFETY: as above.
        unsafe { self.ring(block).read_volatile() }
    }

    #[inline(always)]
    fn exchange_block(&self, block: u64, old: u64, new: u64) -> u64 {
        // SAFETY: as above.
        unsafe { compare_exchange(self.ring(block), old, new) }
    }

    #[inline(always)]
    fn hidden(&self, value: u64) -> u64 {
        hidden(value, self.noise)
    }

    #[inline(always)]
    fn open_blocks(&self, first: u64, last: u64) -> bool {
        let count = last - first + 1;
        if HAS_LOOP.load() == 0 {
            if count > BLOCKS_WITHOUT_LOOP {
                return false;
            }
            sequence::open_block(self, first);
            sequence::open_block(self, last);
            return true;
        }
        let mut opening = Opening { session: self.session, first };
        // SAFETY: the callback gets `opening`, which outlives the call.
        unsafe {
            bpf_loop(count as u32, open_next as *mut c_void, ptr::from_mut(&mut opening).cast(), 0);
        }
        true
    }
}

/// Blocks that can be opened without a loop.
const BLOCKS_WITHOUT_LOOP: u64 = 2;

/// Blocks of a session from `first` on that are to be opened.
struct Opening {
    session: *mut Session,
    first: u64,
}

/// Callback of `bpf_loop`.
unsafe extern "C" fn open_next(place: u32, opening: *mut Opening) -> i64 {
    // SAFETY: what `open_blocks` passed.
    let (row, first) = unsafe { (Row::new((*opening).session), (*opening).first) };
    sequence::open_block(&row, first + u64::from(place));
    0
}

/// The row of a session, or [`NONE`].
#[inline(always)]
pub(super) fn find(index: u32) -> u32 {
    let set = session_set(index, SETS.load());
    let Some(keys) = SESSION_SETS.get_ptr(set) else { return NONE };
    let key = SESSION_TAKEN | u64::from(index);
    let mut way = 0;
    while way < SESSION_WAYS {
        // SAFETY: within the row; words are read whole.
        if unsafe { keys.cast::<u64>().add(way).read_volatile() } == key {
            return set * SESSION_WAYS as u32 + way as u32;
        }
        way += 1;
    }
    NONE
}

/// Takes a row for a session that tailscaled, or a peer in `slot`, began just now; [`NONE`] when there is no room, and
/// when it had been known before.
#[inline(never)]
pub(super) fn begin(index: u32, role: u32, slot: u32, endpoint: u64, now: u64) -> u32 {
    if find(index) != NONE {
        return NONE;
    }
    let set = session_set(index, SETS.load());
    let Some(keys) = SESSION_SETS.get_ptr_mut(set) else { return NONE };
    // The verifier would follow what comes after the search anew for each way.
    let slot = hidden(slot.into(), endpoint) as u32;
    let mut way = 0;
    while way < SESSION_WAYS {
        // Anybody can invent indexes behind a peer's address: they never take the room of tailscaled's own.
        if role == ROLE_UNSEEN && way >= UNSEEN_WAYS {
            break;
        }
        // SAFETY: as above.
        let free = unsafe {
            compare_exchange(keys.cast::<u64>().add(way), 0, SESSION_TAKEN | u64::from(index)) == 0
        };
        if free {
            let row = hidden(u64::from(set * SESSION_WAYS as u32 + way as u32), endpoint) as u32;
            let Some(session) = SESSIONS.get_ptr_mut(row) else { return NONE };
            let window = windows::current();
            // SAFETY: a row of the map, zeroed when it was freed, which is ours until the index is used.
            unsafe {
                (*session).slot = slot;
                (*session).started_at = now;
                (*session).endpoint = endpoint;
                // Where data came by UDP until now, the first message of the session is expected by UDP, too.
                let flows = role != ROLE_UNSEEN
                    && slot != UNATTRIBUTED
                    && WIREGUARD.get_ptr(slot).is_some_and(|peer: *const WireGuard| {
                        !is_positive(window.wrapping_sub((*peer).data_window + SILENCE_WINDOWS))
                    });
                if flows {
                    (*session).data_window = window;
                }
                addr_of_mut!((*session).role).write_volatile(role);
            }
            return row;
        }
        way += 1;
    }
    health::session_without_room();
    NONE
}

/// Takes in a transport message that came from `endpoint`, which belongs to `slot` as far as known. Returns the slot of
/// the session.
#[inline(always)]
pub(super) fn receive(row: u32, counter: u64, slot: u32, endpoint: u64) -> u32 {
    let Some(session) = SESSIONS.get_ptr_mut(row) else { return slot };
    let window = windows::current();
    // SAFETY: a row of the map.
    unsafe {
        // What is compared before the sequence is followed is hidden from the verifier: it would follow that anew.
        let row = Row::new(session);
        let known = (*session).slot;
        let moved = (*session).endpoint ^ endpoint;
        let silence = window.wrapping_sub((*session).data_window);
        let continuous =
            row.hidden(moved) == 0 && !is_positive(row.hidden(silence).wrapping_sub(SILENCE_WINDOWS));
        sequence::receive(&row, counter, continuous);
        if is_positive(silence) || moved != 0 || (*session).answered == 0 || known == UNATTRIBUTED {
            note(session, slot, endpoint, window);
        }
        if slot == UNATTRIBUTED { known } else { slot }
    }
}

/// Whether a difference is above zero.
#[inline(always)]
const fn is_positive(difference: u64) -> bool {
    difference.cast_signed() > 0
}

/// Takes in a transport message that came together with the last one of the same session.
#[inline(always)]
pub(super) fn receive_next(row: u32, counter: u64) {
    if let Some(session) = SESSIONS.get_ptr_mut(row) {
        // SAFETY: a row of the map.
        let row = unsafe { Row::new(session) };
        sequence::receive(&row, counter, true);
    }
}

/// Messages of the session passed unread: what is missing before the next one is no loss.
#[inline(always)]
pub(super) fn interrupt(row: u32) {
    if let Some(session) = SESSIONS.get_ptr_mut(row) {
        // SAFETY: a row of the map.
        unsafe { addr_of_mut!((*session).data_window).write_volatile(0) };
    }
}

/// Notes where and when data came and, in the peer's row, that it completes a handshake that this node answered.
#[inline(never)]
unsafe fn note(session: *mut Session, slot: u32, endpoint: u64, window: u64) {
    // SAFETY: rows of their maps.
    unsafe {
        (*session).endpoint = endpoint;
        if is_positive(window.wrapping_sub((*session).data_window)) {
            (*session).data_window = window;
        }
        if (*session).slot == UNATTRIBUTED {
            (*session).slot = slot;
        }
        let Some(peer) = WIREGUARD.get_ptr_mut((*session).slot) else { return };
        (*peer).data_window = window;
        if (*session).answered == 0
            && compare_exchange(addr_of_mut!((*session).answered), 0, 1) == 0
            && (*session).role == ROLE_RESPONDER
        {
            add(addr_of_mut!((*peer).completed).cast::<u64>().add(ROLE_RESPONDER as usize - 1), 1);
        }
    }
}
