//! A TCP connection through the tunnel, played segment by segment.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use tailgauge_ebpf::histogram::Histogram;
use tailgauge_ebpf::layout::{FlowKey, OPENER_HOST, OPENER_PEER, RECEIVE, TRANSMIT, Tcp};
use tailgauge_testbed::programs::Programs;

use crate::inner::{ACK, FIN, RST, SYN, Segment, tcp};

/// The peer of every test.
pub(crate) const SLOT: u32 = 3;

/// Sequence numbers: of the opener's SYN and of the responder's SYN-ACK, the latter about to wrap around.
pub(crate) const SYN_SEQUENCE: u32 = 1_000_000;
pub(crate) const SYN_ACK_SEQUENCE: u32 = u32::MAX;

/// A connection between a peer and another socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow<'a> {
    pub(crate) programs: &'a Programs,
    /// [`OPENER_PEER`] or [`OPENER_HOST`].
    pub(crate) opener: usize,
    pub(crate) peer: SocketAddr,
    pub(crate) other: SocketAddr,
}

/// When a segment passed: between two instants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    before: Instant,
    after: Instant,
}

impl Passed {
    /// The least and the most time from `self` to `later`, in nanoseconds.
    pub(crate) fn until(self, later: Self) -> Range<u64> {
        let least = later.before.duration_since(self.after).as_nanos() as u64;
        let most = later.after.duration_since(self.before).as_nanos() as u64;
        least..most + 1
    }
}

/// Flows of either opener and family, all of the peer in [`SLOT`].
pub(crate) fn flows(programs: &Programs) -> Vec<Flow<'_>> {
    let sockets = [("100.64.0.1:40000", "9.9.9.9:443"), ("[fd7a::1]:40000", "[2001:db8::9]:443")];
    sockets
        .into_iter()
        .zip(0u16..)
        .flat_map(|((peer, other), family)| {
            [OPENER_PEER, OPENER_HOST].map(|opener| {
                let (mut peer, other): (SocketAddr, SocketAddr) =
                    (peer.parse().unwrap(), other.parse().unwrap());
                peer.set_port(40_000 + 2 * family + opener as u16);
                Flow { programs, opener, peer, other }
            })
        })
        .collect()
}

/// Loaded programs that know the peer.
pub(crate) fn with_peer(test: &str, sizes: tailgauge_testbed::programs::Sizes) -> Option<Programs> {
    let mut programs = crate::load(test, sizes)?;
    programs.add_peer_v4("100.64.0.1".parse().unwrap(), SLOT).unwrap();
    programs.add_peer_v6("fd7a::1".parse().unwrap(), SLOT).unwrap();
    Some(programs)
}

