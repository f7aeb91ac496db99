//! The tailnet as tailscaled knows it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ipnet::IpNet;

/// How a peer is reached, in tailscaled's own words (`wgengine/magicsock`, label `path` of its metrics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// Nothing was sent lately, so tailscaled keeps no path.
    #[default]
    Idle,
    /// UDP over IPv4.
    DirectIpv4,
    /// UDP over IPv6.
    DirectIpv6,
    /// A DERP relay.
    Derp,
    /// A peer relay over IPv4.
    PeerRelayIpv4,
    /// A peer relay over IPv6.
    PeerRelayIpv6,
}

impl Path {
    /// Every path, in the order they are exported.
    pub const ALL: [Self; 6] = [
        Self::DirectIpv4,
        Self::DirectIpv6,
        Self::Derp,
        Self::PeerRelayIpv4,
        Self::PeerRelayIpv6,
        Self::Idle,
    ];

    /// Label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::DirectIpv4 => "direct_ipv4",
            Self::DirectIpv6 => "direct_ipv6",
            Self::Derp => "derp",
            Self::PeerRelayIpv4 => "peer_relay_ipv4",
            Self::PeerRelayIpv6 => "peer_relay_ipv6",
        }
    }
}

/// State of a peer's WireGuard session (`PeerWireGuardState` on the IPN bus, tailscaled 1.102 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireGuardState {
    /// No session.
    None,
    /// Handshake under way.
    Handshake,
    /// Session keys are valid.
    Established,
    /// Session keys ran out.
    Expired,
}

impl WireGuardState {
    /// Every state, in the order they are exported.
    pub const ALL: [Self; 4] = [Self::None, Self::Handshake, Self::Established, Self::Expired];

    /// Label value; tailscaled's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Handshake => "handshake",
            Self::Established => "established",
            Self::Expired => "expired",
        }
    }
}

/// A peer's WireGuard session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireGuardSession {
    /// Its state.
    pub state: WireGuardState,
    /// Since when it is in it, by tailscaled's clock.
    pub since: Option<SystemTime>,
}

/// A node of the tailnet. Strings are cleaned: valid UTF-8, no control characters, bounded length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peer {
    /// StableNodeID: survives key rotation and renaming.
    pub id: String,
    /// First label of the DNS name that the control plane gave.
    pub name: String,
    /// DNS name without the trailing dot.
    pub dns_name: String,
    /// Operating system as the peer says.
    pub os: String,
    /// Login name of the owner; `tagged-devices` for tagged nodes.
    pub user: String,
    /// ACL tags.
    pub tags: Vec<String>,
    /// Tailscale addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// What WireGuard accepts from the peer, /0 included when it offers to be an exit node.
    pub allowed_ips: Vec<IpNet>,
    /// Public key, `nodekey:…`.
    pub node_key: String,
    /// Connected to the control plane.
    pub online: bool,
    /// Sent something within the last 45 s.
    pub active: bool,
    /// How it is reached, as tailscaled says; `Slot::paths` knows more.
    pub path: Path,
    /// Where its packets come from while the path is a direct one.
    pub endpoint: Option<SocketAddr>,
    /// Where it may be reached directly, as the control plane passes on what it said itself.
    pub endpoints: Vec<SocketAddr>,
    /// The peer relay by which it is reached, and its virtual network identifier there.
    pub relay: Option<(SocketAddr, u32)>,
    /// Public key of its disco messages.
    pub disco_key: Option<[u8; 32]>,
    /// Code of its home DERP region; says nothing about the path.
    pub derp_region: String,
    /// This node uses the peer as its exit node.
    pub exit_node: bool,
    /// The peer offers itself as exit node, approved.
    pub exit_node_option: bool,
    /// Completion of the last WireGuard handshake.
    pub last_handshake: Option<SystemTime>,
    /// Its WireGuard session; `None` unless tailscaled says.
    pub wireguard: Option<WireGuardSession>,
    /// WireGuard message bytes received; resets when the engine forgets the peer.
    pub engine_receive_bytes: u64,
    /// WireGuard message bytes sent.
    pub engine_transmit_bytes: u64,
}

/// What tailscaled says about itself and its peers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tailnet {
    /// tailscaled answered the last request.
    pub up: bool,
    /// When tailscaled was last asked how the peers are reached; `None` while it is away or starts.
    pub paths_asked: Option<Instant>,
    /// Its version; empty until it answered once.
    pub version: String,
    /// `Running`, `NeedsLogin`, … (`ipn.State`).
    pub backend_state: String,
    /// False in userspace-networking mode, where there is no tunnel device.
    pub tun: bool,
    /// This node; `None` until it is known.
    pub own: Option<Arc<Peer>>,
    /// Times that this node's home DERP region became another one, tailscaled's restarts included.
    pub home_derp_changes: u64,
    /// Routes this node advertises and that were approved, without its own addresses and without /0.
    pub own_routes: Vec<IpNet>,
    /// UDP port of this node's own peer relay server, while it has one.
    pub relay_port: Option<u16>,
    /// Health messages.
    pub health: Vec<String>,
    /// Peers, ordered by id.
    pub peers: Vec<Arc<Peer>>,
}
