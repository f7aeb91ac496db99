//! Reads an inner packet: layer 3 from byte 0, no Ethernet header.
//!
//! One parser serves the programs and the tests on the host. It never trusts a length that the packet states,
//! and it never guesses: what is not there is reported as absent.

/// IP protocol numbers (IANA) that the parser acts on.
mod protocol {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
}

/// IPv4 header without options, bytes.
pub const IPV4_HEADER: u32 = 20;
/// IPv6 header without extensions, bytes.
pub const IPV6_HEADER: u32 = 40;
/// TCP header without options, bytes.
pub const TCP_HEADER: u32 = 20;
/// UDP header, bytes.
pub const UDP_HEADER: u32 = 8;
/// IPv6 extension headers that are walked; what follows more of them is [`Transport::Other`].
pub const MAX_EXTENSIONS: u32 = 6;

/// TCP flags, byte 13 of the header (RFC 9293).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
}

/// Bytes of a packet.
pub trait Source {
    /// Length of the packet, bytes, whether or not all of it can be read at once.
    fn length(&self) -> u32;
    /// `N` bytes at the constant offset `AT`; `None` when they are not there.
    fn fixed<const AT: usize, const N: usize>(&self) -> Option<[u8; N]>;
    /// `N` bytes at `offset`; `None` when they are not there.
    fn variable<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
    /// The same number. The programs hide from the verifier what it knows of it.
    #[inline(always)]
    fn hidden(&self, value: u32) -> u32 {
        value
    }
}

impl Source for &[u8] {
    fn length(&self) -> u32 {
        self.len() as u32
    }

    fn fixed<const AT: usize, const N: usize>(&self) -> Option<[u8; N]> {
        self.get(AT..)?.first_chunk().copied()
    }

    fn variable<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.get(offset as usize..)?.first_chunk().copied()
    }
}

/// IPv4 address in network order, as a word: what BPF may load, store and compare at once.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V4(u32);

impl V4 {
    /// From the bytes of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn new(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }

    /// The word.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u32 {
        self.0
    }
}

/// IPv6 address in network order, as two words.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V6([u64; 2]);

impl V6 {
    /// From the bytes of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn new(high: [u8; 8], low: [u8; 8]) -> Self {
        Self([u64::from_ne_bytes(high), u64::from_ne_bytes(low)])
    }

    /// The words.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        self.0
    }
}

/// What layer 4 is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// A complete TCP header.
    Tcp,
    /// A complete UDP header.
    Udp,
    /// A fragment other than the first: it carries no layer 4 header.
    Fragment,
    /// Anything else, or a header cut off by fragmentation.
    #[default]
    Other,
    /// The packet ends within a header that it announces, or the header states a length that cannot be.
    Truncated,
}

/// The fields of a TCP header that the programs use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpHeader {
    /// Port of the sender, network order.
    pub source_port: [u8; 2],
    /// Port of the receiver, network order.
    pub destination_port: [u8; 2],
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number; means something only with [`flags::ACK`].
    pub acknowledgement: u32,
    /// [`flags`].
    pub flags: u8,
}

/// Layer 4 as the parser found it. Plain fields and no variants with fields: what a variant lacks is undefined,
/// and LLVM may copy it around, which the verifier forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layer4 {
    transport: Transport,
    tcp: TcpHeader,
    /// Bytes before the payload.
    headers: u32,
}

impl Layer4 {
    /// No known header of layer 4 after `headers` bytes.
    #[inline(always)]
    const fn without(transport: Transport, headers: u32) -> Self {
        let tcp = TcpHeader {
            source_port: [0; 2],
            destination_port: [0; 2],
            sequence: 0,
            acknowledgement: 0,
            flags: 0,
        };
        Self { transport, tcp, headers }
    }

    /// A header that does not fit: the rest is in a later fragment, or it was never there.
    #[inline(always)]
    const fn cut_off(more_fragments: bool, headers: u32) -> Self {
        Self::without(if more_fragments { Transport::Other } else { Transport::Truncated }, headers)
    }
}

/// A packet of one address family, [`V4`] or [`V6`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet<Address> {
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// What layer 4 is.
    pub transport: Transport,
    /// Its fields when it is TCP, else zeros.
    pub tcp: TcpHeader,
    /// Bytes that segmentation repeats in front of every segment: layer 3 with options and extension headers,
    /// and the TCP or UDP header.
    pub headers: u32,
    /// The packet is shorter than its own length field says.
    pub short: bool,
}

impl<Address> Packet<Address> {
    /// Whether the packet is too short for what its headers promise.
    #[inline(always)]
    #[must_use]
    pub const fn malformed(&self) -> bool {
        self.short || matches!(self.transport, Transport::Truncated)
    }
}

/// How a super-packet was, or will be, sent: `(packets, bytes)`.
///
/// `length` is the skb's, `headers` as in [`Packet::headers`], `gso_size` the payload of a segment, 0 for a
/// packet that is just one. `gso_segs` is of no use: it is 0 on what a TUN device receives.
#[inline(always)]
#[must_use]
pub const fn segments(length: u32, headers: u32, gso_size: u32) -> (u32, u32) {
    if gso_size == 0 || length <= headers {
        return (1, length);
    }
    let packets = (length - headers).div_ceil(gso_size);
    (packets, length + (packets - 1) * headers)
}

/// The version nibble, which alone decides the family; `None` for an empty packet.
#[inline(always)]
pub fn version<S: Source>(source: &S) -> Option<u8> {
    source.fixed::<0, 1>().map(|[first]| first >> 4)
}

