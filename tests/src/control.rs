//! The control plane: which machines there are and what each of them may know about the others.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::SystemTime;

use ipnet::IpNet;

use crate::underlay::disco::DiscoKey;
use crate::wireguard::{Identity, Path, PeerConfig, PrivateKey};

/// A machine of the tailnet, whether a node stands behind it or not.
#[derive(Debug, Clone)]
pub struct Machine {
    /// NodeID, and as text StableNodeID.
    pub id: u64,
    /// Host name and first label of the DNS name.
    pub name: String,
    /// Operating system as it says.
    pub os: String,
    /// Node key.
    pub key: PrivateKey,
    /// What its disco messages carry in clear.
    pub disco: DiscoKey,
    /// Tailscale addresses.
    pub addresses: (Ipv4Addr, Ipv6Addr),
    /// Approved routes; with 0.0.0.0/0 and ::/0 it offers to be an exit node.
    pub routes: Vec<IpNet>,
    /// Where it listens.
    pub endpoints: Vec<SocketAddr>,
    /// Connected to the control plane.
    pub online: bool,
    /// ACL tags.
    pub tags: Vec<String>,
    /// When it was added.
    pub created: SystemTime,
}

impl Machine {
    /// A Linux machine with the addresses 100.64.x.y and fd7a:115c:a1e0::x:y made from its id, without routes.
    #[must_use]
    pub fn new(id: u64, name: impl Into<String>) -> Self {
        let host = id as u32;
        let low = (host & 0xffff) as u16;
        Self {
            id,
            name: name.into(),
            os: "linux".to_owned(),
            key: PrivateKey::generate(),
            disco: DiscoKey::generate(),
            addresses: (
                Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) | (host & 0x003f_ffff)),
                Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, (host >> 16) as u16, low),
            ),
            routes: Vec::new(),
            endpoints: Vec::new(),
            online: true,
            tags: Vec::new(),
            created: SystemTime::now(),
        }
    }

    /// What its data plane is known by.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { key: self.key.clone(), disco: self.disco }
    }

    /// Its two addresses, IPv4 first.
    #[must_use]
    pub fn ips(&self) -> [IpAddr; 2] {
        [self.addresses.0.into(), self.addresses.1.into()]
    }

    /// Its addresses as prefixes.
    #[must_use]
    pub fn own_prefixes(&self) -> [IpNet; 2] {
        self.ips().map(IpNet::from)
    }

    /// Everything that may come from it, in Tailscale's order.
    #[must_use]
    pub fn allowed_ips(&self) -> Vec<IpNet> {
        let mut prefixes: Vec<IpNet> = self.own_prefixes().into_iter().chain(self.routes.clone()).collect();
        prefixes.sort_by_key(|prefix| (prefix.addr(), prefix.prefix_len()));
        prefixes
    }

    /// Its routes without the two that make an exit node.
    pub fn primary_routes(&self) -> impl Iterator<Item = IpNet> {
        self.routes.iter().copied().filter(|route| route.prefix_len() > 0)
    }

    /// Offers to be an exit node, and is approved.
    #[must_use]
    pub fn is_exit_option(&self) -> bool {
        self.routes.iter().any(|route| route.prefix_len() == 0)
    }
}

/// All machines, and how they use each other.
#[derive(Debug, Default)]
pub struct Control {
    /// By NodeID.
    pub machines: BTreeMap<u64, Machine>,
    /// Node to the exit node that it uses.
    pub exit_node_of: BTreeMap<u64, u64>,
    /// How two machines reach each other, the lower id first; directly when it is not said.
    pub paths: BTreeMap<(u64, u64), Path>,
    /// Addresses of the machine that answers STUN, serves DERP and is a peer relay.
    pub hub: Vec<IpAddr>,
}

impl Control {
    /// Every machine but `viewer`.
    pub fn peers_of(&self, viewer: u64) -> impl Iterator<Item = &Machine> {
        self.machines.values().filter(move |machine| machine.id != viewer)
    }

    /// What the data plane of `viewer` has to know. The exit node's /0 counts only where it is used.
    #[must_use]
    pub fn peer_configs(&self, viewer: u64) -> Vec<PeerConfig> {
        let Some(own) = self.machines.get(&viewer) else { return Vec::new() };
        self.peers_of(viewer)
            .map(|peer| {
                let uses_as_exit = self.exit_node_of.get(&viewer) == Some(&peer.id);
                let allowed = peer.allowed_ips();
                PeerConfig {
                    id: peer.id,
                    key: peer.key.public(),
                    disco: peer.disco,
                    endpoint: common_endpoint(own, peer),
                    path: self.path(viewer, peer.id),
                    allowed_ips: allowed
                        .into_iter()
                        .filter(|prefix| prefix.prefix_len() > 0 || uses_as_exit)
                        .collect(),
                }
            })
            .collect()
    }

    /// The hub's addresses that `viewer` can reach.
    #[must_use]
    pub fn hub_for(&self, viewer: u64) -> Vec<IpAddr> {
        let own = self.machines.get(&viewer).map_or(&[][..], |own| &own.endpoints);
        let reaches = |address: &&IpAddr| own.iter().any(|at| at.is_ipv6() == address.is_ipv6());
        self.hub.iter().filter(reaches).copied().collect()
    }

    /// The path between two machines.
    #[must_use]
    pub fn path(&self, one: u64, other: u64) -> Path {
        self.paths.get(&(one.min(other), one.max(other))).copied().unwrap_or_default()
    }

    /// The machine of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Machine> {
        self.machines.values().find(|machine| machine.name == name)
    }
}

/// The first endpoint of the peer in an address family that both have.
fn common_endpoint(own: &Machine, peer: &Machine) -> Option<SocketAddr> {
    let has = |ipv6: bool| own.endpoints.iter().any(|endpoint| endpoint.is_ipv6() == ipv6);
    peer.endpoints.iter().copied().find(|endpoint| has(endpoint.is_ipv6()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_route_counts_only_where_it_is_used() {
        let mut control = Control::default();
        for (id, name) in [(1, "exit"), (2, "c1"), (3, "c2")] {
            control.machines.insert(id, Machine::new(id, name));
        }
        let zero: IpNet = "0.0.0.0/0".parse().unwrap();
        control.machines.get_mut(&1).unwrap().routes = vec![zero];
        control.exit_node_of.insert(2, 1);
        let allowed = |viewer| {
            let configs = control.peer_configs(viewer);
            configs.into_iter().find(|config| config.id == 1).unwrap().allowed_ips
        };
        assert!(allowed(2).contains(&zero));
        assert!(!allowed(3).contains(&zero));
        assert_eq!(control.machines[&1].allowed_ips()[0], zero);
    }

    #[test]
    fn addresses_follow_from_the_id() {
        let machine = Machine::new(0x1_0002, "far");
        assert_eq!(machine.addresses.0, Ipv4Addr::new(100, 65, 0, 2));
        assert_eq!(machine.addresses.1.to_string(), "fd7a:115c:a1e0::1:2");
    }
}
