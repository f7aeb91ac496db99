//! The JSON objects of tailscaled 1.102.3, field by field as in the recordings.

use std::time::SystemTime;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::http::VERSION;
use crate::control::Machine;
use crate::wireguard::peers::SESSION_ACTIVE;
use crate::wireguard::{Path, PeerStats};

/// The one DERP region of the tailnet.
pub const HOME_DERP: u64 = 999;
/// Suffix of every DNS name.
const DOMAIN: &str = "lab.internal";
const USER: u64 = 1;
/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 as Go writes it; the zero time for `None`.
pub(super) fn time(at: Option<SystemTime>) -> String {
    at.and_then(|at| OffsetDateTime::from(at).format(&Rfc3339).ok()).unwrap_or_else(|| NEVER.to_owned())
}

fn dns_name(machine: &Machine) -> String {
    format!("{}.{DOMAIN}.", machine.name)
}

fn strings<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

/// A fixed hexadecimal string that differs between machines and purposes.
fn digest(machine: &Machine, purpose: u8) -> String {
    let mut bytes = machine.key.public().0;
    bytes.iter_mut().for_each(|byte| *byte ^= purpose);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn peer_api(machine: &Machine) -> Vec<String> {
    let (v4, v6) = machine.addresses;
    vec![format!("http://{v4}:{}", 40_000 + machine.id % 20_000), format!("http://[{v6}]:40641")]
}

/// `map[UserID]UserProfile`.
pub(super) fn user_profiles() -> Value {
    json!({ USER.to_string(): user_profile() })
}

fn user_profile() -> Value {
    json!({ "ID": USER, "LoginName": "lab", "DisplayName": "lab" })
}

fn capabilities() -> Value {
    json!({
        "default-auto-update": [false],
        "https://tailscale.com/cap/file-sharing": [],
        "https://tailscale.com/cap/is-admin": [],
        "https://tailscale.com/cap/ssh": [],
    })
}

/// What the engine knows about a peer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PeerFacts {
    pub(super) stats: Option<PeerStats>,
    pub(super) is_exit_node: bool,
}

/// Fields that peers and Self share.
fn common(machine: &Machine) -> Map<String, Value> {
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
    set("ID", json!(machine.id.to_string()));
    set("NodeID", json!(machine.id));
    set("PublicKey", json!(machine.key.public().to_string()));
    set("HostName", json!(machine.name));
    set("DNSName", json!(dns_name(machine)));
    set("OS", json!(machine.os));
    set("UserID", json!(USER));
    set("TailscaleIPs", json!(strings(machine.ips())));
    set("AllowedIPs", json!(strings(machine.allowed_ips())));
    if !machine.tags.is_empty() {
        set("Tags", json!(machine.tags));
    }
    let primary = strings(machine.primary_routes());
    if !primary.is_empty() {
        set("PrimaryRoutes", json!(primary));
    }
    set("Relay", json!("lab"));
    set("Created", json!(time(Some(machine.created))));
    set("Online", json!(machine.online));
    set("PeerAPIURL", json!(peer_api(machine)));
    set("NoFileSharingReason", json!(""));
    set("InNetworkMap", json!(true));
    object
}

/// `ipnstate.PeerStatus` of a peer.
pub(super) fn peer_status(machine: &Machine, facts: PeerFacts) -> Value {
    let stats = facts.stats.unwrap_or_default();
    let active = stats
        .last_write
        .is_some_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < SESSION_ACTIVE));
    let connected = active && stats.last_handshake.is_some();
    let (current, relay) = match stats.path {
        Path::Direct if connected => {
            (stats.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default(), String::new())
        }
        Path::PeerRelay(address, network) if connected => (String::new(), format!("{address}:vni:{network}")),
        _ => (String::new(), String::new()),
    };
    let mut object = common(machine);
    let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
    set("Addrs", Value::Null);
    set("CurAddr", json!(current));
    set("PeerRelay", json!(relay));
    set("RxBytes", json!(stats.rx_bytes));
    set("TxBytes", json!(stats.tx_bytes));
    set("LastWrite", json!(time(stats.last_write)));
    set("LastSeen", json!(time((!machine.online).then(SystemTime::now))));
    set("LastHandshake", json!(time(stats.last_handshake)));
    set("ExitNode", json!(facts.is_exit_node));
    set("ExitNodeOption", json!(machine.is_exit_option()));
    set("Active", json!(active));
    set("TaildropTarget", json!(1));
    set("InMagicSock", json!(true));
    set("InEngine", json!(stats.last_write.is_some() || stats.rx_bytes > 0));
    Value::Object(object)
}

