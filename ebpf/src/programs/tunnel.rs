//! What both directions of the tunnel device do with a packet: look at it, and let it pass.

use core::ptr::addr_of_mut;

use aya_ebpf::bindings::__sk_buff;
use tailgauge_ebpf::{
    layout::{CLASS_EXIT, UNATTRIBUTED, Wire},
    packet::{Packet, Transport, V4, V6, segments, version},
};

use super::{
    atomic::add,
    attribution::{Family, Owner, attribute},
    counting::count,
    maps::HEALTH,
    skb::{Linear, Whole},
    tcp::{self, Segment},
    windows,
};

/// `TC_ACT_UNSPEC`, which is also `TCX_NEXT`: whoever comes next decides.
const NEXT: i32 = -1;

/// Counts one packet.
#[inline(always)]
pub(super) fn observe<const DIRECTION: u32>(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context that the kernel passed.
    let linear = Linear::new(unsafe { &*skb });
    let seen = match version(&linear) {
        Some(4) => observe_linear::<DIRECTION, V4>(skb, &linear),
        Some(6) => observe_linear::<DIRECTION, V6>(skb, &linear),
        _ => false,
    };
    if !seen {
        observe_whole::<DIRECTION>(skb);
    }
    NEXT
}

/// The usual packet: headers linear, at constant offsets, and sound. Returns whether it was one.
#[inline(always)]
fn observe_linear<const DIRECTION: u32, A: Family>(skb: *mut __sk_buff, linear: &Linear) -> bool {
    let Some(packet) = A::parse(linear) else { return false };
    if packet.malformed() {
        return false;
    }
    let matters = tcp::matters::<DIRECTION, A>(&packet);
    let slot = account::<DIRECTION, A>(skb, &packet);
    if matters {
        track_linear::<DIRECTION, A>(skb, slot);
    }
    true
}

/// Parses again, so that the usual packet need not keep what only these few use.
#[inline(never)]
fn track_linear<const DIRECTION: u32, A: Family>(skb: *mut __sk_buff, slot: u32) {
    // SAFETY: the context that the kernel passed.
    if let Some(packet) = A::parse(&Linear::new(unsafe { &*skb })) {
        tcp::track(&Segment::new::<DIRECTION, A>(&packet, slot));
    }
}

/// Any other packet.
#[inline(never)]
fn observe_whole<const DIRECTION: u32>(skb: *mut __sk_buff) {
    match version(&Whole(skb)) {
        Some(4) => observe_any::<DIRECTION, V4>(skb),
        Some(6) => observe_any::<DIRECTION, V6>(skb),
        _ => observe_unreadable::<DIRECTION>(skb),
    }
}

#[inline(always)]
fn observe_any<const DIRECTION: u32, A: Family>(skb: *mut __sk_buff) {
    let mut packet = Packet::default();
    if !parse_whole::<A>(skb, &mut packet) {
        return observe_unreadable::<DIRECTION>(skb);
    }
    if packet.malformed() {
        malformed();
    }
    let slot = account::<DIRECTION, A>(skb, &packet);
    if tcp::matters::<DIRECTION, A>(&packet) {
        tcp::track(&Segment::new::<DIRECTION, A>(&packet, slot));
    }
}

/// Parses in a function of its own: LLVM would else keep halves of absent packets in registers, which the
/// verifier takes for uninitialised.
#[inline(never)]
fn parse_whole<A: Family>(skb: *mut __sk_buff, packet: &mut Packet<A>) -> bool {
    let Some(parsed) = A::parse(&Whole(skb)) else { return false };
    *packet = parsed;
    true
}

/// A packet whose addresses cannot be known: counted all the same.
#[inline(always)]
fn observe_unreadable<const DIRECTION: u32>(skb: *mut __sk_buff) {
    malformed();
    // SAFETY: the context that the kernel passed.
    let length = unsafe { (*skb).len };
    let wire = Wire { packets: 1, bytes: u64::from(length) };
    count::<DIRECTION>(Owner { slot: UNATTRIBUTED, class: CLASS_EXIT }, length, wire);
    windows::record::<DIRECTION>(UNATTRIBUTED, wire.bytes);
}

/// Counts a packet whose addresses are known; returns the peer's slot.
#[inline(always)]
fn account<const DIRECTION: u32, A: Family>(skb: *mut __sk_buff, packet: &Packet<A>) -> u32 {
    // SAFETY: the context that the kernel passed.
    let (length, gso_size) = unsafe { ((*skb).len, (*skb).gso_size) };
    let owner = attribute::<DIRECTION, A>(packet);
    let (packets, bytes) = segments(length, packet.headers, gso_size);
    let wire = Wire { packets: u64::from(packets), bytes: u64::from(bytes) };
    count::<DIRECTION>(owner, length, wire);
    windows::record::<DIRECTION>(owner.slot, wire.bytes);
    if matches!(packet.transport, Transport::Fragment) {
        fragment();
    }
    owner.slot
}

fn malformed() {
    if let Some(health) = HEALTH.get_ptr_mut(0) {
        // SAFETY: the map's row.
        unsafe { add(addr_of_mut!((*health).malformed), 1) };
    }
}

fn fragment() {
    if let Some(health) = HEALTH.get_ptr_mut(0) {
        // SAFETY: the map's row.
        unsafe { add(addr_of_mut!((*health).fragments), 1) };
    }
}
