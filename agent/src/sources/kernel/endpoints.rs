//! Which peer is behind which endpoint of the underlay, and behind which disco key: a pure function of the tailnet
//! and the slots.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tailgauge_ebpf::layout::{Endpoint, UNATTRIBUTED};
use tailgauge_ebpf::message::DISCO_KEY;

use super::keys::{Entries, Prefix};
use super::sizes::Sizes;
use crate::model::slots::SlotTable;
use crate::model::tailnet::{Peer, Tailnet};

/// Bytes of an [`Endpoint`].
pub(super) const ENDPOINT: usize = size_of::<Endpoint>();

/// Entries of the maps that say whose the messages on the underlay are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EndpointKeys {
    pub(super) endpoints: Entries<ENDPOINT>,
    pub(super) disco_keys: Entries<DISCO_KEY>,
    /// Keys that found no room.
    pub(super) refused: u64,
}

/// How sure an owner of a key is; the surest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// tailscaled talks to the peer there.
    Current,
    /// The peer may be there.
    Candidate,
}

/// A key as a member claims it.
type Claimed<const N: usize> = ([u8; N], Claim, u32);

/// The tailnet's members, each with its slot if it has one.
pub(super) type Members = Vec<(Option<u32>, Arc<Peer>)>;

/// The members and their slots, in the tailnet's order.
pub(super) fn members(tailnet: &Tailnet, slots: &SlotTable) -> Members {
    let slot_of = |peer: &Peer| {
        let slot = slots.slot_of(&peer.id);
        slot.filter(|slot| slots.get(*slot).is_some_and(|slot| slot.gone_since.is_none()))
    };
    tailnet.peers.iter().map(|peer| (slot_of(peer), Arc::clone(peer))).collect()
}

/// Whether both lead to the same keys. Most news are of other things, and thousands of members have many endpoints.
pub(super) fn claim_the_same(members: &Members, others: &Members) -> bool {
    let claims = |peer: &Peer| (peer.endpoint, peer.relay, peer.disco_key);
    let is_same = |((slot, peer), (other_slot, other)): (&(_, Arc<Peer>), &(_, Arc<Peer>))| {
        slot == other_slot
            && (Arc::ptr_eq(peer, other)
                || peer.id == other.id && claims(peer) == claims(other) && peer.endpoints == other.endpoints)
    };
    members.len() == others.len() && members.iter().zip(others).all(is_same)
}

/// Keys of all members. A candidate that is the current endpoint of another member is that one's alone. One that
/// several claim is nobody's: private addresses are the same at many sites. A member without a slot claims for slot 0,
/// for the reason given at [`super::keys::peers`].
pub(super) fn keys(members: &Members, sizes: &Sizes) -> EndpointKeys {
    let mut members: Vec<_> = members.iter().map(|(slot, peer)| (*slot, peer.as_ref())).collect();
    // What does not fit should be what would say "slot 0" anyway.
    members.sort_by_key(|(slot, peer)| (slot.is_none(), peer.id.as_str()));

    let mut endpoints = Vec::new();
    let mut disco_keys = Vec::new();
    for (member, (_, peer)) in (0..).zip(&members) {
        let relay = peer.relay.map(|(address, network)| endpoint(address, Some(network)));
        let current = peer.endpoint.map(|address| endpoint(address, None));
        endpoints.extend(current.into_iter().chain(relay).map(|key| (key, Claim::Current, member)));
        let candidates = peer.endpoints.iter().map(|address| endpoint(*address, None));
        endpoints.extend(candidates.map(|key| (key, Claim::Candidate, member)));
        disco_keys.extend(peer.disco_key.map(|key| (key, Claim::Current, member)));
    }
    let slot_of =
        |member: u32| members.get(member as usize).and_then(|(slot, _)| *slot).unwrap_or(UNATTRIBUTED);
    let mut refused = 0;
    EndpointKeys {
        endpoints: settle(endpoints, slot_of, sizes.endpoints, &mut refused),
        disco_keys: settle(disco_keys, slot_of, sizes.slots, &mut refused),
        refused,
    }
}

/// An endpoint as the programs see it; `network` is the virtual network identifier on a peer relay.
fn endpoint(address: SocketAddr, network: Option<u32>) -> [u8; ENDPOINT] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let relay = network.map_or(0, |network| network.saturating_add(1));
    let mut key = [0; ENDPOINT];
    key[..16].copy_from_slice(&ip.octets());
    key[16..18].copy_from_slice(&address.port().to_be_bytes());
    key[20..].copy_from_slice(&relay.to_ne_bytes());
    key
}

/// Gives each key to its only claimant of the surest kind, orders the keys, and keeps the first `room` of them by
/// kind of claim and claimant.
fn settle<const N: usize>(
    mut claims: Vec<Claimed<N>>,
    slot_of: impl Fn(u32) -> u32,
    room: u32,
    refused: &mut u64,
) -> Entries<N> {
    claims.sort_unstable();
    claims.dedup();
    let of_one_key = claims.chunk_by(|a, b| a.0 == b.0);
    let mut owned: Vec<_> = of_one_key
        .filter_map(|claims| match claims {
            [only] => Some(*only),
            [first, second, ..] => (first.1 != second.1).then_some(*first),
            [] => None,
        })
        .collect();
    let excess = owned.len().saturating_sub(room as usize);
    if excess > 0 {
        *refused += excess as u64;
        owned.sort_unstable_by_key(|(key, claim, member)| (*claim, *member, *key));
        owned.truncate(room as usize);
        owned.sort_unstable();
    }
    // Not a prefix: the whole key counts, however long.
    owned.into_iter().map(|(address, _, member)| (Prefix { address, length: 0 }, slot_of(member))).collect()
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;
