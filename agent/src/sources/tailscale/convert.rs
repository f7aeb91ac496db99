//! From what the LocalAPI says of one node to a [`Peer`] of the model: cleaned, parsed, in one order.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::api::{List, Map, Node, PeerState, PeerStatus, Status, UserProfile};
use super::reach;
use crate::model::tailnet::{Path, Peer, WireGuardSession, WireGuardState};
use crate::sources::clean;

/// Stands for an operating system or owner that nobody named.
const UNKNOWN: &str = "unknown";
/// States of a tailscaled that has not heard from the control plane yet.
const BEFORE_MAP: [&str; 2] = ["NoState", "Starting"];

/// A peer with what is needed to follow it but shown to nobody.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Member {
    pub(super) peer: Arc<Peer>,
    /// Number that patches and removals name it by.
    pub(super) node_id: Option<i64>,
    /// Number of its owner.
    pub(super) user_id: Option<i64>,
    /// Routes it was allowed to advertise, as far as it says.
    pub(super) routes: Vec<IpNet>,
}

/// Login names by user number.
pub(super) type Users = HashMap<i64, String>;

/// The part that both descriptions of a node have, still raw.
struct Identity<'a> {
    id: Option<&'a String>,
    node_id: Option<i64>,
    key: Option<&'a String>,
    dns_name: Option<&'a String>,
    host_name: Option<&'a String>,
    os: Option<&'a String>,
    user_id: Option<i64>,
    tags: &'a List<String>,
    addresses: Vec<IpAddr>,
    allowed_ips: &'a List<String>,
    primary_routes: &'a List<String>,
}

/// What `/status` says, converted where it is parsed: for thousands of peers that takes a while.
#[derive(Debug, Deserialize)]
#[serde(from = "Status")]
pub(super) struct Report {
    pub(super) version: String,
    pub(super) backend_state: String,
    pub(super) tun: bool,
    pub(super) health: Vec<String>,
    pub(super) users: Users,
    pub(super) own: Option<Member>,
    pub(super) peers: Vec<Member>,
    /// False for a tailscaled that starts and has not heard from the control plane yet.
    pub(super) knows_map: bool,
}

impl From<Status> for Report {
    fn from(status: Status) -> Self {
        let users = users(&status.user);
        let own = status.own.as_ref();
        let peers: Vec<Member> = status
            .peer
            .iter()
            .flatten()
            .filter_map(|(_, peer)| from_status(peer.as_ref()?, &users))
            .collect();
        let backend_state = clean::label(status.backend_state.as_deref().unwrap_or_default(), "NoState");
        Self {
            version: clean::text(status.version.as_deref().unwrap_or_default(), ""),
            tun: status.tun == Some(true),
            health: status.health.iter().flatten().flatten().map(|text| clean::text(text, "")).collect(),
            own: own.and_then(|own| from_status(own, &users)),
            knows_map: !peers.is_empty()
                || own.is_some_and(|own| own.in_network_map == Some(true))
                || !BEFORE_MAP.contains(&backend_state.as_str()),
            backend_state,
            users,
            peers,
        }
    }
}

/// Login names that are readable, by user number.
pub(super) fn users(profiles: &Map<UserProfile>) -> Users {
    let profiles = profiles.iter().flatten();
    profiles
        .filter_map(|(number, profile)| {
            let login = profile.as_ref()?.login_name.as_deref().unwrap_or_default();
            Some((number.parse().ok()?, clean::text(login, "")))
        })
        .collect()
}

