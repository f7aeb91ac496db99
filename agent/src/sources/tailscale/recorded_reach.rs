//! Disco keys, endpoints and relays, from what a real tailscaled 1.102.3 said (tests/recordings).

use std::time::Instant;

use super::api::{Notify, Prefs};
use super::recordings::{exit_node, notify, peer, recording, report};
use super::table::Table;
use crate::model::tailnet::{Path, Peer, Tailnet};

/// First byte of a peer's disco key, and its endpoints.
fn reach(peer: &Peer) -> (Option<u8>, Vec<String>) {
    let endpoints = peer.endpoints.iter().map(ToString::to_string).collect();
    (peer.disco_key.map(|key| key[0]), endpoints)
}

fn expected(key: u8, endpoints: &[&str]) -> (Option<u8>, Vec<String>) {
    (Some(key), endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect())
}

/// Applies so many lines of a recorded bus.
fn after_lines(name: &str, lines: usize) -> Tailnet {
    let mut table = Table::default();
    for line in recording(name).lines().take(lines) {
        table.apply_notify(serde_json::from_str(line).unwrap(), Instant::now());
    }
    (*table.take_changed().unwrap()).clone()
}

#[test]
fn the_map_brings_keys_and_endpoints_at_once() {
    let tailnet = after_lines("bus-exit-node-mask139.ndjson", 1);
    assert_eq!(reach(peer(&tailnet, "2")), expected(0xb2, &["10.99.0.11:41641"]));
    assert_eq!(reach(peer(&tailnet, "3")), expected(0x0f, &["10.99.0.12:41641"]));
    assert_eq!(reach(peer(&tailnet, "4")), expected(0x98, &["10.99.0.3:41641"]));
    let own = tailnet.own.as_ref().unwrap();
    assert_eq!(reach(own), expected(0x95, &["10.99.0.2:41641", "198.18.0.1:41641"]));
}

#[test]
fn the_status_has_none_and_takes_none_away() {
    assert_eq!(reach(peer(&after_lines("bus-client-engine.ndjson", 1), "1")), (None, Vec::new()));
    let mut table = Table::default();
    // What mask 315531 brings: both in one line.
    let line = |name: &str| -> serde_json::Value {
        serde_json::from_str(recording(name).lines().next().unwrap()).unwrap()
    };
    let mut first = line("bus-exit-node-mask315523.ndjson");
    let map = line("bus-exit-node-mask139.ndjson");
    first["NetMap"] = map["NetMap"].clone();
    first["SelfChange"] = map["SelfChange"].clone();
    let first: Notify = serde_json::from_value(first).unwrap();
    table.apply_notify(first, Instant::now());
    let tailnet = table.take_changed().unwrap();
    assert_eq!(reach(peer(&tailnet, "2")), expected(0xb2, &["10.99.0.11:41641"]));
    assert_eq!(peer(&tailnet, "2").path, Path::DirectIpv4, "the status of the same line");
    assert!(peer(&tailnet, "2").wireguard.is_some());
    table.apply_status(report(&recording("status-exit-node.json")), Instant::now());
    let tailnet = table.take_changed().unwrap();
    assert_eq!(reach(peer(&tailnet, "3")), expected(0x0f, &["10.99.0.12:41641"]));
}

#[test]
fn patches_change_what_they_name_and_nonsense_is_none() {
    let mut table = exit_node();
    let mut after = |line: &str| {
        let (_, tailnet) = notify(&mut table, line);
        tailnet.map(|tailnet| reach(peer(&tailnet, "2")))
    };
    let key = "ab".repeat(32);
    let patch = format!(r#"{{"PeerChangedPatch":[{{"NodeID":2,"DiscoKey":"discokey:{key}"}}]}}"#);
    assert_eq!(after(&patch), Some(expected(0xab, &[])));
    assert_eq!(after(&patch), None, "the same again is no news");
    let patch = r#"{"PeerChangedPatch":[{"NodeID":2,"Endpoints":["192.0.2.9:1","x",null,"[::1]:0"]}]}"#;
    assert_eq!(after(patch), Some(expected(0xab, &["192.0.2.9:1"])));
    assert_eq!(after(r#"{"PeerChangedPatch":[{"NodeID":2,"Online":true}]}"#), None);
    assert_eq!(
        after(r#"{"PeerChangedPatch":[{"NodeID":2,"DiscoKey":"discokey:zz","Endpoints":[]}]}"#),
        Some((None, Vec::new())),
        "a new key that nobody can read is not the old one"
    );
    let node = format!(
        r#"{{"PeersChanged":[{{"ID":2,"StableID":"2","Key":"k","DiscoKey":"discokey:{key}",
            "Endpoints":["[2001:db8::1]:7"]}}]}}"#
    );
    assert_eq!(after(&node), Some(expected(0xab, &["[2001:db8::1]:7"])));
    assert_eq!(after(&node.replace("DiscoKey", "X").replace("Endpoints", "Y")), Some((None, Vec::new())));
}

#[test]
fn the_peer_relay_is_known_while_the_path_leads_through_it() {
    let mut table = exit_node();
    table.apply_status(report(&recording("status-exit-node-client-on-peer-relay.json")), Instant::now());
    let tailnet = table.take_changed().unwrap();
    assert_eq!(peer(&tailnet, "2").relay, Some(("10.99.0.3:40000".parse().unwrap(), 1)));
    assert_eq!((peer(&tailnet, "3").relay, peer(&tailnet, "2").endpoint), (None, None));
    let renamed = r#"{"PeersChanged":[{"ID":2,"StableID":"2","Name":"new.lab.","Key":"nodekey:2"}]}"#;
    let (_, tailnet) = notify(&mut table, renamed);
    assert!(peer(&tailnet.unwrap(), "2").relay.is_some(), "only /status knows of its end");
    table.apply_status(report(&recording("status-exit-node.json")), Instant::now());
    assert_eq!(peer(&table.take_changed().unwrap(), "2").relay, None);
}

#[test]
fn the_port_of_the_own_relay_server_is_known_when_it_is_fixed() {
    let mut table = exit_node();
    let mut port = |said: &str| {
        let mut prefs: serde_json::Value = serde_json::from_str(&recording("prefs-exit-node.json")).unwrap();
        prefs["RelayServerPort"] = serde_json::from_str(said).unwrap();
        let prefs: Prefs = serde_json::from_value(prefs).unwrap();
        table.apply_prefs(&prefs);
        table.take_changed().map(|tailnet| tailnet.relay_port)
    };
    assert_eq!(port("null"), Some(None), "the routes are news");
    assert_eq!(port("40000"), Some(Some(40_000)));
    assert_eq!(port("40000"), None);
    for none in ["0", "65536", "-1", "null"] {
        port("1");
        assert_eq!(port(none), Some(None), "{none}");
    }
}
