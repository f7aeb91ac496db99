//! Keeps the verifier from following a program anew for each value that it knows.

use core::{arch::asm, mem::offset_of, ptr};

use aya_ebpf::bindings::__sk_buff;

/// The same number, about which the verifier forgets what it has learned from constants and comparisons: it would
/// follow the rest of the program anew for each value. Older kernels do so even where the value does not matter.
#[inline(always)]
pub(super) fn forgotten(mut value: u64) -> u64 {
    // SAFETY: arithmetic without effect.
    unsafe { asm!("{0} |= 0", inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// The same number, even if the verifier knows it: it does not know that the length of a packet is always the same.
#[inline(always)]
pub(super) fn forget_constant(skb: *mut __sk_buff, value: u64) -> u64 {
    let mut forgotten = value;
    // SAFETY: a field of the context is read twice.
    unsafe {
        asm!("{t} = *(u32 *)({skb} + {length})", "{value} += {t}",
            "{t} = *(u32 *)({skb} + {length})", "{value} -= {t}",
            skb = in(reg) skb, value = inout(reg) forgotten, t = out(reg) _,
            length = const offset_of!(__sk_buff, len), options(pure, readonly, nostack));
    }
    forgotten
}

/// The same number by way of a map's memory, of which the verifier knows nothing: it forgets constants, too.
#[inline(always)]
pub(super) fn through<T: Copy>(memory: &mut T, value: T) -> T {
    let memory = ptr::from_mut(memory);
    // SAFETY: a valid reference.
    unsafe {
        memory.write_volatile(value);
        memory.read_volatile()
    }
}
