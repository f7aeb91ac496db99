//! Which key belongs into which map: a pure function of the tailnet, the slots and this host's addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use tailgauge_ebpf::layout::{CLASS_LOCAL, CLASS_SUBNET, UNATTRIBUTED};

use super::sizes::Sizes;
use crate::model::slots::SlotTable;
use crate::model::tailnet::{Peer, Tailnet};

/// A network of `N` bytes; a single address has length `8 * N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Prefix<const N: usize> {
    /// Network order, host bits zero.
    pub(super) address: [u8; N],
    /// Bits of the network.
    pub(super) length: u8,
}

/// Keys of one map with their slot or class, ordered by key, each key once.
pub(super) type Entries<const N: usize> = Vec<(Prefix<N>, u32)>;

/// Entries of the maps that say which peer a packet belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerKeys {
    pub(super) addresses_v4: Entries<4>,
    pub(super) addresses_v6: Entries<16>,
    pub(super) prefixes_v4: Entries<4>,
    pub(super) prefixes_v6: Entries<16>,
    /// Slot of the peer that is this node's exit node.
    pub(super) exit_node_slot: u32,
    /// Keys that found no room; their traffic falls to a wider prefix or to slot 0.
    pub(super) refused: u64,
}

/// Entries of the maps that say what is behind this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RouteKeys {
    pub(super) v4: Entries<4>,
    pub(super) v6: Entries<16>,
    /// Keys that found no room; their traffic is of class exit.
    pub(super) refused: u64,
}

/// Keys of all peers. When several claim the same key, an own address goes before a route, and the peer with the
/// lowest id goes first, so that the answer never depends on the order of events.
///
/// A member without a slot gets its keys too, with slot 0: its packets must not fall to another peer's wider
/// prefix or, on transmit, to the exit node.
pub(super) fn peers(tailnet: &Tailnet, slots: &SlotTable, sizes: &Sizes) -> PeerKeys {
    let slot_of = |peer: &Peer| {
        let slot = slots.slot_of(&peer.id);
        slot.filter(|slot| slots.get(*slot).is_some_and(|slot| slot.gone_since.is_none()))
    };
    let mut members: Vec<_> = tailnet.peers.iter().map(|peer| (slot_of(peer), peer.as_ref())).collect();
    // What does not fit should be what would say "slot 0" anyway.
    members.sort_by_key(|(slot, peer)| (slot.is_none(), peer.id.as_str()));

    let mut addresses = Claims::default();
    let mut prefixes = Claims::default();
    for (slot, peer) in &members {
        for address in &peer.addresses {
            addresses.add(IpNet::from(*address), slot.unwrap_or(UNATTRIBUTED));
        }
    }
    for (slot, peer) in &members {
        for network in &peer.allowed_ips {
            let claims = match network.prefix_len() {
                0 => continue,
                length if length == network.max_prefix_len() => &mut addresses,
                _ => &mut prefixes,
            };
            claims.add(*network, slot.unwrap_or(UNATTRIBUTED));
        }
    }
    let exit_node = tailnet.peers.iter().find(|peer| peer.exit_node);
    let mut keys = PeerKeys {
        exit_node_slot: exit_node.and_then(|peer| slot_of(peer)).unwrap_or(UNATTRIBUTED),
        ..PeerKeys::default()
    };
    (keys.addresses_v4, keys.addresses_v6) = addresses.settle(sizes.addresses, &mut keys.refused);
    (keys.prefixes_v4, keys.prefixes_v6) = prefixes.settle(sizes.prefixes, &mut keys.refused);
    keys
}

/// Keys of what is behind this host: its own addresses, on the tunnel and elsewhere, and the routes it
/// advertises.
pub(super) fn routes(own: &[IpAddr], advertised: &[IpNet], host: &[IpAddr], sizes: &Sizes) -> RouteKeys {
    let mut claims = Claims::default();
    for address in own.iter().chain(host) {
        claims.add(IpNet::from(*address), CLASS_LOCAL);
    }
    for network in advertised.iter().filter(|network| network.prefix_len() > 0) {
        claims.add(*network, CLASS_SUBNET);
    }
    let mut keys = RouteKeys::default();
    (keys.v4, keys.v6) = claims.settle(sizes.routes, &mut keys.refused);
    keys
}

/// Keys as they were claimed; the first claim of a key holds.
#[derive(Default)]
struct Claims {
    v4: Entries<4>,
    v6: Entries<16>,
}

impl Claims {
    fn add(&mut self, network: IpNet, value: u32) {
        let length = network.prefix_len();
        match network.network() {
            IpAddr::V4(address) => self.v4.push((Prefix { address: address.octets(), length }, value)),
            IpAddr::V6(address) => self.v6.push((Prefix { address: address.octets(), length }, value)),
        }
    }

    fn settle(self, room: u32, refused: &mut u64) -> (Entries<4>, Entries<16>) {
        (settle(self.v4, room, refused), settle(self.v6, room, refused))
    }
}

/// Orders claims by key, keeps the first of each key, and of these the first `room`.
fn settle<const N: usize>(claims: Entries<N>, room: u32, refused: &mut u64) -> Entries<N> {
    let mut ordered: Vec<_> = claims.into_iter().enumerate().collect();
    ordered.sort_unstable_by_key(|(order, (key, _))| (*key, *order));
    ordered.dedup_by_key(|(_, (key, _))| *key);
    let excess = ordered.len().saturating_sub(room as usize);
    if excess > 0 {
        *refused += excess as u64;
        ordered.sort_unstable_by_key(|(order, _)| *order);
        ordered.truncate(room as usize);
        ordered.sort_unstable_by_key(|(_, (key, _))| *key);
    }
    ordered.into_iter().map(|(_, entry)| entry).collect()
}

/// What must be done to turn `installed` into `wanted`; both are ordered by key. Entries to set come first.
pub(super) fn difference<const N: usize>(
    installed: &Entries<N>,
    wanted: &Entries<N>,
) -> (Entries<N>, Vec<Prefix<N>>) {
    let mut set = Vec::new();
    let mut remove = Vec::new();
    let (mut old, mut new) = (installed.iter().peekable(), wanted.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (Some((key, _)), next) if next.is_none_or(|(next, _)| key < next) => {
                remove.push(*key);
                old.next();
            }
            (Some((key, value)), Some(entry)) if *key == entry.0 => {
                if *value != entry.1 {
                    set.push(**entry);
                }
                old.next();
                new.next();
            }
            (_, Some(entry)) => {
                set.push(**entry);
                new.next();
            }
            _ => return (set, remove),
        }
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