/// From `/status`; it knows neither the state of the WireGuard session nor the disco key, and endpoints of this node
/// only (`Addrs`). `None` for a node without id and key.
fn from_status(status: &PeerStatus, users: &Users) -> Option<Member> {
    let (mut peer, mut member) = identify(
        &Identity {
            id: status.id.as_ref(),
            node_id: status.node_id,
            key: status.public_key.as_ref(),
            dns_name: status.dns_name.as_ref(),
            host_name: status.host_name.as_ref(),
            os: status.os.as_ref(),
            user_id: status.user_id,
            tags: &status.tags,
            addresses: parsed(&status.tailscale_ips, address),
            allowed_ips: &status.allowed_ips,
            primary_routes: &status.primary_routes,
        },
        users,
    )?;
    peer.online = status.online == Some(true);
    peer.active = status.active == Some(true);
    peer.path = path(status);
    peer.endpoint = status.cur_addr.as_deref().and_then(|address| address.parse().ok());
    peer.endpoints = reach::endpoints(&status.addrs);
    peer.relay = status.peer_relay.as_deref().and_then(reach::relay);
    peer.derp_region = clean::label(status.relay.as_deref().unwrap_or_default(), "");
    peer.exit_node = status.exit_node == Some(true);
    peer.exit_node_option = status.exit_node_option.unwrap_or(peer.exit_node_option);
    peer.last_handshake = status.last_handshake.as_deref().and_then(moment);
    peer.engine_receive_bytes = count(status.rx_bytes);
    peer.engine_transmit_bytes = count(status.tx_bytes);
    member.peer = Arc::new(peer);
    Some(member)
}

/// From the bus; it does not know path, traffic and exit node, so those are kept from `previous`. `None` for a
/// node without id and key.
pub(super) fn from_node<'p>(
    node: &Node,
    users: &Users,
    previous: impl Fn(&str) -> Option<&'p Member>,
) -> Option<Member> {
    let hostinfo = node.hostinfo.as_ref();
    let (mut peer, mut member) = identify(
        &Identity {
            id: node.stable_id.as_ref(),
            node_id: node.id,
            key: node.key.as_ref(),
            dns_name: node.name.as_ref(),
            host_name: hostinfo.and_then(|hostinfo| hostinfo.hostname.as_ref()),
            os: hostinfo.and_then(|hostinfo| hostinfo.os.as_ref()),
            user_id: node.user,
            tags: &node.tags,
            addresses: parsed(&node.addresses, address),
            allowed_ips: &node.allowed_ips,
            primary_routes: &node.primary_routes,
        },
        users,
    )?;
    if let Some(Member { peer: before, .. }) = previous(&peer.id) {
        peer.online = before.online;
        peer.active = before.active;
        peer.path = before.path;
        peer.endpoint = before.endpoint;
        peer.relay = before.relay;
        peer.derp_region.clone_from(&before.derp_region);
        peer.exit_node = before.exit_node;
        peer.last_handshake = before.last_handshake;
        peer.wireguard = before.wireguard;
        peer.engine_receive_bytes = before.engine_receive_bytes;
        peer.engine_transmit_bytes = before.engine_transmit_bytes;
    }
    peer.online = node.online.unwrap_or(peer.online);
    peer.disco_key = node.disco_key.as_deref().and_then(reach::disco_key);
    peer.endpoints = reach::endpoints(&node.endpoints);
    member.peer = Arc::new(peer);
    Some(member)
}

fn identify(raw: &Identity<'_>, users: &Users) -> Option<(Peer, Member)> {
    let id =
        [raw.id, raw.key].into_iter().flatten().map(|id| clean::text(id, "")).find(|id| !id.is_empty())?;
    let dns_name = raw.dns_name.map_or("", |name| name.trim_end_matches('.'));
    let host_name = clean::label(raw.host_name.map_or("", String::as_str), &id);
    let name = clean::label(dns_name.split('.').next().unwrap_or_default(), &host_name);
    let allowed_ips = parsed(raw.allowed_ips, network);
    let peer = Peer {
        dns_name: clean::text(dns_name, &name),
        os: clean::label(raw.os.map_or("", String::as_str), UNKNOWN),
        user: owner(raw.user_id, users),
        tags: parsed(raw.tags, |tag| Some(clean::text(tag, "")).filter(|tag| !tag.is_empty())),
        exit_node_option: is_exit_node_option(&allowed_ips),
        node_key: clean::text(raw.key.map_or("", String::as_str), ""),
        addresses: raw.addresses.clone(),
        id,
        name,
        allowed_ips,
        ..Peer::default()
    };
    let mut routes = parsed(raw.primary_routes, network);
    routes.extend(&peer.allowed_ips);
    let routes = advertised_routes(routes, &peer.addresses);
    Some((peer, Member { node_id: raw.node_id, user_id: raw.user_id, routes, ..Member::default() }))
}

