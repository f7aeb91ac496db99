//! WireGuard with each peer over UDP: handshakes, and what became of the messages.

use tailgauge_ebpf::layout::{RECEIVE, ROLES, TRANSMIT, WireGuard};

use super::{Family, Section, View};
use crate::model::kernel::SessionTotals;
use crate::outputs::prometheus::buckets::{HANDSHAKE, RESPONSE};
use crate::outputs::prometheus::family::{Header, Kind};
use crate::outputs::prometheus::labels::Rendered;
use crate::outputs::prometheus::text::Samples;

/// Label by role - 1 (`layout::ROLE_*`).
const ROLE_LABELS: [&[u8]; ROLES] = [b"role=\"initiator\"", b"role=\"responder\""];

pub(super) const SECTION: Section = Section {
    title: "WireGuard with peers",
    about: "From the types, session indexes and counters that WireGuard leaves in clear, seen on the interfaces under the \
            tunnel; present once a peer had any over UDP. Nobody sees what goes by DERP, so it is neither counted nor \
            judged here. An active session has a new handshake each 2 minutes. Messages are told by the counter of \
            their session: lost is a counter that did not come within 3 s or 2048 later messages. A stretch that \
            may have gone by DERP is not judged: what is missing after 3 s without a message, or when the next one \
            comes from another address. A shorter detour by DERP that ends at the old address looks like loss. What \
            left here and never arrived only the other end knows: it is lost in the metrics of the agent there. Part of what peers sent that was lost on the way: \
            `rate(tailgauge_peer_wireguard_lost_packets_total[5m]) / \
            (rate(tailgauge_peer_wireguard_lost_packets_total[5m]) + \
            rate(tailgauge_peer_wireguard_received_packets_total[5m]))`.",
    families: &[
        Family {
            header: Header {
                name: "tailgauge_peer_wireguard_handshake_seconds",
                kind: Kind::Histogram,
                labels: &["peer_id"],
                help: "From an initiation sent to the response to it received, over UDP: the round trip and the work of \
                       the peer. A response whose initiation went by DERP is never timed.",
            },
            samples: |view, samples| {
                for (labels, wireguard) in handshakes(view) {
                    samples.histogram([&labels.id, b""], &wireguard.handshake, &HANDSHAKE);
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_wireguard_handshakes_total",
                &["peer_id", "role"],
                "Handshakes that were completed over UDP, by the part of this node: initiator (the response came) or \
                 responder (the first data on a response sent came).",
            ),
            samples: |view, samples| {
                for (labels, wireguard) in handshakes(view) {
                    for (count, role) in wireguard.completed.iter().zip(ROLE_LABELS) {
                        samples.sample().rendered(&labels.id).rendered(role).integer(*count);
                    }
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_wireguard_handshake_retries_total",
                &["peer_id"],
                "Initiations sent while one of the last 90 s had no response.",
            ),
            samples: |view, samples| count(view, samples, |wireguard| wireguard.retries),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_wireguard_handshake_failures_total",
                &["peer_id"],
                "Initiations sent over UDP that stayed without a response there.",
            ),
            samples: |view, samples| count(view, samples, |wireguard| wireguard.failures),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_wireguard_handshakes_untimed_total",
                &["peer_id"],
                "Responses received that answer no initiation seen there: it went by DERP.",
            ),
            samples: |view, samples| count(view, samples, |wireguard| wireguard.unpaired_responses),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_wireguard_cookie_replies_receive_total",
                &["peer_id"],
                "Cookie replies from the peer: it was under load and refused an initiation.",
            ),
            samples: |view, samples| count(view, samples, |wireguard| wireguard.cookies[RECEIVE as usize]),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_wireguard_cookie_replies_transmit_total",
                &["peer_id"],
                "Cookie replies to the peer: tailscaled was under load and refused an initiation.",
            ),
            samples: |view, samples| count(view, samples, |wireguard| wireguard.cookies[TRANSMIT as usize]),
        },
        Family {
            header: Header {
                name: "tailgauge_tailscaled_wireguard_response_seconds",
                kind: Kind::Histogram,
                labels: &[],
                help: "From an initiation received to the response sent: how fast tailscaled itself reacts.",
            },
            samples: |view, samples| {
                if let Some(messages) = &view.model.kernel.messages {
                    samples.histogram([b"", b""], &messages.handshake_response, &RESPONSE);
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_wireguard_received_packets_total",
                &["peer_id"],
                "Transport messages received, each counter once, keepalives included.",
            ),
            samples: |view, samples| judged(view, samples, |sessions| sessions.received),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_wireguard_lost_packets_total",
                &["peer_id"],
                "Counters of sessions with the peer that did not come within 3 s or 2048 later messages. A stretch that \
                 may have gone by DERP is not judged; what left here and never arrived only the other end knows.",
            ),
            samples: |view, samples| judged(view, samples, |sessions| sessions.lost),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_wireguard_reordered_packets_total",
                &["peer_id"],
                "Of the messages received, those that came after a later one.",
            ),
            samples: |view, samples| judged(view, samples, |sessions| sessions.reordered),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_wireguard_duplicated_packets_total",
                &["peer_id"],
                "Messages whose counter was received before; not among those received.",
            ),
            samples: |view, samples| judged(view, samples, |sessions| sessions.duplicated),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_wireguard_unjudged_packets_total",
                &["peer_id"],
                "Messages received that are in none of the other counts: too late, or of a stretch that may have gone by \
                 DERP.",
            ),
            samples: |view, samples| judged(view, samples, |sessions| sessions.unjudged),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_wireguard_sent_packets_total",
                &["peer_id"],
                "Transport messages sent over UDP, keepalives included.",
            ),
            samples: sent,
        },
    ],
};

/// Peers that had a handshake over UDP, or the begin of one.
fn handshakes<'a>(view: &View<'a>) -> impl Iterator<Item = (&'a Rendered, &'a WireGuard)> {
    let labels = view.labels;
    let seen = view.model.kernel.wireguard.iter().filter(|(_, wireguard)| {
        let WireGuard { initiations, responses, cookies, .. } = wireguard;
        [initiations, responses, cookies].into_iter().flatten().any(|count| *count > 0)
    });
    seen.filter_map(move |(slot, wireguard)| Some((labels.get(*slot)?, wireguard)))
}

fn count(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&WireGuard) -> u64) {
    for (labels, wireguard) in handshakes(view) {
        samples.sample().rendered(&labels.id).integer(value(wireguard));
    }
}

/// Peers of which messages came.
fn judged(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&SessionTotals) -> u64) {
    for (slot, _, labels) in view.peers() {
        let sessions = view.model.kernel.sessions.get(slot as usize);
        if let Some(sessions) = sessions.filter(|sessions| **sessions != SessionTotals::default()) {
            samples.sample().rendered(&labels.id).integer(value(sessions));
        }
    }
}

fn sent(view: &View<'_>, samples: &mut Samples<'_>) {
    for (slot, _, labels) in view.peers() {
        let lines = view.model.kernel.peer_underlay.get(slot as usize);
        let sent = lines.map_or(0, |lines| lines[TRANSMIT as usize].path.iter().map(|path| path.data).sum());
        if sent > 0 {
            samples.sample().rendered(&labels.id).integer(sent);
        }
    }
}
