//! How many packets and bytes, in both notions.

use std::net::{IpAddr, SocketAddr};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tailgauge_ebpf::layout::{CLASS_EXIT, CLASS_LOCAL, Control, Line, RECEIVE, TRANSMIT, UNATTRIBUTED, maps};
use tailgauge_testbed::programs::{BOTH, Programs, Sizes};

use crate::inner::{ACK, Segment, TCP, UDP, ip, tcp, tcp_body, udp};
use crate::load;

const PEER: u32 = 5;

/// One peer by two addresses.
fn one_peer(test: &str) -> Option<Programs> {
    let mut programs = load(test, Sizes::default())?;
    programs.add_peer_v4("100.64.0.1".parse().unwrap(), PEER).unwrap();
    programs.add_peer_v6("fd7a::1".parse().unwrap(), PEER).unwrap();
    Some(programs)
}

/// A peer's socket and a server's, of one family.
fn sockets(six: bool) -> (SocketAddr, SocketAddr) {
    let (peer, other) =
        if six { ("[fd7a::1]:40000", "[2001:db8::9]:443") } else { ("100.64.0.1:40000", "9.9.9.9:443") };
    (peer.parse().unwrap(), other.parse().unwrap())
}

/// What one packet adds: `(wire packets, wire bytes, skbs, skb bytes)`, all in class exit.
fn added(
    programs: &Programs,
    slot: u32,
    direction: u32,
    packet: &[u8],
    gso_size: u32,
) -> (u64, u64, u64, u64) {
    let before = programs.line(slot, direction).unwrap();
    programs.run(direction, packet, gso_size).unwrap();
    let after = programs.line(slot, direction).unwrap();
    let exit = CLASS_EXIT as usize;
    (
        after.wire[exit].packets - before.wire[exit].packets,
        after.wire[exit].bytes - before.wire[exit].bytes,
        after.skbs - before.skbs,
        after.skb_bytes - before.skb_bytes,
    )
}

/// What a super-packet was on the wire, by taking it apart.
fn apart(length: usize, headers: usize, gso_size: usize) -> (u64, u64, u64, u64) {
    let payload = vec![0u8; length - headers];
    let (mut packets, mut bytes) = (0, 0);
    for segment in payload.chunks(gso_size) {
        packets += 1;
        bytes += (headers + segment.len()) as u64;
    }
    (packets, bytes, 1, length as u64)
}

#[test]
fn super_packets_are_taken_apart_in_both_directions() {
    let Some(programs) = one_peer("super_packets_are_taken_apart") else { return };
    for six in [false, true] {
        let (peer, other) = sockets(six);
        let network = if six { 40 } else { 20 };
        for direction in BOTH {
            let (from, to) = if direction == RECEIVE { (peer, other) } else { (other, peer) };
            for (options, payload, gso_size) in [
                (0, 3000, 1228),
                (12, 3000, 1000),
                (40, 2456, 1228),
                (12, 1, 1228),
                (0, 1229, 1228),
                (12, 0, 1228),
            ] {
                let segment = Segment { flags: ACK, options, payload, ..Segment::default() };
                let packet = tcp(from, to, segment);
                let headers = network + 20 + options;
                let expected = if payload == 0 {
                    (1, packet.len() as u64, 1, packet.len() as u64)
                } else {
                    apart(packet.len(), headers, gso_size)
                };
                assert_eq!(added(&programs, PEER, direction, &packet, gso_size as u32), expected);
            }
            for (payload, gso_size) in [(3000, 1200), (2400, 1200), (2401, 1200)] {
                let packet = udp(from, to, payload);
                let expected = apart(packet.len(), network + 8, gso_size);
                assert_eq!(added(&programs, PEER, direction, &packet, gso_size as u32), expected);
            }
        }
    }
}

#[test]
fn options_and_extension_headers_repeat_in_every_segment() {
    let Some(programs) = one_peer("options_and_extension_headers_repeat") else { return };
    let segment = Segment { flags: ACK, options: 12, payload: 3000, ..Segment::default() };
    let (peer, other) = sockets(false);
    let body = tcp_body(peer.port(), other.port(), segment);
    let packet = ip(peer.ip(), other.ip(), TCP, &[1; 24], &body);
    assert_eq!(added(&programs, PEER, RECEIVE, &packet, 1000), apart(packet.len(), 20 + 24 + 32, 1000));

    let (peer, other) = sockets(true);
    // Hop-by-hop, destination options, authentication.
    let mut chain = vec![60, 1, 1, 12];
    chain.extend([0; 12]);
    chain.extend([51, 0, 1, 4, 0, 0, 0, 0]);
    chain.extend([TCP, 4, 0, 0]);
    chain.extend([0; 20]);
    let packet = ip(peer.ip(), other.ip(), 0, &chain, &body);
    assert_eq!(
        added(&programs, PEER, RECEIVE, &packet, 1000),
        apart(packet.len(), 40 + chain.len() + 32, 1000)
    );
    assert_eq!(programs.health().unwrap().malformed, 0);
}

#[test]
fn fragments_are_counted_and_later_ones_known_as_such() {
    let Some(programs) = one_peer("fragments_are_counted") else { return };
    let (peer, other) = sockets(false);
    let mut first = udp(peer, other, 1000);
    first[6] = 0x20;
    let mut later = ip(peer.ip(), other.ip(), UDP, &[], &[0xff; 700]);
    later[7] = 126;
    let (peer, other) = sockets(true);
    let first_v6 = ip(peer.ip(), other.ip(), 44, &[UDP, 0, 0, 1, 0, 0, 0, 9], &[0xff; 800]);
    let later_v6 = ip(peer.ip(), other.ip(), 44, &[TCP, 0, 0x03, 0x28, 0, 0, 0, 9], &[0xff; 300]);
    for (packet, fragments) in [(&first, 0), (&later, 1), (&first_v6, 1), (&later_v6, 2)] {
        let length = packet.len() as u64;
        assert_eq!(added(&programs, PEER, RECEIVE, packet, 0), (1, length, 1, length));
        assert_eq!(programs.health().unwrap().fragments, fragments);
    }
    assert_eq!(programs.health().unwrap().malformed, 0);
}

