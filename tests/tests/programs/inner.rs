//! Inner packets, written down byte by byte.

use std::net::{IpAddr, SocketAddr};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// An IP packet around `body`; `before` goes between the header and the body (IPv4 options, IPv6 extension
/// headers, whose first one `first` names).
pub(crate) fn ip(from: IpAddr, to: IpAddr, first: u8, before: &[u8], body: &[u8]) -> Vec<u8> {
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = (20 + before.len() + body.len()) as u16;
            let mut header = vec![0x45 + (before.len() / 4) as u8, 0];
            header.extend(length.to_be_bytes());
            header.extend([0, 1, 0, 0, 64, first, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = (before.len() + body.len()) as u16;
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([first, 64]);
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        _ => panic!("addresses of two families"),
    };
    packet.extend(before);
    packet.extend(body);
    packet
}

/// Fields of a TCP segment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Segment {
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    /// Bytes of options, a multiple of 4.
    pub(crate) options: usize,
    /// Bytes of payload.
    pub(crate) payload: usize,
}

/// A TCP segment without IP.
pub(crate) fn tcp_body(from: u16, to: u16, segment: Segment) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(from.to_be_bytes());
    body.extend(to.to_be_bytes());
    body.extend(segment.sequence.to_be_bytes());
    body.extend(segment.acknowledgement.to_be_bytes());
    body.extend([((5 + segment.options / 4) << 4) as u8, segment.flags, 0xff, 0xff, 0, 0, 0, 0]);
    body.extend(vec![1; segment.options]);
    body.extend(vec![0xda; segment.payload]);
    body
}

/// A TCP packet.
pub(crate) fn tcp(from: SocketAddr, to: SocketAddr, segment: Segment) -> Vec<u8> {
    ip(from.ip(), to.ip(), TCP, &[], &tcp_body(from.port(), to.port(), segment))
}

/// A UDP packet with `payload` bytes.
pub(crate) fn udp(from: SocketAddr, to: SocketAddr, payload: usize) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(from.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    body.extend((8 + payload as u16).to_be_bytes());
    body.extend([0, 0]);
    body.extend(vec![0xda; payload]);
    ip(from.ip(), to.ip(), UDP, &[], &body)
}
