//! Two ways to read a packet: the linear part directly, and everything by helper.

use core::{
    arch::asm,
    mem::{MaybeUninit, offset_of},
    ptr,
};

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes};
use tailgauge_ebpf::packet::Source;

use super::forget::{hidden, noise};

/// The linear part, read directly: almost always all headers. Reads at a variable offset are left to [`Whole`].
pub(super) struct Linear {
    start: usize,
    end: usize,
    length: u32,
}

impl Linear {
    #[inline(always)]
    pub(super) fn new(skb: &__sk_buff) -> Self {
        let (start, end): (usize, usize);
        // SAFETY: two fields of the context. They are declared with 32 bits but read as pointers; LLVM, knowing
        // only the declaration, would compare them as 32-bit numbers, which the verifier forbids.
        unsafe {
            asm!("{start} = *(u32 *)({skb} + {data})", "{end} = *(u32 *)({skb} + {data_end})",
                skb = in(reg) ptr::from_ref(skb), start = out(reg) start, end = lateout(reg) end,
                data = const offset_of!(__sk_buff, data), data_end = const offset_of!(__sk_buff, data_end),
                options(pure, readonly, nostack));
        }
        Self { start, end, length: skb.len }
    }
}

impl Linear {
    /// What follows `SKIP` bytes.
    #[inline(always)]
    pub(super) fn after<const SKIP: u32>(self) -> Self {
        let start = self.start + SKIP as usize;
        Self { start, end: self.end, length: self.length.saturating_sub(SKIP) }
    }
}

impl Linear {
    /// Two words at the constant offset `AT`; `None` when they are not there. Taken as bytes, they would be put together
    /// one by one.
    #[inline(always)]
    pub(super) fn words<const AT: usize>(&self) -> Option<[u64; 2]> {
        if self.start + AT + 16 > self.end {
            return None;
        }
        // SAFETY: within the linear part, which the verifier checks too.
        Some(unsafe { [self.word::<AT, 0>(), self.word::<AT, 8>()] })
    }
}

impl Source for Linear {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.length
    }

    #[inline(always)]
    fn fixed<const AT: usize, const N: usize>(&self) -> Option<[u8; N]> {
        // Pointers are compared, never subtracted: that is the form of a bounds check that the verifier knows.
        if self.start + AT + N > self.end {
            return None;
        }
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        let to = bytes.as_mut_ptr().cast::<u8>();
        // SAFETY: within the linear part, which the verifier checks too; every byte of N is written, as N is one
        // of these lengths.
        unsafe {
            const { assert!(matches!(N, 1 | 4 | 8 | 16 | 20 | 24 | 32 | 40)) };
            if N >= 8 {
                to.cast::<u64>().write_unaligned(self.word::<AT, 0>());
            }
            if N >= 16 {
                to.add(8).cast::<u64>().write_unaligned(self.word::<AT, 8>());
            }
            if N >= 24 {
                to.add(16).cast::<u64>().write_unaligned(self.word::<AT, 16>());
            }
            if N >= 32 {
                to.add(24).cast::<u64>().write_unaligned(self.word::<AT, 24>());
            }
            if N >= 40 {
                to.add(32).cast::<u64>().write_unaligned(self.word::<AT, 32>());
            }
            if N == 4 {
                to.cast::<u32>().write_unaligned(self.half::<AT, 0>());
            }
            if N == 20 {
                to.add(16).cast::<u32>().write_unaligned(self.half::<AT, 16>());
            }
            if N == 1 {
                to.write(self.byte::<AT>());
            }
            Some(bytes.assume_init())
        }
    }

    #[inline(always)]
    fn variable<const N: usize>(&self, _offset: u32) -> Option<[u8; N]> {
        None
    }
}

/// Loads of a packet, which need not be aligned. LLVM takes unaligned loads apart into bytes, as it does not
/// know that the verifier allows them here (but not on the stack); so they are written out.
///
/// # Safety
/// What is loaded lies within the linear part.
impl Linear {
    #[inline(always)]
    unsafe fn word<const AT: usize, const MORE: usize>(&self) -> u64 {
        let value: u64;
        // SAFETY: the caller has checked the bounds.
        unsafe {
            asm!("{value} = *(u64 *)({start} + {at})", value = out(reg) value, start = in(reg) self.start,
                at = const AT + MORE, options(pure, readonly, nostack));
        }
        value
    }

    #[inline(always)]
    unsafe fn half<const AT: usize, const MORE: usize>(&self) -> u32 {
        let value: u64;
        // SAFETY: the caller has checked the bounds.
        unsafe {
            asm!("{value} = *(u32 *)({start} + {at})", value = out(reg) value, start = in(reg) self.start,
                at = const AT + MORE, options(pure, readonly, nostack));
        }
        value as u32
    }

    #[inline(always)]
    unsafe fn byte<const AT: usize>(&self) -> u8 {
        let value: u64;
        // SAFETY: the caller has checked the bounds.
        unsafe {
            asm!("{value} = *(u8 *)({start} + {at})", value = out(reg) value, start = in(reg) self.start,
                at = const AT, options(pure, readonly, nostack));
        }
        value as u8
    }
}

/// Aligned on the stack, so that it is not accessed byte by byte.
#[repr(C, align(8))]
struct Aligned<T>(T);

/// The whole packet, linear or not.
pub(super) struct Whole(pub(super) *mut __sk_buff);

impl Source for Whole {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context that the kernel passed.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    fn fixed<const AT: usize, const N: usize>(&self) -> Option<[u8; N]> {
        self.variable(AT as u32)
    }

    #[inline(always)]
    fn variable<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<Aligned<[u8; N]>>::uninit();
        // SAFETY: the helper writes N bytes or fails.
        unsafe {
            (bpf_skb_load_bytes(self.0.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) == 0)
                .then(|| bytes.assume_init().0)
        }
    }

    #[inline(always)]
    fn hidden(&self, value: u32) -> u32 {
        hidden(value.into(), noise(self.0)) as u32
    }
}

/// What follows `offset` bytes of the packet, linear or not.
pub(super) struct Rest {
    pub(super) skb: *mut __sk_buff,
    pub(super) offset: u32,
}

impl Source for Rest {
    #[inline(always)]
    fn length(&self) -> u32 {
        Whole(self.skb).length().saturating_sub(self.offset)
    }

    #[inline(always)]
    fn fixed<const AT: usize, const N: usize>(&self) -> Option<[u8; N]> {
        self.variable(AT as u32)
    }

    #[inline(always)]
    fn variable<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        Whole(self.skb).variable(self.offset + offset)
    }

    #[inline(always)]
    fn hidden(&self, value: u32) -> u32 {
        Whole(self.skb).hidden(value)
    }
}