#[test]
fn a_packet_cut_at_any_byte_is_counted_where_its_addresses_say() {
    let Some(programs) = one_peer("a_packet_cut_at_any_byte_is_counted") else { return };
    let segment = Segment { flags: ACK, options: 12, payload: 9, ..Segment::default() };
    let mut malformed = 0;
    for six in [false, true] {
        let (peer, other) = sockets(six);
        let whole = tcp(peer, other, segment);
        let addresses_end = if six { 40 } else { 20 };
        // Less than an Ethernet header is refused by the kernel's test run, not by the programs.
        for length in 14..whole.len() {
            let slot = if length < addresses_end { UNATTRIBUTED } else { PEER };
            let bytes = length as u64;
            assert_eq!(
                added(&programs, slot, RECEIVE, &whole[..length], 0),
                (1, bytes, 1, bytes),
                "{length}"
            );
            malformed += 1;
            assert_eq!(programs.health().unwrap().malformed, malformed, "{length} of {}", whole.len());
        }
        let bytes = whole.len() as u64;
        assert_eq!(added(&programs, PEER, RECEIVE, &whole, 0), (1, bytes, 1, bytes));
        assert_eq!(programs.health().unwrap().malformed, malformed);
    }
    assert_eq!(programs.tcp(PEER).unwrap().lost, 0);
}

#[test]
fn neither_ipv4_nor_ipv6_is_counted_without_an_owner() {
    let Some(programs) = one_peer("neither_ipv4_nor_ipv6") else { return };
    for first in [0x00, 0x15, 0x44, 0x50, 0x75, 0xff] {
        let (peer, other) = sockets(false);
        let mut packet = udp(peer, other, 50);
        packet[0] = first;
        let length = packet.len() as u64;
        assert_eq!(added(&programs, UNATTRIBUTED, RECEIVE, &packet, 0), (1, length, 1, length), "{first:#x}");
    }
    assert_eq!(programs.health().unwrap().malformed, 6);
}

/// A random mixture against a table kept by the test.
#[test]
fn totals_of_mixed_traffic_equal_an_independent_count() {
    let Some(mut programs) = one_peer("totals_of_mixed_traffic") else { return };
    programs.add_prefix(maps::PREFIXES_V4, "10.0.0.0/8".parse::<ipnet::IpNet>().unwrap(), 6).unwrap();
    programs
        .add_prefix(maps::ROUTES_V4, "100.64.0.99/32".parse::<ipnet::IpNet>().unwrap(), CLASS_LOCAL)
        .unwrap();
    let control = Control { has_prefixes_v4: 1, has_routes_v4: 1, ..Control::default() };
    programs.set_control(&control).unwrap();
    let owner = |address: &IpAddr| match address.to_string().as_str() {
        "100.64.0.1" | "fd7a::1" => PEER,
        text if text.starts_with("10.") => 6,
        _ => UNATTRIBUTED,
    };
    let class =
        |address: &IpAddr| if address.to_string() == "100.64.0.99" { CLASS_LOCAL } else { CLASS_EXIT };

    let mut random = StdRng::seed_from_u64(0x7461_696c);
    let mut expected = vec![[Line::default(); 2]; programs.slots() as usize];
    let families = [
        ["100.64.0.1", "10.1.2.3", "192.0.2.1", "100.64.0.99", "9.9.9.9"],
        ["fd7a::1", "fd7a::2", "2001:db8::1", "2001:db8::99", "2620:fe::fe"],
    ];
    for _ in 0..3000 {
        let family = families.choose(&mut random).unwrap();
        let pick = |random: &mut StdRng, range: std::ops::Range<usize>| -> IpAddr {
            family[random.random_range(range)].parse().unwrap()
        };
        let (peer, other) = (pick(&mut random, 0..3), pick(&mut random, 3..5));
        let direction = *BOTH.choose(&mut random).unwrap();
        let (from, to) = if direction == TRANSMIT { (other, peer) } else { (peer, other) };
        let (from, to) = (SocketAddr::new(from, random.random()), SocketAddr::new(to, random.random()));
        let payload = random.random_range(0..3000);
        let is_tcp = random.random();
        let options = random.random_range(0..=10) * 4;
        let packet = if is_tcp {
            tcp(from, to, Segment { flags: ACK, options, payload, ..Segment::default() })
        } else {
            udp(from, to, payload)
        };
        let gso_size = if payload > 0 && random.random() { random.random_range(200..1400) } else { 0 };
        programs.run(direction, &packet, gso_size as u32).unwrap();

        let (packets, bytes, skbs, skb_bytes) = match gso_size {
            0 => (1, packet.len() as u64, 1, packet.len() as u64),
            _ => apart(packet.len(), packet.len() - payload, gso_size),
        };
        let line = &mut expected[owner(&peer) as usize][direction as usize];
        line.wire[class(&other) as usize].packets += packets;
        line.wire[class(&other) as usize].bytes += bytes;
        line.skbs += skbs;
        line.skb_bytes += skb_bytes;
    }
    for (slot, expected) in (0..).zip(expected) {
        for direction in BOTH {
            assert_eq!(programs.line(slot, direction).unwrap(), expected[direction as usize], "slot {slot}");
        }
    }
}
