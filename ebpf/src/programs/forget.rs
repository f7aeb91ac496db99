//! Keeps the verifier from following a program anew for each value that it knows: it compares all that matters later
//! with what it has seen at the same place, and goes on unless that was as general.

use core::{arch::asm, mem::offset_of, ptr};

use aya_ebpf::bindings::__sk_buff;

/// The same number, of which LLVM knows nothing, and of which the verifier forgets the bounds that it has learned from
/// comparisons. Where it must forget constants, too, there is [`hidden`].
#[inline(always)]
pub(super) fn forgotten(mut value: u64) -> u64 {
    // SAFETY: arithmetic without effect.
    unsafe { asm!("{0} |= 0", inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// The same number, of which the verifier knows nothing at all, not even if it is a constant or was compared before.
/// It must know nothing of `noise` either, which may be any word from a map.
#[inline(always)]
pub(super) fn hidden(mut value: u64, noise: u64) -> u64 {
    // SAFETY: arithmetic without effect. Not `pure`: LLVM would take two copies, of which one is compared, for one.
    unsafe {
        asm!("{0} += {1}", "{0} -= {1}", inout(reg) value, in(reg) noise, options(nomem, nostack));
    }
    value
}

/// Noise where there is nothing but a packet: the verifier does not know that its length is always the same.
#[inline(always)]
pub(super) fn noise(skb: *mut __sk_buff) -> u64 {
    let noise: u64;
    // SAFETY: a field of the context is read. The factor makes use of all 64 bits.
    unsafe {
        asm!("{0} = *(u32 *)({1} + {2})", "{0} *= -1640531527", out(reg) noise, in(reg) skb,
            const offset_of!(__sk_buff, len), options(pure, readonly, nostack));
    }
    noise
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
