//! Finds the one segment among thousands that completes a handshake, without a map look-up on the others.
//!
//! A SYN-ACK arms the flow's cell with the acknowledgement number that completes it; a segment with that number
//! is worth a look-up. Flows share cells: an overwritten cell loses a sample, and the look-up refuses a wrong one.

use core::ptr::addr_of_mut;

const CELLS: usize = 1 << 16;

static mut EXPECTED: [u32; CELLS] = [0; CELLS];

/// The cell of a flow: the same for both directions, as it is the peer's side that comes first.
#[inline(always)]
pub(super) fn cell(peer: u64, other: u64, ports: u32) -> u32 {
    let mixed = (peer ^ other.rotate_left(32))
        .wrapping_add(u64::from(ports).wrapping_mul(0xd6e8_feb8_6659_fd93))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as u32
}

#[inline(always)]
fn at(cell: u32) -> *mut u32 {
    // SAFETY: the mask keeps it in bounds.
    unsafe { addr_of_mut!(EXPECTED).cast::<u32>().add(cell as usize & (CELLS - 1)) }
}

/// Whether `acknowledgement` may complete a handshake of the flow.
#[inline(always)]
pub(super) fn expects(cell: u32, acknowledgement: u32) -> bool {
    // SAFETY: in bounds; words are read and written whole.
    unsafe { at(cell).read_volatile() == acknowledgement }
}

/// Waits for `acknowledgement`.
#[inline(always)]
pub(super) fn arm(cell: u32, acknowledgement: u32) {
    // SAFETY: as above.
    unsafe { at(cell).write_volatile(acknowledgement) };
}

/// Waits no more, unless the cell is another flow's by now.
#[inline(always)]
pub(super) fn disarm(cell: u32, acknowledgement: u32) {
    if expects(cell, acknowledgement) {
        arm(cell, 0);
    }
}