/// Login name of a user.
pub(super) fn owner(user_id: Option<i64>, users: &Users) -> String {
    let login = user_id.and_then(|user_id| users.get(&user_id));
    clean::text(login.map_or("", String::as_str), UNKNOWN)
}

/// `routes` without the node's own addresses and without /0, as tailscaled counts approved routes
/// (`approvedRoutes` in ipn/ipnlocal/local.go).
pub(super) fn advertised_routes(mut routes: Vec<IpNet>, own: &[IpAddr]) -> Vec<IpNet> {
    routes.retain(|route| {
        let single = route.prefix_len() == route.max_prefix_len();
        route.prefix_len() > 0 && !(single && own.contains(&route.addr()))
    });
    routes.sort_unstable();
    routes.dedup();
    routes
}

/// Both /0, as in `tsaddr.ContainsExitRoutes`.
fn is_exit_node_option(allowed_ips: &[IpNet]) -> bool {
    let everything = |ipv4: bool| {
        allowed_ips.iter().any(|network| network.prefix_len() == 0 && network.addr().is_ipv4() == ipv4)
    };
    everything(true) && everything(false)
}

/// How tailscaled reaches a peer: `populatePeerStatus` in wgengine/magicsock/endpoint.go fills at most one of
/// `PeerRelay` and `CurAddr`; `Relay` is the peer's home and says nothing.
fn path(status: &PeerStatus) -> Path {
    let relay = status.peer_relay.as_deref().unwrap_or_default();
    let direct = status.cur_addr.as_deref().unwrap_or_default();
    if !relay.is_empty() {
        return if relay.starts_with('[') { Path::PeerRelayIpv6 } else { Path::PeerRelayIpv4 };
    }
    match direct.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(_)) => Path::DirectIpv4,
        Ok(SocketAddr::V6(_)) => Path::DirectIpv6,
        Err(_) if status.active == Some(true) => Path::Derp,
        Err(_) => Path::Idle,
    }
}

/// The elements that `parse` accepts, sorted, each once. What it does not accept is not worth the peer.
pub(super) fn parsed<T: Ord>(list: &List<String>, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let mut items: Vec<T> = list.iter().flatten().flatten().filter_map(|item| parse(item)).collect();
    items.sort_unstable();
    items.dedup();
    items
}

/// `192.0.2.0/24`, or one address.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    network.map(|network| network.trunc())
}

/// `100.64.0.1`, or the same as a network of one address.
fn address(text: &str) -> Option<IpAddr> {
    let network = network(text)?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

/// RFC 3339; Go's zero time and anything before 1970 is none.
pub(super) fn moment(text: &str) -> Option<SystemTime> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (moment.unix_timestamp() > 0).then(|| moment.into())
}

/// A Go int64 that counts.
pub(super) fn count(value: Option<i64>) -> u64 {
    value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0)
}

