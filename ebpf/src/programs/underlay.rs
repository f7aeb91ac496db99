//! What the interfaces under the tunnel carry: tailscaled's own packets, and those that came out of the tunnel.
//!
//! On egress the mark tells, on ingress the UDP port. Any other packet leaves after one comparison.

use core::{
    mem::MaybeUninit,
    ptr::{addr_of, addr_of_mut},
};

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_get_smp_processor_id};
use tailgauge_ebpf::{
    layout::{
        CLASS_LOCAL, Carried, ETHERNET_HEADER, KIND_FORWARDED, KIND_TAILSCALED, Kind, MARK_FORWARDED,
        MARK_MASK, MARK_TAILSCALED, PORT_WORDS, Ports, RECEIVE, TRANSMIT, UNDERLAY_DEVICES, Underlay,
        UnderlayDevice, line_index,
    },
    message::KEEPALIVE,
    packet::{IPV4_HEADER, IPV6_HEADER, Packet, Source, Transport, UDP_HEADER, V4, V6, segments, version},
};

use super::{
    atomic::add,
    attribution::{Family, class},
    forget::{forgotten, hidden},
    maps::{CONTROL, PORTS, SHARDS, UNDERLAY, UNDERLAY_COUNTERS},
    single::{Single, pass},
    skb::{Linear, Rest},
    walk::follow,
};

/// `TC_ACT_UNSPEC`, which is also `TCX_NEXT`: whoever comes next decides.
const NEXT: i32 = -1;

/// Bytes of the usual headers, and before their UDP payload.
const V4_HEADER: usize = IPV4_HEADER as usize;
const V4_PAYLOAD: usize = V4_HEADER + UDP_HEADER as usize;
const V6_HEADER: usize = IPV6_HEADER as usize;
const V6_PAYLOAD: usize = V6_HEADER + UDP_HEADER as usize;
/// Bytes of an Ethernet header.
const ETHERNET: u32 = ETHERNET_HEADER as u32;
/// IP protocol number of UDP.
const UDP: u8 = 17;
/// Bytes of a VLAN tag (IEEE 802.1Q), and how many of them are skipped.
const VLAN_TAG: u32 = 4;
const MAX_TAGS: u32 = 2;

/// What is known of a packet: bytes before its payload, from the IP header on, or 0 if nobody looked; and the bits below.
/// A number, as the verifier follows both halves of anything larger.
type Found = u64;

/// Nothing.
const NOTHING: Found = 0;
/// IPv6.
const IS_V6: u32 = 32;
/// A UDP datagram of tailscaled.
const OURS: Found = 1 << 33;
/// All is done but to count it for the interface.
const PASSED: Found = 1 << 34;
/// Not to be read where headers usually are.
const UNUSUAL: Found = 1 << 35;

/// A row of the counters, and where its interface's packets have their IP header, VLAN tags aside.
#[derive(Clone, Copy)]
struct Place {
    row: u32,
    is_ethernet: bool,
    offset: u32,
    /// Of which the verifier knows nothing.
    noise: u64,
}

impl Place {
    /// The same number, of which the verifier knows nothing.
    #[inline(always)]
    fn hide(&self, value: u64) -> u64 {
        hidden(value, self.noise)
    }
}

/// Kind of a packet with either mark.
#[inline(always)]
fn kind(mark: u64) -> u64 {
    const { assert!(MARK_FORWARDED.is_power_of_two() && KIND_FORWARDED == 1 && KIND_TAILSCALED == 0) };
    mark >> MARK_FORWARDED.trailing_zeros() & 1
}

