//! The parser against packets whose contents are known, and against a second reading of the RFCs.

#[path = "support/layers.rs"]
mod layers;

use layers::{Parsed, found, parse, reference};
use proptest::prelude::*;
use tailgauge_ebpf::packet::{MAX_EXTENSIONS, TcpHeader, Transport, segments};

/// An extension header of a made packet.
#[derive(Clone, Copy, Debug)]
enum Extension {
    /// Hop-by-hop, routing or destination options: number and length in units of 8 bytes beyond the first.
    Options(u8, u8),
    /// Authentication header: length in units of 4 bytes beyond the first 8.
    Authentication(u8),
    /// Fragment header of a first fragment.
    First,
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Self::Options(number, _) => number,
            Self::Authentication(_) => 51,
            Self::First => 44,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        let (length, field, third) = match self {
            Self::Options(_, more) => (8 * (usize::from(more) + 1), more, 0),
            Self::Authentication(more) => (8 + 4 * usize::from(more), more, 0),
            Self::First => (8, 0, 1),
        };
        let mut bytes = vec![0xee; length];
        bytes[..4].copy_from_slice(&[next, field, 0, third]);
        bytes
    }
}

fn extension() -> impl Strategy<Value = Extension> {
    prop_oneof![
        (prop::sample::select(vec![0u8, 43, 60]), 0u8..4)
            .prop_map(|(number, more)| Extension::Options(number, more)),
        (0u8..6).prop_map(Extension::Authentication),
        Just(Extension::First),
    ]
}