/// A session in one of the states that `PeerWireGuardState.MarshalText` (ipn/backend.go) knows.
pub(super) fn wireguard_session(said: &PeerState) -> Option<WireGuardSession> {
    let word = said.peer_wire_guard_state.as_deref()?;
    let state = WireGuardState::ALL.into_iter().find(|state| state.as_str() == word)?;
    Some(WireGuardSession { state, since: said.peer_wire_guard_state_at.as_deref().and_then(moment) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(id: &str, dns_name: &str, host_name: &str) -> PeerStatus {
        PeerStatus {
            id: Some(id.to_owned()),
            dns_name: Some(dns_name.to_owned()),
            host_name: Some(host_name.to_owned()),
            ..PeerStatus::default()
        }
    }

    fn convert(status: &PeerStatus) -> Option<Member> {
        from_status(status, &Users::new())
    }

    #[test]
    fn the_name_is_the_first_label_else_the_host_name_else_the_id() {
        let name = |dns, host| convert(&status("id1", dns, host)).unwrap().peer.name.clone();
        assert_eq!(name("web.lab.internal.", "other"), "web");
        assert_eq!(name("", "Bob's\tlaptop"), "Bob'slaptop");
        assert_eq!(name(".", "\u{202e}"), "id1");
    }

    #[test]
    fn hostile_names_are_bounded_and_clean() {
        let peer = convert(&status("id1", "\"\n{}.lab.", "")).unwrap().peer;
        assert_eq!((peer.name.as_str(), peer.dns_name.as_str()), ("\"{}", "\"{}.lab"));
        let peer = convert(&status("id1", &"x".repeat(10_000), "")).unwrap().peer;
        assert_eq!((peer.name.len(), peer.dns_name.len()), (63, 256));
    }

    #[test]
    fn a_node_without_id_goes_by_its_key_and_without_both_is_none() {
        let mut raw = PeerStatus { public_key: Some("nodekey:ab".to_owned()), ..PeerStatus::default() };
        assert_eq!(convert(&raw).unwrap().peer.id, "nodekey:ab");
        raw.public_key = None;
        assert_eq!(convert(&raw), None);
    }

    #[test]
    fn paths_as_magicsock_says_them() {
        let with = |cur_addr: &str, peer_relay: &str, active| {
            path(&PeerStatus {
                cur_addr: Some(cur_addr.to_owned()),
                peer_relay: Some(peer_relay.to_owned()),
                relay: Some("fra".to_owned()),
                active: Some(active),
                ..PeerStatus::default()
            })
        };
        assert_eq!(with("192.0.2.1:41641", "", true), Path::DirectIpv4);
        assert_eq!(with("[2001:db8::1]:41641", "", false), Path::DirectIpv6);
        assert_eq!(with("", "192.0.2.3:40000:vni:1", true), Path::PeerRelayIpv4);
        assert_eq!(with("", "[2001:db8::3]:40000:vni:1", true), Path::PeerRelayIpv6);
        assert_eq!(with("", "", true), Path::Derp);
        assert_eq!(with("", "", false), Path::Idle);
    }

    #[test]
    fn unreadable_addresses_and_times_are_left_out() {
        let mut raw = status("id1", "a.", "");
        raw.allowed_ips =
            Some(vec![Some("10.1.2.3/8".into()), None, Some("nonsense".into()), Some("::/129".into())]);
        raw.last_handshake = Some("0001-01-01T00:00:00Z".into());
        let peer = convert(&raw).unwrap().peer;
        assert_eq!(peer.allowed_ips, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
        assert_eq!(peer.last_handshake, None);
        assert_eq!(moment("yesterday"), None);
        assert!(moment("2026-11-22T21:24:01.893266188Z").is_some());
    }

    #[test]
    fn own_addresses_and_the_default_route_are_no_advertised_routes() {
        let routes =
            ["0.0.0.0/0", "100.64.0.1/32", "192.0.2.0/24", "::/0", "198.51.100.7/32", "192.0.2.0/24"];
        let routes = routes.iter().filter_map(|route| network(route)).collect();
        let left = advertised_routes(routes, &["100.64.0.1".parse().unwrap()]);
        assert_eq!(left, [network("192.0.2.0/24").unwrap(), network("198.51.100.7").unwrap()]);
    }
}
