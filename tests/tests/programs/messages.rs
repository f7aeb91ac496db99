//! Handshakes, disco and STUN on the underlay: who they belong to, and what is timed.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use tailgauge_ebpf::histogram::Histogram;
use tailgauge_ebpf::layout::{
    Control, ETHERNET_HEADER, Kind, MARK_TAILSCALED, PATH_DIRECT_IPV4, PATH_DIRECT_IPV6,
    PATH_PEER_RELAY_IPV4, PATH_PEER_RELAY_IPV6, PathCounters, RECEIVE, ROLE_INITIATOR, ROLE_RESPONDER,
    TRANSMIT, WireGuard,
};
use tailgauge_testbed::programs::{BOTH, Context, Programs, Sizes};
use tailgauge_testbed::underlay::disco::{DiscoKey, ping, pong};
use tailgauge_testbed::underlay::messages::{
    GENEVE_DISCO, GENEVE_WIREGUARD, cookie, geneve, initiation, response, stun_request, transport,
};
use tailgauge_testbed::underlay::packets::{super_packet, udp_packet};

use crate::underlay::{frame, programs_of, sockets};

/// The peer at the usual endpoint.
pub(crate) const PEER: u32 = 2;

/// Programs with one known peer, at `sockets(false)` and `sockets(true)`.
pub(crate) fn with_peer(test: &str) -> Option<Programs> {
    with_peer_and(test, Sizes::default())
}

/// The same with maps of chosen sizes.
pub(crate) fn with_peer_and(test: &str, sizes: Sizes) -> Option<Programs> {
    let mut programs = programs_of(test, ETHERNET_HEADER, sizes)?;
    for six in [false, true] {
        programs.add_endpoint(sockets(six).0, None, PEER).unwrap();
        programs.add_endpoint(sockets(six).0, Some(7), PEER).unwrap();
    }
    Some(programs)
}

/// Passes a datagram between tailscaled and `far`.
pub(crate) fn pass_with(programs: &Programs, direction: u32, far: SocketAddr, payload: &[u8]) {
    let own = sockets(far.is_ipv6()).1;
    let (packet, mark) = match direction {
        RECEIVE => (udp_packet(far, own, payload), 0),
        _ => (udp_packet(own, far, payload), MARK_TAILSCALED),
    };
    let context = Context { mark, ..Context::default() };
    programs.run_underlay(direction, &frame(0, &packet), context, 1).unwrap();
}

/// The same with the usual peer over IPv4.
pub(crate) fn pass(programs: &Programs, direction: u32, payload: &[u8]) {
    pass_with(programs, direction, sockets(false).0, payload);
}

/// Passes datagrams of a peer that were joined.
pub(crate) fn pass_joined(programs: &Programs, direction: u32, far: SocketAddr, payloads: &[Vec<u8>]) {
    let own = sockets(far.is_ipv6()).1;
    let (from, to, mark) = match direction {
        RECEIVE => (far, own, 0),
        _ => (own, far, MARK_TAILSCALED),
    };
    let joined = super_packet(from, to, payloads).unwrap();
    let context = Context { mark, gso_size: u32::from(joined.gso_size) };
    programs.run_underlay(direction, &frame(0, &joined.packet), context, 1).unwrap();
}

/// Samples, all of at least `least` and at most a minute: a wrong unit or a clock misread is more.
fn samples(histogram: &Histogram, least: Duration) -> u64 {
    let (count, sum) = (histogram.count, histogram.sum);
    assert!(u128::from(sum) >= u128::from(count) * least.as_micros(), "{count} samples of {sum} µs");
    assert!(sum <= count * 60_000_000, "{count} samples of {sum} µs");
    count
}

/// What was seen of a kind, receive first.
fn seen(programs: &Programs, kind: Kind) -> [u64; 2] {
    programs.messages().unwrap().seen.map(|kinds| kinds[kind as usize])
}

#[test]
fn a_handshake_is_timed_from_the_initiation_to_the_response_from_the_same_endpoint() {
    let Some(programs) = with_peer("initiator") else { return };
    let pause = Duration::from_millis(2);
    pass(&programs, TRANSMIT, &initiation(0x1111));
    thread::sleep(pause);
    pass(&programs, RECEIVE, &response(0x9999, 0x1111));
    let peer = programs.wireguard(PEER).unwrap();
    assert_eq!(samples(&peer.handshake, pause), 1);
    assert_eq!((peer.completed, peer.initiations, peer.responses), ([1, 0], [0, 1], [1, 0]));
    assert_eq!((peer.retries, peer.unpaired_responses, peer.initiated_at), (0, 0, 0));
    let session = programs.session(0x1111).unwrap().unwrap();
    assert_eq!((session.slot, session.role, session.answered), (PEER, ROLE_INITIATOR, 1));
    // A copy of the response says nothing new.
    pass(&programs, RECEIVE, &response(0x9999, 0x1111));
    let peer = programs.wireguard(PEER).unwrap();
    assert_eq!((peer.handshake.count, peer.completed, peer.unpaired_responses), (1, [1, 0], 0));
}

