//! Atomic operations on map memory. The BPF target of rustc declares no compare-and-swap, so that
//! `core::sync::atomic` lacks them, but every kernel since 5.12 has the instructions.

use core::arch::asm;

/// `*target += value`; no ordering.
///
/// # Safety
/// `target` is valid and aligned.
#[inline(always)]
pub(super) unsafe fn add(target: *mut u64, value: u64) {
    // SAFETY: the caller vouches for `target`.
    unsafe {
        asm!("lock *(u64 *)({target} + 0) += {value}", target = in(reg) target, value = in(reg) value,
            options(nostack));
    }
}

/// Stores `value` and returns what was there.
///
/// # Safety
/// `target` is valid and aligned.
#[inline(always)]
pub(super) unsafe fn swap(target: *mut u64, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: the caller vouches for `target`.
    unsafe {
        asm!("{value} = xchg_64({target} + 0, {value})", target = in(reg) target, value = inout(reg) value,
            options(nostack));
    }
    value
}

/// Stores `new` if `current` is there; returns what was there.
///
/// # Safety
/// `target` is valid and aligned.
#[inline(always)]
pub(super) unsafe fn compare_exchange(target: *mut u64, current: u64, new: u64) -> u64 {
    let mut value = current;
    // SAFETY: the caller vouches for `target`.
    unsafe {
        asm!("r0 = cmpxchg_64({target} + 0, r0, {new})", target = in(reg) target, new = in(reg) new,
            inout("r0") value, options(nostack));
    }
    value
}