/// `ipnstate.PeerStatus` of the node itself.
pub(super) fn self_status(machine: &Machine) -> Value {
    let mut object = common(machine);
    let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
    set("Addrs", json!(strings(&machine.endpoints)));
    for name in ["CurAddr", "PeerRelay"] {
        set(name, json!(""));
    }
    for name in ["RxBytes", "TxBytes", "TaildropTarget"] {
        set(name, json!(0));
    }
    for name in ["LastWrite", "LastSeen", "LastHandshake"] {
        set(name, json!(NEVER));
    }
    for name in ["ExitNode", "ExitNodeOption", "Active", "InMagicSock", "InEngine"] {
        set(name, json!(false));
    }
    let deprecated = "HTTPS://TAILSCALE.COM/s/DEPRECATED-NODE-CAPS\
                      #see-https://github.com/tailscale/tailscale/issues/11508";
    let names = capabilities().as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default();
    let listed: Vec<String> = [vec![deprecated.to_owned()], names].concat();
    set("Capabilities", json!(listed));
    set("CapMap", capabilities());
    Value::Object(object)
}

/// `ipnstate.Status`. `peers` is null without any.
pub(super) fn status(own: &Machine, exit_node: Option<&Machine>, peers: &Value) -> Value {
    let mut status = json!({
        "Version": VERSION,
        "TUN": true,
        "BackendState": "Running",
        "HaveNodeKey": true,
        "AuthURL": "",
        "TailscaleIPs": strings(own.ips()),
        "Self": self_status(own),
        "Health": [],
        "MagicDNSSuffix": DOMAIN,
        "CurrentTailnet": { "Name": "10.99.0.1", "MagicDNSSuffix": DOMAIN, "MagicDNSEnabled": false },
        "CertDomains": null,
        "ExtraRecords": null,
        "Peer": peers,
        "User": user_profiles(),
        "ClientVersion": null,
    });
    if let Some(exit) = exit_node {
        status["ExitNodeStatus"] = json!({
            "ID": exit.id.to_string(),
            "Online": exit.online,
            "TailscaleIPs": strings(exit.own_prefixes()),
        });
    }
    status
}

/// `tailcfg.Node`.
pub(super) fn node(machine: &Machine, exit_node: Option<u64>, is_self: bool) -> Value {
    let mut info = json!({
        "IPNVersion": VERSION,
        "BackendLogID": digest(machine, 3),
        "OS": machine.os,
        "OSVersion": "6.18",
        "Container": true,
        "Distro": "debian",
        "DistroVersion": "12.11",
        "DistroCodeName": "bookworm",
        "Desktop": false,
        "Hostname": machine.name,
        "NoLogsNoSupport": true,
        "Machine": "x86_64",
        "GoArch": "amd64",
        "GoArchVar": "v1",
        "GoVersion": "go1.26.8",
        "Services": [
            { "Proto": "peerapi4", "Port": 40_000 + machine.id % 20_000 },
            { "Proto": "peerapi6", "Port": 40_641 },
            { "Proto": "peerapi-dns-proxy", "Port": 1 },
        ],
        "NetInfo": {
            "MappingVariesByDestIP": false,
            "WorkingIPv6": machine.endpoints.iter().any(std::net::SocketAddr::is_ipv6),
            "OSHasIPv6": true,
            "WorkingUDP": true,
            "WorkingICMPv4": false,
            "UPnP": false,
            "PMP": false,
            "PCP": false,
            "PreferredDERP": HOME_DERP,
            "DERPLatency": { "999-v4": 0.001 },
            "FirewallMode": "nft-forced",
        },
        "Userspace": false,
        "UserspaceRouter": false,
        "AppConnector": false,
        "StateEncrypted": false,
    });
    if let Some(exit) = exit_node {
        info["ExitNodeID"] = json!(exit.to_string());
    }
    if !machine.routes.is_empty() {
        info["RoutableIPs"] = json!(strings(&machine.routes));
    }
    let mut node = json!({
        "ID": machine.id,
        "StableID": machine.id.to_string(),
        "Name": dns_name(machine),
        "User": USER,
        "Key": machine.key.public().to_string(),
        "Machine": format!("mkey:{}", digest(machine, 1)),
        "DiscoKey": machine.disco.to_string(),
        "Addresses": strings(machine.own_prefixes()),
        "AllowedIPs": strings(machine.allowed_ips()),
        "Endpoints": strings(&machine.endpoints),
        "HomeDERP": HOME_DERP,
        "Hostinfo": info,
        "Created": time(Some(machine.created)),
        "Cap": 142,
        "Online": machine.online,
        "MachineAuthorized": true,
        "ComputedName": machine.name,
        "ComputedNameWithHost": machine.name,
    });
    let primary = strings(machine.primary_routes());
    if !primary.is_empty() {
        node["PrimaryRoutes"] = json!(primary);
    }
    if !machine.tags.is_empty() {
        node["Tags"] = json!(machine.tags);
    }
    if is_self {
        node["CapMap"] = capabilities();
    }
    node
}