#[test]
fn a_response_whose_initiation_went_another_way_is_never_timed() {
    let Some(mut programs) = with_peer("response by itself") else { return };
    pass(&programs, RECEIVE, &response(0x9999, 0x2222));
    pass(&programs, RECEIVE, &response(0x9999, 0x2222));
    assert_eq!(programs.wireguard(PEER).unwrap().unpaired_responses, 1, "a copy says nothing new");
    let elsewhere: SocketAddr = "198.51.100.7:4000".parse().unwrap();
    programs.add_endpoint(elsewhere, None, PEER).unwrap();
    pass(&programs, TRANSMIT, &initiation(0x3333));
    pass_with(&programs, RECEIVE, elsewhere, &response(0x9999, 0x3333));
    let peer = programs.wireguard(PEER).unwrap();
    assert_eq!((peer.handshake.count, peer.completed, peer.unpaired_responses), (0, [0, 0], 2));
}

#[test]
fn initiations_again_are_retries_until_one_is_answered() {
    let Some(programs) = with_peer("retries") else { return };
    for index in [1, 2, 3] {
        pass(&programs, TRANSMIT, &initiation(index));
    }
    pass(&programs, RECEIVE, &response(9, 3));
    pass(&programs, TRANSMIT, &initiation(4));
    let peer = programs.wireguard(PEER).unwrap();
    assert_eq!((peer.initiations, peer.retries, peer.completed), ([0, 4], 2, [1, 0]));
}

#[test]
fn the_answer_of_this_node_is_its_own_time_and_the_first_data_completes_the_handshake() {
    let Some(programs) = with_peer("responder") else { return };
    let pause = Duration::from_millis(2);
    pass(&programs, RECEIVE, &initiation(0x9999));
    thread::sleep(pause);
    pass(&programs, TRANSMIT, &response(0x4444, 0x9999));
    // This one answers what came by DERP.
    pass(&programs, TRANSMIT, &response(0x5555, 0x8888));
    assert_eq!(samples(&programs.messages().unwrap().handshake_response, pause), 1);
    assert_eq!(programs.wireguard(PEER).unwrap().completed, [0, 0]);
    for counter in 0..3 {
        pass(&programs, RECEIVE, &transport(0x4444, counter, 64));
    }
    let peer = programs.wireguard(PEER).unwrap();
    assert_eq!((peer.completed, peer.handshake.count), ([0, 1], 0));
    assert_eq!(programs.session(0x4444).unwrap().unwrap().role, ROLE_RESPONDER);
}

#[test]
fn pings_and_pongs_give_the_round_trip_and_the_reaction_of_this_node() {
    for six in [false, true] {
        let Some(programs) = with_peer("disco") else { return };
        let (far, key, pause) = (sockets(six).0, DiscoKey::generate(), Duration::from_millis(2));
        pass_with(&programs, TRANSMIT, far, &ping(key, [1; 12]));
        thread::sleep(pause);
        pass_with(&programs, RECEIVE, far, &pong(key, [1; 12]));
        pass_with(&programs, RECEIVE, far, &ping(key, [2; 12]));
        thread::sleep(2 * pause);
        pass_with(&programs, TRANSMIT, far, &pong(key, [2; 12]));
        let peer = programs.wireguard(PEER).unwrap();
        assert_eq!(samples(&peer.disco_rtt, pause), 1);
        assert_eq!(samples(&programs.messages().unwrap().disco_response, 2 * pause), 1);
        assert_eq!((peer.pings, peer.pongs, peer.pongs_ambiguous), ([1, 1], [1, 1], 0));
    }
}

#[test]
fn a_second_ping_before_the_pong_spoils_the_sample_and_other_endpoints_do_not() {
    let Some(mut programs) = with_peer("ambiguous") else { return };
    let key = DiscoKey::generate();
    let candidate: SocketAddr = "203.0.113.9:41641".parse().unwrap();
    programs.add_endpoint(candidate, None, PEER).unwrap();
    pass(&programs, TRANSMIT, &ping(key, [1; 12]));
    pass_with(&programs, TRANSMIT, candidate, &ping(key, [2; 12]));
    pass(&programs, RECEIVE, &pong(key, [1; 12]));
    pass_with(&programs, RECEIVE, candidate, &pong(key, [2; 12]));
    assert_eq!(programs.wireguard(PEER).unwrap().disco_rtt.count, 2);
    pass(&programs, TRANSMIT, &ping(key, [3; 12]));
    pass(&programs, TRANSMIT, &ping(key, [4; 12]));
    pass(&programs, RECEIVE, &pong(key, [3; 12]));
    pass(&programs, RECEIVE, &pong(key, [4; 12]));
    let peer = programs.wireguard(PEER).unwrap();
    assert_eq!((peer.disco_rtt.count, peer.pongs_ambiguous), (2, 2));
}

