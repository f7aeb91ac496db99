//! A second reading of the RFCs, to hold the parser of packets against.

use tailgauge_ebpf::packet::{
    MAX_EXTENSIONS, Packet, TcpHeader, Transport, V4, V6, parse_v4, parse_v6, version,
};

/// What either family parses to, addresses as bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    pub source: Vec<u8>,
    pub destination: Vec<u8>,
    pub transport: Transport,
    pub tcp: TcpHeader,
    pub headers: u32,
    pub short: bool,
}

impl Parsed {
    fn new<A>(packet: Packet<A>, bytes: impl Fn(A) -> Vec<u8>) -> Self {
        let Packet { source, destination, transport, tcp, headers, short } = packet;
        Self { source: bytes(source), destination: bytes(destination), transport, tcp, headers, short }
    }
}

/// What the parser says.
pub fn parse(packet: &[u8]) -> Option<Parsed> {
    match version(&packet)? {
        4 => parse_v4(&packet).map(|packet| Parsed::new(packet, |a: V4| a.word().to_ne_bytes().to_vec())),
        6 => parse_v6(&packet)
            .map(|packet| Parsed::new(packet, |a: V6| a.words().map(u64::to_ne_bytes).concat())),
        _ => None,
    }
}

/// The same by indexing, one field after the other (RFC 791, 8200, 4302, 9293, 768).
pub fn reference(p: &[u8]) -> Option<Parsed> {
    let be16 = |at: usize| u32::from(p[at]) << 8 | u32::from(p[at + 1]);
    let mut more = false;
    let (source, destination, mut next, mut at, promised);
    match p.first()? >> 4 {
        4 if p.len() >= 20 && p[0] & 15 >= 5 => {
            at = usize::from(p[0] & 15) * 4;
            (source, destination, next, promised) =
                (&p[12..16], &p[16..20], p[9], (be16(2) as usize).max(at));
            if be16(6) & 0x1fff != 0 {
                return Some(found(source, destination, Transport::Fragment, at, promised > p.len()));
            }
            more = be16(6) & 0x2000 != 0;
        }
        6 if p.len() >= 40 => {
            (source, destination, next, promised) = (&p[8..24], &p[24..40], p[6], 40 + be16(4) as usize);
            at = 40;
        }
        _ => return None,
    }
    let short = promised > p.len();
    let cut = |more: bool| if more { Transport::Other } else { Transport::Truncated };
    let mut walked = 0;
    while p[0] >> 4 == 6 && [0, 43, 44, 51, 60].contains(&next) && walked < MAX_EXTENSIONS {
        if p.len() < at + 4 {
            return Some(found(source, destination, cut(more), at, short));
        }
        let length = match next {
            44 => 8,
            51 => (usize::from(p[at + 1]) + 2) * 4,
            _ => (usize::from(p[at + 1]) + 1) * 8,
        };
        if p.len() < at + length {
            return Some(found(source, destination, cut(more), at, short));
        }
        if next == 44 {
            if be16(at + 2) & 0xfff8 != 0 {
                return Some(found(source, destination, Transport::Fragment, at + length, short));
            }
            more |= be16(at + 2) & 1 == 1;
        }
        next = p[at];
        at += length;
        walked += 1;
    }
    match next {
        6 => {
            let valid = p.len() >= at + 20 && p[at + 12] >> 4 >= 5 && {
                p.len() >= at + usize::from(p[at + 12] >> 4) * 4
            };
            if !valid {
                return Some(found(source, destination, cut(more), at, short));
            }
            let header = at + usize::from(p[at + 12] >> 4) * 4;
            let mut parsed = found(source, destination, Transport::Tcp, header, short);
            parsed.tcp = TcpHeader {
                source_port: [p[at], p[at + 1]],
                destination_port: [p[at + 2], p[at + 3]],
                sequence: be16(at + 4) << 16 | be16(at + 6),
                acknowledgement: be16(at + 8) << 16 | be16(at + 10),
                flags: p[at + 13],
            };
            Some(parsed)
        }
        17 if p.len() >= at + 8 => Some(found(source, destination, Transport::Udp, at + 8, short)),
        17 => Some(found(source, destination, cut(more), at, short)),
        _ => Some(found(source, destination, Transport::Other, at, short)),
    }
}

/// A packet with nothing in its TCP header.
pub fn found(source: &[u8], destination: &[u8], transport: Transport, headers: usize, short: bool) -> Parsed {
    Parsed {
        source: source.to_vec(),
        destination: destination.to_vec(),
        transport,
        tcp: TcpHeader::default(),
        headers: headers as u32,
        short,
    }
}
