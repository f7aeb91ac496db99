//! The table against what a real tailscaled 1.102.3 said (tests/recordings).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;

use super::api::{Notify, Prefs};
use super::convert::Report;
use super::table::Table;
use crate::model::tailnet::{Path, Peer, Tailnet, WireGuardSession, WireGuardState};

pub(super) fn recording(name: &str) -> String {
    let path = format!("{}/../tests/recordings/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

pub(super) fn report(text: &str) -> Report {
    serde_json::from_str(text).unwrap()
}

fn after_status(name: &str) -> Tailnet {
    let mut table = Table::default();
    table.set_up(true);
    let asked = Instant::now();
    table.apply_status(report(&recording(name)), asked);
    let tailnet = table.take_changed().expect("a first status is news");
    table.apply_status(report(&recording(name)), asked);
    assert_eq!(table.take_changed(), None, "the same status again is none");
    (*tailnet).clone()
}

/// Applies a recording line by line and returns every state that was published, with the number of its line.
fn after_bus(name: &str) -> Vec<(usize, Arc<Tailnet>)> {
    let mut table = Table::default();
    let mut states = Vec::new();
    for (index, line) in recording(name).lines().enumerate() {
        let notify: Notify = serde_json::from_str(line).unwrap();
        table.apply_notify(notify, Instant::now());
        states.extend(table.take_changed().map(|tailnet| (index, tailnet)));
    }
    states
}

pub(super) fn peer<'a>(tailnet: &'a Tailnet, id: &str) -> &'a Peer {
    tailnet.peers.iter().find(|peer| peer.id == id).unwrap_or_else(|| panic!("no peer {id}"))
}

fn names(tailnet: &Tailnet) -> Vec<(&str, &str)> {
    tailnet.peers.iter().map(|peer| (peer.id.as_str(), peer.name.as_str())).collect()
}

fn strings<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// `2026-11-22T21:24:01Z` and a fraction.
fn handshake(nanoseconds: u32) -> Option<SystemTime> {
    Some(SystemTime::UNIX_EPOCH + Duration::new(1_795_382_641, nanoseconds))
}

/// A session since so many seconds and milliseconds after `2026-11-22T21:13:20Z`.
pub(super) fn established(seconds: u64, milliseconds: u32) -> Option<WireGuardSession> {
    let since = SystemTime::UNIX_EPOCH + Duration::new(1_795_382_000 + seconds, milliseconds * 1_000_000);
    Some(WireGuardSession { state: WireGuardState::Established, since: Some(since) })
}

#[test]
fn status_of_an_exit_node() {
    let tailnet = after_status("status-exit-node.json");
    assert!(tailnet.up && tailnet.tun);
    assert_eq!(tailnet.backend_state, "Running");
    assert_eq!(tailnet.version, "1.102.3-ERR-BuildInfo");
    assert_eq!(names(&tailnet), [("2", "c1"), ("3", "c2-renamed"), ("4", "relay")]);
    let own = tailnet.own.as_ref().unwrap();
    assert_eq!((own.id.as_str(), own.name.as_str()), ("1", "exit"));
    assert_eq!(strings(&own.addresses), ["100.64.0.1", "fd7a:115c:a1e0::1"]);
    let expected = Peer {
        id: "2".into(),
        name: "c1".into(),
        dns_name: "c1.lab.internal".into(),
        os: "linux".into(),
        user: "lab".into(),
        tags: Vec::new(),
        addresses: vec!["100.64.0.2".parse().unwrap(), "fd7a:115c:a1e0::2".parse().unwrap()],
        allowed_ips: vec!["100.64.0.2/32".parse().unwrap(), "fd7a:115c:a1e0::2/128".parse().unwrap()],
        node_key: "nodekey:70a44103553e66bab5e6961e73a7b317aac1a3c9c090cca1db8eaba5128d5a31".into(),
        online: true,
        active: true,
        path: Path::DirectIpv4,
        endpoint: Some("10.99.0.11:41641".parse().unwrap()),
        endpoints: Vec::new(),
        relay: None,
        disco_key: None,
        derp_region: "lab".into(),
        exit_node: false,
        exit_node_option: false,
        last_handshake: handshake(893_470_962),
        wireguard: None,
        engine_receive_bytes: 1_732_451_444,
        engine_transmit_bytes: 1_166_856_108,
    };
    assert_eq!(*peer(&tailnet, "2"), expected);
    let relay = peer(&tailnet, "4");
    assert_eq!((relay.path, relay.active, relay.last_handshake), (Path::Idle, false, None));
}