impl Flow<'_> {
    fn send(&self, from_opener: bool, segment: Segment) -> Passed {
        let (direction, packet) = if (self.opener == OPENER_PEER) == from_opener {
            (RECEIVE, tcp(self.peer, self.other, segment))
        } else {
            (TRANSMIT, tcp(self.other, self.peer, segment))
        };
        let before = Instant::now();
        self.programs.run(direction, &packet, 0).unwrap();
        Passed { before, after: Instant::now() }
    }

    /// A segment of the one who opens.
    pub(crate) fn opener(&self, flags: u8, sequence: u32, acknowledgement: u32) -> Passed {
        self.send(true, Segment { flags, sequence, acknowledgement, ..Segment::default() })
    }

    /// A segment of the one who answers.
    pub(crate) fn responder(&self, flags: u8, sequence: u32, acknowledgement: u32) -> Passed {
        self.send(false, Segment { flags, sequence, acknowledgement, ..Segment::default() })
    }

    pub(crate) fn syn(&self) -> Passed {
        self.opener(SYN, SYN_SEQUENCE, 0)
    }

    pub(crate) fn syn_ack(&self) -> Passed {
        self.responder(SYN | ACK, SYN_ACK_SEQUENCE, SYN_SEQUENCE + 1)
    }

    pub(crate) fn ack(&self) -> Passed {
        self.opener(ACK, SYN_SEQUENCE + 1, SYN_ACK_SEQUENCE.wrapping_add(1))
    }

    /// All three.
    pub(crate) fn establish(&self) -> [Passed; 3] {
        [self.syn(), self.syn_ack(), self.ack()]
    }

    /// Data from the opener, acknowledging what the handshake brought.
    pub(crate) fn data(&self, sequence: u32) -> Passed {
        let acknowledgement = SYN_ACK_SEQUENCE.wrapping_add(1);
        self.send(true, Segment { flags: ACK, sequence, acknowledgement, payload: 500, ..Segment::default() })
    }

    pub(crate) fn fin_of_opener(&self) -> Passed {
        self.opener(FIN | ACK, SYN_SEQUENCE + 1, SYN_ACK_SEQUENCE.wrapping_add(1))
    }

    pub(crate) fn fin_of_responder(&self) -> Passed {
        self.responder(FIN | ACK, SYN_ACK_SEQUENCE.wrapping_add(1), SYN_SEQUENCE + 1)
    }

    /// The answer of a closed port.
    pub(crate) fn refuse(&self) -> Passed {
        self.responder(RST | ACK, 0, SYN_SEQUENCE + 1)
    }

    pub(crate) fn tcp(&self) -> Tcp {
        self.programs.tcp(SLOT).unwrap()
    }

    /// The same ports once more: whatever was open before is of another test step.
    pub(crate) fn with_port(self, port: u16) -> Self {
        let mut flow = self;
        flow.peer.set_port(port);
        flow
    }

    /// The leg that ends with the responder's answer, as an index of [`Tcp::handshake`].
    pub(crate) fn responder_leg(&self) -> usize {
        tailgauge_ebpf::layout::LEG_REMOTE - self.opener
    }

    /// The leg that ends with the opener's acknowledgement.
    pub(crate) fn opener_leg(&self) -> usize {
        tailgauge_ebpf::layout::LEG_PEER + self.opener
    }

    /// The flow's key in the maps.
    pub(crate) fn key(&self) -> FlowKey {
        let octets = |socket: SocketAddr| match socket.ip() {
            std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(address) => address.octets(),
        };
        FlowKey {
            peer_address: octets(self.peer),
            other_address: octets(self.other),
            peer_port: self.peer.port().to_be_bytes(),
            other_port: self.other.port().to_be_bytes(),
        }
    }
}

/// What happened between two readings of a slot.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Change {
    pub(crate) opened: [u64; 2],
    pub(crate) refused: [u64; 2],
    pub(crate) timed_out: [u64; 2],
    pub(crate) closed_fin: u64,
    pub(crate) closed_reset: u64,
    pub(crate) syn_retransmits: [u64; 2],
    pub(crate) syn_ack_retransmits: [u64; 2],
    pub(crate) ambiguous: u64,
    pub(crate) lost: u64,
    /// Samples of the peer's leg, the remote leg, and durations.
    pub(crate) samples: [u64; 3],
}

impl Change {
    pub(crate) fn between(before: &Tcp, after: &Tcp) -> Self {
        let pair = |after: [u64; 2], before: [u64; 2]| [after[0] - before[0], after[1] - before[1]];
        let count = |tcp: &Tcp| [tcp.handshake[0].count, tcp.handshake[1].count, tcp.duration.count];
        let (after_count, before_count) = (count(after), count(before));
        Self {
            opened: pair(after.opened, before.opened),
            refused: pair(after.refused, before.refused),
            timed_out: pair(after.timed_out, before.timed_out),
            closed_fin: after.closed_fin - before.closed_fin,
            closed_reset: after.closed_reset - before.closed_reset,
            syn_retransmits: pair(after.syn_retransmits, before.syn_retransmits),
            syn_ack_retransmits: pair(after.syn_ack_retransmits, before.syn_ack_retransmits),
            ambiguous: after.ambiguous - before.ambiguous,
            lost: after.lost - before.lost,
            samples: [0, 1, 2].map(|kind| after_count[kind] - before_count[kind]),
        }
    }
}

/// One for `opener`.
pub(crate) fn one(opener: usize) -> [u64; 2] {
    let mut counts = [0; 2];
    counts[opener] = 1;
    counts
}

/// The one sample that `after` has more than `before`, which must lie within `nanoseconds` in units of `unit`.
pub(crate) fn assert_sample(before: &Histogram, after: &Histogram, nanoseconds: &Range<u64>, unit: u64) {
    assert_eq!(after.count, before.count + 1);
    let sample = after.sum - before.sum;
    assert!(sample >= nanoseconds.start / unit, "{sample} in {nanoseconds:?} / {unit}");
    assert!(sample <= nanoseconds.end / unit, "{sample} in {nanoseconds:?} / {unit}");
    let bucket = tailgauge_ebpf::histogram::index(sample);
    assert_eq!(after.buckets[bucket], before.buckets[bucket] + 1);
}
