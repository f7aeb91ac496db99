//! The usual datagram: one transport message, by itself and where the programs can read it without a helper. All others
//! are walked.

use core::ptr::addr_of_mut;

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use tailgauge_ebpf::layout::{PathCounters, RECEIVE, ROLE_UNSEEN, UDP_PATHS, UNATTRIBUTED, line_index};

use super::{
    atomic::add,
    endpoints::{self, fingerprint},
    forget::{forgotten, hidden},
    maps::{EndpointWords, PEER_UNDERLAY, SHARDS},
    sessions,
    tcp::now,
};

/// A transport message on a direct path.
pub(super) struct Single {
    /// The other side.
    pub(super) endpoint: EndpointWords,
    /// As in the message.
    pub(super) counter: u64,
    /// This node's index when it was received.
    pub(super) index: u32,
    /// Layer 3 and up.
    pub(super) bytes: u32,
    /// `PATH_*`.
    pub(super) path: u32,
}

/// Counts it, and follows its session if it arrived.
#[inline(never)]
pub(super) fn pass<const DIRECTION: u32>(single: &Single) {
    let hash = fingerprint(&single.endpoint);
    let mut slot = endpoints::slot(&single.endpoint, hash);
    if DIRECTION == RECEIVE {
        slot = follow(single, slot, hash);
    }
    add_to::<DIRECTION>(slot, single.path, single.bytes, 1, 0);
}

/// The slot of the peer, which the session may know better than the endpoint.
#[inline(always)]
fn follow(single: &Single, slot: u32, hash: u64) -> u32 {
    let mut row = sessions::find(single.index);
    if row == sessions::NONE {
        if slot == UNATTRIBUTED {
            return slot;
        }
        row = sessions::begin(single.index, ROLE_UNSEEN, slot, hash, now());
    }
    let slot = hidden(slot.into(), hash) as u32;
    let owner = sessions::receive(row, single.counter, slot, hash);
    if owner != slot {
        // The session proves who has moved to this endpoint.
        endpoints::learn(&single.endpoint, owner);
    }
    owner
}

/// Adds bytes of transport messages and other packets to a peer's row.
#[inline(always)]
pub(super) fn add_to<const DIRECTION: u32>(slot: u32, path: u32, bytes: u32, data: u32, others: u32) {
    let shards = SHARDS.load();
    // SAFETY: the helper has no precondition.
    let shard = unsafe { bpf_get_smp_processor_id() } & (shards - 1);
    let Some(line) = PEER_UNDERLAY.get_ptr_mut(line_index(slot, shard, shards, DIRECTION)) else { return };
    // The mask stays in the program for verifiers that do not see how small the sum of a path must be.
    let path = forgotten(u64::from(path)) as usize & (UDP_PATHS - 1);
    // SAFETY: a row of the map; the mask keeps the path within bounds.
    unsafe {
        let counters = addr_of_mut!((*line).path).cast::<PathCounters>().add(path);
        add(addr_of_mut!((*counters).bytes), u64::from(bytes));
        add(addr_of_mut!((*counters).data), u64::from(data));
        if others != 0 {
            add(addr_of_mut!((*counters).others), u64::from(others));
        }
    }
}
