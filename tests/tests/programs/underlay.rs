//! What the underlay's programs count, and what they leave alone.

use std::net::{IpAddr, SocketAddr};

use tailgauge_ebpf::layout::{
    CLASS_LOCAL, CLASS_SUBNET, Carried, Control, ETHERNET_HEADER, KIND_FORWARDED, KIND_TAILSCALED,
    MARK_FORWARDED, MARK_TAILSCALED, RECEIVE, TRANSMIT, Underlay, UnderlayDevice, UnderlayLine, Wire, maps,
};
use tailgauge_testbed::programs::{BOTH, Context, Programs, Sizes};

use crate::inner::{ACK, Segment, UDP, ip, tcp, udp};
use crate::load;

/// Row of the loopback device, on which test runs take place.
const ROW: u32 = 3;
pub(crate) const PORT: u16 = 41641;
pub(crate) const PORT_V6: u16 = 41642;

/// Programs that count index 1 in [`ROW`], where an IP header comes after `link_header` bytes.
fn programs(test: &str, link_header: u16) -> Option<Programs> {
    programs_of(test, link_header, Sizes::default())
}

/// The same with maps of chosen sizes.
pub(crate) fn programs_of(test: &str, link_header: u16, sizes: Sizes) -> Option<Programs> {
    let mut programs = load(test, sizes)?;
    let mut underlay = Underlay::default();
    underlay.devices[0] = UnderlayDevice { ifindex: 77, link_header: 0, row: 0 };
    underlay.devices[ROW as usize] = UnderlayDevice { ifindex: 1, link_header, row: ROW as u16 };
    programs.set_underlay(&underlay).unwrap();
    programs.set_ports([&[PORT, 3478], &[PORT_V6]]).unwrap();
    for (map, network, class) in [
        (maps::ROUTES_V4, "192.0.2.1/32", CLASS_LOCAL),
        (maps::ROUTES_V4, "192.0.2.0/24", CLASS_SUBNET),
        (maps::ROUTES_V6, "2001:db8::1/128", CLASS_LOCAL),
    ] {
        programs.add_prefix(map, network.parse::<ipnet::IpNet>().unwrap(), class).unwrap();
    }
    let control = Control { has_routes_v4: 1, has_routes_v6: 1, ..Control::default() };
    programs.set_control(&control).unwrap();
    Some(programs)
}

/// Another machine, and a socket of this one.
pub(crate) fn sockets(six: bool) -> (SocketAddr, SocketAddr) {
    let (far, own) = if six {
        ("[2001:db8:ff::9]:41641", format!("[2001:db8::1]:{PORT_V6}"))
    } else {
        ("198.51.100.7:41641", format!("192.0.2.1:{PORT}"))
    };
    (far.parse().unwrap(), own.parse().unwrap())
}

/// An Ethernet header with VLAN tags, and a packet. The type, one for experiments (IEEE 802), is of no importance:
/// the version nibble decides.
pub(crate) fn frame(tags: usize, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in 0..tags {
        frame.extend(if tag == 0 && tags > 1 { [0x88, 0xa8] } else { [0x81, 0x00] });
        frame.extend([0, 7]);
    }
    frame.extend([0x88, 0xb5]);
    frame.extend_from_slice(packet);
    frame
}

/// What one frame adds, of one kind; nothing is added elsewhere.
fn added(programs: &Programs, direction: u32, kind: usize, frame: &[u8], context: Context) -> Carried {
    let read = || BOTH.map(|direction| programs.underlay(ROW, direction).unwrap());
    let before = read();
    programs.run_underlay(direction, frame, context, 1).unwrap();
    let mut after = read();
    let (new, old) = (after[direction as usize].kind[kind], before[direction as usize].kind[kind]);
    after[direction as usize].kind[kind] = old;
    assert_eq!(after, before, "something else was counted");
    Carried {
        wire: Wire { packets: new.wire.packets - old.wire.packets, bytes: new.wire.bytes - old.wire.bytes },
        skbs: new.skbs - old.skbs,
        skb_bytes: new.skb_bytes - old.skb_bytes,
    }
}

fn one(packet: &[u8], frame: &[u8]) -> Carried {
    let wire = Wire { packets: 1, bytes: packet.len() as u64 };
    Carried { wire, skbs: 1, skb_bytes: frame.len() as u64 }
}

/// A super-packet taken apart.
fn apart(packet: &[u8], headers: usize, gso_size: usize, frame: &[u8]) -> Carried {
    let mut wire = Wire::default();
    for segment in packet[headers..].chunks(gso_size) {
        wire.packets += 1;
        wire.bytes += (headers + segment.len()) as u64;
    }
    Carried { wire, skbs: 1, skb_bytes: frame.len() as u64 }
}

const fn marked(mark: u32) -> Context {
    Context { mark, gso_size: 0 }
}

