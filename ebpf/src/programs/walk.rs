//! Walks the messages of a datagram between tailscaled and the world; coalesced by GRO, it holds up to [`MAX_SEGMENTS`]
//! of them. Data is counted on the way; the one message that is no data, usually the last, is left to `messages`.

use core::{ffi::c_void, mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_loop, bpf_skb_load_bytes},
};
use tailgauge_ebpf::{
    layout::{RECEIVE, ROLE_UNSEEN, TRANSMIT, UNATTRIBUTED},
    message::{self, HEAD, KEEPALIVE, Transport},
    packet::{UDP_HEADER, V4},
};

use super::{
    attribution::Family as _,
    endpoints::{self, fingerprint},
    forget::{forgotten, hidden, through},
    health,
    maps::{CONTROL, EndpointWords, HAS_LOOP, WALK},
    messages, sessions,
    single::add_to,
    tcp::now,
};

/// The kernel joins at most 64 datagrams (`UDP_GRO_CNT_MAX`) and splits into at most 128 (`UDP_MAX_SEGMENTS`).
const MAX_SEGMENTS: u32 = 128;
/// The same where there is no `bpf_loop`: the verifier would follow each message anew.
const SEGMENTS_WITHOUT_LOOP: u32 = 4;
/// For kernels that send the last segment wrongly, tailscaled appends one of a single byte, which is no message.
const SHORTEST: u32 = 2;

/// A datagram, and how far it was walked. In a map, of whose contents the verifier knows nothing: on the stack, it would
/// follow every message of a super-packet anew.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Walk {
    /// The other side, with the relay of the current message.
    pub(super) endpoint: EndpointWords,
    /// Its fingerprint.
    pub(super) hash: u64,
    /// Its peer.
    pub(super) slot: u32,
    /// The traffic of others, which this node relays.
    pub(super) is_foreign: u32,
    is_v6: u32,
    /// Bytes before the payload, from the IP header on.
    headers: u32,
    /// Where the next message begins, from the start of the frame, and where the last one ends.
    at: u32,
    end: u32,
    /// Length of all messages but the last.
    size: u32,
    /// Session of the last message, and its row.
    index: u32,
    row: u32,
    /// Not counted yet.
    packets: u32,
    bytes: u32,
    data: u32,
    /// Messages that are no data, and the last of them.
    others: u32,
    pub(super) other_at: u32,
    pub(super) other_length: u32,
}

/// Where the addresses of an IPv4 header are.
const V4_ADDRESSES: u32 = 12;
/// The same for IPv6.
const V6_ADDRESSES: u32 = 8;

/// Reads `T`, plain bytes, at `offset` of the frame.
#[inline(always)]
pub(super) fn load<T>(skb: *mut __sk_buff, offset: u32, into: &mut MaybeUninit<T>) -> bool {
    // SAFETY: the helper writes all of `T` or fails.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, into.as_mut_ptr().cast(), size_of::<T>() as u32) == 0 }
}

/// Follows a UDP datagram of tailscaled with its IP header at `offset` and its payload `headers` bytes later.
#[inline(never)]
pub(super) fn follow<const DIRECTION: u32>(skb: *mut __sk_buff, offset: u32, headers: u32, is_v6: u32) {
    let Some(walk) = WALK.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's row, which nobody else uses until the program ends.
    let walk = unsafe { &mut *walk };
    // Field by field: built on the stack, it would take a third of that.
    // Were it known to be a constant, a function would be called that sets memory byte by byte.
    let zero = forgotten(0);
    walk.endpoint = [zero; 3];
    walk.is_v6 = is_v6;
    walk.headers = headers;
    read_addresses::<DIRECTION>(skb, offset, walk);
    read_ports::<DIRECTION>(skb, offset, walk);
    walk.hash = fingerprint(&walk.endpoint);
    walk.slot = if walk.is_foreign != 0 { UNATTRIBUTED } else { endpoints::slot(&walk.endpoint, walk.hash) };
    // SAFETY: the context that the kernel passed.
    let (end, size) = unsafe { ((*skb).len, (*skb).gso_size) };
    walk.at = offset + headers;
    walk.end = end;
    walk.size = if size == 0 { end.saturating_sub(walk.at) } else { size };
    walk.row = sessions::NONE;
    walk.packets = zero as u32;
    walk.bytes = zero as u32;
    walk.data = zero as u32;
    walk.others = zero as u32;
    if walk.at >= walk.end {
        // A datagram without payload.
        walk.packets = 1;
        walk.bytes = headers;
    } else if DIRECTION == TRANSMIT {
        one_segment::<DIRECTION>(skb, walk);
        if walk.data != 0 {
            rest_is_data(walk);
        }
    }
    walk_rest::<DIRECTION>(skb, walk);
    count::<DIRECTION>(walk);
    if walk.others != 0 {
        if walk.others > 1 {
            health::messages_unread(u64::from(walk.others - 1));
        }
        messages::handle::<DIRECTION>(skb, walk);
    }
}