#[test]
fn status_of_the_three_paths() {
    for (name, path) in [
        ("status-exit-node.json", Path::DirectIpv4),
        ("status-exit-node-client-on-derp.json", Path::Derp),
        ("status-exit-node-client-on-peer-relay.json", Path::PeerRelayIpv4),
    ] {
        assert_eq!(peer(&after_status(name), "2").path, path, "{name}");
    }
}

#[test]
fn status_of_a_client_that_uses_the_exit_node() {
    let tailnet = after_status("status-client-using-exit-node.json");
    let exit = peer(&tailnet, "1");
    assert!(exit.exit_node && exit.exit_node_option);
    assert_eq!(
        strings(&exit.allowed_ips),
        ["0.0.0.0/0", "100.64.0.1/32", "192.0.2.0/24", "::/0", "fd7a:115c:a1e0::1/128"]
    );
    assert!(tailnet.peers.iter().filter(|peer| peer.id != "1").all(|peer| !peer.exit_node));
}

#[test]
fn status_without_peers() {
    let tailnet = after_status("status-self-only.json");
    assert_eq!(tailnet.peers, []);
    assert_eq!(tailnet.own.as_ref().unwrap().user, "lab");
}

#[test]
fn routes_come_from_the_preferences_where_self_does_not_say_them() {
    let mut table = Table::default();
    let report = report(&recording("status-exit-node.json"));
    table.apply_status(report, Instant::now());
    assert_eq!(table.take_changed().unwrap().own_routes, []);
    let prefs: Prefs = serde_json::from_str(&recording("prefs-exit-node.json")).unwrap();
    table.apply_prefs(&prefs);
    assert_eq!(strings(&table.take_changed().unwrap().own_routes), ["192.0.2.0/24"], "without /0");
}

#[test]
fn approved_routes_are_added_to_the_offered_ones() {
    let mut table = Table::default();
    let mut status: serde_json::Value = serde_json::from_str(&recording("status-exit-node.json")).unwrap();
    status["Self"]["AllowedIPs"] =
        serde_json::json!(["0.0.0.0/0", "::/0", "100.64.0.1/32", "fd7a:115c:a1e0::1/128", "198.51.100.0/24"]);
    table.apply_prefs(&serde_json::from_str(&recording("prefs-exit-node.json")).unwrap());
    let report: Report = serde_json::from_value(status).unwrap();
    table.apply_status(report, Instant::now());
    assert_eq!(strings(&table.take_changed().unwrap().own_routes), ["192.0.2.0/24", "198.51.100.0/24"]);
}

#[test]
fn the_bus_of_a_client() {
    let states = after_bus("bus-client-engine.ndjson");
    let (line, first) = &states[0];
    assert_eq!(*line, 0, "InitialStatus is enough");
    assert_eq!(names(first), [("1", "exit"), ("3", "c2"), ("4", "relay")]);
    assert_eq!(peer(first, "1").wireguard, established(641, 890));
    assert_eq!(peer(first, "1").path, Path::DirectIpv4);
    assert!(peer(first, "1").exit_node);
    let last = &states[states.len() - 1].1;
    assert_eq!(names(last), [("1", "exit"), ("3", "c2-renamed"), ("4", "relay")]);
    let exit = peer(last, "1");
    assert!(exit.exit_node && exit.exit_node_option, "kept across full nodes from the bus");
    assert_eq!((exit.path, exit.wireguard), (Path::DirectIpv4, established(641, 890)));
    assert_eq!((exit.os.as_str(), exit.user.as_str()), ("linux", "lab"));
    assert_eq!(peer(last, "3").dns_name, "c2-renamed.lab.internal");
}

#[test]
fn the_bus_of_an_exit_node() {
    let states = after_bus("bus-exit-node-mask315523.ndjson");
    let last = &states[states.len() - 1].1;
    assert_eq!(names(last), [("2", "c1"), ("3", "c2-renamed"), ("4", "relay")]);
    let bytes: Vec<_> = states.iter().map(|(_, tailnet)| peer(tailnet, "2").engine_receive_bytes).collect();
    assert!(bytes.is_sorted(), "{bytes:?}");
    assert_eq!(
        bytes.last(),
        Some(&1_732_451_476),
        "the engine's counters arrive between two reads of /status"
    );
    assert_eq!(last.backend_state, "Running");
}

