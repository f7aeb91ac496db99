//! TCP connections of this host itself.

use super::{Family, Section, View};
use crate::model::host::Connections;
use crate::outputs::prometheus::family::Header;
use crate::outputs::prometheus::text::{Line, Samples};

pub(super) const SECTION: Section = Section {
    title: "TCP connections of this host itself",
    about: "What the kernel measures of its own sockets with peers, and of the sockets of tailscaled; what is \
            forwarded has none. Each figure is over the connections that are open when it is read, so that sums go \
            down when one is closed: they are gauges. A peer without connections has no series. Listing the sockets \
            costs the more the more there are; after a listing the collector rests for 1000 times what it cost, half \
            a second at least and a minute at most.",
    families: &[
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_connections",
                &["peer_id"],
                "Open TCP connections between this host's own programs and the peer.",
            ),
            samples: |view, samples| by_peer(view, samples, |sum| Some(Value::Whole(sum.open))),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_rtt_seconds",
                &["peer_id"],
                "Round-trip time of the open connections: mean of the smoothed times.",
            ),
            samples: |view, samples| {
                by_peer(view, samples, |sum| sum.round_trip.map(|time| Value::Seconds(time.mean)));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_rtt_max_seconds",
                &["peer_id"],
                "Highest smoothed round-trip time of an open connection.",
            ),
            samples: |view, samples| {
                by_peer(view, samples, |sum| sum.round_trip.map(|time| Value::Seconds(time.max)));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_rtt_min_seconds",
                &["peer_id"],
                "Lowest round-trip time that an open connection has seen within the last minutes.",
            ),
            samples: |view, samples| by_peer(view, samples, |sum| sum.round_trip?.min.map(Value::Seconds)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_rtt_variation_seconds",
                &["peer_id"],
                "Mean variation of the round-trip time of the open connections.",
            ),
            samples: |view, samples| {
                by_peer(view, samples, |sum| sum.round_trip.map(|time| Value::Seconds(time.variation)));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_transmitted_segments",
                &["peer_id"],
                "Segments with data that this host sent, those sent again included.",
            ),
            samples: |view, samples| by_peer(view, samples, |sum| sum.transmitted_segments.map(Value::Whole)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_retransmitted_segments",
                &["peer_id"],
                "Segments that this host sent again.",
            ),
            samples: |view, samples| {
                by_peer(view, samples, |sum| Some(Value::Whole(sum.retransmitted_segments)));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_lost_segments",
                &["peer_id"],
                "Segments that are taken for lost now.",
            ),
            samples: |view, samples| by_peer(view, samples, |sum| Some(Value::Whole(sum.lost_segments))),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_unacknowledged_segments",
                &["peer_id"],
                "Segments on their way now.",
            ),
            samples: |view, samples| {
                by_peer(view, samples, |sum| Some(Value::Whole(sum.unacknowledged_segments)));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_congestion_window_bytes",
                &["peer_id"],
                "Bytes that may be on their way at once, by the congestion windows.",
            ),
            samples: |view, samples| {
                by_peer(view, samples, |sum| Some(Value::Whole(sum.congestion_window_bytes)));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_unsent_bytes",
                &["peer_id"],
                "Bytes that programs wrote and that were not sent yet.",
            ),
            samples: |view, samples| by_peer(view, samples, |sum| sum.unsent_bytes.map(Value::Whole)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_delivery_bytes_per_second",
                &["peer_id"],
                "Rate of delivery when it was last measured.",
            ),
            samples: |view, samples| by_peer(view, samples, |sum| sum.delivery_rate.map(Value::Whole)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_acknowledged_bytes",
                &["peer_id"],
                "Bytes that the peer acknowledged.",
            ),
            samples: |view, samples| by_peer(view, samples, |sum| sum.acknowledged_bytes.map(Value::Whole)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_received_bytes",
                &["peer_id"],
                "Bytes received from the peer.",
            ),
            samples: |view, samples| by_peer(view, samples, |sum| sum.received_bytes.map(Value::Whole)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_busy_seconds",
                &["peer_id"],
                "Time during which there was something to send.",
            ),
            samples: |view, samples| by_peer(view, samples, |sum| sum.busy_seconds.map(Value::Seconds)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_receiver_limited_seconds",
                &["peer_id"],
                "Part of the busy time in which the receive window of the peer was full.",
            ),
            samples: |view, samples| {
                by_peer(view, samples, |sum| sum.receiver_limited_seconds.map(Value::Seconds));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_local_tcp_buffer_limited_seconds",
                &["peer_id"],
                "Part of the busy time in which the send buffer of this host was too small.",
            ),
            samples: |view, samples| {
                by_peer(view, samples, |sum| sum.buffer_limited_seconds.map(Value::Seconds));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_tcp_connections",
                &[],
                "Open TCP connections of tailscaled, to DERP and control servers mostly.",
            ),
            samples: |view, samples| tailscaled(view, samples, |sum| Some(Value::Whole(sum.open))),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_tcp_connecting",
                &[],
                "TCP connections of tailscaled that wait for an answer to their first segment.",
            ),
            samples: |view, samples| tailscaled(view, samples, |sum| Some(Value::Whole(sum.connecting))),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_tcp_rtt_seconds",
                &[],
                "Round-trip time of its open connections: mean of the smoothed times.",
            ),
            samples: |view, samples| {
                tailscaled(view, samples, |sum| sum.round_trip.map(|time| Value::Seconds(time.mean)));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_tcp_rtt_max_seconds",
                &[],
                "Highest smoothed round-trip time of an open connection.",
            ),
            samples: |view, samples| {
                tailscaled(view, samples, |sum| sum.round_trip.map(|time| Value::Seconds(time.max)));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_tcp_rtt_variation_seconds",
                &[],
                "Mean variation of the round-trip time of its open connections.",
            ),
            samples: |view, samples| {
                tailscaled(view, samples, |sum| sum.round_trip.map(|time| Value::Seconds(time.variation)));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_tcp_transmitted_segments",
                &[],
                "Segments with data that tailscaled sent, those sent again included.",
            ),
            samples: |view, samples| {
                tailscaled(view, samples, |sum| sum.transmitted_segments.map(Value::Whole));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_tcp_retransmitted_segments",
                &[],
                "Segments that were sent again.",
            ),
            samples: |view, samples| {
                tailscaled(view, samples, |sum| Some(Value::Whole(sum.retransmitted_segments)));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_tcp_lost_segments",
                &[],
                "Segments that are taken for lost now.",
            ),
            samples: |view, samples| tailscaled(view, samples, |sum| Some(Value::Whole(sum.lost_segments))),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_tcp_unacknowledged_segments",
                &[],
                "Segments on their way now.",
            ),
            samples: |view, samples| {
                tailscaled(view, samples, |sum| Some(Value::Whole(sum.unacknowledged_segments)));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_tcp_congestion_window_bytes",
                &[],
                "Bytes that may be on their way at once, by the congestion windows.",
            ),
            samples: |view, samples| {
                tailscaled(view, samples, |sum| Some(Value::Whole(sum.congestion_window_bytes)));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_tcp_unsent_bytes",
                &[],
                "Bytes that tailscaled wrote and that were not sent yet: a relay that is too slow lets them grow.",
            ),
            samples: |view, samples| tailscaled(view, samples, |sum| sum.unsent_bytes.map(Value::Whole)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_tcp_delivery_bytes_per_second",
                &[],
                "Rate of delivery when it was last measured.",
            ),
            samples: |view, samples| tailscaled(view, samples, |sum| sum.delivery_rate.map(Value::Whole)),
        },
    ],
};

/// A value of either kind.
enum Value {
    Whole(u64),
    Seconds(f64),
}

fn by_peer(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Connections) -> Option<Value>) {
    for (peer, sum) in view.model.host.tcp.iter().flat_map(|sockets| &sockets.peers) {
        // A peer that found no slot has no name in other series either.
        let labels = view.model.slots.slot_of(&peer.id).and_then(|slot| view.labels.get(slot));
        if let Some((labels, value)) = labels.zip(value(sum)) {
            end(samples.sample().rendered(&labels.id), &value);
        }
    }
}

fn tailscaled(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Connections) -> Option<Value>) {
    let sum = view.model.host.tcp.as_ref().and_then(|sockets| sockets.tailscaled.as_ref());
    if let Some(value) = sum.and_then(value) {
        end(samples.sample(), &value);
    }
}

fn end(line: Line<'_>, value: &Value) {
    match value {
        Value::Whole(value) => line.integer(*value),
        Value::Seconds(value) => line.float(*value),
    }
}