/// The other side's address.
#[inline(always)]
fn read_addresses<const DIRECTION: u32>(skb: *mut __sk_buff, offset: u32, walk: &mut Walk) {
    if walk.is_v6 != 0 {
        let mut both = MaybeUninit::<[u64; 4]>::uninit();
        if load(skb, offset + V6_ADDRESSES, &mut both) {
            // SAFETY: written by the helper.
            let [a, b, c, d] = unsafe { both.assume_init() };
            [walk.endpoint[0], walk.endpoint[1]] = if DIRECTION == RECEIVE { [a, b] } else { [c, d] };
        }
    } else {
        let mut both = MaybeUninit::<u64>::uninit();
        if load(skb, offset + V4_ADDRESSES, &mut both) {
            // SAFETY: written by the helper.
            let [a, b, c, d, e, f, g, h] = unsafe { both.assume_init() }.to_ne_bytes();
            let address = if DIRECTION == RECEIVE { [a, b, c, d] } else { [e, f, g, h] };
            walk.endpoint[1] = V4::new(address).mapped()[1];
        }
    }
}

/// The other side's port; and whether ours is that of the own peer relay.
#[inline(always)]
fn read_ports<const DIRECTION: u32>(skb: *mut __sk_buff, offset: u32, walk: &mut Walk) {
    let mut header = MaybeUninit::<[u16; 4]>::uninit();
    walk.is_foreign = 0;
    if load(skb, offset + walk.headers - UDP_HEADER, &mut header) {
        // SAFETY: written by the helper.
        let [source, destination, ..] = unsafe { header.assume_init() };
        let [other, own] = if DIRECTION == RECEIVE { [source, destination] } else { [destination, source] };
        walk.endpoint[2] = u64::from(other);
        let relay_port = CONTROL.get(0).map_or(0, |control| control.relay_port);
        walk.is_foreign = u32::from(relay_port != 0 && relay_port == u32::from(u16::from_be(own)));
    }
}

/// tailscaled joins nothing but data for one peer (`coalesceMessages`, net/batching/conn_linux.go).
#[inline(always)]
fn rest_is_data(walk: &mut Walk) {
    let bytes = walk.end - walk.at;
    if bytes == 0 {
        return;
    }
    walk.at = walk.end;
    let packets = bytes.div_ceil(walk.size.max(1));
    let last = bytes - (packets - 1) * walk.size;
    walk.packets += packets;
    walk.bytes += bytes + packets * walk.headers;
    walk.data += packets - u32::from(last < KEEPALIVE);
}

#[inline(always)]
fn walk_rest<const DIRECTION: u32>(skb: *mut __sk_buff, walk: &mut Walk) {
    if HAS_LOOP.load() == 0 {
        for _ in 0..SEGMENTS_WITHOUT_LOOP {
            if walk.at >= walk.end {
                return;
            }
            one_segment::<DIRECTION>(skb, walk);
        }
    } else {
        let mut step = Step { skb, walk };
        // SAFETY: the callback gets `step`, which outlives the call.
        unsafe {
            let next = next_segment::<DIRECTION> as *mut c_void;
            bpf_loop(MAX_SEGMENTS, next, ptr::from_mut(&mut step).cast(), 0);
        }
    }
    if walk.at < walk.end {
        let bytes = walk.end - walk.at;
        let packets = bytes.div_ceil(walk.size.max(1));
        walk.packets += packets;
        walk.bytes += bytes + packets * walk.headers;
        health::messages_unread(u64::from(packets));
        sessions::interrupt(walk.row);
    }
}

