//! TCP handshakes as seen from the tunnel, which lies between opener and responder: SYN to SYN-ACK is the
//! responder's leg, SYN-ACK to ACK the opener's. No answer is believed unless it acknowledges what was sent,
//! and a leg with a retransmission yields no sample (Karn), as nobody can say which copy was answered.

use core::ptr::addr_of_mut;

use aya_ebpf::bindings::BPF_ANY;
use tailgauge_ebpf::{
    layout::{Connection, Handshake, OPENER_PEER, Tcp},
    packet::flags::ACK,
};

use super::{
    atomic::add,
    connection::{self, End, count, count_end},
    filter, health, histogram,
    maps::{CONNECTIONS, HANDSHAKES, TCP},
    tcp::{Segment, now},
};

/// Data that a SYN may carry (TCP Fast Open, RFC 7413) and its SYN-ACK acknowledge: a segment's worth.
const MAX_SYN_DATA: u32 = 1460;
/// Distance up to which a sequence number counts as later in the same connection.
const SAME_CONNECTION: u32 = 1 << 30;

/// A SYN: a new attempt, the same one again, or the other half of a simultaneous open.
#[inline(always)]
pub(super) fn syn(segment: &Segment) {
    if let Some(known) = HANDSHAKES.get_ptr_mut(segment.key.flow()) {
        // SAFETY: an entry of the map.
        if unsafe { syn_again(segment, known) } {
            return;
        }
    } else if let Some(connection) = established(segment)
        && connection.opener == segment.sender
        && connection.syn_sequence == segment.sequence
    {
        // A copy that was overtaken by the ACK.
        // SAFETY: a row of TCP.
        with_row(connection.slot, |tcp| unsafe {
            count(addr_of_mut!((*tcp).syn_retransmits), segment.sender)
        });
        return;
    }
    let handshake = Handshake {
        syn_at: now(),
        syn_ack_at: 0,
        syn_sequence: segment.sequence,
        syn_ack_sequence: 0,
        slot: segment.slot,
        opener: segment.sender as u8,
        syn_retransmits: 0,
        syn_ack_retransmits: 0,
        timed_out: 0,
    };
    if HANDSHAKES.insert(segment.key.flow(), &handshake, u64::from(BPF_ANY)).is_err() {
        health::handshake_insert_failure();
        lost(segment.slot);
    }
}

/// A SYN whose ports have a handshake under way. Returns whether it belongs to that one.
///
/// # Safety
/// `known` is an entry of HANDSHAKES.
#[inline(always)]
unsafe fn syn_again(segment: &Segment, known: *mut Handshake) -> bool {
    // SAFETY: the caller vouches for the entry.
    unsafe {
        let opener = u32::from((*known).opener);
        let answered = (*known).syn_ack_at != 0;
        let timed_out = (*known).timed_out != 0;
        if opener == segment.sender {
            if (*known).syn_sequence == segment.sequence {
                (*known).syn_retransmits = (*known).syn_retransmits.saturating_add(1);
                with_row((*known).slot, |tcp| count(addr_of_mut!((*tcp).syn_retransmits), opener));
                return true;
            }
        } else if !answered && !timed_out {
            // Simultaneous open (RFC 9293, 3.5): the answers cross as well, so neither leg can be timed.
            (*known).syn_retransmits = (*known).syn_retransmits.saturating_add(1);
            (*known).syn_ack_retransmits = (*known).syn_ack_retransmits.saturating_add(1);
            return true;
        }
        // The ports are used anew: the attempt before has no answer any more.
        if !answered && !timed_out {
            with_row((*known).slot, |tcp| count(addr_of_mut!((*tcp).timed_out), opener));
        }
    }
    false
}

