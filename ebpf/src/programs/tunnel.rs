//! What both directions of the tunnel device do with a packet: look at it, and let it pass.

use core::ptr::addr_of;

use aya_ebpf::bindings::__sk_buff;
use tailgauge_ebpf::{
    layout::{CLASS_EXIT, UNATTRIBUTED, Wire},
    packet::{Packet, Transport, V4, V6, segments, version},
};

use super::{
    attribution::{Family, Owner, attribute},
    counting::count,
    forget::{hidden, noise},
    health,
    skb::{Linear, Whole},
    tcp::{self, Segment},
    windows,
};

/// `TC_ACT_UNSPEC`, which is also `TCX_NEXT`: whoever comes next decides.
const NEXT: i32 = -1;

/// What remains to be done for a packet that was counted: the peer's slot if TCP tracking needs the packet,
/// else [`DONE`]. A number, as the verifier follows both halves of anything larger through every branch.
type Outcome = u64;

/// Nothing remains.
const DONE: Outcome = u64::MAX;
/// The packet was not counted, as it is not of the usual kind.
const UNUSUAL: Outcome = u64::MAX - 1;

/// What is to be done for a packet besides counting it.
const NOTHING: u64 = 0;
const TRACK: u64 = 1;
const FRAGMENT: u64 = 2;

/// Counts one packet.
#[inline(always)]
pub(super) fn observe<const DIRECTION: u32>(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context that the kernel passed.
    let linear = Linear::new(unsafe { &*skb });
    let mut outcome = match version(&linear) {
        Some(4) => observe_linear::<DIRECTION, V4>(skb, &linear),
        Some(6) => observe_linear::<DIRECTION, V6>(skb, &linear),
        _ => UNUSUAL,
    };
    if outcome == UNUSUAL {
        outcome = observe_whole::<DIRECTION>(skb);
    }
    if outcome != DONE {
        track::<DIRECTION>(skb, outcome as u32);
    }
    NEXT
}

/// The usual packet: headers linear, at constant offsets, and sound.
#[inline(always)]
fn observe_linear<const DIRECTION: u32, A: Family>(skb: *mut __sk_buff, linear: &Linear) -> Outcome {
    match A::parse(linear) {
        Some(packet) if !packet.malformed() => account::<DIRECTION, A>(skb, &packet),
        _ => UNUSUAL,
    }
}

/// Any other packet.
#[inline(never)]
fn observe_whole<const DIRECTION: u32>(skb: *mut __sk_buff) -> Outcome {
    match version(&Whole(skb)) {
        Some(4) => observe_any::<DIRECTION, V4>(skb),
        Some(6) => observe_any::<DIRECTION, V6>(skb),
        _ => observe_unreadable::<DIRECTION>(skb),
    }
}

#[inline(always)]
fn observe_any<const DIRECTION: u32, A: Family>(skb: *mut __sk_buff) -> Outcome {
    let mut packet = Packet::default();
    if !parse_whole::<A>(skb, &mut packet) {
        return observe_unreadable::<DIRECTION>(skb);
    }
    if packet.malformed() {
        health::malformed(skb);
    }
    account::<DIRECTION, A>(skb, &packet)
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
fn observe_unreadable<const DIRECTION: u32>(skb: *mut __sk_buff) -> Outcome {
    health::malformed(skb);
    // SAFETY: the context that the kernel passed.
    let length = unsafe { (*skb).len };
    let wire = Wire { packets: 1, bytes: u64::from(length) };
    count::<DIRECTION>(Owner { slot: UNATTRIBUTED, class: CLASS_EXIT }, length, wire);
    windows::record::<DIRECTION>(UNATTRIBUTED, wire.bytes);
    DONE
}

/// Follows the packet's connection. Parses again, so that the usual packet need not keep what only these few
/// use, and in one place, as the verifier follows the state machine anew from every call.
#[inline(never)]
fn track<const DIRECTION: u32>(skb: *mut __sk_buff, slot: u32) {
    let mut segment = Segment::default();
    let read = match version(&Whole(skb)) {
        Some(4) => read_segment::<DIRECTION, V4>(skb, &mut segment),
        _ => read_segment::<DIRECTION, V6>(skb, &mut segment),
    };
    if read {
        segment.slot = slot;
        tcp::track(&segment);
    }
}

#[inline(never)]
fn read_segment<const DIRECTION: u32, A: Family>(skb: *mut __sk_buff, segment: &mut Segment) -> bool {
    let mut packet = Packet::default();
    if !parse_whole::<A>(skb, &mut packet) {
        return false;
    }
    *segment = Segment::new::<DIRECTION, A>(&packet);
    true
}

/// Counts a packet whose addresses are known.
#[inline(always)]
fn account<const DIRECTION: u32, A: Family>(skb: *mut __sk_buff, packet: &Packet<A>) -> Outcome {
    // What the verifier has learned from the parser is hidden from it: it would follow all that comes anew for every way
    // to read a packet.
    let noise = noise(skb);
    let more = if tcp::matters::<DIRECTION, A>(packet) {
        TRACK
    } else if matches!(packet.transport, Transport::Fragment) {
        FRAGMENT
    } else {
        NOTHING
    };
    let more = hidden(more, noise);
    let headers = hidden(packet.headers.into(), noise) as u32;
    // SAFETY: the context that the kernel passed. Read once more, as the parser has compared the length.
    let (length, gso_size) = unsafe { (addr_of!((*skb).len).read_volatile(), (*skb).gso_size) };
    let owner = attribute::<DIRECTION, A>(packet);
    let owner = Owner { class: hidden(owner.class.into(), noise) as u32, ..owner };
    let (packets, bytes) = segments(length, headers, gso_size);
    let wire = Wire { packets: u64::from(packets), bytes: u64::from(bytes) };
    count::<DIRECTION>(owner, length, wire);
    windows::record::<DIRECTION>(owner.slot, wire.bytes);
    if more == FRAGMENT {
        health::fragment();
    }
    if more == TRACK { u64::from(owner.slot) } else { DONE }
}
