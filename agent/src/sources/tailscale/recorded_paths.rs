//! What becomes of paths, sessions and home regions, from what a real tailscaled 1.102.3 said (tests/recordings).

use std::time::{Duration, Instant};

use super::convert::Report;
use super::recordings::{established, exit_node, notify, peer, recording, report};
use super::table::Table;
use crate::model::tailnet::{Path, WireGuardSession, WireGuardState};

/// `/status` with peer 2 on another path: names no address for it, or this one.
fn status_with(current: &str, relay: &str, active: bool) -> Report {
    let mut status: serde_json::Value = serde_json::from_str(&recording("status-exit-node.json")).unwrap();
    let peers = status["Peer"].as_object_mut().unwrap();
    let peer = peers.values_mut().find(|peer| peer["ID"] == "2").unwrap();
    peer["CurAddr"] = current.into();
    peer["PeerRelay"] = relay.into();
    peer["Active"] = active.into();
    serde_json::from_value(status).unwrap()
}

#[test]
fn derp_after_another_path_is_believed_when_it_is_said_again() {
    let (direct, relayed) = (("10.99.0.11:41641", "", true), ("", "10.99.0.3:40000:vni:1", true));
    let (derp, idle) = (("", "", true), ("", "", false));
    let mut table = Table::default();
    let start = Instant::now();
    let mut said = Path::Idle;
    let mut path_at = |milliseconds, (current, relay, active)| {
        let now = start + Duration::from_millis(milliseconds);
        table.apply_status(status_with(current, relay, active), now);
        if let Some(tailnet) = table.take_changed() {
            said = peer(&tailnet, "2").path;
        }
        (said, table.in_doubt())
    };
    assert_eq!(path_at(0, derp), (Path::Derp, false), "nothing else is known");
    assert_eq!(path_at(10_000, direct), (Path::DirectIpv4, false));
    // A pong is late.
    assert_eq!(path_at(20_000, derp), (Path::DirectIpv4, true));
    assert_eq!(path_at(23_499, derp), (Path::DirectIpv4, true), "too early to tell");
    assert_eq!(path_at(23_500, direct), (Path::DirectIpv4, false));
    // No pong comes.
    assert_eq!(path_at(30_000, derp), (Path::DirectIpv4, true));
    assert_eq!(path_at(33_500, derp), (Path::Derp, false));
    assert_eq!(path_at(42_000, derp), (Path::Derp, false));
    assert_eq!(path_at(43_000, relayed), (Path::PeerRelayIpv4, false), "an address is never in doubt");
    assert_eq!(path_at(44_000, idle), (Path::Idle, false));
    // Traffic again, before the address is confirmed.
    assert_eq!(path_at(50_000, derp), (Path::Idle, true));
    assert_eq!(path_at(52_000, relayed), (Path::PeerRelayIpv4, false));
}

