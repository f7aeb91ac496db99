//! UDP packets and super-packets around payloads.

use std::net::{IpAddr, SocketAddr};

use crate::offload::checksum;
use crate::offload::ip::{Layout, UDP, put16, set_len};
use crate::offload::vnet::{GSO_UDP_L4, NEEDS_CSUM, VNET_HEADER_LEN, VnetHeader};

/// Where the checksum is in a UDP header.
const CHECKSUM: u16 = 6;

/// Datagrams of one flow and equal size in one packet, as GSO sends and GRO receives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuperPacket {
    /// The IP packet, its UDP checksum left partial.
    pub packet: Vec<u8>,
    /// UDP payload of each datagram; the last one may be shorter.
    pub gso_size: u16,
    /// How many datagrams there are.
    pub segments: u16,
}

/// An IP packet with one datagram and a right checksum. An IPv4 address is mapped when the other one is IPv6.
#[must_use]
pub fn udp_packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = headers(from, to);
    packet.extend_from_slice(payload);
    let sum = finish(&mut packet);
    if let Some((l4, pseudo)) = sum {
        put16(&mut packet, l4 + usize::from(CHECKSUM), pseudo);
        let value = !checksum::sum(&packet[l4..]);
        put16(&mut packet, l4 + usize::from(CHECKSUM), if value == 0 { 0xffff } else { value });
    }
    packet
}

/// A packet with several datagrams; `None` unless all but the last are equally long, the last no longer, and all
/// together no longer than a packet can be.
#[must_use]
pub fn super_packet(from: SocketAddr, to: SocketAddr, payloads: &[Vec<u8>]) -> Option<SuperPacket> {
    let (last, others) = payloads.split_last()?;
    let size = others.first().unwrap_or(last).len();
    if others.iter().any(|payload| payload.len() != size) || last.len() > size || last.is_empty() {
        return None;
    }
    let mut packet = headers(from, to);
    payloads.iter().for_each(|payload| packet.extend_from_slice(payload));
    if packet.len() > usize::from(u16::MAX) {
        return None;
    }
    let (l4, pseudo) = finish(&mut packet)?;
    put16(&mut packet, l4 + usize::from(CHECKSUM), pseudo);
    Some(SuperPacket { packet, gso_size: size as u16, segments: payloads.len() as u16 })
}

impl SuperPacket {
    /// The packet behind its vnet header, as a TUN reads and writes it.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let l4 = Layout::parse(&self.packet).map_or(0, |layout| layout.l4 as u16);
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_UDP_L4,
            hdr_len: l4 + 8,
            gso_size: self.gso_size,
            csum_start: l4,
            csum_offset: CHECKSUM,
        };
        [&header.to_bytes(), self.packet.as_slice()].concat()
    }
}

/// One packet behind an empty vnet header.
#[must_use]
pub fn frame(packet: &[u8]) -> Vec<u8> {
    [&[0; VNET_HEADER_LEN], packet].concat()
}

/// IP and UDP headers without lengths and checksums.
fn headers(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut packet = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let head = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0];
            [head.as_slice(), &from.octets(), &to.octets()].concat()
        }
        (from, to) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            [[0x60, 0, 0, 0, 0, 0, UDP, 64].as_slice(), &octets(from), &octets(to)].concat()
        }
    };
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend([0; 4]);
    packet
}

/// Fills in the lengths; returns where UDP starts and the sum of its pseudo-header. Too long a packet is left as it is.
fn finish(packet: &mut [u8]) -> Option<(usize, u16)> {
    let len = packet.len();
    let l4 = if packet[0] >> 4 == 4 { 20 } else { 40 };
    u16::try_from(len).ok()?;
    // The length must be there before the packet is one.
    let at = if l4 == 20 { 2 } else { 4 };
    put16(packet, at, (if l4 == 20 { len } else { len - l4 }) as u16);
    let layout = Layout::parse(packet)?;
    set_len(packet, layout, len);
    put16(packet, l4 + 4, (len - l4) as u16);
    Some((l4, checksum::pseudo_header(layout.addresses(packet), UDP, len - l4)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::{Coalescer, Segments, split};

    fn flows() -> [(SocketAddr, SocketAddr); 2] {
        [
            ("10.99.0.2:41641".parse().unwrap(), "10.99.0.11:41641".parse().unwrap()),
            ("[2001:db8::2]:41641".parse().unwrap(), "[2001:db8::11]:40000".parse().unwrap()),
        ]
    }

    #[test]
    fn packets_have_the_length_of_their_parts_and_right_checksums() {
        for ((from, to), headers) in flows().into_iter().zip([28, 48]) {
            for len in [0, 1, 124, 1312] {
                let packet = udp_packet(from, to, &vec![7; len]);
                assert_eq!(packet.len(), headers + len);
                let layout = Layout::parse(&packet).unwrap();
                assert_eq!((layout.len, layout.l4, layout.protocol), (packet.len(), headers - 8, UDP));
                assert!(layout.checksum_is_valid(&packet));
            }
        }
    }

    #[test]
    fn super_packets_split_into_their_packets_and_join_again() {
        for (from, to) in flows() {
            let payloads = [vec![1; 1312], vec![2; 1312], vec![3; 148]];
            let joined = super_packet(from, to, &payloads).unwrap();
            assert_eq!((joined.gso_size, joined.segments), (1312, 3));
            let frame = joined.frame();
            let mut segments = Segments::default();
            split(VnetHeader::parse(&frame).unwrap(), &frame[VNET_HEADER_LEN..], &mut segments).unwrap();
            let mut coalescer = Coalescer::default();
            for (segment, payload) in segments.iter().zip(&payloads) {
                // The identification, which a sender counts up, is not for one packet alone.
                let alone = udp_packet(from, to, payload);
                let udp = Layout::parse(&alone).unwrap().l4;
                assert_eq!(segment[udp..], alone[udp..]);
                coalescer.push(segment);
            }
            let mut frames = Vec::new();
            coalescer.drain(|write| frames.push(write.to_vec()));
            assert_eq!(frames, [frame]);
        }
    }

    #[test]
    fn unequal_payloads_are_no_super_packet() {
        let [(from, to), _] = flows();
        for lengths in [vec![], vec![100, 99, 100], vec![100, 101], vec![100, 0], vec![1400; 47]] {
            let payloads: Vec<Vec<u8>> = lengths.iter().map(|len| vec![0; *len]).collect();
            assert_eq!(super_packet(from, to, &payloads), None, "{lengths:?}");
        }
        assert_eq!(super_packet(from, to, &[vec![0; 9]]).unwrap().gso_size, 9);
    }
}