/// What the callback needs.
struct Step {
    skb: *mut __sk_buff,
    walk: *mut Walk,
}

/// Callback of `bpf_loop`: non-zero ends it.
unsafe extern "C" fn next_segment<const DIRECTION: u32>(_place: u32, step: *mut Step) -> i64 {
    // SAFETY: what `walk_rest` passed.
    let (skb, walk) = unsafe { ((*step).skb, &mut *(*step).walk) };
    if walk.at >= walk.end {
        return 1;
    }
    segment::<DIRECTION>(skb, walk);
    0
}

/// One message, where a call matters less than another copy of the program.
#[inline(never)]
fn one_segment<const DIRECTION: u32>(skb: *mut __sk_buff, walk: &mut Walk) {
    segment::<DIRECTION>(skb, walk);
}

/// One message.
#[inline(always)]
fn segment<const DIRECTION: u32>(skb: *mut __sk_buff, walk: &mut Walk) {
    let at = walk.at;
    let length = walk.size.min(walk.end.saturating_sub(at));
    let relay = (walk.endpoint[2] >> 32) as u32;
    let mut head = MaybeUninit::<[u64; HEAD / 8]>::uninit();
    let message = if length >= HEAD as u32 && load(skb, at, &mut head) {
        // SAFETY: written by the helper.
        message::read_transport(unsafe { head.assume_init() }.map(u64::from_le), length)
    } else {
        Transport { relay, ..Transport::default() }
    };
    // The verifier would follow the rest anew for every way to read a message.
    let noise = walk.hash;
    let length = hidden(length.into(), noise) as u32;
    let is_data = hidden(message.is_data.into(), noise);
    let found = hidden(message.relay.into(), noise) as u32;
    if found != relay {
        change_relay::<DIRECTION>(walk, found);
    }
    walk.at = at + length.max(1);
    walk.packets += 1;
    walk.bytes += walk.headers + length;
    if is_data != 0 {
        walk.data += 1;
        if DIRECTION == RECEIVE && walk.is_foreign == 0 {
            data(walk, message.receiver, message.counter);
        }
    } else if length >= SHORTEST {
        walk.others += 1;
        walk.other_at = at;
        walk.other_length = length;
    }
}

/// A transport message that arrived.
#[inline(always)]
fn data(walk: &mut Walk, index: u32, counter: u64) {
    if walk.row != sessions::NONE && walk.index == index {
        return sessions::receive_next(walk.row, counter);
    }
    walk.index = index;
    let mut row = through(&mut walk.row, sessions::find(index));
    if row == sessions::NONE {
        if walk.slot == UNATTRIBUTED {
            return;
        }
        row = through(&mut walk.row, sessions::begin(index, ROLE_UNSEEN, walk.slot, walk.hash, now()));
    }
    let slot = sessions::receive(row, counter, walk.slot, walk.hash);
    if slot != walk.slot {
        // The session proves who has moved to this endpoint.
        endpoints::learn(&walk.endpoint, slot);
        walk.slot = slot;
    }
}

/// What came by one relay may be for several peers.
#[inline(never)]
fn change_relay<const DIRECTION: u32>(walk: &mut Walk, relay: u32) {
    count::<DIRECTION>(walk);
    walk.endpoint[2] = walk.endpoint[2] & 0xffff_ffff | u64::from(relay) << 32;
    walk.hash = fingerprint(&walk.endpoint);
    if walk.is_foreign == 0 {
        walk.slot = endpoints::slot(&walk.endpoint, walk.hash);
    }
}

/// Adds what was walked since the last time to the peer's row.
#[inline(never)]
fn count<const DIRECTION: u32>(walk: &mut Walk) {
    if walk.packets != 0 {
        let path = (walk.is_v6 & 1) + 2 * u32::from(walk.endpoint[2] >> 32 != 0);
        add_to::<DIRECTION>(walk.slot, path, walk.bytes, walk.data, walk.packets - walk.data);
        // As in `follow`.
        let zero = forgotten(0) as u32;
        (walk.packets, walk.bytes, walk.data) = (zero, zero, zero);
    }
}