/// A SYN-ACK: the end of the responder's leg, and the start of the opener's.
#[inline(always)]
pub(super) fn syn_ack(segment: &Segment) {
    let opener = segment.receiver();
    let Some(known) = HANDSHAKES.get_ptr_mut(segment.key.flow()) else {
        match established(segment) {
            // The ACK passed here, and was lost further on or came too late.
            Some(connection) => {
                if connection.opener == opener && connection.syn_ack_sequence == segment.sequence {
                    // SAFETY: a row of TCP.
                    with_row(connection.slot, |tcp| unsafe {
                        count(addr_of_mut!((*tcp).syn_ack_retransmits), opener);
                    });
                }
            }
            None => lost(segment.slot),
        }
        return;
    };
    // SAFETY: an entry of the map.
    unsafe {
        let acknowledged = segment.acknowledgement.wrapping_sub((*known).syn_sequence.wrapping_add(1));
        if u32::from((*known).opener) != opener || acknowledged > MAX_SYN_DATA {
            return;
        }
        if (*known).syn_ack_at == 0 {
            let at = now();
            (*known).syn_ack_sequence = segment.sequence;
            (*known).syn_ack_at = at;
            let leg = Leg { peer: opener != OPENER_PEER as u32, since: (*known).syn_at, until: at };
            sample(&*known, &leg, (*known).syn_retransmits != 0);
        } else if (*known).syn_ack_sequence == segment.sequence {
            (*known).syn_ack_retransmits = (*known).syn_ack_retransmits.saturating_add(1);
            with_row((*known).slot, |tcp| count(addr_of_mut!((*tcp).syn_ack_retransmits), opener));
        } else {
            // A responder that forgot its first answer. The ACK will tell which one it means.
            (*known).syn_ack_sequence = segment.sequence;
            (*known).syn_ack_at = now();
            (*known).syn_ack_retransmits = 0;
        }
    }
    filter::arm(segment.cell, segment.sequence.wrapping_add(1));
}

/// The opener's first acknowledgement, with or without data: the connection is established.
#[inline(always)]
pub(super) fn acknowledge(segment: &Segment) {
    // SAFETY: copied at once; what else may reuse the entry deletes it first, which is noticed below.
    let Some(known) = (unsafe { HANDSHAKES.get(segment.key.flow()) }).copied() else {
        evicted(segment);
        return;
    };
    if u32::from(known.opener) != segment.sender
        || known.syn_ack_at == 0
        || !segment.has(ACK)
        || segment.acknowledgement != known.syn_ack_sequence.wrapping_add(1)
    {
        return;
    }
    // First of all: whoever finds the handshake gone sees that nobody waits for it.
    filter::disarm(segment.cell, segment.acknowledgement);
    if HANDSHAKES.remove(segment.key.flow()).is_err() {
        return;
    }
    let at = now();
    // SAFETY: a row of TCP.
    with_row(known.slot, |tcp| unsafe { count(addr_of_mut!((*tcp).opened), segment.sender) });
    let leg = Leg { peer: segment.sender == OPENER_PEER as u32, since: known.syn_ack_at, until: at };
    sample(&known, &leg, known.syn_ack_retransmits != 0);
    connection::open(
        segment,
        &Connection {
            established_at: at,
            slot: known.slot,
            opener: segment.sender,
            syn_sequence: known.syn_sequence,
            syn_ack_sequence: known.syn_ack_sequence,
        },
    );
}

/// An acknowledgement, or a FIN, without a handshake. If the filter waits for just this number, there was one, for which
/// the table had no room any more. A cell that waits for nothing holds a 0.
#[inline(always)]
fn evicted(segment: &Segment) {
    if segment.has(ACK)
        && segment.acknowledgement != 0
        && established(segment).is_none()
        && filter::expects(segment.cell, segment.acknowledgement)
    {
        filter::disarm(segment.cell, segment.acknowledgement);
        lost(segment.slot);
    }
}

