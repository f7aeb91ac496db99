//! `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h), in the 10-byte form that TUN uses by default.

/// Bytes before every packet read from or written to a TUN with `IFF_VNET_HDR`.
pub const VNET_HEADER_LEN: usize = 10;

/// The L4 checksum is to be completed from `csum_start` (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
pub const NEEDS_CSUM: u8 = 1;

/// No super-packet.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// UDP datagrams of equal size (`UDP_SEGMENT`).
pub const GSO_UDP_L4: u8 = 5;
/// Flag beside a TCP type: the first segment carries CWR.
pub const GSO_ECN: u8 = 0x80;

/// The header before a packet; all fields in host byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// `NEEDS_CSUM` or 0.
    pub flags: u8,
    /// One of the `GSO_` constants.
    pub gso_type: u8,
    /// Bytes of IP and L4 headers; a hint.
    pub hdr_len: u16,
    /// L4 payload bytes per segment.
    pub gso_size: u16,
    /// Offset of the L4 header.
    pub csum_start: u16,
    /// Offset of the checksum field inside the L4 header.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Reads the header from the first bytes of `buffer`; `None` when there are too few.
    #[must_use]
    pub fn parse(buffer: &[u8]) -> Option<Self> {
        let bytes: &[u8; VNET_HEADER_LEN] = buffer.first_chunk()?;
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Some(Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        })
    }

    /// The header as the kernel wants it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; VNET_HEADER_LEN] {
        let mut bytes = [0; VNET_HEADER_LEN];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        for (at, word) in [(2, self.hdr_len), (4, self.gso_size), (6, self.csum_start), (8, self.csum_offset)]
        {
            bytes[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// The GSO type without the ECN flag.
    #[must_use]
    pub const fn kind(self) -> u8 {
        self.gso_type & !GSO_ECN
    }
}
