//! Remembers the class of addresses: the longest-prefix look-up takes as long as all the rest of a packet.
//!
//! A direct-mapped cache in front of `ROUTES_*`. An entry is valid for one generation of the routes, which the
//! agent advances whenever it changes them.

use core::ptr::addr_of_mut;

const CELLS: usize = 2048;

/// Bits of the class in [`Cell::tag`], stored plus one, so that an empty cell never matches.
const CLASS_BITS: u32 = 2;
/// Bits of the class and the family.
const LOW_BITS: u32 = CLASS_BITS + 1;

/// CPUs write cells without a lock. The tag holds a hash of the address, so that a mixture of two entries does
/// not pass for either.
#[repr(C, align(32))]
#[derive(Clone, Copy)]
struct Cell {
    address: [u64; 2],
    /// `hash << 32 | generation << LOW_BITS | family << CLASS_BITS | class + 1`.
    tag: u64,
}

static mut CELL: [Cell; CELLS] = [Cell { address: [0; 2], tag: 0 }; CELLS];

/// The class of `address` in this generation of the routes; `find` when it is not known.
#[inline(always)]
pub(super) fn remembered(address: [u64; 2], is_v6: bool, generation: u32, find: impl FnOnce() -> u32) -> u32 {
    let hash =
        (address[0].wrapping_mul(0xff51_afd7_ed55_8ccd) ^ address[1]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let tag = hash >> 32 << 32 | u64::from(generation << LOW_BITS | u32::from(is_v6) << CLASS_BITS);
    // SAFETY: in bounds; any mixture of words that another CPU left is recognised by its tag.
    unsafe {
        let cell = addr_of_mut!(CELL).cast::<Cell>().add((hash >> 53) as usize & (CELLS - 1));
        let found = addr_of_mut!((*cell).tag).read_volatile();
        let [high, low] = addr_of_mut!((*cell).address).read_volatile();
        let class = found.wrapping_sub(tag).wrapping_sub(1);
        if class < (1 << CLASS_BITS) - 1 && high == address[0] && low == address[1] {
            return class as u32;
        }
        let class = find();
        addr_of_mut!((*cell).address).write_volatile(address);
        addr_of_mut!((*cell).tag).write_volatile(tag | u64::from(class + 1));
        class
    }
}
