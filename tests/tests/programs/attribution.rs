//! Whose packet it is, and of which class.

use std::net::{IpAddr, SocketAddr};

use tailgauge_ebpf::layout::{
    CLASS_EXIT, CLASS_LOCAL, CLASS_SUBNET, Control, RECEIVE, TRANSMIT, UNATTRIBUTED, maps,
};
use tailgauge_testbed::programs::{BOTH, Programs, Sizes};

use crate::inner::udp;
use crate::load;

const EXACT: u32 = 1;
const WIDE: u32 = 2;
const NARROW: u32 = 3;
const EXIT_NODE: u32 = 4;

fn prefix(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

/// Peers by address and by prefix, with every table in use.
fn tailnet(test: &str) -> Option<Programs> {
    let mut programs = load(test, Sizes::default())?;
    programs.add_peer_v4("100.64.0.1".parse().unwrap(), EXACT).unwrap();
    programs.add_peer_v6("fd7a:115c:a1e0::1".parse().unwrap(), EXACT).unwrap();
    for (map, network, slot) in [
        (maps::PREFIXES_V4, "100.64.0.0/24", WIDE),
        (maps::PREFIXES_V4, "192.168.0.0/16", WIDE),
        (maps::PREFIXES_V4, "192.168.7.0/24", NARROW),
        (maps::PREFIXES_V6, "fd7a:115c:a1e0::/64", WIDE),
        (maps::PREFIXES_V6, "2001:db8::/32", WIDE),
        (maps::PREFIXES_V6, "2001:db8:7::/48", NARROW),
        (maps::ROUTES_V4, "100.64.0.99/32", CLASS_LOCAL),
        (maps::ROUTES_V4, "10.0.0.0/8", CLASS_SUBNET),
        (maps::ROUTES_V4, "10.1.2.3/32", CLASS_LOCAL),
        (maps::ROUTES_V6, "fd7a:115c:a1e0::99/128", CLASS_LOCAL),
        (maps::ROUTES_V6, "fd00:10::/32", CLASS_SUBNET),
    ] {
        programs.add_prefix(map, prefix(network), slot).unwrap();
    }
    programs.set_control(&EVERYTHING).unwrap();
    Some(programs)
}

const EVERYTHING: Control = Control {
    exit_node_slot: 0,
    has_routes_v4: 1,
    has_routes_v6: 1,
    has_prefixes_v4: 1,
    has_prefixes_v6: 1,
    routes_generation: 1,
    endpoints_generation: 0,
    relay_port: 0,
};

/// Sends one packet between a peer's address and another; returns the one row it was counted in.
fn counted(programs: &Programs, direction: u32, peer: &str, other: &str) -> (u32, u32) {
    let at = |text: &str| SocketAddr::new(text.parse::<IpAddr>().unwrap(), 1000);
    let packet = match direction {
        RECEIVE => udp(at(peer), at(other), 100),
        _ => udp(at(other), at(peer), 100),
    };
    let before: Vec<_> = (0..programs.slots()).map(|slot| programs.line(slot, direction).unwrap()).collect();
    assert_eq!(programs.run(direction, &packet, 0).unwrap().return_value as i32, -1, "the packet passes");
    let mut found = Vec::new();
    for (slot, before) in (0..).zip(before) {
        let after = programs.line(slot, direction).unwrap();
        assert_eq!(after.skbs - before.skbs, u64::from(after != before), "slot {slot}");
        for class in 0..3 {
            let packets = after.wire[class].packets - before.wire[class].packets;
            let bytes = after.wire[class].bytes - before.wire[class].bytes;
            assert_eq!(bytes, packets * packet.len() as u64);
            if packets > 0 {
                found.push((slot, class as u32));
            }
        }
    }
    assert_eq!(found.len(), 1, "{peer} {other}: one packet, one row");
    found[0]
}

#[test]
fn an_address_wins_over_a_prefix_and_a_long_prefix_over_a_short_one() {
    let Some(programs) = tailnet("an_address_wins_over_a_prefix") else { return };
    for (peer, slot) in [
        ("100.64.0.1", EXACT),
        ("100.64.0.2", WIDE),
        ("192.168.7.1", NARROW),
        ("192.168.8.1", WIDE),
        ("8.8.8.8", UNATTRIBUTED),
    ] {
        for direction in BOTH {
            assert_eq!(counted(&programs, direction, peer, "1.1.1.1"), (slot, CLASS_EXIT), "{peer}");
        }
    }
    for (peer, slot) in [
        ("fd7a:115c:a1e0::1", EXACT),
        ("fd7a:115c:a1e0::2", WIDE),
        ("2001:db8:7::1", NARROW),
        ("2001:db8:8::1", WIDE),
        ("2606:4700::1111", UNATTRIBUTED),
    ] {
        for direction in BOTH {
            assert_eq!(counted(&programs, direction, peer, "2620:fe::fe"), (slot, CLASS_EXIT), "{peer}");
        }
    }
}

#[test]
fn what_nobody_else_owns_goes_to_the_exit_node_but_only_on_the_way_out() {
    let Some(mut programs) = tailnet("what_nobody_else_owns_goes_to_the_exit_node") else { return };
    programs.set_control(&Control { exit_node_slot: EXIT_NODE, ..EVERYTHING }).unwrap();
    for (peer, other) in [("8.8.8.8", "100.64.0.99"), ("2606:4700::1111", "fd7a:115c:a1e0::99")] {
        assert_eq!(counted(&programs, TRANSMIT, peer, other), (EXIT_NODE, CLASS_LOCAL));
        assert_eq!(counted(&programs, RECEIVE, peer, other), (UNATTRIBUTED, CLASS_LOCAL));
    }
    assert_eq!(counted(&programs, TRANSMIT, "192.168.7.1", "100.64.0.99"), (NARROW, CLASS_LOCAL));
}

#[test]
fn the_other_address_decides_the_class() {
    let Some(programs) = tailnet("the_other_address_decides_the_class") else { return };
    for direction in BOTH {
        for (peer, other, class) in [
            ("100.64.0.1", "100.64.0.99", CLASS_LOCAL),
            ("100.64.0.1", "10.9.9.9", CLASS_SUBNET),
            ("100.64.0.1", "10.1.2.3", CLASS_LOCAL),
            ("100.64.0.1", "1.1.1.1", CLASS_EXIT),
            ("100.64.0.1", "0.0.0.0", CLASS_EXIT),
            ("8.8.8.8", "10.9.9.9", CLASS_SUBNET),
            ("fd7a:115c:a1e0::1", "fd7a:115c:a1e0::99", CLASS_LOCAL),
            ("fd7a:115c:a1e0::1", "fd00:10::1", CLASS_SUBNET),
            ("fd7a:115c:a1e0::1", "::", CLASS_EXIT),
            ("fd7a:115c:a1e0::1", "::ffff:10.9.9.9", CLASS_EXIT),
        ] {
            // Twice: looked up, then remembered.
            for _ in 0..2 {
                assert_eq!(counted(&programs, direction, peer, other).1, class, "{other}");
            }
        }
    }
}

#[test]
fn classes_are_forgotten_when_the_routes_change() {
    let Some(mut programs) = tailnet("classes_are_forgotten_when_the_routes_change") else { return };
    let (peer, other) = ("100.64.0.1", "172.16.0.1");
    assert_eq!(counted(&programs, RECEIVE, peer, other).1, CLASS_EXIT);
    programs.add_prefix(maps::ROUTES_V4, prefix("172.16.0.0/12"), CLASS_SUBNET).unwrap();
    programs.set_control(&Control { routes_generation: 2, ..EVERYTHING }).unwrap();
    assert_eq!(counted(&programs, RECEIVE, peer, other).1, CLASS_SUBNET);
    programs.set_control(&Control { has_routes_v4: 0, routes_generation: 3, ..EVERYTHING }).unwrap();
    assert_eq!(counted(&programs, RECEIVE, peer, other).1, CLASS_EXIT);
}

#[test]
fn tables_that_control_calls_empty_are_not_asked() {
    let Some(mut programs) = tailnet("tables_that_control_calls_empty_are_not_asked") else { return };
    programs.set_control(&Control::default()).unwrap();
    for (peer, other) in [("100.64.0.2", "100.64.0.99"), ("fd7a:115c:a1e0::2", "fd7a:115c:a1e0::99")] {
        assert_eq!(counted(&programs, RECEIVE, peer, other), (UNATTRIBUTED, CLASS_EXIT));
    }
    assert_eq!(counted(&programs, RECEIVE, "100.64.0.1", "100.64.0.99"), (EXACT, CLASS_EXIT));
}

#[test]
fn a_slot_that_does_not_exist_is_slot_zero() {
    let Some(mut programs) = load("a_slot_that_does_not_exist_is_slot_zero", Sizes::default()) else {
        return;
    };
    let slots = programs.slots();
    programs.add_peer_v4("100.64.0.7".parse().unwrap(), slots).unwrap();
    programs.add_peer_v4("100.64.0.8".parse().unwrap(), slots - 1).unwrap();
    assert_eq!(counted(&programs, RECEIVE, "100.64.0.7", "1.1.1.1").0, UNATTRIBUTED);
    assert_eq!(counted(&programs, RECEIVE, "100.64.0.8", "1.1.1.1").0, slots - 1);
}
