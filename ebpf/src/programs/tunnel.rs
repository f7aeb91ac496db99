//! What both directions of the tunnel device do with a packet: look at it, and let it pass.

use core::{mem::MaybeUninit, ptr::addr_of};

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

/// What is known of a packet, and all that is done for it depends on: the slot of its peer in the lower half, and the
/// fields below. A number, as the verifier follows both halves of anything larger through every branch; and one for
/// packets of all kinds, so that it follows what is done only once.
type Found = u64;

/// Bytes that every segment repeats, 16 bits.
const HEADERS: u32 = 32;
/// Class, 2 bits.
const CLASS: u32 = 48;
/// What is to be done besides counting the packet.
const MORE: u32 = 50;

/// Nothing.
const NOTHING: u64 = 0;
/// TCP tracking needs the packet.
const TRACK: u64 = 1;
/// It is a fragment other than the first.
const FRAGMENT: u64 = 2;
/// It is no packet that could be segmented.
const UNREADABLE: u64 = 3;

/// Counts one packet.
#[inline(always)]
pub(super) fn observe<const DIRECTION: u32>(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context that the kernel passed.
    let linear = Linear::new(unsafe { &*skb });
    let noise = noise(skb);
    let found = match version(&linear) {
        Some(4) => find_linear::<DIRECTION, V4>(&linear, noise),
        Some(6) => find_linear::<DIRECTION, V6>(&linear, noise),
        _ => None,
    };
    let found = found.unwrap_or_else(|| find_whole::<DIRECTION>(skb));
    account::<DIRECTION>(skb, hidden(found, noise));
    NEXT
}

/// The usual packet: headers linear, at constant offsets, and sound.
#[inline(always)]
fn find_linear<const DIRECTION: u32, A: Family>(linear: &Linear, noise: u64) -> Option<Found> {
    let packet = A::parse(linear).filter(|packet| !packet.malformed())?;
    Some(find::<DIRECTION, A>(&packet, noise))
}

/// Any other packet.
#[inline(never)]
fn find_whole<const DIRECTION: u32>(skb: *mut __sk_buff) -> Found {
    match version(&Whole(skb)) {
        Some(4) => find_any::<DIRECTION, V4>(skb),
        Some(6) => find_any::<DIRECTION, V6>(skb),
        _ => find_nothing(skb),
    }
}

#[inline(always)]
fn find_any<const DIRECTION: u32, A: Family>(skb: *mut __sk_buff) -> Found {
    let mut packet = MaybeUninit::uninit();
    if !parse_whole::<A>(skb, &mut packet) {
        return find_nothing(skb);
    }
    // SAFETY: it was parsed.
    let packet = unsafe { packet.assume_init_ref() };
    if packet.malformed() {
        health::malformed(skb);
    }
    find::<DIRECTION, A>(packet, noise(skb))
}

/// A packet whose addresses cannot be known: counted all the same.
#[inline(always)]
fn find_nothing(skb: *mut __sk_buff) -> Found {
    health::malformed(skb);
    u64::from(UNATTRIBUTED) | u64::from(CLASS_EXIT) << CLASS | UNREADABLE << MORE
}

/// A packet whose addresses are known.
#[inline(always)]
fn find<const DIRECTION: u32, A: Family>(packet: &Packet<A>, noise: u64) -> Found {
    let more = if tcp::matters::<DIRECTION, A>(packet) {
        TRACK
    } else if matches!(packet.transport, Transport::Fragment) {
        FRAGMENT
    } else {
        NOTHING
    };
    let found = hidden(u64::from(packet.headers) << HEADERS | more << MORE, noise);
    let Owner { slot, class } = attribute::<DIRECTION, A>(packet);
    found | u64::from(slot) | u64::from(class) << CLASS
}

/// Counts a packet, and follows its connection if that matters.
#[inline(always)]
fn account<const DIRECTION: u32>(skb: *mut __sk_buff, found: Found) {
    let slot = found as u32;
    let (headers, class) = ((found >> HEADERS) as u32 & 0xffff, (found >> CLASS) as u32 & 3);
    let more = found >> MORE;
    // SAFETY: the context that the kernel passed. Read once more, as the verifier knows what it was compared with.
    let (length, gso_size) = unsafe { (addr_of!((*skb).len).read_volatile(), (*skb).gso_size) };
    let gso_size = if more == UNREADABLE { 0 } else { gso_size };
    let (packets, bytes) = segments(length, headers, gso_size);
    let wire = Wire { packets: u64::from(packets), bytes: u64::from(bytes) };
    count::<DIRECTION>(Owner { slot, class }, length, wire);
    windows::record::<DIRECTION>(slot, wire.bytes);
    match more {
        TRACK => track::<DIRECTION>(skb, slot),
        FRAGMENT => health::fragment(),
        _ => {}
    }
}

/// Parses in a function of its own: LLVM would else keep halves of absent packets in registers, which the
/// verifier takes for uninitialised. Returns whether it has written `packet`, which need not be zeroed before.
#[inline(never)]
fn parse_whole<A: Family>(skb: *mut __sk_buff, packet: &mut MaybeUninit<Packet<A>>) -> bool {
    let Some(parsed) = A::parse(&Whole(skb)) else { return false };
    packet.write(parsed);
    true
}

/// Follows the packet's connection. Parses again, so that the usual packet need not keep what only these few
/// use, and in one place, as the verifier follows the state machine anew from every call.
#[inline(never)]
fn track<const DIRECTION: u32>(skb: *mut __sk_buff, slot: u32) {
    let mut segment = MaybeUninit::uninit();
    let read = match version(&Whole(skb)) {
        Some(4) => read_segment::<DIRECTION, V4>(skb, slot, &mut segment),
        _ => read_segment::<DIRECTION, V6>(skb, slot, &mut segment),
    };
    if read {
        // SAFETY: it was read.
        tcp::track(unsafe { segment.assume_init_ref() });
    }
}

#[inline(never)]
fn read_segment<const DIRECTION: u32, A: Family>(
    skb: *mut __sk_buff,
    slot: u32,
    segment: &mut MaybeUninit<Segment>,
) -> bool {
    let mut packet = MaybeUninit::uninit();
    if !parse_whole::<A>(skb, &mut packet) {
        return false;
    }
    // SAFETY: it was parsed.
    segment.write(Segment::new::<DIRECTION, A>(unsafe { packet.assume_init_ref() }, slot));
    true
}
