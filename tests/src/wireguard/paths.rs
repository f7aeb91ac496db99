//! The ways between two nodes: direct, through a peer relay, through DERP.

use std::net::SocketAddr;
use std::sync::PoisonError;

use super::peers::Peer;
use super::plane::Plane;
use crate::underlay::messages::{GENEVE_LEN, geneve_header};

/// How two nodes reach each other, as the control plane of the miniature tailnet decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Path {
    /// UDP between the two.
    #[default]
    Direct,
    /// Through the DERP server.
    Derp,
    /// Through the peer relay at this address, by this network number.
    PeerRelay(SocketAddr, u32),
}

/// Where a message goes to or came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Direct(SocketAddr),
    Derp,
    PeerRelay(SocketAddr, u32),
}

/// How many kinds of ways tailscaled tells apart.
pub(super) const WAYS: usize = 5;
/// tailscaled's labels of them, on its metrics.
pub const WAY_LABELS: [&str; WAYS] =
    ["derp", "direct_ipv4", "direct_ipv6", "peer_relay_ipv4", "peer_relay_ipv6"];

impl Way {
    /// Place in [`WAY_LABELS`].
    pub(super) fn kind(self) -> usize {
        match self {
            Self::Derp => 0,
            Self::Direct(address) => 1 + usize::from(address.is_ipv6()),
            Self::PeerRelay(address, _) => 3 + usize::from(address.is_ipv6()),
        }
    }

    /// The other end of the UDP flow.
    pub(super) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Derp => None,
            Self::Direct(address) | Self::PeerRelay(address, _) => Some(address),
        }
    }
}

impl Plane {
    /// Sends messages of `segment` bytes that lie one after the other, the last perhaps shorter; whether all left.
    pub(super) fn send_batch(
        &self,
        peer: &Peer,
        way: Way,
        protocol: u16,
        messages: &[u8],
        segment: usize,
    ) -> bool {
        let socket = |to: SocketAddr| &self.sockets[usize::from(to.is_ipv6())];
        match way {
            Way::Direct(to) => socket(to).send(to, messages, segment).is_ok(),
            Way::PeerRelay(to, network) => {
                let header = geneve_header(protocol, network);
                let wrapped = messages.chunks(segment).flat_map(|message| [header.as_slice(), message]);
                let wrapped = wrapped.collect::<Vec<_>>().concat();
                socket(to).send(to, &wrapped, segment + GENEVE_LEN).is_ok()
            }
            Way::Derp => {
                let derp = self.derp.read().unwrap_or_else(PoisonError::into_inner);
                let mut messages = messages.chunks(segment);
                derp.as_ref().is_some_and(|outbox| messages.all(|message| outbox.push(peer.id, message)))
            }
        }
    }
}
