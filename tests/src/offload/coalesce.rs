//! Packets of one flow become a super-packet before they are written to the TUN.

use super::checksum;
use super::ip::{Layout, TCP, UDP, be16, be32, put16, set_len};
use super::vnet::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VNET_HEADER_LEN, VnetHeader};

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// The longest IP packet.
const MAX_LEN: usize = 65_535;
/// What the kernel takes as one UDP super-packet on all versions that have them.
const MAX_UDP_SEGMENTS: usize = 64;

/// Collects the packets of one batch and gives them back, in order within each flow, as few writes.
#[derive(Debug, Default)]
pub struct Coalescer {
    groups: Vec<Group>,
    used: usize,
    open: Vec<usize>,
}

/// One packet or super-packet under construction. The buffer starts with room for the vnet header.
#[derive(Debug, Default)]
struct Group {
    buffer: Vec<u8>,
    shape: Option<Shape>,
    segments: usize,
}

/// What a packet needs to have in common with others to join them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    layout: Layout,
    headers: usize,
    payload: usize,
}

impl Coalescer {
    /// Takes one IP packet, with its checksums complete.
    pub fn push(&mut self, packet: &[u8]) {
        let Some(shape) = Shape::of_candidate(packet) else {
            self.close_flow(packet);
            self.start(packet, None);
            return;
        };
        let found = self.open.iter().position(|&at| self.groups[at].is_same_flow(packet, shape));
        if let Some(slot) = found {
            let at = self.open[slot];
            match self.groups[at].append(packet, shape) {
                Appended::Open => return,
                Appended::Closed => {
                    self.open.swap_remove(slot);
                    return;
                }
                Appended::No => {
                    self.open.swap_remove(slot);
                }
            }
        }
        let pushed = shape.layout.protocol == TCP && packet[shape.layout.l4 + 13] & PSH != 0;
        let at = self.start(packet, Some(shape));
        if !pushed {
            self.open.push(at);
        }
    }

    /// Gives every write, vnet header included, to `write` and becomes empty.
    pub fn drain(&mut self, mut write: impl FnMut(&[u8])) {
        for group in &mut self.groups[..self.used] {
            group.finish();
            write(&group.buffer);
        }
        self.used = 0;
        self.open.clear();
    }

    fn start(&mut self, packet: &[u8], shape: Option<Shape>) -> usize {
        if self.used == self.groups.len() {
            self.groups.push(Group::default());
        }
        let group = &mut self.groups[self.used];
        group.buffer.clear();
        group.buffer.extend_from_slice(&[0; VNET_HEADER_LEN]);
        group.buffer.extend_from_slice(packet);
        group.shape = shape;
        group.segments = 1;
        self.used += 1;
        self.used - 1
    }

    /// A packet that cannot be coalesced must not be overtaken by later ones of its flow.
    fn close_flow(&mut self, packet: &[u8]) {
        let Some(layout) = Layout::parse(packet) else { return };
        let groups = &self.groups;
        self.open.retain(|&at| {
            let first = &groups[at].buffer[VNET_HEADER_LEN..];
            layout.addresses(packet) != &first[address_range(layout)]
        });
    }
}

fn address_range(layout: Layout) -> std::ops::Range<usize> {
    if layout.version == 4 { 12..20 } else { 8..40 }
}

impl Shape {
    /// TCP data with no flag but ACK and PSH, or a UDP datagram; whole, unfragmented, with a right checksum.
    fn of_candidate(packet: &[u8]) -> Option<Self> {
        let layout = Layout::parse(packet)?;
        let plain =
            layout.len == packet.len() && !layout.fragment && (layout.version == 6 || layout.l4 == 20);
        if !plain || !matches!(layout.protocol, TCP | UDP) {
            return None;
        }
        let headers = layout.l4 + layout.l4_header_len(packet)?;
        let payload = packet.len() - headers;
        if layout.protocol == TCP {
            let flags = packet[layout.l4 + 13];
            if flags & !PSH != ACK {
                return None;
            }
        } else if usize::from(be16(packet, layout.l4 + 4)) != packet.len() - layout.l4 {
            return None;
        }
        (payload > 0 && layout.checksum_is_valid(packet)).then_some(Self { layout, headers, payload })
    }
}

