//! Which peer an address belongs to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::tailnet::{Peer, Tailnet};

/// Peers by their Tailscale addresses.
#[derive(Debug, Default)]
pub(super) struct Peers {
    tailnet: Arc<Tailnet>,
    /// What the tables below were made from.
    known: Arc<Tailnet>,
    by_address: HashMap<IpAddr, usize>,
    networks: Vec<IpNet>,
}

impl Peers {
    /// Takes over who is there; tables are made when they are next needed.
    pub(super) fn follow(&mut self, tailnet: &Arc<Tailnet>) {
        self.tailnet = Arc::clone(tailnet);
    }

    /// For each address family, the smallest network that every peer's addresses are in.
    pub(super) fn networks(&mut self) -> &[IpNet] {
        // tailscaled has news every two seconds; addresses hardly ever change.
        if !same_addresses(&self.known, &self.tailnet) {
            self.by_address.clear();
            for (place, peer) in self.tailnet.peers.iter().enumerate() {
                for address in &peer.addresses {
                    // Nobody else's claim to an address changes whose it is.
                    self.by_address.entry(*address).or_insert(place);
                }
            }
            let v4 = enclosing(self.by_address.keys().filter(|address| address.is_ipv4()));
            let v6 = enclosing(self.by_address.keys().filter(|address| address.is_ipv6()));
            self.networks = v4.into_iter().chain(v6).collect();
        }
        self.known = Arc::clone(&self.tailnet);
        &self.networks
    }

    /// Place of the peer with this address among the peers.
    pub(super) fn find(&self, address: IpAddr) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// The peer at a place.
    pub(super) fn get(&self, place: usize) -> Option<&Arc<Peer>> {
        self.tailnet.peers.get(place)
    }
}

/// Whether both have peers with the same addresses in the same places.
fn same_addresses(a: &Arc<Tailnet>, b: &Arc<Tailnet>) -> bool {
    let same = |(a, b): (&Arc<Peer>, &Arc<Peer>)| Arc::ptr_eq(a, b) || a.addresses == b.addresses;
    Arc::ptr_eq(a, b) || (a.peers.len() == b.peers.len() && a.peers.iter().zip(&b.peers).all(same))
}

/// The smallest network with all these addresses, which are of one family.
fn enclosing<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> Option<IpNet> {
    addresses.map(|address| IpNet::from(*address)).reduce(|a, b| match (a, b) {
        (IpNet::V4(a), IpNet::V4(b)) => {
            let same = (a.addr().to_bits() ^ b.addr().to_bits()).leading_zeros() as u8;
            Ipv4Net::new(a.addr(), same.min(a.prefix_len()))
                .map_or(IpNet::V4(a), |network| network.trunc().into())
        }
        (IpNet::V6(a), IpNet::V6(b)) => {
            let same = (a.addr().to_bits() ^ b.addr().to_bits()).leading_zeros() as u8;
            Ipv6Net::new(a.addr(), same.min(a.prefix_len()))
                .map_or(IpNet::V6(a), |network| network.trunc().into())
        }
        (a, _) => a,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_networks_of_a_tailnet_are_as_small_as_they_can_be() {
        let peer = |id: &str, addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            Arc::new(Peer { id: id.to_owned(), addresses, ..Peer::default() })
        };
        let mut peers = Peers::default();
        assert!(peers.networks().is_empty());
        let members = vec![
            peer("a", &["100.64.0.1", "fd7a:115c:a1e0::1"]),
            peer("b", &["100.64.0.2", "fd7a:115c:a1e0::8001"]),
            peer("c", &["100.64.0.1"]),
        ];
        peers.follow(&Arc::new(Tailnet { peers: members, ..Tailnet::default() }));
        let networks: Vec<_> = peers.networks().iter().map(IpNet::to_string).collect();
        assert_eq!(networks, ["100.64.0.0/30", "fd7a:115c:a1e0::/112"]);
        assert_eq!(peers.find("100.64.0.1".parse().unwrap()), Some(0), "the first one keeps it");
        assert_eq!(peers.find("100.64.0.3".parse().unwrap()), None);

        let changed = vec![peer("a", &["100.64.0.3"]), peer("b", &["100.64.0.2"]), peer("c", &[])];
        peers.follow(&Arc::new(Tailnet { peers: changed, ..Tailnet::default() }));
        assert_eq!(peers.networks().len(), 1);
        let found =
            ["100.64.0.1", "100.64.0.2", "100.64.0.3"].map(|address| peers.find(address.parse().unwrap()));
        assert_eq!(found, [None, Some(1), Some(0)]);
    }

    proptest! {
        #[test]
        fn every_address_is_in_the_network(v4 in prop::collection::vec(any::<[u8; 4]>(), 1..9),
                                           v6 in prop::collection::vec(any::<[u8; 16]>(), 1..9)) {
            for addresses in [v4.into_iter().map(IpAddr::from).collect::<Vec<_>>(),
                              v6.into_iter().map(IpAddr::from).collect()] {
                let network = enclosing(addresses.iter()).unwrap();
                prop_assert!(addresses.iter().all(|address| network.contains(address)));
                prop_assert!(network.prefix_len() == network.max_prefix_len() || addresses.len() > 1);
            }
        }
    }
}
