//! TCP connections of peers.

use tailgauge_ebpf::layout::{LEGS, OPENERS, Tcp};

use super::{Family, Section, View};
use crate::outputs::prometheus::buckets::{HANDSHAKE, LIFETIME};
use crate::outputs::prometheus::family::{Header, Kind};
use crate::outputs::prometheus::labels::Rendered;
use crate::outputs::prometheus::text::Samples;

/// Label by leg index (`layout::LEG_PEER`, `layout::LEG_REMOTE`).
const LEG_LABELS: [&[u8]; LEGS] = [b"leg=\"peer\"", b"leg=\"remote\""];
/// Label by opener index (`layout::OPENER_PEER`, `layout::OPENER_HOST`).
const OPENER_LABELS: [&[u8]; OPENERS] = [b"opener=\"peer\"", b"opener=\"host\""];

pub(super) const SECTION: Section = Section {
    title: "TCP connections of peers",
    about: "From SYN, SYN-ACK, ACK, FIN and RST on the tunnel; present once a peer had a connection. `leg` is \
            `peer` (this host and the peer) or `remote` (this host and the far server). `opener` is who sent the \
            first SYN: `peer`, or `host` for this host and whatever is behind it. Histogram values are whole \
            microseconds (handshakes) or milliseconds (lives), and each `le` is the largest value that it \
            includes: `0.001023` is everything below 1.024 ms.",
    families: &[
        Family {
            header: Header {
                name: "tailgauge_peer_tcp_handshake_seconds",
                kind: Kind::Histogram,
                labels: &["peer_id", "leg"],
                help: "Round trip of TCP handshakes by leg. Handshakes with a retransmission that makes them \
                       ambiguous are left out (Karn).",
            },
            samples: |view, samples| {
                for (labels, tcp) in tcp(view) {
                    for (histogram, leg) in tcp.handshake.iter().zip(LEG_LABELS) {
                        samples.histogram([&labels.id, leg], histogram, &HANDSHAKE);
                    }
                }
            },
        },
        Family {
            header: Header {
                name: "tailgauge_peer_tcp_connection_duration_seconds",
                kind: Kind::Histogram,
                labels: &["peer_id"],
                help: "Life of TCP connections that ended, from the completed handshake to the first FIN or RST.",
            },
            samples: |view, samples| {
                for (labels, tcp) in tcp(view) {
                    samples.histogram([&labels.id, b""], &tcp.duration, &LIFETIME);
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_tcp_connections_opened_total",
                &["peer_id", "opener"],
                "TCP connections whose handshake completed.",
            ),
            samples: |view, samples| by_opener(view, samples, |tcp| &tcp.opened),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_tcp_connections_failed_total",
                &["peer_id", "opener", "reason"],
                "TCP connections that did not come about: refused (answered by RST) or timeout (no answer).",
            ),
            samples: |view, samples| {
                for (labels, tcp) in tcp(view) {
                    for (opener, label) in OPENER_LABELS.into_iter().enumerate() {
                        for (reason, count) in
                            [("refused", tcp.refused[opener]), ("timeout", tcp.timed_out[opener])]
                        {
                            let line = samples.sample().rendered(&labels.id).rendered(label);
                            line.label("reason", reason).integer(count);
                        }
                    }
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_tcp_connections_closed_total",
                &["peer_id", "reason"],
                "Established TCP connections that ended, by what ended them first: fin or reset.",
            ),
            samples: |view, samples| {
                by_reason(view, samples, |tcp| [("fin", tcp.closed_fin), ("reset", tcp.closed_reset)]);
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_tcp_syn_retransmits_total",
                &["peer_id", "opener"],
                "SYNs that were seen again.",
            ),
            samples: |view, samples| by_opener(view, samples, |tcp| &tcp.syn_retransmits),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_tcp_syn_ack_retransmits_total",
                &["peer_id", "opener"],
                "SYN-ACKs that were seen again, by opener of the connection.",
            ),
            samples: |view, samples| by_opener(view, samples, |tcp| &tcp.syn_ack_retransmits),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_tcp_handshake_samples_dropped_total",
                &["peer_id", "reason"],
                "Handshake times that were not taken: ambiguous (a retransmission, Karn) or lost (the table had no \
                 room). Connections forgotten before their acknowledgement are not counted as opened.",
            ),
            samples: |view, samples| {
                by_reason(view, samples, |tcp| [("ambiguous", tcp.ambiguous), ("lost", tcp.lost)]);
            },
        },
    ],
};

/// Peers that had a connection.
fn tcp<'a>(view: &View<'a>) -> impl Iterator<Item = (&'a Rendered, &'a Tcp)> {
    let labels = view.labels;
    view.model.kernel.tcp.iter().filter_map(move |(slot, tcp)| Some((labels.get(*slot)?, tcp)))
}

fn by_opener(view: &View<'_>, samples: &mut Samples<'_>, counts: fn(&Tcp) -> &[u64; OPENERS]) {
    for (labels, tcp) in tcp(view) {
        for (count, opener) in counts(tcp).iter().zip(OPENER_LABELS) {
            samples.sample().rendered(&labels.id).rendered(opener).integer(*count);
        }
    }
}

fn by_reason(view: &View<'_>, samples: &mut Samples<'_>, counts: fn(&Tcp) -> [(&'static str, u64); 2]) {
    for (labels, tcp) in tcp(view) {
        for (reason, count) in counts(tcp) {
            samples.sample().rendered(&labels.id).label("reason", reason).integer(count);
        }
    }
}
