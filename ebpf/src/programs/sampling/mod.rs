//! Perf event: some times a second, the few figures that make or break an exit node, read where the kernel has them.
//!
//! Through files and sockets the same takes ten times as long, most of it for waking a thread and finding its way back
//! into the caches. It runs as an interrupt, so there is no long way: `find` has left the addresses of what does not
//! move, and everything that may be gone by now is known by a number that no other one has (a socket by its cookie, a
//! device by its index, a process by its start).

mod cpus;
mod disciplines;
mod find;
mod list;
mod process;
mod sockets;

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::bpf_loop;
use tailgauge_ebpf::layout::{self, DROP_REASONS, DROP_TUNNEL, Fields};

use super::{
    atomic::swap,
    maps::{DROPS, FOUND, REASON_FULL_RING, SAMPLES, WATCHED},
    peek::follow,
    tcp::now,
};

/// Samples taken so far. Written by one program at a time: it is attached to one CPU.
static mut TAKEN: u64 = 0;

/// Program on the event.
#[unsafe(no_mangle)]
#[unsafe(link_section = "perf_event")]
pub(super) extern "C" fn sampling(context: *mut c_void) -> i32 {
    let at = now();
    let (Some(watched), Some(found)) = (WATCHED.get(0), FOUND.get(0)) else { return 0 };
    // SAFETY: see `TAKEN`.
    let number = unsafe { ptr::addr_of!(TAKEN).read_volatile() } + 1;
    let row = number as u32 % layout::SAMPLES;
    let Some(sample) = SAMPLES.get_ptr_mut(row) else { return 0 };
    // SAFETY: the map's row; the agent reads it, and looks at its number before and after.
    let sample = unsafe { &mut *sample };
    let mark = ptr::addr_of_mut!(sample.number);
    // A swap is a barrier on every machine, a store is not.
    // SAFETY: as above.
    unsafe { swap(mark, 0) };
    sample.generation = watched.generation;
    sample.at = at;
    sample.ring_drops = ring_drops();
    process::read(&watched.fields, watched.process, found, sample);
    sockets::read(watched, found, sample);
    disciplines::read(watched, found, sample);
    cpus::read(watched, found, row, clock(&watched.fields, context));
    sample.cost = now() - at;
    // SAFETY: as above.
    unsafe {
        swap(mark, number);
        ptr::addr_of_mut!(TAKEN).write_volatile(number);
    }
    0
}

/// The scheduler's clock on this CPU (`local_clock`), which pressure is kept by and which runs while nobody does: the
/// event was read by it before the program was called (`perf_swevent_hrtimer` in kernel/events/core.c). CLOCK_MONOTONIC
/// is another one, which the scheduler's drifts away from. 0 when it cannot be read.
#[inline(always)]
fn clock(fields: &Fields, context: *mut c_void) -> u64 {
    follow(follow(context as u64, fields.perf_context_event), fields.perf_event_clock)
}

/// What `drops` counted of the tunnel.
#[inline(always)]
fn ring_drops() -> u64 {
    let (Some(row), reason) = (DROPS.get(DROP_TUNNEL), REASON_FULL_RING.load() as usize) else { return 0 };
    if reason < DROP_REASONS { row.reasons[reason] } else { 0 }
}

/// Calls `step` for the numbers from 0 to `count`, until it returns other than 0.
#[inline(always)]
fn repeat<T>(count: u32, step: unsafe extern "C" fn(u32, *mut T) -> i64, context: &mut T) {
    // SAFETY: the callback gets `context`, which outlives the call.
    unsafe { bpf_loop(count, step as *mut c_void, ptr::from_mut(context).cast(), 0) };
}

/// What callbacks need to find their way.
type Offsets = *const Fields;