/// Reads an IPv4 packet; `None` when not even its addresses can be known.
#[inline(always)]
pub fn parse_v4<S: Source>(source: &S) -> Option<Packet<V4>> {
    let bytes = source.fixed::<0, 20>()?;
    let [version_ihl, _, t0, t1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = bytes;
    let header = u32::from(version_ihl & 0xf) * 4;
    if header < IPV4_HEADER {
        return None;
    }
    // The total length of super-packets of more than 64 KiB is 0: no promise.
    let total = u32::from(u16::from_be_bytes([t0, t1]));
    let fragmentation = u16::from_be_bytes([f0, f1]);
    let more = fragmentation & 0x2000 != 0;
    let Layer4 { transport, tcp, headers } = if fragmentation & 0x1fff != 0 {
        Layer4::without(Transport::Fragment, header)
    } else if header == IPV4_HEADER {
        parse_transport::<S, 20>(source, protocol, more)
    } else {
        parse_transport_at(source, protocol, header, more)
    };
    Some(Packet {
        source: V4::new([s0, s1, s2, s3]),
        destination: V4::new([d0, d1, d2, d3]),
        transport,
        tcp,
        headers,
        short: header > source.length() || total > source.length(),
    })
}

/// Reads an IPv6 packet; `None` when not even its addresses can be known.
#[inline(always)]
pub fn parse_v6<S: Source>(source: &S) -> Option<Packet<V6>> {
    let bytes = source.fixed::<0, 40>()?;
    let [_, _, _, _, l0, l1, next, ..] = bytes;
    let Layer4 { transport, tcp, headers } = if is_extension(next) {
        parse_extensions(source, next)
    } else {
        parse_transport::<S, 40>(source, next, false)
    };
    Some(Packet {
        source: V6::new(part(&bytes, 8), part(&bytes, 16)),
        destination: V6::new(part(&bytes, 24), part(&bytes, 32)),
        transport,
        tcp,
        headers,
        short: IPV6_HEADER + u32::from(u16::from_be_bytes([l0, l1])) > source.length(),
    })
}

#[inline(always)]
fn part(bytes: &[u8; 40], start: usize) -> [u8; 8] {
    let mut part = [0; 8];
    part.copy_from_slice(&bytes[start..start + 8]);
    part
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION
    )
}

/// Walks IPv6 extension headers up to layer 4.
#[inline(always)]
fn parse_extensions<S: Source>(source: &S, first: u8) -> Layer4 {
    let length = source.length();
    let mut next = first;
    let mut offset = IPV6_HEADER;
    let mut more = 0;
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(next) {
            break;
        }
        let Some([following, units, o0, o1]) = source.variable::<4>(offset) else {
            return Layer4::cut_off(more != 0, offset);
        };
        let size = match next {
            protocol::FRAGMENT => 8,
            protocol::AUTHENTICATION => (u32::from(units) + 2) * 4,
            _ => (u32::from(units) + 1) * 8,
        };
        let size = source.hidden(size);
        if offset + size > length {
            return Layer4::cut_off(more != 0, offset);
        }
        if next == protocol::FRAGMENT {
            let fragmentation = u16::from_be_bytes([o0, o1]);
            if fragmentation >> 3 != 0 {
                return Layer4::without(Transport::Fragment, offset + size);
            }
            more |= u32::from(fragmentation & 1);
        }
        // Each header like the first one.
        offset = source.hidden(offset + size);
        next = source.hidden(following.into()) as u8;
        more = source.hidden(more);
    }
    parse_transport_at(source, next, offset, more != 0)
}

/// Layer 4 at a constant offset.
#[inline(always)]
fn parse_transport<S: Source, const AT: usize>(source: &S, next: u8, more: bool) -> Layer4 {
    let offset = AT as u32;
    match next {
        protocol::TCP => parse_tcp(source.fixed::<AT, 20>(), offset, source.length(), more),
        protocol::UDP => parse_udp(source.fixed::<AT, 8>(), offset, more),
        _ => Layer4::without(Transport::Other, offset),
    }
}

/// Layer 4 at any offset.
#[inline(always)]
fn parse_transport_at<S: Source>(source: &S, next: u8, offset: u32, more: bool) -> Layer4 {
    match next {
        protocol::TCP => parse_tcp(source.variable::<20>(offset), offset, source.length(), more),
        protocol::UDP => parse_udp(source.variable::<8>(offset), offset, more),
        _ => Layer4::without(Transport::Other, offset),
    }
}

#[inline(always)]
fn parse_tcp(header: Option<[u8; 20]>, offset: u32, length: u32, more: bool) -> Layer4 {
    let Some([s0, s1, d0, d1, n0, n1, n2, n3, a0, a1, a2, a3, data_offset, flags, ..]) = header else {
        return Layer4::cut_off(more, offset);
    };
    let size = u32::from(data_offset >> 4) * 4;
    if size < TCP_HEADER || offset + size > length {
        return Layer4::cut_off(more, offset);
    }
    let tcp = TcpHeader {
        source_port: [s0, s1],
        destination_port: [d0, d1],
        sequence: u32::from_be_bytes([n0, n1, n2, n3]),
        acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
        flags,
    };
    Layer4 { transport: Transport::Tcp, tcp, headers: offset + size }
}

#[inline(always)]
const fn parse_udp(header: Option<[u8; 8]>, offset: u32, more: bool) -> Layer4 {
    match header {
        Some(_) => Layer4::without(Transport::Udp, offset + UDP_HEADER),
        None => Layer4::cut_off(more, offset),
    }
}