#[test]
fn the_bus_of_an_older_tailscaled_brings_the_peers_as_a_map() {
    let states = after_bus("bus-exit-node-mask139.ndjson");
    let (line, first) = &states[0];
    assert_eq!(*line, 0);
    assert_eq!(first.backend_state, "Running");
    assert_eq!(names(first), [("2", "c1"), ("3", "c2"), ("4", "relay")]);
    let c1 = peer(first, "2");
    assert_eq!((c1.os.as_str(), c1.user.as_str(), c1.online), ("linux", "lab", true));
    assert_eq!(strings(&c1.addresses), ["100.64.0.2", "fd7a:115c:a1e0::2"]);
    assert_eq!(c1.path, Path::Idle, "only /status knows");
    assert_eq!(first.own.as_ref().unwrap().name, "exit");
    let last = &states[states.len() - 1].1;
    assert_eq!(peer(last, "2").last_handshake, handshake(893_470_962), "from the engine's counters");
}

/// A table that knows the exit node's peers, and nobody to tell.
pub(super) fn exit_node() -> Table {
    let mut table = Table::default();
    table.apply_status(report(&recording("status-exit-node.json")), Instant::now());
    table.take_changed();
    table
}

pub(super) fn notify(table: &mut Table, line: &str) -> (bool, Option<Arc<Tailnet>>) {
    let wants_status = table.apply_notify(serde_json::from_str(line).unwrap(), Instant::now());
    (wants_status, table.take_changed())
}

