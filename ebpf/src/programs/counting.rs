//! Adds a packet to its owner's row.

use core::ptr::addr_of_mut;

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use tailgauge_ebpf::layout::{Wire, line_index};

use super::{
    atomic::add,
    attribution::Owner,
    maps::{COUNTERS, SHARDS},
};

/// Counts one skb of `length` bytes that is, or was, `wire` on its way.
#[inline(always)]
pub(super) fn count<const DIRECTION: u32>(owner: Owner, length: u32, wire: Wire) {
    let shards = SHARDS.load();
    // SAFETY: the helper has no precondition.
    let shard = unsafe { bpf_get_smp_processor_id() } & (shards - 1);
    let Some(line) = COUNTERS.get_ptr_mut(line_index(owner.slot, shard, shards, DIRECTION)) else {
        return;
    };
    // SAFETY: a row of the map; its class is within bounds, which the verifier checks too.
    unsafe {
        let row = addr_of_mut!((*line).wire).cast::<Wire>().add(owner.class as usize);
        add(addr_of_mut!((*row).packets), wire.packets);
        add(addr_of_mut!((*row).bytes), wire.bytes);
        add(addr_of_mut!((*line).skbs), 1);
        add(addr_of_mut!((*line).skb_bytes), u64::from(length));
    }
}
