//! Bytes, or drops, per aligned window, summed into histograms and one-second maxima without a clock per packet.

use core::ptr::addr_of_mut;

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_ns};
use tailgauge_ebpf::layout::{PEAK_SECONDS, WINDOW_NANOSECONDS, Window};

use super::{
    atomic::{add, compare_exchange, swap},
    histogram,
    maps::{SLOTS, WINDOWS},
};

/// Windows in a second.
const PER_SECOND: u64 = 1_000_000_000 / WINDOW_NANOSECONDS;
/// Tries against concurrent writers of the same maximum: user space, and another CPU's window.
const PEAK_TRIES: u32 = 8;

/// CPUs that have a clock of their own; others share one.
const CLOCKS: usize = 256;
/// Bits of the tick in [`Clock`]; the rest is the window.
const TICK_BITS: u32 = 24;

/// The window in which a tick began: `window << TICK_BITS | tick`. One word, so that it is never torn.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Clock(u64);

static mut CLOCK: [Clock; CLOCKS] = [Clock(0); CLOCKS];

/// Number of the current window, right to one tick. The helper for the tick is inlined by the kernel; the
/// one for the time costs more than counting does, and is called once a tick.
#[inline(always)]
pub(super) fn current() -> u64 {
    const MASK: u64 = (1 << TICK_BITS) - 1;
    // SAFETY: no precondition.
    let (cpu, tick) = unsafe { (bpf_get_smp_processor_id() as usize, bpf_jiffies64() & MASK) };
    // SAFETY: in bounds, aligned; written by CPUs that agree on the value to one tick.
    unsafe {
        let clock = addr_of_mut!(CLOCK).cast::<u64>().add((cpu & (CLOCKS - 1)) * 8);
        let last = clock.read_volatile();
        if last & MASK == tick {
            return last >> TICK_BITS;
        }
        let window = bpf_ktime_get_ns() / WINDOW_NANOSECONDS;
        clock.write_volatile(window << TICK_BITS | tick);
        window
    }
}

/// Adds `bytes` to the open windows of `slot` and of the tunnel.
#[inline(always)]
pub(super) fn record<const DIRECTION: u32>(slot: u32, bytes: u64) {
    let now = current();
    add_to::<DIRECTION>(slot, now, bytes);
    add_to::<DIRECTION>(SLOTS.load(), now, bytes);
}

/// Adds one packet to the open window of drops, of which `KIND` is one of `DROPPED_BY_*`.
#[inline(always)]
pub(super) fn record_drop<const KIND: u32>() {
    add_to::<KIND>(SLOTS.load() + 1, current(), 1);
}

#[inline(always)]
fn add_to<const DIRECTION: u32>(row: u32, now: u64, bytes: u64) {
    let Some(windows) = WINDOWS.get_ptr_mut(row) else { return };
    // SAFETY: a row of the map.
    unsafe {
        let window = addr_of_mut!((*windows).direction).cast::<Window>().add(DIRECTION as usize);
        let open = addr_of_mut!((*window).id).read_volatile();
        if now > open {
            close(window, open, now);
        }
        add(addr_of_mut!((*window).bytes), bytes);
    }
}

/// Opens window `now`. Of all that see `open` end, one wins the exchange and takes its bytes over; an add
/// that comes late lands in the new window and is not lost. User space closes idle windows the same way.
#[inline(never)]
unsafe fn close(window: *mut Window, open: u64, now: u64) {
    // SAFETY: the caller passes a row of the map.
    unsafe {
        if compare_exchange(addr_of_mut!((*window).id), open, now) != open {
            return;
        }
        let bytes = swap(addr_of_mut!((*window).bytes), 0);
        if bytes == 0 {
            return;
        }
        histogram::record(addr_of_mut!((*window).histogram), bytes);
        raise(addr_of_mut!((*window).peaks).cast(), open / PER_SECOND, bytes);
    }
}

/// Raises the maximum of `second`. As the second is in the upper half, newer and larger are one comparison.
#[inline(always)]
unsafe fn raise(peaks: *mut u64, second: u64, bytes: u64) {
    let new = second << 32 | bytes.min(u64::from(u32::MAX));
    // SAFETY: within the ring.
    unsafe {
        let peak = peaks.add(second as usize & (PEAK_SECONDS - 1));
        let mut seen = peak.read_volatile();
        for _ in 0..PEAK_TRIES {
            if new <= seen {
                return;
            }
            let found = compare_exchange(peak, seen, new);
            if found == seen {
                return;
            }
            seen = found;
        }
    }
}
