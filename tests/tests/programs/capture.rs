//! What a real tailscaled sent, passed through the programs: they find in it what the list beside it says.

use std::collections::HashMap;
use std::net::SocketAddr;

use tailgauge_ebpf::layout::{
    Kind, PATH_DIRECT_IPV4, PATH_PEER_RELAY_IPV4, RECEIVE, ROLE_RESPONDER, TRANSMIT,
};

use crate::messages::{pass_with, with_peer};
use crate::pcap::packets;

const CAPTURE: &[u8] = include_bytes!("../../../ebpf/tests/data/tailscaled.pcap");
const EXPECTED: &str = include_str!("../../../ebpf/tests/data/tailscaled.txt");

/// IPv4 without options, and UDP.
const HEADERS: usize = 28;
/// The node at the other end, directly and by the relay between.
const PEER: u32 = 3;
const DIRECT: &str = "10.99.0.11:41641";
const RELAY: &str = "10.99.0.3:40000";

/// A line of the list.
struct Line<'a> {
    direction: u32,
    far: &'a str,
    kind: &'a str,
    receiver: &'a str,
    counter: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let fields: Vec<_> = line.split(' ').collect();
        let [direction, far, _, kind, _, _, receiver, counter] = fields[..] else { panic!("{line}") };
        let direction = if direction == "in" { RECEIVE } else { TRANSMIT };
        Self { direction, far, kind, receiver, counter }
    }
}

#[test]
fn the_programs_find_in_a_capture_what_is_in_it() {
    let Some(mut programs) = with_peer("capture") else { return };
    programs.add_endpoint(DIRECT.parse().unwrap(), None, PEER).unwrap();
    programs.add_endpoint(RELAY.parse().unwrap(), Some(1), PEER).unwrap();
    let lines: Vec<_> = EXPECTED.lines().filter(|line| !line.starts_with('#')).map(Line::parse).collect();
    let captured = packets(CAPTURE);
    assert_eq!(captured.len(), lines.len());
    for (captured, line) in captured.into_iter().zip(&lines) {
        let mut payload = captured.packet[HEADERS..].to_vec();
        payload.resize(captured.length as usize - HEADERS, 0);
        pass_with(&programs, line.direction, line.far.parse::<SocketAddr>().unwrap(), &payload);
    }

    let count = |is: &dyn Fn(&&Line<'_>) -> bool| lines.iter().filter(is).count() as u64;
    let both = |kind: &str| {
        [RECEIVE, TRANSMIT].map(|direction| count(&|line| line.direction == direction && line.kind == kind))
    };
    let seen = programs.messages().unwrap().seen;
    for (kind, name) in [
        (Kind::Other, "other"),
        (Kind::Initiation, "initiation"),
        (Kind::Response, "response"),
        (Kind::Cookie, "cookie"),
        (Kind::Ping, "ping"),
        (Kind::Pong, "pong"),
        (Kind::Disco, "disco"),
        (Kind::Stun, "stun"),
    ] {
        assert_eq!(seen.map(|kinds| kinds[kind as usize]), both(name), "{name}");
    }
    for direction in [RECEIVE, TRANSMIT] {
        let found = programs.peer_underlay(PEER, direction).unwrap();
        for (path, far) in [(PATH_DIRECT_IPV4, DIRECT), (PATH_PEER_RELAY_IPV4, RELAY)] {
            let all = count(&|line| line.direction == direction && line.far == far);
            let data = count(&|line| line.direction == direction && line.far == far && line.kind == "data");
            let found = found.path[path];
            assert_eq!((found.packets(), found.data), (all, data), "{far}");
        }
    }

    let peer = programs.wireguard(PEER).unwrap();
    assert_eq!((peer.initiations, peer.responses), (both("initiation"), both("response")));
    assert_eq!((peer.pings, peer.pongs), (both("ping"), both("pong")));
    // One asked by UDP, the others by DERP; every one of them is used.
    assert_eq!(peer.completed[ROLE_RESPONDER as usize - 1], both("response")[TRANSMIT as usize]);
    let mut sessions = HashMap::<&str, Vec<u64>>::new();
    for line in lines.iter().filter(|line| line.direction == RECEIVE && line.kind == "data") {
        sessions.entry(line.receiver).or_default().push(line.counter.parse().unwrap());
    }
    assert_eq!(sessions.len(), 3);
    for (index, counters) in sessions {
        let session = programs.session(u32::from_str_radix(index, 16).unwrap()).unwrap().unwrap();
        assert_eq!((session.slot, session.role), (PEER, ROLE_RESPONDER), "{index}");
        assert_eq!(session.received, counters.len() as u64, "{index}");
        assert_eq!((session.reordered, session.duplicated, session.unjudged), (0, 0, 0), "{index}");
        assert_eq!(session.next, counters[counters.len() - 1] + 1, "{index}");
    }
}
