//! The little of IP, TCP and UDP that offloads need.

use std::net::IpAddr;

use super::checksum;

/// IANA protocol number.
pub const TCP: u8 = 6;
/// IANA protocol number.
pub const UDP: u8 = 17;

/// Where the parts of a packet are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// 4 or 6.
    pub version: u8,
    /// Protocol of what follows the IP header. IPv6 extension headers are not followed: they are the protocol.
    pub protocol: u8,
    /// Offset of what follows the IP header.
    pub l4: usize,
    /// Length as the IP header says.
    pub len: usize,
    /// An IPv4 fragment, the first one included.
    pub fragment: bool,
}

impl Layout {
    /// Parses the IP header; `None` for anything that is not a whole IP header or is cut short.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let layout = match packet.first()? >> 4 {
            4 if packet.len() >= 20 => Self {
                version: 4,
                protocol: packet[9],
                l4: usize::from(packet[0] & 0xf) * 4,
                len: usize::from(be16(packet, 2)),
                fragment: be16(packet, 6) & 0x3fff != 0,
            },
            6 if packet.len() >= 40 => Self {
                version: 6,
                protocol: packet[6],
                l4: 40,
                len: usize::from(be16(packet, 4)) + 40,
                fragment: false,
            },
            _ => return None,
        };
        let whole = layout.l4 >= 20 && layout.l4 <= layout.len && layout.len <= packet.len();
        whole.then_some(layout)
    }

    /// Source and destination, as they stand in the header.
    #[must_use]
    pub fn addresses(self, packet: &[u8]) -> &[u8] {
        if self.version == 4 { &packet[12..20] } else { &packet[8..40] }
    }

    /// L4 header length of TCP or UDP; `None` for others and when the packet ends before.
    #[must_use]
    pub fn l4_header_len(self, packet: &[u8]) -> Option<usize> {
        let available = self.len - self.l4;
        let len = match self.protocol {
            TCP if available >= 20 => usize::from(packet[self.l4 + 12] >> 4) * 4,
            UDP => 8,
            _ => return None,
        };
        (len >= 8 && len <= available).then_some(len)
    }

    /// Offset of the checksum in the L4 header.
    #[must_use]
    pub const fn checksum_offset(self) -> usize {
        if self.protocol == TCP { 16 } else { 6 }
    }

    /// Whether the L4 checksum is right; false for a UDP datagram without one.
    #[must_use]
    pub fn checksum_is_valid(self, packet: &[u8]) -> bool {
        if be16(packet, self.l4 + self.checksum_offset()) == 0 && self.protocol == UDP {
            return false;
        }
        let pseudo = checksum::pseudo_header(self.addresses(packet), self.protocol, self.len - self.l4);
        checksum::add(pseudo, checksum::sum(&packet[self.l4..self.len])) == 0xffff
    }
}

/// Writes the IP length and, for IPv4, the header checksum.
pub fn set_len(packet: &mut [u8], layout: Layout, len: usize) {
    if layout.version == 4 {
        put16(packet, 2, len as u16);
        put16(packet, 10, 0);
        let sum = checksum::sum(&packet[..layout.l4]);
        put16(packet, 10, !sum);
    } else {
        put16(packet, 4, (len - 40) as u16);
    }
}

/// Source and destination address; `None` for anything that is not IP.
#[must_use]
pub fn endpoints(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    fn pair<const N: usize>(bytes: &[u8]) -> Option<([u8; N], [u8; N])> {
        Some((*bytes.first_chunk()?, *bytes.get(N..)?.first_chunk()?))
    }
    match packet.first()? >> 4 {
        4 => pair::<4>(packet.get(12..)?).map(|(from, to)| (from.into(), to.into())),
        6 => pair::<16>(packet.get(8..)?).map(|(from, to)| (from.into(), to.into())),
        _ => None,
    }
}

/// A big-endian word of the packet.
#[must_use]
pub fn be16(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// A big-endian double word of the packet.
#[must_use]
pub fn be32(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

/// Writes a big-endian word.
pub fn put16(packet: &mut [u8], at: usize, value: u16) {
    packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes a big-endian double word.
pub fn put32(packet: &mut [u8], at: usize, value: u32) {
    packet[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
