//! Disco: how tailscaled probes its paths, and all messages that are no data.

use tailgauge_ebpf::layout::{Kind as Message, RECEIVE, TRANSMIT, WireGuard};

use super::{Family, Section, View};
use crate::outputs::prometheus::buckets::{HANDSHAKE, RESPONSE};
use crate::outputs::prometheus::family::{Header, Kind};
use crate::outputs::prometheus::labels::Rendered;
use crate::outputs::prometheus::text::Samples;

/// Label by kind of message; data is counted by peer.
const KINDS: [(Message, &[u8]); 8] = [
    (Message::Initiation, b"kind=\"initiation\""),
    (Message::Response, b"kind=\"response\""),
    (Message::Cookie, b"kind=\"cookie\""),
    (Message::Ping, b"kind=\"disco_ping\""),
    (Message::Pong, b"kind=\"disco_pong\""),
    (Message::Disco, b"kind=\"disco\""),
    (Message::Stun, b"kind=\"stun\""),
    (Message::Other, b"kind=\"other\""),
];

pub(super) const SECTION: Section = Section {
    title: "Disco",
    about: "tailscaled pings the path of each active peer every 3 s, and candidates for a better one; pings and pongs are \
            told by their length and paired by endpoint and order, so the round trip of a path is known without any \
            traffic of ours, through peer relays, too. The time to its own pong says how busy tailscaled itself is. \
            Pings without a pong: `increase(tailgauge_peer_disco_pings_transmit_total[5m]) - \
            increase(tailgauge_peer_disco_pongs_receive_total[5m])`; some are usual, as candidates are tried that lead \
            nowhere.",
    families: &[
        Family {
            header: Header {
                name: "tailgauge_peer_disco_rtt_seconds",
                kind: Kind::Histogram,
                labels: &["peer_id"],
                help: "From a disco ping sent to the pong from the same endpoint: the round trip of the path, and the \
                       reaction of the peer's tailscaled. Pongs that may answer either of two pings are left out.",
            },
            samples: |view, samples| {
                for (labels, wireguard) in disco(view) {
                    samples.histogram([&labels.id, b""], &wireguard.disco_rtt, &HANDSHAKE);
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_disco_pings_receive_total",
                &["peer_id"],
                "Disco pings from the peer, of the usual length.",
            ),
            samples: |view, samples| count(view, samples, |wireguard| wireguard.pings[RECEIVE as usize]),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_disco_pings_transmit_total",
                &["peer_id"],
                "Disco pings to the peer, of the usual length.",
            ),
            samples: |view, samples| count(view, samples, |wireguard| wireguard.pings[TRANSMIT as usize]),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_disco_pongs_receive_total",
                &["peer_id"],
                "Disco pongs from the peer.",
            ),
            samples: |view, samples| count(view, samples, |wireguard| wireguard.pongs[RECEIVE as usize]),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_disco_pongs_transmit_total",
                &["peer_id"],
                "Disco pongs to the peer.",
            ),
            samples: |view, samples| count(view, samples, |wireguard| wireguard.pongs[TRANSMIT as usize]),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_disco_pongs_ambiguous_total",
                &["peer_id"],
                "Disco pongs from the peer that may answer either of two pings: they are not timed.",
            ),
            samples: |view, samples| count(view, samples, |wireguard| wireguard.pongs_ambiguous),
        },
        Family {
            header: Header {
                name: "tailgauge_tailscaled_disco_response_seconds",
                kind: Kind::Histogram,
                labels: &[],
                help: "From a disco ping received to the pong sent: how fast tailscaled itself reacts, a sign of \
                       saturation that needs no load of ours.",
            },
            samples: |view, samples| {
                if let Some(messages) = &view.model.kernel.messages {
                    samples.histogram([b"", b""], &messages.disco_response, &RESPONSE);
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_underlay_messages_receive_total",
                &["kind"],
                "UDP messages for tailscaled that are no WireGuard data, by kind: initiation, response, cookie, \
                 disco_ping, disco_pong, disco (any other), stun, other.",
            ),
            samples: |view, samples| messages(view, samples, RECEIVE),
        },
        Family {
            header: Header::counter(
                "tailgauge_underlay_messages_transmit_total",
                &["kind"],
                "UDP messages from tailscaled that are no WireGuard data, by kind.",
            ),
            samples: |view, samples| messages(view, samples, TRANSMIT),
        },
        Family {
            header: Header::counter(
                "tailgauge_underlay_messages_unread_total",
                &[],
                "Messages in the middle of a super-packet that were not read, as it held more than one that is no data. \
                 They are among the bytes and packets.",
            ),
            samples: |view, samples| {
                let counted = view.model.kernel.messages.is_some();
                samples.plain(counted.then_some(view.model.kernel.health.messages_unread));
            },
        },
    ],
};

/// Peers with which disco was seen.
fn disco<'a>(view: &View<'a>) -> impl Iterator<Item = (&'a Rendered, &'a WireGuard)> {
    let labels = view.labels;
    let seen =
        view.model.kernel.wireguard.iter().filter(|(_, wireguard)| {
            [wireguard.pings, wireguard.pongs].iter().flatten().any(|count| *count > 0)
        });
    seen.filter_map(move |(slot, wireguard)| Some((labels.get(*slot)?, wireguard)))
}

fn count(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&WireGuard) -> u64) {
    for (labels, wireguard) in disco(view) {
        samples.sample().rendered(&labels.id).integer(value(wireguard));
    }
}

fn messages(view: &View<'_>, samples: &mut Samples<'_>, direction: u32) {
    let Some(messages) = &view.model.kernel.messages else { return };
    for (kind, label) in KINDS {
        samples.sample().rendered(label).integer(messages.seen[direction as usize][kind as usize]);
    }
}