#[test]
fn a_disco_key_tells_whose_endpoint_it_is_at_once_and_goes_before_what_was_told() {
    let Some(mut programs) = with_peer("disco key") else { return };
    let (key, stranger, other) = (DiscoKey::generate(), DiscoKey::generate(), 5);
    programs.add_disco_key(key.0, other).unwrap();
    let far: SocketAddr = "203.0.113.77:5000".parse().unwrap();
    pass_with(&programs, RECEIVE, far, &ping(stranger, [1; 12]));
    pass_with(&programs, TRANSMIT, far, &transport(1, 0, 64));
    let data = |slot| {
        let line = programs.peer_underlay(slot, TRANSMIT).unwrap();
        line.path[PATH_DIRECT_IPV4].data
    };
    assert_eq!((data(0), data(other)), (1, 0), "nobody's");
    pass_with(&programs, RECEIVE, far, &ping(key, [1; 12]));
    pass_with(&programs, TRANSMIT, far, &transport(1, 1, 64));
    assert_eq!((data(0), data(other)), (1, 1));
    pass(&programs, RECEIVE, &ping(key, [2; 12]));
    pass(&programs, TRANSMIT, &transport(1, 2, 64));
    assert_eq!((data(PEER), data(other)), (0, 2), "a candidate of another peer");
}

#[test]
fn relayed_messages_are_those_of_the_peer_behind_the_relay() {
    for six in [false, true] {
        let Some(programs) = with_peer("relay") else { return };
        let (far, key) = (sockets(six).0, DiscoKey::generate());
        let (wire, disco) = (
            |vni, message: &[u8]| geneve(GENEVE_WIREGUARD, vni, message),
            |message: &[u8]| geneve(GENEVE_DISCO, 7, message),
        );
        pass_with(&programs, TRANSMIT, far, &wire(7, &initiation(0x77)));
        pass_with(&programs, RECEIVE, far, &wire(7, &response(0x99, 0x77)));
        pass_with(&programs, TRANSMIT, far, &disco(&ping(key, [1; 12])));
        pass_with(&programs, RECEIVE, far, &disco(&pong(key, [1; 12])));
        let joined: Vec<_> = (0..3).map(|counter| wire(7, &transport(0x77, counter, 64))).collect();
        pass_joined(&programs, RECEIVE, far, &joined);
        // Another pair's, by the same relay, in one super-packet with ours.
        let mixed = [wire(8, &transport(0x55, 0, 64)), wire(7, &transport(0x77, 3, 64))];
        pass_joined(&programs, RECEIVE, far, &mixed);
        let peer = programs.wireguard(PEER).unwrap();
        assert_eq!((peer.handshake.count, peer.disco_rtt.count), (1, 1));
        let path = if six { PATH_PEER_RELAY_IPV6 } else { PATH_PEER_RELAY_IPV4 };
        let ours = programs.peer_underlay(PEER, RECEIVE).unwrap().path[path];
        assert_eq!((ours.data, ours.packets()), (4, 6));
        let theirs = programs.peer_underlay(0, RECEIVE).unwrap().path[path];
        assert_eq!((theirs.data, theirs.packets()), (1, 1));
        let session = programs.session(0x77).unwrap().unwrap();
        assert_eq!((session.received, session.lost, session.next), (4, 0, 4));
    }
}

#[test]
fn what_others_send_through_this_node_s_own_relay_is_none_of_its_peers() {
    let Some(mut programs) = with_peer("own relay") else { return };
    let key = DiscoKey::generate();
    programs.add_disco_key(key.0, PEER).unwrap();
    let control = Control {
        has_routes_v4: 1,
        has_routes_v6: 1,
        relay_port: u32::from(crate::underlay::PORT),
        ..Control::default()
    };
    programs.set_control(&control).unwrap();
    for direction in BOTH {
        pass(&programs, direction, &geneve(GENEVE_DISCO, 7, &ping(key, [1; 12])));
        pass(&programs, direction, &geneve(GENEVE_WIREGUARD, 7, &transport(0x66, 5, 64)));
    }
    let peer = programs.wireguard(PEER).unwrap();
    assert_eq!((peer.pings, peer.disco_rtt.count), ([0, 0], 0));
    for direction in BOTH {
        let path = |slot| programs.peer_underlay(slot, direction).unwrap().path[PATH_PEER_RELAY_IPV4];
        assert_eq!(path(PEER), PathCounters::default());
        assert_eq!((path(0).packets(), path(0).data), (2, 1));
    }
    assert_eq!(programs.session(0x66).unwrap(), None);
}