/// Counts a packet that leaves.
#[inline(always)]
pub(super) fn transmit(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context that the kernel passed.
    let mark = unsafe { (*skb).mark } & MARK_MASK;
    if mark != MARK_TAILSCALED && mark != MARK_FORWARDED {
        return NEXT;
    }
    let Some(place) = place(skb) else { return NEXT };
    let kind = kind(place.hide(mark.into()));
    let mut found = if mark == MARK_TAILSCALED { linear::<TRANSMIT>(skb, place) } else { NOTHING };
    let offset = if found & OURS == 0 {
        // Forwarded; or DERP, and what tailscaled asks the control plane and name servers.
        let offset = place.hide(ip_offset(skb, place).into()) as u32;
        // What was joined repeats its headers in every segment.
        // SAFETY: the context that the kernel passed.
        if found == UNUSUAL || unsafe { (*skb).gso_size } != 0 {
            // What is forwarded is not ours, whatever its port.
            found = whole::<TRANSMIT>(skb, offset) & !(kind * OURS);
        }
        offset
    } else {
        place.hide(place.offset.into()) as u32
    };
    let found = place.hide(found);
    count::<TRANSMIT>(skb, place.row, kind as usize, offset, found as u32);
    if found & (OURS | PASSED) == OURS {
        follow::<TRANSMIT>(skb, offset, found as u32, (found >> IS_V6) as u32 & 1);
    }
    NEXT
}

/// Counts a packet that arrives, if it is for tailscaled.
#[inline(always)]
pub(super) fn receive(skb: *mut __sk_buff) -> i32 {
    let Some(place) = place(skb) else { return NEXT };
    let mut offset = place.offset;
    let mut found = linear::<RECEIVE>(skb, place);
    if found == UNUSUAL {
        offset = place.hide(ip_offset(skb, place).into()) as u32;
        found = whole::<RECEIVE>(skb, offset);
    }
    if found & OURS != 0 {
        let (found, offset) = (place.hide(found), place.hide(offset.into()) as u32);
        count::<RECEIVE>(skb, place.row, KIND_TAILSCALED, offset, found as u32);
        if found & PASSED == 0 {
            follow::<RECEIVE>(skb, offset, found as u32, (found >> IS_V6) as u32 & 1);
        }
    }
    NEXT
}

/// The row of the packet's interface; `None` while the agent has given it none.
#[inline(always)]
fn place(skb: *mut __sk_buff) -> Option<Place> {
    // SAFETY: the context that the kernel passed.
    let ifindex = unsafe { (*skb).ifindex };
    let underlay: *const Underlay = UNDERLAY.get_ptr(0)?;
    let mut row = 0;
    while row < UNDERLAY_DEVICES {
        // SAFETY: within the map's row. Index and header are one word, which the agent replaces at once.
        let word = unsafe {
            addr_of!((*underlay).devices).cast::<UnderlayDevice>().add(row).cast::<u64>().read_volatile()
        };
        if word as u32 == ifindex {
            let word = forgotten(word);
            let header = word >> 32 & 0xffff;
            return Some(Place {
                row: (word >> 48) as u32,
                is_ethernet: header == u64::from(ETHERNET_HEADER),
                offset: (forgotten(word) >> 32 & 0xffff) as u32,
                noise: word,
            });
        }
        row += 1;
    }
    None
}

/// Where the IP header begins: VLAN tags that are in the packet are skipped.
#[inline(always)]
fn ip_offset(skb: *mut __sk_buff, place: Place) -> u32 {
    if !place.is_ethernet {
        return place.offset;
    }
    // SAFETY: the context that the kernel passed.
    match Linear::new(unsafe { &*skb }).fixed::<12, 4>() {
        Some([a, b, ..]) if !is_tag([a, b]) => place.offset,
        _ => skip_tags(skb),
    }
}

/// EtherTypes of a VLAN tag: 802.1Q and 802.1ad.
#[inline(always)]
const fn is_tag(ethertype: [u8; 2]) -> bool {
    matches!(ethertype, [0x81, 0x00] | [0x88, 0xa8])
}