enum Appended {
    /// And more may follow.
    Open,
    /// And it was the last one.
    Closed,
    /// It does not continue the group.
    No,
}

impl Group {
    fn packet(&self) -> &[u8] {
        &self.buffer[VNET_HEADER_LEN..]
    }

    fn is_same_flow(&self, packet: &[u8], other: Shape) -> bool {
        let Some(shape) = self.shape else { return false };
        let (own, l4) = (self.packet(), shape.layout.l4);
        shape.layout.version == other.layout.version
            && shape.layout.protocol == other.layout.protocol
            && shape.layout.addresses(own) == other.layout.addresses(packet)
            && own[l4..l4 + 4] == packet[l4..l4 + 4]
    }

    fn append(&mut self, packet: &[u8], other: Shape) -> Appended {
        let Some(shape) = self.shape else { return Appended::No };
        let layout = shape.layout;
        let own = self.packet();
        let full = own.len() - shape.headers == self.segments * shape.payload;
        let fits = own.len() + other.payload <= MAX_LEN && other.payload <= shape.payload;
        if !full || !fits || shape.headers != other.headers || !same_ip_fields(own, packet, layout) {
            return Appended::No;
        }
        let pushed = if layout.protocol == TCP {
            let next = be32(own, layout.l4 + 4).wrapping_add((own.len() - shape.headers) as u32);
            let options = layout.l4 + 20..shape.headers;
            let acknowledgement_and_window = [8..12, 14..16];
            let continues = be32(packet, layout.l4 + 4) == next
                && own[options.clone()] == packet[options]
                && acknowledgement_and_window.into_iter().all(|range| {
                    let range = layout.l4 + range.start..layout.l4 + range.end;
                    own[range.clone()] == packet[range]
                });
            if !continues {
                return Appended::No;
            }
            packet[layout.l4 + 13] & PSH
        } else {
            if self.segments == MAX_UDP_SEGMENTS {
                return Appended::No;
            }
            0
        };
        self.buffer.extend_from_slice(&packet[other.headers..]);
        if layout.protocol == TCP {
            self.buffer[VNET_HEADER_LEN + layout.l4 + 13] |= pushed;
        }
        self.segments += 1;
        if pushed != 0 || other.payload < shape.payload { Appended::Closed } else { Appended::Open }
    }

    /// Fills in the vnet header and the fields that cover the whole super-packet.
    fn finish(&mut self) {
        let Some(shape) = self.shape else { return };
        if self.segments < 2 {
            return;
        }
        let (room, packet) = self.buffer.split_at_mut(VNET_HEADER_LEN);
        let layout = shape.layout;
        let len = packet.len();
        set_len(packet, layout, len);
        if layout.protocol == UDP {
            put16(packet, layout.l4 + 4, (len - layout.l4) as u16);
        }
        let pseudo = checksum::pseudo_header(layout.addresses(packet), layout.protocol, len - layout.l4);
        put16(packet, layout.l4 + layout.checksum_offset(), pseudo);
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: match (layout.protocol, layout.version) {
                (TCP, 4) => GSO_TCPV4,
                (TCP, _) => GSO_TCPV6,
                _ => GSO_UDP_L4,
            },
            hdr_len: shape.headers as u16,
            gso_size: shape.payload as u16,
            csum_start: layout.l4 as u16,
            csum_offset: layout.checksum_offset() as u16,
        };
        room.copy_from_slice(&header.to_bytes());
    }
}

/// Type of service, time to live and the don't-fragment bit; traffic class, flow label and hop limit.
fn same_ip_fields(left: &[u8], right: &[u8], layout: Layout) -> bool {
    if layout.version == 4 {
        left[1] == right[1] && left[6] == right[6] && left[8] == right[8]
    } else {
        left[..4] == right[..4] && left[7] == right[7]
    }
}
