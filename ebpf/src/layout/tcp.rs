//! Layout of what is known of TCP connections through the tunnel.

use crate::histogram::Histogram;

/// Legs index handshake histograms: this host ↔ peer through the tunnel.
pub const LEG_PEER: usize = 0;
/// This host ↔ the far server.
pub const LEG_REMOTE: usize = 1;
/// Number of legs.
pub const LEGS: usize = 2;

/// Who sent the first SYN: the peer (SYN seen on receive).
pub const OPENER_PEER: usize = 0;
/// This host or something behind it (SYN seen on transmit).
pub const OPENER_HOST: usize = 1;
/// Number of openers.
pub const OPENERS: usize = 2;

/// TCP connections of one slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Handshake time by leg, microseconds.
    pub handshake: [Histogram; LEGS],
    /// Time from established to the first FIN or RST, milliseconds.
    pub duration: Histogram,
    /// Connections whose handshake completed, by opener.
    pub opened: [u64; OPENERS],
    /// Handshakes answered by RST, by opener.
    pub refused: [u64; OPENERS],
    /// SYNs that stayed without an answer, by opener; counted by the agent's sweep, and by the programs when
    /// a new attempt takes the key. A handshake that was answered but never acknowledged is none of these.
    pub timed_out: [u64; OPENERS],
    /// Established connections ended by FIN.
    pub closed_fin: u64,
    /// Established connections ended by RST.
    pub closed_reset: u64,
    /// SYNs seen again, by opener.
    pub syn_retransmits: [u64; OPENERS],
    /// SYN-ACKs seen again, by opener of the connection.
    pub syn_ack_retransmits: [u64; OPENERS],
    /// Handshake samples dropped because a retransmission made them ambiguous (Karn).
    pub ambiguous: u64,
    /// Handshake samples lost because the table had no room, the entry was evicted, or the ACK went unseen. Only in the
    /// last case the connection is among those opened, once it ends.
    pub lost: u64,
}

impl Tcp {
    /// No connection yet.
    pub const EMPTY: Self = Self {
        handshake: [Histogram::EMPTY; LEGS],
        duration: Histogram::EMPTY,
        opened: [0; OPENERS],
        refused: [0; OPENERS],
        timed_out: [0; OPENERS],
        closed_fin: 0,
        closed_reset: 0,
        syn_retransmits: [0; OPENERS],
        syn_ack_retransmits: [0; OPENERS],
        ambiguous: 0,
        lost: 0,
    };
}

/// One connection as seen from the tunnel. The peer's side is `peer_*`, whoever opened it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Address on the peer's side; IPv4 as ::ffff:a.b.c.d.
    pub peer_address: [u8; 16],
    /// Address on the other side.
    pub other_address: [u8; 16],
    /// Port on the peer's side, network order.
    pub peer_port: [u8; 2],
    /// Port on the other side, network order.
    pub other_port: [u8; 2],
}

/// A handshake under way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// CLOCK_MONOTONIC nanoseconds of the first SYN.
    pub syn_at: u64,
    /// Nanoseconds of the first SYN-ACK; 0 while none was seen.
    pub syn_ack_at: u64,
    /// Sequence number of the SYN.
    pub syn_sequence: u32,
    /// Sequence number of the SYN-ACK.
    pub syn_ack_sequence: u32,
    /// The peer's slot at the time of the SYN.
    pub slot: u32,
    /// [`OPENER_PEER`] or [`OPENER_HOST`].
    pub opener: u8,
    /// SYNs seen again.
    pub syn_retransmits: u8,
    /// SYN-ACKs seen again.
    pub syn_ack_retransmits: u8,
    /// Non-zero once the agent counted it as timed out; kept so that late retransmissions are known.
    pub timed_out: u8,
}

/// An established connection, kept until FIN, RST or eviction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// CLOCK_MONOTONIC nanoseconds of the completed handshake.
    pub established_at: u64,
    /// The peer's slot.
    pub slot: u32,
    /// [`OPENER_PEER`] or [`OPENER_HOST`].
    pub opener: u32,
    /// Sequence number of the SYN: tells its late retransmission from a new attempt on the same ports.
    pub syn_sequence: u32,
    /// Sequence number of the SYN-ACK: tells its retransmission after the ACK passed here.
    pub syn_ack_sequence: u32,
}
