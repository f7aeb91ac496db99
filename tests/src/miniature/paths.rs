//! How two nodes reach each other.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{CORE_V4, CORE_V6, MiniatureTailnet, TailnetError};
use crate::control::Machine;
use crate::node::Node;
use crate::process::wait_until;
use crate::underlay::peer_relay;
use crate::wireguard::Path;

/// A connection to DERP is made within this time, or not.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ways that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// From endpoint to endpoint.
    Direct,
    /// Over TCP through `core`.
    Derp,
    /// Over UDP through `core`, IPv4.
    PeerRelayV4,
    /// The same over IPv6.
    PeerRelayV6,
}

impl MiniatureTailnet {
    /// Moves all that a node and the machine `peer` send each other, both ways at once, to another path. Their sessions
    /// go on, and nothing is lost.
    pub fn set_path(&self, node: &Node, peer: &str, via: Via) -> Result<Path, TailnetError> {
        let other = self.find(peer)?;
        let path = match via {
            Via::Direct => Path::Direct,
            Via::Derp => {
                self.connect_derp([node.id(), other.id])?;
                Path::Derp
            }
            Via::PeerRelayV4 => self.relay(node.id(), &other, CORE_V4.into())?,
            Via::PeerRelayV6 => self.relay(node.id(), &other, CORE_V6.into())?,
        };
        let pair = (node.id().min(other.id), node.id().max(other.id));
        self.control().paths.insert(pair, path);
        self.reconfigure()?;
        Ok(path)
    }

    /// Connects those of the machines that have a running node, and waits until the server knows them.
    fn connect_derp(&self, machines: [u64; 2]) -> Result<(), TailnetError> {
        for node in self.nodes().iter().filter(|node| machines.contains(&node.id())) {
            if node.connect_derp()? {
                let what = format!("{} to be connected to DERP", node.name());
                wait_until(&what, PATIENCE, || self.hub.derp().has(node.id()))?;
            }
        }
        Ok(())
    }

    /// Gives two machines a network on the relay; each pair has its own, and always the same.
    fn relay(&self, one: u64, other: &Machine, relay: IpAddr) -> Result<Path, TailnetError> {
        let control = self.control();
        let member = |machine: &Machine| {
            let mut endpoints = machine.endpoints.iter();
            endpoints
                .find(|endpoint| endpoint.is_ipv6() == relay.is_ipv6())
                .copied()
                .ok_or_else(|| TailnetError::NoAddress { machine: machine.name.clone(), relay })
        };
        let own = control.machines.get(&one).ok_or_else(|| TailnetError::NoSuchMachine(one.to_string()))?;
        let members = [member(own)?, member(other)?];
        // Cantor's pairing: small, and different for each pair of nodes.
        let (low, sum) = (one.min(other.id), one + other.id);
        let network = (sum * (sum + 1) / 2 + low) as u32 & 0x00ff_ffff;
        self.hub.relay().set_members(network, members);
        Ok(Path::PeerRelay(SocketAddr::new(relay, peer_relay::PORT), network))
    }
}