#[test]
fn the_mark_alone_says_what_leaves() {
    let Some(programs) = programs("the_mark_alone_says_what_leaves", ETHERNET_HEADER) else { return };
    for six in [false, true] {
        let (far, own) = sockets(six);
        let segment = Segment { flags: ACK, options: 12, payload: 100, ..Segment::default() };
        for packet in [udp(own, far, 100), tcp(own, far, segment)] {
            let frame = frame(0, &packet);
            for (mark, kind) in [
                (MARK_TAILSCALED, KIND_TAILSCALED),
                (MARK_FORWARDED, KIND_FORWARDED),
                // Other bits are other people's.
                (MARK_FORWARDED | 0xff00_ffff, KIND_FORWARDED),
            ] {
                let found = added(&programs, TRANSMIT, kind, &frame, marked(mark));
                assert_eq!(found, one(&packet, &frame), "{mark:#x}");
            }
            for mark in [0, 0x10_0000, 0xc_0000, 0xff, 0x400_0000] {
                let found = added(&programs, TRANSMIT, KIND_FORWARDED, &frame, marked(mark));
                assert_eq!(found, Carried::default(), "{mark:#x}");
            }
        }
    }
}

#[test]
fn datagrams_to_tailscaled_s_ports_at_this_host_have_arrived_for_it() {
    let Some(programs) = programs("datagrams_to_tailscaled_s_ports", ETHERNET_HEADER) else { return };
    for six in [false, true] {
        let (far, own) = sockets(six);
        let arrives = |packet: &[u8]| {
            let frame = frame(0, packet);
            let found = added(&programs, RECEIVE, KIND_TAILSCALED, &frame, Context::default());
            (found == one(packet, &frame), found == Carried::default())
        };
        let yes = (true, false);
        let no = (false, true);
        assert_eq!(arrives(&udp(far, own, 32)), yes);
        assert_eq!(arrives(&udp(far, own, 0)), yes);
        assert_eq!(arrives(&udp(far, SocketAddr::new(own.ip(), 53), 32)), no, "another port");
        let other: IpAddr = if six { "2001:db8::2" } else { "192.0.2.2" }.parse().unwrap();
        assert_eq!(arrives(&udp(far, SocketAddr::new(other, own.port()), 32)), no, "passed on");
        assert_eq!(arrives(&tcp(far, own, Segment::default())), no, "TCP");
        let family_port = if six { PORT } else { PORT_V6 };
        assert_eq!(arrives(&udp(far, SocketAddr::new(own.ip(), family_port), 32)), no, "other family's");
        // With options or extension headers.
        let datagram = udp(far, own, 50);
        let body = &datagram[if six { 40 } else { 20 }..];
        let longer = if six {
            ip(far.ip(), own.ip(), 60, &[UDP, 0, 1, 4, 0, 0, 0, 0], body)
        } else {
            ip(far.ip(), own.ip(), UDP, &[1; 8], body)
        };
        assert_eq!(arrives(&longer), yes);
        // Fragments: the first has the port, later ones have not.
        let fragment = |offset: u16, more: u8| {
            let [high, low] = offset.to_be_bytes();
            if six {
                let offset = (offset << 3).to_be_bytes();
                let header = [UDP, 0, offset[0], offset[1] | more, 0, 0, 0, 1];
                ip(far.ip(), own.ip(), 44, &header, body)
            } else {
                let mut packet = datagram.clone();
                (packet[6], packet[7]) = (high | more << 5, low);
                packet
            }
        };
        assert_eq!(arrives(&fragment(0, 1)), yes);
        assert_eq!(arrives(&fragment(100, 0)), no);
    }
}

#[test]
fn super_packets_are_taken_apart_both_ways() {
    let Some(programs) = programs("underlay_super_packets", ETHERNET_HEADER) else { return };
    for six in [false, true] {
        let (far, own) = sockets(six);
        let network = if six { 40 } else { 20 };
        for (payload, gso_size) in [(3000, 1280), (2560, 1280), (2561, 1280), (100, 1280)] {
            let packet = udp(far, own, payload);
            let frame_in = frame(0, &packet);
            let expected = apart(&packet, network + 8, gso_size, &frame_in);
            let context = Context { mark: 0, gso_size: gso_size as u32 };
            assert_eq!(added(&programs, RECEIVE, KIND_TAILSCALED, &frame_in, context), expected);

            let packet = udp(own, far, payload);
            let frame_out = frame(0, &packet);
            let context = Context { mark: MARK_TAILSCALED, ..context };
            assert_eq!(added(&programs, TRANSMIT, KIND_TAILSCALED, &frame_out, context), expected);

            let segment = Segment { flags: ACK, options: 12, payload, ..Segment::default() };
            let packet = tcp(own, far, segment);
            let frame = frame(0, &packet);
            let expected = apart(&packet, network + 32, gso_size, &frame);
            let context = Context { mark: MARK_FORWARDED, ..context };
            assert_eq!(added(&programs, TRANSMIT, KIND_FORWARDED, &frame, context), expected);
        }
    }
}

