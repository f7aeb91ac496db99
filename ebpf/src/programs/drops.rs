//! Tracepoint `kfree_skb`: dropped packets of this network namespace, by device and reason.
//!
//! A raw tracepoint: its arguments come as numbers, and fields of the kernel's structures are read at offsets that
//! the loader found in the kernel's own description. A drop costs a few reads, a packet that is not dropped nothing.

use core::{arch::asm, ptr, ptr::addr_of_mut};

use tailgauge_ebpf::layout::{
    DROP_OTHER, DROP_REASONS, DROP_ROWS, DROP_TUNNEL, DROP_UNKNOWN, DROPPED_BY_RING, DROPPED_BY_SOCKET,
};

use super::{
    atomic::add,
    health,
    maps::{
        DEVICE_INDEX, DEVICE_NAMESPACE, DROP_ARGUMENTS, DROP_DEVICES, DROPS, NAMESPACE_INODE, OWN_NAMESPACE,
        REASON_FULL_RING, REASON_SOCKET_BUFFER, SKB_DEVICE, SKB_SOCKET, SOCKET_NAMESPACE,
    },
    peek::{follow, peek},
    windows,
};

/// Places of the tracepoint's arguments.
const SKB: usize = 0;
const REASON: usize = 2;
const RECEIVER: usize = 3;

/// Address of our `struct net`, once it was seen: it lives as long as the agent does.
static mut OWN: u64 = 0;

/// Whose drop it is.
enum Owner {
    /// Ours, in a row of the counters.
    Row(u32),
    /// Another network namespace's.
    Foreign,
    /// Nothing says whose.
    Unknown,
}

/// Program on the raw tracepoint.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/kfree_skb")]
pub(super) extern "C" fn drops(context: *const u64) -> i32 {
    let argument = |place: usize| {
        // SAFETY: an argument of the tracepoint; the kernel refuses a program that reads more than there are.
        unsafe { context.add(place).read_volatile() }
    };
    let arguments = DROP_ARGUMENTS.load() as usize;
    let reason = if arguments > REASON { argument(REASON) as u32 } else { u32::MAX };
    let receiver = if arguments > RECEIVER { argument(RECEIVER) } else { 0 };
    match owner(argument(SKB), receiver) {
        Owner::Row(row) => count(row, reason),
        Owner::Foreign => {}
        Owner::Unknown => health::drop_without_namespace(),
    }
    0
}

/// The receiving socket decides where the kernel names it; else the device; else the sender's socket, which may be
/// in another namespace than a device that the packet has reached.
#[inline(always)]
fn owner(skb: u64, receiver: u64) -> Owner {
    let device = follow(skb, SKB_DEVICE.load());
    // What lies there is no pointer while the packet is in the queue of a socket; then this fails.
    let of_device = if device == 0 { None } else { is_own(follow(device, DEVICE_NAMESPACE.load())) };
    let mut socket = receiver;
    if socket == 0 && of_device.is_none() {
        socket = follow(skb, SKB_SOCKET.load());
    }
    let own = if socket == 0 { of_device } else { is_own(follow(socket, SOCKET_NAMESPACE.load())) };
    match (own, of_device) {
        (Some(true), Some(true)) => Owner::Row(row(device)),
        (Some(true), _) => Owner::Row(DROP_UNKNOWN),
        (Some(false), _) => Owner::Foreign,
        (None, _) => Owner::Unknown,
    }
}

/// Whether a `struct net` is ours; `None` for what is not one.
#[inline(always)]
fn is_own(namespace: u64) -> Option<bool> {
    if namespace == 0 {
        return None;
    }
    // SAFETY: one aligned word, which only ever gets one value.
    if namespace == unsafe { ptr::addr_of!(OWN).read_volatile() } {
        return Some(true);
    }
    let inode = peek::<u32>(namespace, NAMESPACE_INODE.load())?;
    if inode != OWN_NAMESPACE.load() {
        return Some(false);
    }
    // SAFETY: as above.
    unsafe { addr_of_mut!(OWN).write_volatile(namespace) };
    Some(true)
}

/// Row of a device.
#[inline(always)]
fn row(device: u64) -> u32 {
    let Some(index) = peek::<u32>(device, DEVICE_INDEX.load()) else { return DROP_UNKNOWN };
    // SAFETY: a `u32` is read at once, whatever user space does to the entry.
    match unsafe { DROP_DEVICES.get(index) } {
        Some(row) if *row < DROP_ROWS => *row,
        _ => DROP_OTHER,
    }
}

#[inline(always)]
fn count(row: u32, reason: u32) {
    let Some(counters) = DROPS.get_ptr_mut(row) else { return };
    let mut place = u64::from(reason).min(DROP_REASONS as u64 - 1);
    // SAFETY: a move to itself: see `histogram::record`.
    unsafe { asm!("{0} = {0}", inout(reg) place, options(nomem, nostack)) };
    if place >= DROP_REASONS as u64 {
        return;
    }
    // SAFETY: within the map's row.
    unsafe { add(addr_of_mut!((*counters).reasons).cast::<u64>().add(place as usize), 1) };
    if reason == REASON_FULL_RING.load() && row == DROP_TUNNEL {
        windows::record_drop::<DROPPED_BY_RING>();
    } else if reason == REASON_SOCKET_BUFFER.load() {
        windows::record_drop::<DROPPED_BY_SOCKET>();
    }
}
