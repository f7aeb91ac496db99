//! Keeps the verifier from following a program anew for each value that it knows.

use core::arch::asm;

/// The same number, about which the verifier forgets what it has learned from constants and comparisons: it would
/// follow the rest of the program anew for each value. Older kernels do so even where the value does not matter.
#[inline(always)]
pub(super) fn forgotten(mut value: u64) -> u64 {
    // SAFETY: arithmetic without effect.
    unsafe { asm!("{0} |= 0", inout(reg) value, options(pure, nomem, nostack)) };
    value
}