#[inline(never)]
fn skip_tags(skb: *mut __sk_buff) -> u32 {
    let mut offset = ETHERNET;
    for _ in 0..MAX_TAGS {
        match (Rest { skb, offset: offset - 2 }).variable::<4>(0) {
            Some([a, b, ..]) if is_tag([a, b]) => offset += VLAN_TAG,
            _ => break,
        }
    }
    offset
}

/// The usual packet: headers linear, at constant offsets, and sound.
#[inline(always)]
fn linear<const DIRECTION: u32>(skb: *mut __sk_buff, place: Place) -> Found {
    if place.is_ethernet {
        linear_after::<DIRECTION, ETHERNET>(skb)
    } else {
        linear_after::<DIRECTION, 0>(skb)
    }
}

#[inline(always)]
fn linear_after<const DIRECTION: u32, const LINK: u32>(skb: *mut __sk_buff) -> Found {
    // SAFETY: the context that the kernel passed.
    let linear = Linear::new(unsafe { &*skb });
    if LINK == ETHERNET {
        match linear.fixed::<12, 4>() {
            Some([a, b, ..]) if !is_tag([a, b]) => {}
            _ => return UNUSUAL,
        }
    }
    let linear = linear.after::<LINK>();
    match version(&linear) {
        Some(4) => match linear.fixed::<9, 1>() {
            Some([UDP]) => linear_at::<DIRECTION, V4, V4_HEADER, V4_PAYLOAD>(skb, &linear),
            Some(_) => NOTHING,
            None => UNUSUAL,
        },
        Some(6) => match linear.fixed::<6, 1>() {
            Some([UDP]) => linear_at::<DIRECTION, V6, V6_HEADER, V6_PAYLOAD>(skb, &linear),
            // Extension headers; anything else is no UDP.
            Some([0 | 43 | 44 | 51 | 60]) | None => UNUSUAL,
            Some(_) => NOTHING,
        },
        Some(_) => NOTHING,
        None => UNUSUAL,
    }
}

/// A packet that says that UDP follows its first header, which is `IP` bytes long unless it has options.
#[inline(always)]
fn linear_at<const DIRECTION: u32, A: Family, const IP: usize, const PAYLOAD: usize>(
    skb: *mut __sk_buff,
    linear: &Linear,
) -> Found {
    let Some(ports) = linear.fixed::<IP, 4>() else { return UNUSUAL };
    let Some(packet) = A::parse(linear) else { return UNUSUAL };
    if !matches!(packet.transport, Transport::Udp) || packet.headers != IP as u32 + UDP_HEADER {
        return UNUSUAL;
    }
    let found = datagram::<DIRECTION, A>(&packet, ports);
    // SAFETY: the context that the kernel passed.
    if found & OURS == 0 || unsafe { (*skb).gso_size } != 0 {
        return found;
    }
    let Some([first, counter]) = linear.words::<PAYLOAD>() else { return found };
    if u64::from_le(first) as u32 != Kind::Data as u32 || linear.length() < PAYLOAD as u32 + KEEPALIVE {
        return found;
    }
    let [a, b, c, d] = ports;
    let (address, port) =
        if DIRECTION == RECEIVE { (packet.source, [a, b]) } else { (packet.destination, [c, d]) };
    let [high, low] = address.mapped();
    pass::<DIRECTION>(&Single {
        endpoint: [high, low, u64::from(u16::from_ne_bytes(port))],
        counter: u64::from_le(counter),
        index: (u64::from_le(first) >> 32) as u32,
        bytes: linear.length(),
        path: u32::from(A::BITS == V6::BITS),
    });
    found | PASSED
}

/// Any other packet.
#[inline(never)]
fn whole<const DIRECTION: u32>(skb: *mut __sk_buff, offset: u32) -> Found {
    match version(&Rest { skb, offset }) {
        Some(4) => whole_of::<DIRECTION, V4>(skb, offset),
        Some(6) => whole_of::<DIRECTION, V6>(skb, offset),
        _ => NOTHING,
    }
}