/// `netmap.NetworkMap`, with a packet filter that says nothing.
pub(super) fn network_map(own: &Machine, exit_node: Option<u64>, peers: &[Value]) -> Value {
    json!({
        "Cached": false,
        "SelfNode": node(own, exit_node, true),
        "AllCaps": capabilities().as_object().map(|all| all.keys().cloned().collect::<Vec<_>>()),
        "NodeKey": own.key.public().to_string(),
        "MachineKey": format!("mkey:{}", digest(own, 1)),
        "Peers": peers,
        "DNS": { "Domains": [DOMAIN] },
        "PacketFilter": [],
        "PacketFilterRules": [],
        "SSHPolicy": null,
        "CollectServices": false,
        "DERPMap": derp_map(),
        "DisplayMessages": null,
        "TKAEnabled": false,
        "TKAHead": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "Domain": "10.99.0.1",
        "DomainAuditLogID": "",
        "UserProfiles": user_profiles(),
    })
}

/// `ipn.Prefs`; private keys are zero, as the real one shows them.
pub(super) fn prefs(own: &Machine, exit_node: Option<u64>) -> Value {
    let zero = format!("privkey:{}", "0".repeat(64));
    json!({
        "ControlURL": "http://10.99.0.1:8080",
        "RouteAll": true,
        "ExitNodeID": exit_node.map(|id| id.to_string()).unwrap_or_default(),
        "ExitNodeIP": "",
        "InternalExitNodePrior": "",
        "ExitNodeAllowLANAccess": exit_node.is_some(),
        "CorpDNS": false,
        "RunSSH": false,
        "RunWebClient": false,
        "WantRunning": true,
        "LoggedOut": false,
        "ShieldsUp": false,
        "AdvertiseTags": null,
        "Hostname": own.name,
        "NotepadURLs": false,
        "AdvertiseRoutes": (!own.routes.is_empty()).then(|| strings(&own.routes)),
        "AdvertiseServices": null,
        "Sync": null,
        "NoSNAT": !own.is_exit_option(),
        "NoStatefulFiltering": true,
        "NetfilterMode": 2,
        "AutoUpdate": { "Check": true, "Apply": false },
        "AppConnector": { "Advertise": false },
        "PostureChecking": false,
        "NetfilterKind": "",
        "RemoteConfig": false,
        "DriveShares": null,
        "Config": {
            "PrivateNodeKey": zero,
            "OldPrivateNodeKey": zero,
            "UserProfile": user_profile(),
            "NetworkLockKey": format!("nlpriv:{}", "0".repeat(128)),
            "NodeID": own.id.to_string(),
        },
    })
}

/// `apitype.WhoIsResponse`.
pub(super) fn whois(machine: &Machine, exit_node: Option<u64>) -> Value {
    json!({
        "Node": node(machine, exit_node, false),
        "UserProfile": user_profile(),
        "CapMap": { "tailscale.com/cap/relay": [{}], "tailscale.com/cap/relay-target": null },
    })
}

/// `tailcfg.DERPMap`.
#[must_use]
pub fn derp_map() -> Value {
    json!({
        "Regions": {
            HOME_DERP.to_string(): {
                "RegionID": HOME_DERP,
                "RegionCode": "lab",
                "RegionName": "Lab",
                "Nodes": [{
                    "Name": "999",
                    "RegionID": HOME_DERP,
                    "HostName": "10.99.0.1",
                    "IPv4": "10.99.0.1",
                    "STUNPort": 3478,
                    "DERPPort": 8080,
                }],
            },
        },
    })
}
