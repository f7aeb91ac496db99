//! A super-packet read from the TUN becomes packets of MTU size.

use std::ops::Range;

use super::checksum;
use super::ip::{Layout, TCP, UDP, be16, be32, put16, put32, set_len};
use super::vnet::{GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetHeader};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// WireGuard pads its plaintext to this (section 5.4.6 of its paper).
const ALIGNMENT: usize = 16;

/// Why a super-packet could not be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Headers that do not fit the packet.
    #[error("packet of {len} bytes is cut short or no IP packet")]
    Truncated {
        /// Bytes that were there.
        len: usize,
    },
    /// A GSO type that was never offered to the kernel.
    #[error("GSO type {0} was not offered")]
    UnknownGso(u8),
}

/// Packets in one buffer, each followed by zeros up to a multiple of 16 bytes.
#[derive(Debug, Default)]
pub struct Segments {
    buffer: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Segments {
    /// Forgets all packets and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.ranges.clear();
    }

    /// The packets.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.ranges.iter().map(|range| &self.buffer[range.clone()])
    }

    /// The packets with their padding, as WireGuard encrypts them.
    pub fn padded(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.ranges.iter().map(|range| &self.buffer[range.start..range.end.next_multiple_of(ALIGNMENT)])
    }

    fn push(&mut self, headers: &[u8], payload: &[u8]) -> &mut [u8] {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(headers);
        self.buffer.extend_from_slice(payload);
        let end = self.buffer.len();
        self.buffer.resize(end.next_multiple_of(ALIGNMENT), 0);
        self.ranges.push(start..end);
        &mut self.buffer[start..end]
    }
}

/// Appends the packets that `packet` stands for to `segments`, with lengths, IP identifications and checksums right.
pub fn split(header: VnetHeader, packet: &[u8], segments: &mut Segments) -> Result<(), SplitError> {
    let truncated = SplitError::Truncated { len: packet.len() };
    if header.kind() == GSO_NONE {
        let single = segments.push(packet, &[]);
        return if complete_checksum(header, single) { Ok(()) } else { Err(truncated) };
    }
    let layout = Layout::parse(packet).ok_or(truncated)?;
    let expected = match header.kind() {
        GSO_TCPV4 | GSO_TCPV6 => TCP,
        GSO_UDP_L4 => UDP,
        other => return Err(SplitError::UnknownGso(other)),
    };
    let l4_header = layout.l4_header_len(packet).ok_or(truncated)?;
    if layout.protocol != expected || header.gso_size == 0 {
        return Err(truncated);
    }
    let headers = &packet[..layout.l4 + l4_header];
    let payload = &packet[headers.len()..layout.len];
    let count = payload.len().div_ceil(usize::from(header.gso_size)).max(1);
    for (index, part) in payload.chunks(usize::from(header.gso_size)).enumerate() {
        let segment = segments.push(headers, part);
        let place = Place { index, last: index + 1 == count, gso_size: header.gso_size };
        finish(segment, layout, place);
    }
    Ok(())
}

/// Which segment of a super-packet.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    last: bool,
    gso_size: u16,
}

/// Makes the copied headers of one segment its own.
fn finish(segment: &mut [u8], layout: Layout, place: Place) {
    let len = segment.len();
    if layout.version == 4 {
        let identification = be16(segment, 4).wrapping_add(place.index as u16);
        put16(segment, 4, identification);
    }
    set_len(segment, layout, len);
    if layout.protocol == TCP {
        let advance = (place.index as u32).wrapping_mul(u32::from(place.gso_size));
        let sequence = be32(segment, layout.l4 + 4).wrapping_add(advance);
        put32(segment, layout.l4 + 4, sequence);
        let flags = &mut segment[layout.l4 + 13];
        if !place.last {
            *flags &= !(FIN | PSH);
        }
        if place.index > 0 {
            *flags &= !CWR;
        }
    } else {
        put16(segment, layout.l4 + 4, (len - layout.l4) as u16);
    }
    let at = layout.l4 + layout.checksum_offset();
    let pseudo = checksum::pseudo_header(layout.addresses(segment), layout.protocol, len - layout.l4);
    put16(segment, at, pseudo);
    store_checksum(segment, layout.l4, at, layout.protocol == UDP);
}

/// Completes the checksum that the kernel left partial; the pseudo-header's sum is in the field already.
fn complete_checksum(header: VnetHeader, packet: &mut [u8]) -> bool {
    if header.flags & NEEDS_CSUM == 0 {
        return true;
    }
    let start = usize::from(header.csum_start);
    let at = start + usize::from(header.csum_offset);
    if at + 2 > packet.len() {
        return false;
    }
    store_checksum(packet, start, at, header.csum_offset == 6);
    true
}

fn store_checksum(packet: &mut [u8], start: usize, at: usize, zero_means_none: bool) {
    let mut value = !checksum::sum(&packet[start..]);
    if value == 0 && zero_means_none {
        value = 0xffff;
    }
    put16(packet, at, value);
}