/// A whole packet and what it must parse to.
fn packet() -> impl Strategy<Value = (Vec<u8>, Parsed)> {
    let layer4 =
        (prop::sample::select(vec![6u8, 17, 1, 58, 132]), 0usize..=10, any::<[u8; 20]>(), 0usize..80);
    let layer3 = prop_oneof![
        (0usize..=10).prop_map(|options| (4u8, options, Vec::new())),
        prop::collection::vec(extension(), 0..=MAX_EXTENSIONS as usize).prop_map(|list| (6u8, 0, list)),
    ];
    (layer3, layer4, any::<[u8; 32]>()).prop_map(|((family, options, extensions), layer4, addresses)| {
        let (protocol, tcp_options, fields, payload) = layer4;
        let mut body = match protocol {
            6 => fields.iter().copied().chain(vec![1; tcp_options * 4]).collect(),
            17 => fields[..8].to_vec(),
            _ => Vec::new(),
        };
        let header = body.len();
        if protocol == 6 {
            body[12] = ((5 + tcp_options) << 4) as u8;
        }
        body.extend(vec![0xaa; payload]);
        let mut packet;
        if family == 4 {
            let length = 20 + options * 4 + body.len();
            packet = vec![
                0x40 | (5 + options) as u8,
                0,
                (length >> 8) as u8,
                length as u8,
                0,
                0,
                0x40,
                0,
                64,
                protocol,
                0,
                0,
            ];
            packet.extend(&addresses[..8]);
            packet.extend(vec![1; options * 4]);
        } else {
            let mut next = protocol;
            let mut chain = Vec::new();
            for extension in extensions.iter().rev() {
                chain.splice(0..0, extension.bytes(next));
                next = extension.number();
            }
            let length = chain.len() + body.len();
            packet = vec![0x60, 0, 0, 0, (length >> 8) as u8, length as u8, next, 64];
            packet.extend(addresses);
            packet.extend(chain);
        }
        let network = packet.len();
        let (source, destination) = if family == 4 { (12..16, 16..20) } else { (8..24, 24..40) };
        let mut expected =
            found(&packet[source], &packet[destination], Transport::Other, network + header, false);
        packet.extend(&body);
        if protocol == 6 {
            expected.transport = Transport::Tcp;
            expected.tcp = TcpHeader {
                source_port: [fields[0], fields[1]],
                destination_port: [fields[2], fields[3]],
                sequence: u32::from_be_bytes([fields[4], fields[5], fields[6], fields[7]]),
                acknowledgement: u32::from_be_bytes([fields[8], fields[9], fields[10], fields[11]]),
                flags: fields[13],
            };
        } else if protocol == 17 {
            expected.transport = Transport::Udp;
        }
        (packet, expected)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_whole_packet_parses_to_what_it_was_made_of((bytes, expected) in packet()) {
        prop_assert_eq!(parse(&bytes), Some(expected));
    }

    #[test]
    fn a_packet_cut_at_any_byte_keeps_its_addresses_and_is_never_taken_for_whole((bytes, expected) in packet()) {
        for length in 0..bytes.len() {
            let cut = parse(&bytes[..length]);
            prop_assert_eq!(&cut, &reference(&bytes[..length]));
            let least = if bytes[0] >> 4 == 4 { 20 } else { 40 };
            prop_assert_eq!(cut.is_some(), length >= least);
            if let Some(cut) = cut {
                prop_assert!(cut.short);
                prop_assert_eq!(cut.source, expected.source.clone());
                prop_assert_eq!(cut.destination, expected.destination.clone());
            }
        }
    }

    #[test]
    fn a_packet_with_changed_bytes_parses_as_the_reference_says(
        (bytes, _) in packet(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = bytes;
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        prop_assert_eq!(parse(&bytes), reference(&bytes));
    }

    #[test]
    fn any_bytes_parse_as_the_reference_says(bytes in prop::collection::vec(any::<u8>(), 0..200), six in any::<bool>()) {
        prop_assert_eq!(parse(&bytes), reference(&bytes));
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = if six { 0x60 } else { 0x45 };
        }
        prop_assert_eq!(parse(&bytes), reference(&bytes));
    }

    #[test]
    fn segments_add_up(payload in 1u32..65_000, headers in 20u32..120, gso_size in 1u32..9_000) {
        // Taken apart one by one.
        let (mut packets, mut bytes, mut left) = (0, 0, payload);
        while left > 0 {
            let segment = left.min(gso_size);
            packets += 1;
            bytes += headers + segment;
            left -= segment;
        }
        prop_assert_eq!(segments(payload + headers, headers, gso_size), (packets, bytes));
    }
}

#[test]
fn a_plain_packet_is_one_segment_and_headers_alone_are_too() {
    assert_eq!(segments(1500, 40, 0), (1, 1500));
    assert_eq!(segments(40, 40, 1228), (1, 40));
    assert_eq!(segments(30, 40, 1228), (1, 30));
    assert_eq!(segments(12_620, 40, 1228), (11, 12_620 + 10 * 40));
}

#[test]
fn ports_of_later_fragments_are_not_guessed() {
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0x20, 0x10, 64, 6, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2];
    packet.extend([0x50; 20]);
    let parsed = parse(&packet).unwrap();
    assert_eq!(
        (parsed.transport, parsed.tcp, parsed.headers),
        (Transport::Fragment, TcpHeader::default(), 20)
    );
}

#[test]
fn a_tcp_header_that_goes_on_in_the_next_fragment_is_absent_and_not_malformed() {
    let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0x20, 0, 64, 6, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2];
    packet.extend([0; 8]);
    let parsed = parse(&packet).unwrap();
    assert_eq!((parsed.transport, parsed.short), (Transport::Other, false));
}

#[test]
fn more_extension_headers_than_are_walked_hide_layer_4() {
    for count in [MAX_EXTENSIONS, MAX_EXTENSIONS + 1] {
        let length = count as usize * 8 + 8;
        let mut packet = vec![0x60, 0, 0, 0, 0, length as u8, 60, 64];
        packet.extend([7; 32]);
        for left in (0..count).rev() {
            packet.extend([if left == 0 { 17 } else { 60 }, 0, 0, 0, 0, 0, 0, 0]);
        }
        packet.extend([0; 8]);
        let expected = if count == MAX_EXTENSIONS { Transport::Udp } else { Transport::Other };
        assert_eq!(parse(&packet).unwrap().transport, expected);
    }
}
