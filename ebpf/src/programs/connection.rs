//! Established connections: counted once when they end, with their duration.

use core::ptr::addr_of_mut;

use aya_ebpf::bindings::BPF_ANY;
use tailgauge_ebpf::layout::{Connection, OPENER_HOST, Tcp};

use super::{
    atomic::add,
    health, histogram,
    maps::{CONNECTIONS, TCP},
    tcp::{Segment, now},
};

/// How a connection ended.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// The first FIN of either side.
    Fin,
    /// RST of either side.
    Reset,
}

/// Remembers a connection until it ends.
#[inline(always)]
pub(super) fn open(segment: &Segment, connection: &Connection) {
    if CONNECTIONS.insert(segment.key.flow(), connection, u64::from(BPF_ANY)).is_err() {
        health::connection_insert_failure();
    }
}

/// Counts the end of a connection, once: whoever deletes it counts. Returns whether it was known.
#[inline(always)]
pub(super) fn close(segment: &Segment, end: End) -> bool {
    // SAFETY: copied at once; the entry may be reused by another flow only after its deletion below.
    let Some(connection) = (unsafe { CONNECTIONS.get(segment.key.flow()) }).copied() else { return false };
    if CONNECTIONS.remove(segment.key.flow()).is_err() {
        return true;
    }
    if let Some(tcp) = TCP.get_ptr_mut(connection.slot) {
        count_end(tcp, end);
        let milliseconds = now().saturating_sub(connection.established_at) / 1_000_000;
        // SAFETY: the map's row.
        unsafe { histogram::record(addr_of_mut!((*tcp).duration), milliseconds) };
    }
    true
}

/// Counts how a connection ended.
#[inline(always)]
pub(super) fn count_end(tcp: *mut Tcp, end: End) {
    // SAFETY: a row of TCP.
    unsafe {
        match end {
            End::Fin => add(addr_of_mut!((*tcp).closed_fin), 1),
            End::Reset => add(addr_of_mut!((*tcp).closed_reset), 1),
        }
    }
}

/// Adds one to the counter of `opener`.
///
/// # Safety
/// `counters` lies in a row of TCP.
#[inline(always)]
pub(super) unsafe fn count(counters: *mut [u64; 2], opener: u32) {
    // SAFETY: the caller vouches for the row.
    unsafe { add(counters.cast::<u64>().add(usize::from(opener == OPENER_HOST as u32)), 1) };
}
