//! Which peer an endpoint belongs to. What a disco key or a session has proven goes before what the agent was told,
//! as the same private address may be a candidate of peers at different sites.
//!
//! A direct-mapped cache in front of both tables. An entry is valid until either changes.

use core::ptr::addr_of_mut;

use aya_ebpf::bindings::BPF_ANY;
use tailgauge_ebpf::layout::UNATTRIBUTED;

use super::{
    atomic::add,
    maps::{CONTROL, ENDPOINTS, EndpointWords, LEARNED_ENDPOINTS, SLOTS},
};

const CELLS: usize = 2048;
/// Bits of the slot in [`Cell::tag`], stored plus one, so that an empty cell never matches.
const SLOT_BITS: u32 = 17;
/// Bits of the generation above it.
const GENERATION_BITS: u32 = 15;

/// CPUs write cells without a lock. The tag holds a hash of the endpoint, so that a mixture of two entries does not
/// pass for either.
#[repr(C, align(32))]
#[derive(Clone, Copy)]
struct Cell {
    endpoint: EndpointWords,
    /// `hash << 32 | generation << SLOT_BITS | slot + 1`.
    tag: u64,
}

static mut CELL: [Cell; CELLS] = [Cell { endpoint: [0; 3], tag: 0 }; CELLS];

/// Changes of [`LEARNED_ENDPOINTS`].
static mut LEARNED: u64 = 0;

/// A number that stands for an endpoint where a mistake is harmless.
#[inline(always)]
pub(super) fn fingerprint(endpoint: &EndpointWords) -> u64 {
    let mixed = endpoint[0].wrapping_mul(0xff51_afd7_ed55_8ccd)
        ^ endpoint[1].wrapping_mul(0xc4ce_b9fe_1a85_ec53).rotate_left(29)
        ^ endpoint[2];
    mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The slot of the peer at `endpoint`, of which `hash` is the fingerprint.
#[inline(always)]
pub(super) fn slot(endpoint: &EndpointWords, hash: u64) -> u32 {
    let Some(control) = CONTROL.get(0) else { return UNATTRIBUTED };
    // SAFETY: words are read whole.
    let learned = unsafe { addr_of_mut!(LEARNED).read_volatile() };
    let generation =
        learned.wrapping_add(u64::from(control.endpoints_generation)) & ((1 << GENERATION_BITS) - 1);
    let tag = hash >> 32 << 32 | generation << SLOT_BITS;
    // SAFETY: in bounds; any mixture of words that another CPU left is recognised by its tag.
    unsafe {
        let cell = addr_of_mut!(CELL).cast::<Cell>().add((hash >> 53) as usize & (CELLS - 1));
        let known = addr_of_mut!((*cell).tag).read_volatile();
        let [a, b, c] = addr_of_mut!((*cell).endpoint).read_volatile();
        let slot = known.wrapping_sub(tag).wrapping_sub(1);
        if slot < (1 << SLOT_BITS) - 1 && a == endpoint[0] && b == endpoint[1] && c == endpoint[2] {
            return slot as u32;
        }
        let slot = find(endpoint);
        addr_of_mut!((*cell).endpoint).write_volatile(*endpoint);
        addr_of_mut!((*cell).tag).write_volatile(tag | u64::from(slot + 1));
        slot
    }
}

#[inline(never)]
fn find(endpoint: &EndpointWords) -> u32 {
    // SAFETY: a `u32` is read at once, whatever happens to the entry.
    let slot = unsafe { LEARNED_ENDPOINTS.get(endpoint).or_else(|| ENDPOINTS.get(endpoint)) };
    bounded(slot.map_or(UNATTRIBUTED, |slot| *slot))
}

/// A slot that has rows; or none.
#[inline(always)]
pub(super) fn bounded(slot: u32) -> u32 {
    if slot < SLOTS.load() { slot } else { UNATTRIBUTED }
}

/// Remembers that the peer of `slot` is at `endpoint`.
#[inline(never)]
pub(super) fn learn(endpoint: &EndpointWords, slot: u32) {
    // SAFETY: as in `find`.
    if unsafe { LEARNED_ENDPOINTS.get(endpoint) } == Some(&slot) {
        return;
    }
    // The table makes room by forgetting; if it cannot, the endpoint stays unknown until the next message.
    if LEARNED_ENDPOINTS.insert(endpoint, &slot, u64::from(BPF_ANY)).is_ok() {
        // SAFETY: in bounds.
        unsafe { add(addr_of_mut!(LEARNED), 1) };
    }
}