#[test]
fn a_key_rotates_and_the_engine_finds_the_peer_under_the_new_one() {
    let mut table = exit_node();
    let (wants_status, tailnet) =
        notify(&mut table, r#"{"PeerChangedPatch":[{"NodeID":2,"Key":"nodekey:new","Online":false}]}"#);
    assert!(!wants_status, "the patch says it all");
    let tailnet = tailnet.unwrap();
    assert_eq!((peer(&tailnet, "2").node_key.as_str(), peer(&tailnet, "2").online), ("nodekey:new", false));
    let before = after_status("status-exit-node.json");
    let old = &peer(&before, "2").node_key;
    let engine =
        |key: &str| format!(r#"{{"Engine":{{"LivePeers":{{"{key}":{{"RxBytes":7,"TxBytes":8}}}}}}}}"#);
    assert_eq!(notify(&mut table, &engine(old)), (false, None), "nobody has the old key");
    let tailnet = notify(&mut table, &engine("nodekey:new")).1.unwrap();
    assert_eq!(peer(&tailnet, "2").engine_transmit_bytes, 8);
    assert!(peer(&tailnet, "2").last_handshake.is_some(), "kept");
}

#[test]
fn peers_come_change_routes_and_go() {
    let mut table = exit_node();
    let new = r#"{"PeersChanged":[{"ID":9,"StableID":"n9","Name":"new.lab.","Key":"nodekey:9","User":77,
        "Addresses":["100.64.0.9/32"],"AllowedIPs":["100.64.0.9/32","10.0.0.0/8"],"Online":true}],
        "UserProfiles":{"77":{"LoginName":"tagged-devices"}}}"#;
    let (wants_status, tailnet) = notify(&mut table, new);
    assert!(wants_status);
    let tailnet = tailnet.unwrap();
    assert_eq!(tailnet.peers.len(), 4);
    assert!(tailnet.peers.is_sorted_by_key(|peer| peer.id.clone()));
    assert_eq!(strings(&peer(&tailnet, "n9").allowed_ips), ["10.0.0.0/8", "100.64.0.9/32"]);
    assert_eq!(peer(&tailnet, "n9").user, "tagged-devices");
    let fewer = new.replace(r#","10.0.0.0/8""#, "").replace("new.lab.", "renamed.lab.");
    let tailnet = notify(&mut table, &fewer).1.unwrap();
    assert_eq!(strings(&peer(&tailnet, "n9").allowed_ips), ["100.64.0.9/32"]);
    assert_eq!(peer(&tailnet, "n9").name, "renamed");
    let (wants_status, tailnet) = notify(&mut table, r#"{"PeersRemoved":[9,2]}"#);
    assert!(wants_status);
    assert_eq!(names(&tailnet.unwrap()), [("3", "c2-renamed"), ("4", "relay")]);
    assert_eq!(notify(&mut table, r#"{"PeersRemoved":[9,2]}"#).1, None);
    assert!(
        notify(&mut table, r#"{"PeerChangedPatch":[{"NodeID":9}]}"#).0,
        "an unknown node is worth a look"
    );
}

#[test]
fn a_user_that_is_renamed_renames_the_owner_of_its_nodes() {
    let mut table = exit_node();
    let tailnet = notify(&mut table, r#"{"UserProfiles":{"1":{"LoginName":"a\u0000b"}}}"#).1.unwrap();
    assert!(tailnet.peers.iter().chain(&tailnet.own).all(|peer| peer.user == "ab"));
}

#[test]
fn messages_without_content_change_nothing() {
    let mut table = exit_node();
    for line in [
        r#"{"Version":"1.102.3-ERR-BuildInfo","ErrMessage":null,"State":null,"Prefs":null,"NetMap":null}"#,
        r#"{"PeersChanged":[null],"PeersRemoved":[null],"PeerChangedPatch":[null],"PeerState":{"2":null},
            "UserProfiles":{"1":null,"x":{"LoginName":"y"}},"Engine":{"LivePeers":{"nodekey:0":null}}}"#,
        r#"{"PeersChanged":[{"ID":5}],"Unknown":{"deep":[1,2,{"x":null}]}}"#,
        "{}",
    ] {
        assert_eq!(notify(&mut table, line).1, None, "{line}");
    }
}

#[test]
fn peers_stay_while_tailscaled_starts_and_knows_nobody_yet() {
    let mut table = exit_node();
    for state in ["NoState", "Starting"] {
        let status =
            format!(r#"{{"BackendState":"{state}","TUN":true,"Self":{{"HostName":"exit"}},"Peer":null}}"#);
        table.apply_status(report(&status), Instant::now());
        let tailnet = table.take_changed().unwrap();
        assert_eq!((tailnet.backend_state.as_str(), tailnet.peers.len()), (state, 3));
        assert_eq!(tailnet.own.as_ref().unwrap().id, "1");
    }
    table.apply_status(report(r#"{"BackendState":"NeedsLogin","Peer":null}"#), Instant::now());
    assert_eq!(table.take_changed().unwrap().peers, [], "logged out: nobody is a peer");
}

#[test]
fn peers_that_share_a_number_or_key_do_not_tear_each_other_down() {
    let mut table = Table::default();
    let twin = |id: &str| format!(r#""{id}":{{"ID":"{id}","NodeID":1,"PublicKey":"nodekey:same"}}"#);
    let status = format!(r#"{{"BackendState":"Running","Peer":{{{},{}}}}}"#, twin("a"), twin("b"));
    table.apply_status(report(&status), Instant::now());
    notify(&mut table, r#"{"PeersRemoved":[1]}"#);
    notify(&mut table, r#"{"PeersRemoved":[1]}"#);
    table.apply_status(report(&status), Instant::now());
    assert_eq!(table.take_changed().unwrap().peers.len(), 2);
}

/// JSON with the field names that matter and values of any kind.
fn nonsense() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        "\\PC{0,12}".prop_map(|text| serde_json::Value::from(text).to_string()),
    ];
    let key = prop::sample::select(vec![
        "Peer",
        "Self",
        "ID",
        "NodeID",
        "PublicKey",
        "AllowedIPs",
        "TailscaleIPs",
        "PeersChanged",
        "PeersRemoved",
        "PeerChangedPatch",
        "NetMap",
        "Peers",
        "SelfNode",
        "StableID",
        "Key",
        "State",
        "UserProfiles",
        "Engine",
        "LivePeers",
        "InitialStatus",
        "PeerState",
        "1",
        "LastHandshake",
    ]);
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::btree_map(key.clone(), inner, 0..5).prop_map(|fields| {
                let fields: Vec<_> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn json_of_any_shape_never_panics(text in nonsense()) {
        let mut table = exit_node();
        if let Ok(status) = serde_json::from_str::<Report>(&text) {
            table.apply_status(status, Instant::now());
        }
        if let Ok(notify) = serde_json::from_str::<Notify>(&text) {
            table.apply_notify(notify, Instant::now());
        }
        if let Some(tailnet) = table.take_changed() {
            prop_assert!(tailnet.peers.is_sorted_by_key(|peer| peer.id.clone()));
        }
    }

    #[test]
    fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let text = crate::sources::clean::lossy(&bytes);
        let _ = serde_json::from_str::<Report>(&text);
        let _ = serde_json::from_str::<Notify>(&text);
    }

    #[test]
    fn a_recording_cut_anywhere_or_with_any_byte_changed_never_panics(
        at in 0_usize..5_000, byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut bytes = recording("status-exit-node.json").into_bytes();
        if cut {
            bytes.truncate(at);
        } else if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        if let Ok(status) = serde_json::from_str::<Report>(&crate::sources::clean::lossy(&bytes)) {
            Table::default().apply_status(status, Instant::now());
        }
    }
}
