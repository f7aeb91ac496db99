//! Adds samples to histograms in maps.

use core::{arch::asm, ptr::addr_of_mut};

use tailgauge_ebpf::histogram::{BUCKETS, Histogram, index};

use super::atomic::add;

/// Counts `value`.
///
/// # Safety
/// `histogram` lies within a map's row.
#[inline(never)]
pub(super) unsafe fn record(histogram: *mut Histogram, value: u64) {
    let mut bucket = index(value) as u64;
    // SAFETY: a move to itself. It hides the value's origin from LLVM, so that the comparison below stays in
    // the program for the verifier to see.
    unsafe { asm!("{0} = {0}", inout(reg) bucket, options(nomem, nostack)) };
    if bucket >= BUCKETS as u64 {
        return;
    }
    // SAFETY: the caller vouches for the row, the comparison for the bucket.
    unsafe {
        add(addr_of_mut!((*histogram).buckets).cast::<u64>().add(bucket as usize), 1);
        add(addr_of_mut!((*histogram).count), 1);
        add(addr_of_mut!((*histogram).sum), value);
    }
}