#[inline(always)]
fn whole_of<const DIRECTION: u32, A: Family>(skb: *mut __sk_buff, offset: u32) -> Found {
    let mut packet = MaybeUninit::uninit();
    if !parse::<A>(skb, offset, &mut packet) {
        return NOTHING;
    }
    // SAFETY: it was parsed.
    let packet = unsafe { packet.assume_init_ref() };
    let headers = u64::from(packet.headers);
    if packet.headers < UDP_HEADER {
        return headers;
    }
    let Some(ports) = (Rest { skb, offset }).variable::<4>(packet.headers - UDP_HEADER) else {
        return headers;
    };
    datagram::<DIRECTION, A>(packet, ports)
}

/// A packet with these ports, source first, if it is UDP.
#[inline(always)]
fn datagram<const DIRECTION: u32, A: Family>(packet: &Packet<A>, ports: [u8; 4]) -> Found {
    let headers = u64::from(packet.headers);
    let [a, b, c, d] = ports;
    let own = if DIRECTION == RECEIVE { [c, d] } else { [a, b] };
    // Fragments other than the first have no port.
    if !matches!(packet.transport, Transport::Udp) || !listens::<A>(u16::from_be_bytes(own)) {
        return headers;
    }
    let found = headers | OURS | u64::from(A::BITS == V6::BITS) << IS_V6;
    if DIRECTION == TRANSMIT {
        return found;
    }
    // A router passes on what is for the same port of another host.
    match CONTROL.get(0) {
        Some(control) if class(control, packet.destination) == CLASS_LOCAL => found,
        _ => headers,
    }
}

/// Whether tailscaled listens on a port.
#[inline(always)]
fn listens<A: Family>(port: u16) -> bool {
    let Some(ports) = PORTS.get_ptr(u32::from(A::BITS == V6::BITS)) else { return false };
    // The mask stays in the program, for verifiers that do not know the bounds of a number whose bytes were swapped.
    let word = forgotten(u64::from(port)) as usize / 64 & (PORT_WORDS - 1);
    // SAFETY: within the map's row; a word is read at once.
    let word = unsafe { addr_of!((*ports.cast::<Ports>()).words).cast::<u64>().add(word).read_volatile() };
    word >> (port % 64) & 1 != 0
}

/// Parses in a function of its own: see `tunnel::parse_whole`.
#[inline(never)]
fn parse<A: Family>(skb: *mut __sk_buff, offset: u32, packet: &mut MaybeUninit<Packet<A>>) -> bool {
    let Some(parsed) = A::parse(&Rest { skb, offset }) else { return false };
    packet.write(parsed);
    true
}

/// Adds a packet with its IP header at `offset` to a row.
#[inline(always)]
fn count<const DIRECTION: u32>(skb: *mut __sk_buff, row: u32, kind: usize, offset: u32, headers: u32) {
    // SAFETY: the context that the kernel passed.
    let (length, gso_size) = unsafe { ((*skb).len, (*skb).gso_size) };
    let (packets, bytes) = segments(length.saturating_sub(offset), headers, gso_size);
    let shards = SHARDS.load();
    // SAFETY: the helper has no precondition.
    let shard = unsafe { bpf_get_smp_processor_id() } & (shards - 1);
    let index = line_index(row, shard, shards, DIRECTION);
    let Some(line) = UNDERLAY_COUNTERS.get_ptr_mut(index) else { return };
    // SAFETY: a row of the map; the kind is within bounds, which the verifier checks too.
    unsafe {
        let carried = addr_of_mut!((*line).kind).cast::<Carried>().add(kind);
        add(addr_of_mut!((*carried).wire.packets), u64::from(packets));
        add(addr_of_mut!((*carried).wire.bytes), u64::from(bytes));
        add(addr_of_mut!((*carried).skbs), 1);
        add(addr_of_mut!((*carried).skb_bytes), u64::from(length));
    }
}
