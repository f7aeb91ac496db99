//! Reads the kernel's own memory, at addresses that it has itself and offsets that the agent found in its description.

use core::mem::size_of;

use aya_ebpf::helpers::bpf_probe_read_kernel;

/// `T`, integers, at `offset` bytes of what is at `address`; `None` where there is no memory of the kernel.
#[inline(always)]
pub(super) fn peek<T>(address: u64, offset: u32) -> Option<T> {
    const { assert!(size_of::<usize>() == size_of::<u64>()) };
    let address = address.wrapping_add(u64::from(offset)) as *const T;
    // SAFETY: the helper checks the address and fails where there is no memory of the kernel.
    unsafe { bpf_probe_read_kernel(address) }.ok()
}

/// An address at an offset; 0 when it cannot be read.
#[inline(always)]
pub(super) fn follow(address: u64, offset: u32) -> u64 {
    peek(address, offset).unwrap_or(0)
}
