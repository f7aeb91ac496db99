//! Which TCP segments matter to handshakes and connections, and what they are to the state machine.

use core::{mem::offset_of, ptr};

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tailgauge_ebpf::{
    layout::{FlowKey, OPENER_HOST, OPENER_PEER, RECEIVE},
    packet::{
        Packet, TcpHeader, Transport,
        flags::{ACK, FIN, RST, SYN},
    },
};

use super::{attribution::Family, attribution::sides, connection, filter, handshake};

/// A segment that opens, completes or ends a connection.
pub(super) struct Segment {
    /// Its flow.
    pub(super) key: Key,
    /// Sequence number.
    pub(super) sequence: u32,
    /// Acknowledgement number, valid with [`ACK`].
    pub(super) acknowledgement: u32,
    /// Who opened the connection if the sender of this segment did: [`OPENER_PEER`] or [`OPENER_HOST`].
    pub(super) sender: u32,
    /// The peer's slot now.
    pub(super) slot: u32,
    /// The flow's cell in the filter.
    pub(super) cell: u32,
    /// TCP flags.
    pub(super) flags: u32,
}

/// A [`FlowKey`] made of words, so that the stack is not written byte by byte.
#[repr(C)]
pub(super) struct Key {
    peer_address: [u64; 2],
    other_address: [u64; 2],
    ports: u32,
}

impl Key {
    /// As the maps know it.
    #[inline(always)]
    pub(super) fn flow(&self) -> &FlowKey {
        const { assert!(offset_of!(Key, ports) == offset_of!(FlowKey, peer_port)) };
        // SAFETY: the same fields in the same places, and more alignment.
        unsafe { &*ptr::from_ref(self).cast() }
    }
}

impl Segment {
    #[inline(always)]
    pub(super) fn new<const DIRECTION: u32, A: Family>(packet: &Packet<A>, slot: u32) -> Self {
        let (peer, other) = sides::<DIRECTION, A>(packet);
        Self {
            key: Key {
                peer_address: peer.mapped(),
                other_address: other.mapped(),
                ports: ports::<DIRECTION>(&packet.tcp),
            },
            sequence: packet.tcp.sequence,
            acknowledgement: packet.tcp.acknowledgement,
            sender: if DIRECTION == RECEIVE { OPENER_PEER as u32 } else { OPENER_HOST as u32 },
            slot,
            cell: cell::<DIRECTION, A>(packet),
            flags: u32::from(packet.tcp.flags),
        }
    }

    /// The other side as opener.
    #[inline(always)]
    pub(super) const fn receiver(&self) -> u32 {
        OPENER_PEER as u32 + OPENER_HOST as u32 - self.sender
    }

    #[inline(always)]
    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag as u32 != 0
    }
}

/// Port of the peer's side, then the other one, as they lie in a [`FlowKey`].
#[inline(always)]
fn ports<const DIRECTION: u32>(tcp: &TcpHeader) -> u32 {
    let ([a, b], [c, d]) = if DIRECTION == RECEIVE {
        (tcp.source_port, tcp.destination_port)
    } else {
        (tcp.destination_port, tcp.source_port)
    };
    u32::from_ne_bytes([a, b, c, d])
}

#[inline(always)]
fn cell<const DIRECTION: u32, A: Family>(packet: &Packet<A>) -> u32 {
    let (peer, other) = sides::<DIRECTION, A>(packet);
    filter::cell(peer.fold(), other.fold(), ports::<DIRECTION>(&packet.tcp))
}

/// Whether a packet matters here: SYN, FIN, RST, or an ACK that may complete a handshake.
#[inline(always)]
pub(super) fn matters<const DIRECTION: u32, A: Family>(packet: &Packet<A>) -> bool {
    if !matches!(packet.transport, Transport::Tcp) {
        return false;
    }
    if packet.tcp.flags & (SYN | FIN | RST) != 0 {
        return true;
    }
    packet.tcp.flags & ACK != 0 && filter::expects(cell::<DIRECTION, A>(packet), packet.tcp.acknowledgement)
}

/// Takes a segment that [`matters`] into account.
#[inline(never)]
pub(super) fn track(segment: &Segment) {
    if segment.has(RST) {
        if !handshake::reset(segment) {
            connection::close(segment, connection::End::Reset);
        }
    } else if segment.has(SYN) {
        // SYN with FIN is no TCP: every stack drops it.
        match (segment.has(FIN), segment.has(ACK)) {
            (true, _) => {}
            (false, true) => handshake::syn_ack(segment),
            (false, false) => handshake::syn(segment),
        }
    } else {
        handshake::acknowledge(segment);
        if segment.has(FIN) && !connection::close(segment, connection::End::Fin) {
            handshake::finish_unseen(segment);
        }
    }
}

/// CLOCK_MONOTONIC, nanoseconds. Dear: only for segments that [`matters`] let through.
#[inline(always)]
pub(super) fn now() -> u64 {
    // SAFETY: no precondition.
    unsafe { bpf_ktime_get_ns() }
}
