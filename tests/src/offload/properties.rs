//! Splitting and coalescing undo each other.

use proptest::prelude::*;

use super::ip::{Layout, TCP, UDP, put16, put32, set_len};
use super::vnet::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VNET_HEADER_LEN, VnetHeader};
use super::{Coalescer, Segments, checksum, split};

/// A super-packet as the kernel hands it out.
fn super_packet(
    version: u8,
    protocol: u8,
    options: usize,
    payload: &[u8],
    gso: u16,
) -> (VnetHeader, Vec<u8>) {
    let l4 = if version == 4 { 20 } else { 40 };
    let l4_header = if protocol == TCP { 20 + options * 4 } else { 8 };
    let mut packet = vec![0; l4 + l4_header];
    if version == 4 {
        packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
        packet[12..20].copy_from_slice(&[100, 64, 0, 2, 203, 0, 113, 2]);
    } else {
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, protocol, 64]);
        packet[8..40].copy_from_slice(&[7; 32]);
    }
    put16(&mut packet, l4, 40_000);
    put16(&mut packet, l4 + 2, 443);
    if protocol == TCP {
        put32(&mut packet, l4 + 4, u32::MAX - 5_000);
        put32(&mut packet, l4 + 8, 77);
        packet[l4 + 12] = ((l4_header / 4) as u8) << 4;
        packet[l4 + 13] = 0x18;
        packet[l4 + 20..].fill(1);
    }
    packet.extend_from_slice(payload);
    let len = packet.len();
    if protocol == UDP {
        put16(&mut packet, l4 + 4, (len - l4) as u16);
    }
    let layout = Layout { version, protocol, l4, len, fragment: false };
    set_len(&mut packet, layout, len);
    let pseudo = checksum::pseudo_header(layout.addresses(&packet), protocol, len - l4);
    put16(&mut packet, l4 + layout.checksum_offset(), pseudo);
    let header = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: match (protocol, version) {
            (UDP, _) => GSO_UDP_L4,
            (_, 4) => GSO_TCPV4,
            _ => GSO_TCPV6,
        },
        hdr_len: (l4 + l4_header) as u16,
        gso_size: gso,
        csum_start: l4 as u16,
        csum_offset: layout.checksum_offset() as u16,
    };
    (header, packet)
}

fn coalesced(packets: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut coalescer = Coalescer::default();
    for packet in packets {
        coalescer.push(&packet);
    }
    let mut writes = Vec::new();
    coalescer.drain(|write| writes.push(write.to_vec()));
    writes
}

proptest! {
    #[test]
    fn split_then_coalesce_is_identity(
        version in prop_oneof![Just(4u8), Just(6)],
        protocol in prop_oneof![Just(TCP), Just(UDP)],
        options in 0usize..=10,
        gso in 200u16..=1228,
        payload in prop::collection::vec(any::<u8>(), 1229..12_000),
    ) {
        let (header, packet) = super_packet(version, protocol, options, &payload, gso);
        let mut segments = Segments::default();
        split(header, &packet, &mut segments).unwrap();
        prop_assert_eq!(segments.iter().len(), payload.len().div_ceil(usize::from(gso)));
        for (segment, padded) in segments.iter().zip(segments.padded()) {
            let layout = Layout::parse(segment).unwrap();
            prop_assert_eq!(layout.len, segment.len());
            prop_assert!(layout.checksum_is_valid(segment));
            if version == 4 {
                prop_assert_eq!(checksum::sum(&segment[..20]), 0xffff);
            }
            prop_assert_eq!(padded.len() % 16, 0);
            prop_assert!(padded[segment.len()..].iter().all(|byte| *byte == 0));
        }
        let writes = coalesced(segments.iter().map(<[u8]>::to_vec));
        prop_assert_eq!(writes.len(), 1);
        prop_assert_eq!(VnetHeader::parse(&writes[0]).unwrap(), header);
        prop_assert_eq!(&writes[0][VNET_HEADER_LEN..], &packet[..]);
    }

    #[test]
    fn no_packet_and_no_byte_is_lost_when_flows_mix(
        order in prop::collection::vec((0u8..4, 1usize..1200), 1..60),
    ) {
        let mut sequence = [0u32; 4];
        let packets: Vec<Vec<u8>> = order.iter().map(|&(flow, len)| {
            let payload = vec![flow; len];
            let protocol = if flow % 2 == 0 { TCP } else { UDP };
            let (header, mut packet) = super_packet(4 + flow / 2 * 2, protocol, 0, &payload, 1200);
            let layout = Layout::parse(&packet).unwrap();
            if protocol == TCP {
                put32(&mut packet, layout.l4 + 4, sequence[usize::from(flow)]);
                packet[layout.l4 + 13] = 0x10;
                sequence[usize::from(flow)] += len as u32;
            }
            let mut single = Segments::default();
            split(VnetHeader { gso_type: 0, ..header }, &packet, &mut single).unwrap();
            single.iter().next().unwrap().to_vec()
        }).collect();
        let mut again = Segments::default();
        for write in coalesced(packets.iter().cloned()) {
            split(VnetHeader::parse(&write).unwrap(), &write[VNET_HEADER_LEN..], &mut again).unwrap();
        }
        for flow in 0..4u8 {
            let of_flow = |packet: &Vec<u8>| packet.last() == Some(&flow);
            let sent: Vec<_> = packets.iter().filter(|packet| of_flow(packet)).map(Vec::len).collect();
            let got: Vec<_> = again.iter().map(<[u8]>::to_vec).filter(of_flow).map(|packet| packet.len()).collect();
            prop_assert_eq!(sent, got);
        }
        prop_assert!(again.iter().all(|packet| Layout::parse(packet).unwrap().checksum_is_valid(packet)));
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..120), first in any::<u8>()) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() {
            *byte = if first % 2 == 0 { 0x45 } else { 0x60 };
        }
        let mut segments = Segments::default();
        if let Some(header) = VnetHeader::parse(&bytes) {
            let _ = split(header, &bytes[VNET_HEADER_LEN..], &mut segments);
        }
        let _ = coalesced(std::iter::once(bytes));
    }
}

#[test]
fn push_stays_with_the_last_segment() {
    let (header, packet) = super_packet(4, TCP, 3, &[9; 3000], 1000);
    let mut segments = Segments::default();
    split(header, &packet, &mut segments).unwrap();
    let flags: Vec<u8> = segments.iter().map(|segment| segment[33]).collect();
    assert_eq!(flags, [0x10, 0x10, 0x18]);
}