/// A RST. Returns whether it ended a handshake.
#[inline(always)]
pub(super) fn reset(segment: &Segment) -> bool {
    // SAFETY: as in `acknowledge`.
    let Some(known) = (unsafe { HANDSHAKES.get(segment.key.flow()) }).copied() else { return false };
    let answered = known.syn_ack_at != 0;
    let after_syn = segment.sequence.wrapping_sub(known.syn_sequence.wrapping_add(1));
    let after_syn_ack = segment.sequence.wrapping_sub(known.syn_ack_sequence.wrapping_add(1));
    let (refused, later) = if u32::from(known.opener) == segment.sender {
        (answered && after_syn == 0, answered && after_syn < SAME_CONNECTION)
    } else {
        let acknowledged = segment.acknowledgement.wrapping_sub(known.syn_sequence.wrapping_add(1));
        (
            (segment.has(ACK) && !answered && acknowledged <= MAX_SYN_DATA)
                || (answered && after_syn_ack == 0),
            answered && after_syn_ack < SAME_CONNECTION,
        )
    };
    if !refused && !later {
        return false;
    }
    if HANDSHAKES.remove(segment.key.flow()).is_ok() {
        filter::disarm(segment.cell, known.syn_ack_sequence.wrapping_add(1));
        if !refused {
            unseen(&known, End::Reset);
        } else if known.timed_out == 0 {
            // SAFETY: a row of TCP.
            with_row(known.slot, |tcp| unsafe {
                count(addr_of_mut!((*tcp).refused), u32::from(known.opener));
            });
        }
    }
    true
}

/// A FIN on a handshake that was answered: the acknowledgement must have passed unseen.
#[inline(always)]
pub(super) fn finish_unseen(segment: &Segment) {
    // SAFETY: as in `acknowledge`.
    let Some(known) = (unsafe { HANDSHAKES.get(segment.key.flow()) }).copied() else { return };
    if known.syn_ack_at != 0 && HANDSHAKES.remove(segment.key.flow()).is_ok() {
        filter::disarm(segment.cell, known.syn_ack_sequence.wrapping_add(1));
        unseen(&known, End::Fin);
    }
}

/// A connection that was established and ended without its acknowledgement being recognised.
#[inline(always)]
fn unseen(known: &Handshake, end: End) {
    with_row(known.slot, |tcp| {
        // SAFETY: a row of TCP.
        unsafe { count(addr_of_mut!((*tcp).opened), u32::from(known.opener)) };
        count_end(tcp, end);
    });
    lost(known.slot);
}

/// One leg of a handshake.
struct Leg {
    /// The peer's leg, or else the remote one.
    peer: bool,
    since: u64,
    until: u64,
}

/// Records a leg, unless nobody can say what was answered.
#[inline(always)]
fn sample(known: &Handshake, leg: &Leg, ambiguous: bool) {
    if known.timed_out != 0 {
        return;
    }
    let Some(tcp) = TCP.get_ptr_mut(known.slot) else { return };
    // SAFETY: the map's row.
    unsafe {
        if ambiguous {
            add(addr_of_mut!((*tcp).ambiguous), 1);
            return;
        }
        let legs = addr_of_mut!((*tcp).handshake).cast();
        let microseconds = leg.until.saturating_sub(leg.since) / 1_000;
        histogram::record(if leg.peer { legs } else { legs.add(1) }, microseconds);
    }
}

#[inline(always)]
fn lost(slot: u32) {
    // SAFETY: a row of TCP.
    with_row(slot, |tcp| unsafe { add(addr_of_mut!((*tcp).lost), 1) });
}

#[inline(always)]
fn with_row(slot: u32, change: impl FnOnce(*mut Tcp)) {
    if let Some(tcp) = TCP.get_ptr_mut(slot) {
        change(tcp);
    }
}

#[inline(always)]
fn established(segment: &Segment) -> Option<Connection> {
    // SAFETY: copied at once, and used for counting only.
    unsafe { CONNECTIONS.get(segment.key.flow()) }.copied()
}