#[test]
fn bytes_and_packets_per_peer_are_those_of_the_interface() {
    let Some(programs) = with_peer("bytes") else { return };
    for six in [false, true] {
        let far = sockets(six).0;
        let headers = if six { 48 } else { 28 };
        for direction in BOTH {
            pass_with(&programs, direction, far, &transport(1, 0, 100));
            let mut joined: Vec<_> = (1..6).map(|counter| transport(1, counter, 100)).collect();
            joined.push(transport(1, 6, 20));
            pass_joined(&programs, direction, far, &joined);
            // Some kernels need one byte more at the end; it is no message.
            joined = (7..9).map(|counter| transport(1, counter, 100)).collect();
            joined.push(vec![7]);
            pass_joined(&programs, direction, far, &joined);
            let long = transport(1, 0, 100).len() as u64;
            let line = programs.peer_underlay(PEER, direction).unwrap();
            let path = line.path[if six { PATH_DIRECT_IPV6 } else { PATH_DIRECT_IPV4 }];
            assert_eq!((path.data, path.packets()), (9, 10));
            let payload = 8 * long + transport(1, 6, 20).len() as u64 + 1;
            assert_eq!(path.bytes, payload + 10 * headers);
        }
    }
    assert_eq!(seen(&programs, Kind::Other), [0, 0]);
}

#[test]
fn the_tail_of_a_super_packet_is_read() {
    let Some(programs) = with_peer("tail") else { return };
    pass(&programs, TRANSMIT, &initiation(0x31));
    let mut joined: Vec<_> = (0..5).map(|counter| transport(0x30, counter, 96)).collect();
    joined.push(response(0x99, 0x31));
    pass_joined(&programs, RECEIVE, sockets(false).0, &joined);
    assert_eq!(programs.wireguard(PEER).unwrap().handshake.count, 1);
    assert_eq!(programs.health().unwrap().messages_unread, 0);
    let key = DiscoKey::generate();
    pass(&programs, TRANSMIT, &ping(key, [1; 12]));
    let mut joined: Vec<_> = (5..9).map(|counter| transport(0x30, counter, 96)).collect();
    joined.push(pong(key, [1; 12]));
    pass_joined(&programs, RECEIVE, sockets(false).0, &joined);
    assert_eq!(programs.wireguard(PEER).unwrap().disco_rtt.count, 1);
    let line = programs.peer_underlay(PEER, RECEIVE).unwrap();
    assert_eq!(line.path[PATH_DIRECT_IPV4].data, 9);
    // Two that are no data: one of them is not read, which is said.
    pass_joined(&programs, RECEIVE, sockets(false).0, &[ping(key, [2; 12]), ping(key, [3; 12])]);
    assert_eq!(programs.health().unwrap().messages_unread, 1);
}

#[test]
fn strangers_are_counted_and_nothing_is_remembered_of_them() {
    let Some(programs) = with_peer("strangers") else { return };
    let key = DiscoKey::generate();
    for port in 1000..1100 {
        let far = SocketAddr::new([203, 0, 113, 5].into(), port);
        for payload in [
            initiation(u32::from(port)),
            response(1, u32::from(port)),
            cookie(3),
            transport(u32::from(port), 99, 64),
            ping(key, [1; 12]),
            pong(key, [1; 12]),
            stun_request([0; 12]),
            vec![0; 50],
        ] {
            pass_with(&programs, RECEIVE, far, &payload);
        }
        assert_eq!(programs.session(u32::from(port)).unwrap(), None);
    }
    let kinds =
        [Kind::Initiation, Kind::Response, Kind::Cookie, Kind::Ping, Kind::Pong, Kind::Stun, Kind::Other];
    for kind in kinds {
        assert_eq!(seen(&programs, kind), [100, 0], "{kind:?}");
    }
    let line = programs.peer_underlay(0, RECEIVE).unwrap();
    assert_eq!((line.path[0].packets(), line.path[0].data), (800, 100));
    let nobody: WireGuard = programs.wireguard(0).unwrap();
    assert_eq!((nobody.handshake.count, nobody.disco_rtt.count, nobody.completed), (0, 0, [0, 0]));
}
