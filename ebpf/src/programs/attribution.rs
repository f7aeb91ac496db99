//! Whose packet is it, and where does it go besides the peer. User space owns all keys.

use core::ptr::addr_of;

use aya_ebpf::maps::{HashMap, LpmTrie, lpm_trie::Key};
use tailgauge_ebpf::{
    layout::{CLASS_EXIT, Control, TRANSMIT, UNATTRIBUTED},
    packet::{Packet, Source, V4, V6, parse_v4, parse_v6},
};

use super::classes;
use super::maps::{CONTROL, PEERS_V4, PEERS_V6, PREFIXES_V4, PREFIXES_V6, ROUTES_V4, ROUTES_V6, SLOTS};

/// Owner and class of a packet.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    /// Row of the peer.
    pub(super) slot: u32,
    /// One of `CLASS_*`.
    pub(super) class: u32,
}

/// Tables of an address family.
pub(super) trait Family: Copy + Default + 'static {
    /// The address as bytes.
    type Bytes: 'static;
    /// Length of an address.
    const BITS: u32;
    fn parse<S: Source>(source: &S) -> Option<Packet<Self>>;
    /// As IPv6, IPv4-mapped.
    fn mapped(self) -> [u64; 2];
    /// As a number for hashing.
    fn fold(self) -> u64;
    fn peers() -> &'static HashMap<Self, u32>;
    /// The peers' prefixes, if there are any.
    fn prefixes(control: &Control) -> Option<&'static LpmTrie<Self::Bytes, u32>>;
    /// This host's addresses and routes, if there are any.
    fn routes(control: &Control) -> Option<&'static LpmTrie<Self::Bytes, u32>>;
}

impl Family for V4 {
    type Bytes = [u8; 4];
    const BITS: u32 = 32;

    #[inline(always)]
    fn parse<S: Source>(source: &S) -> Option<Packet<Self>> {
        parse_v4(source)
    }

    #[inline(always)]
    fn mapped(self) -> [u64; 2] {
        let [a, b, c, d] = self.word().to_ne_bytes();
        // ::ffff:0:0/96 (RFC 4291, 2.5.5.2).
        [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])]
    }

    #[inline(always)]
    fn fold(self) -> u64 {
        u64::from(self.word())
    }

    #[inline(always)]
    fn peers() -> &'static HashMap<Self, u32> {
        &PEERS_V4
    }

    #[inline(always)]
    fn prefixes(control: &Control) -> Option<&'static LpmTrie<Self::Bytes, u32>> {
        (control.has_prefixes_v4 != 0).then_some(&PREFIXES_V4)
    }

    #[inline(always)]
    fn routes(control: &Control) -> Option<&'static LpmTrie<Self::Bytes, u32>> {
        (control.has_routes_v4 != 0).then_some(&ROUTES_V4)
    }
}

impl Family for V6 {
    type Bytes = [u8; 16];
    const BITS: u32 = 128;

    #[inline(always)]
    fn parse<S: Source>(source: &S) -> Option<Packet<Self>> {
        parse_v6(source)
    }

    #[inline(always)]
    fn mapped(self) -> [u64; 2] {
        self.words()
    }

    #[inline(always)]
    fn fold(self) -> u64 {
        let [high, low] = self.words();
        high.wrapping_mul(0xff51_afd7_ed55_8ccd) ^ low
    }

    #[inline(always)]
    fn peers() -> &'static HashMap<Self, u32> {
        &PEERS_V6
    }

    #[inline(always)]
    fn prefixes(control: &Control) -> Option<&'static LpmTrie<Self::Bytes, u32>> {
        (control.has_prefixes_v6 != 0).then_some(&PREFIXES_V6)
    }

    #[inline(always)]
    fn routes(control: &Control) -> Option<&'static LpmTrie<Self::Bytes, u32>> {
        (control.has_routes_v6 != 0).then_some(&ROUTES_V6)
    }
}

/// Attributes by the peer's side of the packet, classifies by the other one.
#[inline(always)]
pub(super) fn attribute<const DIRECTION: u32, A: Family>(packet: &Packet<A>) -> Owner {
    let (peer, other) = sides::<DIRECTION, A>(packet);
    let Some(control) = CONTROL.get(0) else {
        return Owner { slot: UNATTRIBUTED, class: CLASS_EXIT };
    };
    Owner { slot: slot::<DIRECTION, A>(control, peer), class: class(control, other) }
}

/// The peer's address and the other one.
#[inline(always)]
pub(super) fn sides<const DIRECTION: u32, A: Family>(packet: &Packet<A>) -> (A, A) {
    if DIRECTION == TRANSMIT {
        (packet.destination, packet.source)
    } else {
        (packet.source, packet.destination)
    }
}

#[inline(always)]
fn slot<const DIRECTION: u32, A: Family>(control: &Control, peer: A) -> u32 {
    // SAFETY: a `u32` is read at once, whatever user space does to the entry.
    let mut slot = unsafe { A::peers().get(peer) };
    if slot.is_none()
        && let Some(prefixes) = A::prefixes(control)
    {
        slot = longest_prefix(prefixes, peer);
    }
    let slot = match slot {
        Some(slot) => *slot,
        None if DIRECTION == TRANSMIT => control.exit_node_slot,
        None => UNATTRIBUTED,
    };
    if slot < SLOTS.load() { slot } else { UNATTRIBUTED }
}

/// Where an address is: at this host, behind it, or anywhere else.
#[inline(always)]
pub(super) fn class<A: Family>(control: &Control, other: A) -> u32 {
    let Some(routes) = A::routes(control) else { return CLASS_EXIT };
    classes::remembered(other.mapped(), A::BITS == V6::BITS, control.routes_generation, || {
        longest_prefix(routes, other).map_or(CLASS_EXIT, |class| (*class).min(CLASS_EXIT))
    })
}

#[inline(always)]
fn longest_prefix<A: Family>(trie: &'static LpmTrie<A::Bytes, u32>, address: A) -> Option<&'static u32> {
    /// The trie's key, shifted so that the address is aligned on the stack.
    #[repr(C, align(8))]
    struct Shifted<A> {
        unused: u32,
        bits: u32,
        address: A,
    }
    let key = Shifted { unused: 0, bits: A::BITS, address };
    // SAFETY: `bits` and `address` lie next to each other, as in `Key`, which is packed.
    trie.get(unsafe { &*addr_of!(key.bits).cast::<Key<A::Bytes>>() })
}
