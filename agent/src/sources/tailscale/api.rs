//! What the LocalAPI says, as far as it is used. Every field may be missing or null, unknown ones are skipped:
//! tailscaled promises no stable shape.
//!
//! Sources: ipn/backend.go (`Notify`), ipn/ipnstate/ipnstate.go (`Status`, `PeerStatus`), tailcfg/tailcfg.go
//! (`Node`, `PeerChange`), ipn/prefs.go (`Prefs`), types/netmap/netmap.go (`NetworkMap`).

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::convert::Report;

/// A list whose elements may be null.
pub(super) type List<T> = Option<Vec<Option<T>>>;
/// A map whose values may be null.
pub(super) type Map<T> = Option<HashMap<String, Option<T>>>;

/// Answer of `/status`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Status {
    pub(super) version: Option<String>,
    #[serde(rename = "TUN")]
    pub(super) tun: Option<bool>,
    pub(super) backend_state: Option<String>,
    #[serde(rename = "Self")]
    pub(super) own: Option<PeerStatus>,
    pub(super) health: List<String>,
    pub(super) peer: Map<PeerStatus>,
    pub(super) user: Map<UserProfile>,
}

/// A peer in `/status`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PeerStatus {
    #[serde(rename = "ID")]
    pub(super) id: Option<String>,
    #[serde(rename = "NodeID")]
    pub(super) node_id: Option<i64>,
    pub(super) public_key: Option<String>,
    pub(super) host_name: Option<String>,
    #[serde(rename = "DNSName")]
    pub(super) dns_name: Option<String>,
    #[serde(rename = "OS")]
    pub(super) os: Option<String>,
    #[serde(rename = "UserID")]
    pub(super) user_id: Option<i64>,
    #[serde(rename = "TailscaleIPs")]
    pub(super) tailscale_ips: List<String>,
    #[serde(rename = "AllowedIPs")]
    pub(super) allowed_ips: List<String>,
    pub(super) primary_routes: List<String>,
    pub(super) tags: List<String>,
    pub(super) addrs: List<String>,
    pub(super) cur_addr: Option<String>,
    pub(super) peer_relay: Option<String>,
    pub(super) relay: Option<String>,
    pub(super) rx_bytes: Option<i64>,
    pub(super) tx_bytes: Option<i64>,
    pub(super) last_handshake: Option<String>,
    pub(super) online: Option<bool>,
    pub(super) active: Option<bool>,
    pub(super) exit_node: Option<bool>,
    pub(super) exit_node_option: Option<bool>,
    pub(super) in_network_map: Option<bool>,
}

/// Owner of nodes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UserProfile {
    pub(super) login_name: Option<String>,
}

/// The part of `/prefs` that is used.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Prefs {
    pub(super) advertise_routes: List<String>,
    pub(super) relay_server_port: Option<i64>,
}

/// A line of `/watch-ipn-bus`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Notify {
    pub(super) version: Option<String>,
    pub(super) err_message: Option<String>,
    pub(super) state: Option<i64>,
    pub(super) prefs: Option<IgnoredAny>,
    pub(super) initial_status: Option<Box<Report>>,
    pub(super) self_change: Option<Box<Node>>,
    pub(super) net_map: Option<Box<NetworkMap>>,
    pub(super) peers_changed: List<Node>,
    pub(super) peers_removed: List<i64>,
    pub(super) peer_changed_patch: List<PeerChange>,
    pub(super) user_profiles: Map<UserProfile>,
    pub(super) peer_state: Map<PeerState>,
    pub(super) engine: Option<EngineStatus>,
    pub(super) health: Option<IgnoredAny>,
}

/// A node as the control plane describes it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Node {
    #[serde(rename = "ID")]
    pub(super) id: Option<i64>,
    #[serde(rename = "StableID")]
    pub(super) stable_id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) user: Option<i64>,
    pub(super) key: Option<String>,
    pub(super) addresses: List<String>,
    #[serde(rename = "AllowedIPs")]
    pub(super) allowed_ips: List<String>,
    pub(super) primary_routes: List<String>,
    pub(super) disco_key: Option<String>,
    pub(super) endpoints: List<String>,
    pub(super) hostinfo: Option<Hostinfo>,
    pub(super) tags: List<String>,
    pub(super) online: Option<bool>,
}

/// What a node says about itself.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Hostinfo {
    pub(super) hostname: Option<String>,
    #[serde(rename = "OS")]
    pub(super) os: Option<String>,
}

/// A change of few fields of a node.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PeerChange {
    #[serde(rename = "NodeID")]
    pub(super) node_id: Option<i64>,
    pub(super) online: Option<bool>,
    pub(super) key: Option<String>,
    pub(super) disco_key: Option<String>,
    pub(super) endpoints: List<String>,
    #[serde(rename = "DERPRegion")]
    pub(super) derp_region: Option<i64>,
}

/// WireGuard session of a peer.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PeerState {
    pub(super) peer_wire_guard_state: Option<String>,
    pub(super) peer_wire_guard_state_at: Option<String>,
}

/// Counters of the WireGuard engine, every two seconds.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EngineStatus {
    pub(super) live_peers: Map<EnginePeer>,
}

/// Counters of one peer.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EnginePeer {
    pub(super) tx_bytes: Option<i64>,
    pub(super) rx_bytes: Option<i64>,
    pub(super) last_handshake: Option<String>,
}

/// The whole map, as it comes first.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkMap {
    pub(super) self_node: Option<Node>,
    pub(super) peers: List<Node>,
    pub(super) user_profiles: Map<UserProfile>,
}