#[test]
fn paths_are_unknown_until_a_tailscaled_that_was_away_has_its_map() {
    let mut table = Table::default();
    let mut knows = |change: &dyn Fn(&mut Table)| {
        change(&mut table);
        let tailnet = table.take_changed().unwrap();
        (
            tailnet.paths_asked.is_some(),
            tailnet.peers.iter().find(|peer| peer.id == "2").map(|peer| peer.path),
        )
    };
    let says = |report: fn() -> Report| {
        move |table: &mut Table| {
            table.set_up(true);
            table.apply_status(report(), Instant::now());
        }
    };
    let starts = says(|| report(r#"{"BackendState":"Starting","Peer":null}"#));
    assert_eq!(knows(&starts), (false, None));
    let direct = says(|| status_with("10.99.0.11:41641", "", true));
    assert_eq!(knows(&direct), (true, Some(Path::DirectIpv4)));
    assert_eq!(knows(&|table| table.set_up(false)), (false, Some(Path::DirectIpv4)), "the last known one");
    assert_eq!(knows(&starts), (false, Some(Path::DirectIpv4)));
    let derp = says(|| status_with("", "", true));
    assert_eq!(knows(&derp), (true, Some(Path::Derp)), "nothing is known that would speak against it");
}

#[test]
fn nobody_is_doubted_who_left() {
    let mut table = exit_node();
    table.apply_status(status_with("", "", true), Instant::now());
    assert!(table.in_doubt());
    table.apply_status(report(r#"{"BackendState":"Running","Peer":null}"#), Instant::now());
    assert!(!table.in_doubt());
}

#[test]
fn changes_of_the_home_region_are_counted() {
    let mut table = Table::default();
    let mut home = |region: &str| {
        let mut status: serde_json::Value =
            serde_json::from_str(&recording("status-self-only.json")).unwrap();
        status["Self"]["Relay"] = region.into();
        table.apply_status(serde_json::from_value(status).unwrap(), Instant::now());
        let tailnet = table.take_changed().unwrap();
        (tailnet.own.as_ref().unwrap().derp_region.clone(), tailnet.home_derp_changes)
    };
    for (region, changes) in [("", 0), ("fra", 0), ("", 0), ("fra", 0), ("nue", 1), ("fra", 2), ("", 2)] {
        assert_eq!(home(region), (region.to_owned(), changes));
    }
}

#[test]
fn wireguard_states_wait_for_their_peers() {
    let mut table = Table::default();
    let bus = recording("bus-wireguard-state.ndjson");
    let states = || serde_json::from_str(bus.lines().next().unwrap()).unwrap();
    assert!(!table.apply_notify(states(), Instant::now()), "nobody is known yet");
    table.apply_status(report(&recording("status-exit-node.json")), Instant::now());
    assert!(table.apply_notify(states(), Instant::now()), "a new session has a path that only /status knows");
    assert!(!table.apply_notify(states(), Instant::now()));
    let tailnet = table.take_changed().unwrap();
    assert_eq!(peer(&tailnet, "2").wireguard, established(1_083, 730));
    assert_eq!(peer(&tailnet, "3").wireguard, established(1_083, 730));
    assert_eq!(peer(&tailnet, "4").wireguard, None);
}

#[test]
fn a_session_that_ended_while_the_bus_was_away_is_forgotten() {
    let mut table = Table::default();
    let bus = recording("bus-client-engine.ndjson");
    let first = bus.lines().next().unwrap();
    assert_eq!(peer(&notify(&mut table, first).1.unwrap(), "1").wireguard, established(641, 890));
    let asked = Instant::now();
    for _ in 0..2 {
        table.take_changed();
        table.apply_notify(serde_json::from_str(first).unwrap(), asked);
    }
    assert_eq!(table.take_changed(), None, "the same again is no news");
    let (_, tailnet) = notify(&mut table, &first.replace("PeerState", "NoPeerState"));
    assert_eq!(peer(&tailnet.unwrap(), "1").wireguard, None);
}

#[test]
fn a_broken_bus_leaves_no_session_known() {
    let mut table = Table::default();
    let bus = recording("bus-client-engine.ndjson");
    notify(&mut table, bus.lines().next().unwrap());
    table.lose_bus();
    assert_eq!(peer(&table.take_changed().unwrap(), "1").wireguard, None);
    table.lose_bus();
    assert_eq!(table.take_changed(), None);
}

#[test]
fn sessions_of_another_kind_and_times_that_cannot_be_are_not_known() {
    let mut table = exit_node();
    let mut session = |said: &str| {
        let line = format!(r#"{{"PeerState":{{"2":{{{said}}}}}}}"#);
        notify(&mut table, &line).1.and_then(|tailnet| peer(&tailnet, "2").wireguard)
    };
    let handshake = WireGuardSession { state: WireGuardState::Handshake, since: None };
    for at in ["0001-01-01T00:00:00Z", "yesterday"] {
        let said = format!(r#""PeerWireGuardState":"handshake","PeerWireGuardStateAt":"{at}""#);
        assert_eq!(session(&said), Some(handshake));
        assert_eq!(session(r#""PeerWireGuardState":"melting""#), None);
    }
    assert_eq!(session(r#""PeerWireGuardStateAt":"2026-11-22T21:31:23.73Z""#), None);
}