#[test]
fn what_is_forwarded_is_no_message_whatever_its_port() {
    let Some(programs) = programs("what_is_forwarded_is_no_message", ETHERNET_HEADER) else { return };
    for six in [false, true] {
        let (far, own) = sockets(six);
        let frame = frame(0, &udp(own, far, 3000));
        let count = |mark, gso_size| {
            programs.run_underlay(TRANSMIT, &frame, Context { mark, gso_size }, 1).unwrap();
            let line = programs.peer_underlay(0, TRANSMIT).unwrap();
            line.path.map(|path| path.others).iter().sum::<u64>()
        };
        let before = count(MARK_TAILSCALED, 0);
        assert_eq!([0, 1280].map(|gso_size| count(MARK_FORWARDED, gso_size)), [before; 2]);
        assert_eq!(count(MARK_TAILSCALED, 1280), before + 3);
    }
}

#[test]
fn vlan_tags_are_no_bytes_of_the_packet() {
    let Some(programs) = programs("vlan_tags_are_no_bytes_of_the_packet", ETHERNET_HEADER) else { return };
    for six in [false, true] {
        let (far, own) = sockets(six);
        let network = if six { 40 } else { 20 };
        for tags in 0..=2 {
            let packet = udp(far, own, 3000);
            let frame_in = frame(tags, &packet);
            let found = added(&programs, RECEIVE, KIND_TAILSCALED, &frame_in, Context::default());
            assert_eq!(found, one(&packet, &frame_in), "{tags} tags");
            let found = added(&programs, TRANSMIT, KIND_FORWARDED, &frame_in, marked(MARK_FORWARDED));
            assert_eq!(found, one(&packet, &frame_in), "{tags} tags");
            let context = Context { mark: MARK_TAILSCALED, gso_size: 1280 };
            let expected = apart(&packet, network + 8, 1280, &frame_in);
            assert_eq!(added(&programs, TRANSMIT, KIND_TAILSCALED, &frame_in, context), expected);
        }
    }
}

#[test]
fn a_device_without_ethernet_has_the_packet_at_its_first_byte() {
    let Some(programs) = programs("a_device_without_ethernet", 0) else { return };
    for six in [false, true] {
        let (far, own) = sockets(six);
        let packet = udp(far, own, 3000);
        let found = added(&programs, RECEIVE, KIND_TAILSCALED, &packet, Context::default());
        assert_eq!(found, one(&packet, &packet));
        let context = Context { mark: MARK_FORWARDED, gso_size: 1000 };
        let headers = if six { 48 } else { 28 };
        let found = added(&programs, TRANSMIT, KIND_FORWARDED, &packet, context);
        assert_eq!(found, apart(&packet, headers, 1000, &packet));
    }
}

#[test]
fn frames_cut_at_any_byte_do_no_harm() {
    let Some(programs) = programs("frames_cut_at_any_byte_do_no_harm", ETHERNET_HEADER) else { return };
    for six in [false, true] {
        let (far, own) = sockets(six);
        for tags in [0, 1] {
            let whole = frame(tags, &udp(far, own, 40));
            let link = 14 + 4 * tags;
            let headers = link + if six { 48 } else { 28 };
            // Nothing behind an Ethernet header is refused by the kernel's test run, not by the programs.
            for length in 15..whole.len() {
                let cut = &whole[..length];
                let arrived = added(&programs, RECEIVE, KIND_TAILSCALED, cut, Context::default());
                assert_eq!(arrived.skbs, u64::from(length >= headers), "{length} of {}", whole.len());
                let left = added(&programs, TRANSMIT, KIND_FORWARDED, cut, marked(MARK_FORWARDED));
                assert_eq!((left.skbs, left.skb_bytes), (1, length as u64));
                assert!(left.wire.bytes <= (length - 14) as u64);
                let context = Context { mark: MARK_TAILSCALED, gso_size: 8 };
                let left = added(&programs, TRANSMIT, KIND_TAILSCALED, cut, context);
                assert_eq!(left.skbs, 1);
            }
        }
    }
}

#[test]
fn a_device_without_a_row_is_not_counted() {
    let Some(mut programs) = programs("a_device_without_a_row", ETHERNET_HEADER) else { return };
    programs.set_underlay(&Underlay::default()).unwrap();
    let (far, own) = sockets(false);
    let frame = frame(0, &udp(far, own, 100));
    for direction in BOTH {
        programs.run_underlay(direction, &frame, marked(MARK_TAILSCALED), 1).unwrap();
    }
    for row in 0..16 {
        for direction in BOTH {
            assert_eq!(programs.underlay(row, direction).unwrap(), UnderlayLine::default());
        }
    }
}
