//! What both directions of the tunnel device do with a packet: look at it, and let it pass.

use core::ptr::addr_of_mut;

use aya_ebpf::bindings::__sk_buff;
use tailgauge_ebpf::{
    layout::{CLASS_EXIT, UNATTRIBUTED, Wire},
    packet::{Packet, Transport, V4, V6, parse_v4, parse_v6, segments, version},
};

use super::{
    atomic::add,
    attribution::{Family, Owner, attribute},
    counting::count,
    maps::HEALTH,
    skb::{Linear, Whole},
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
        Some(4) => observe_linear::<DIRECTION, V4>(skb, parse_v4(&linear)),
        Some(6) => observe_linear::<DIRECTION, V6>(skb, parse_v6(&linear)),
        _ => false,
    };
    if !seen {
        observe_whole::<DIRECTION>(skb);
    }
    NEXT
}

/// The usual packet: headers linear, at constant offsets, and sound. Returns whether it was one.
#[inline(always)]
fn observe_linear<const DIRECTION: u32, A: Family>(skb: *mut __sk_buff, packet: Option<Packet<A>>) -> bool {
    match packet {
        Some(packet) if !packet.malformed() => {
            account::<DIRECTION, A>(skb, &packet);
            true
        }
        _ => false,
    }
}

/// Any other packet.
#[inline(never)]
fn observe_whole<const DIRECTION: u32>(skb: *mut __sk_buff) {
    let whole = Whole(skb);
    match version(&whole) {
        Some(4) => observe_any::<DIRECTION, V4>(skb, parse_v4(&whole)),
        Some(6) => observe_any::<DIRECTION, V6>(skb, parse_v6(&whole)),
        _ => observe_any::<DIRECTION, V4>(skb, None),
    }
}

#[inline(always)]
fn observe_any<const DIRECTION: u32, A: Family>(skb: *mut __sk_buff, packet: Option<Packet<A>>) {
    if packet.as_ref().is_none_or(Packet::malformed) {
        malformed();
    }
    if let Some(packet) = packet {
        account::<DIRECTION, A>(skb, &packet);
        return;
    }
    // SAFETY: the context that the kernel passed.
    let length = unsafe { (*skb).len };
    let wire = Wire { packets: 1, bytes: u64::from(length) };
    count::<DIRECTION>(Owner { slot: UNATTRIBUTED, class: CLASS_EXIT }, length, wire);
    windows::record::<DIRECTION>(UNATTRIBUTED, wire.bytes);
}

/// A packet whose addresses are known.
#[inline(always)]
fn account<const DIRECTION: u32, A: Family>(skb: *mut __sk_buff, packet: &Packet<A>) {
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
