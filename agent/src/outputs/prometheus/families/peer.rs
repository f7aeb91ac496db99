//! Traffic and state of every peer.

use std::time::{SystemTime, UNIX_EPOCH};

use tailgauge_ebpf::layout::{CLASSES, RECEIVE, TRANSMIT, Wire};

use super::{Family, Section, View};
use crate::model::slots::Slot;
use crate::model::tailnet::{Path, WireGuardState};
use crate::outputs::prometheus::family::{Header, Kind};
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "Peers",
    about: "One set per peer of the tailnet, keyed by `peer_id` (the StableNodeID, which survives renaming and key \
            rotation). Receive is from the peer to this host, transmit is to the peer. `class` says where a packet \
            goes besides the peer: `local` (this host), `subnet` (a route this node advertises) or `exit` (anywhere \
            else). Names join through the info metric: `rate(tailgauge_peer_receive_bytes_total[1m]) * \
            on(instance, peer_id) group_left(peer_name) tailgauge_peer_info`. A peer that leaves the tailnet stays \
            for a grace period, offline and idle, then its series end.",
    families: &[
        Family {
            header: Header {
                name: "tailgauge_peer_info",
                kind: Kind::Info,
                labels: &[
                    "peer_id",
                    "peer_name",
                    "ip",
                    "ipv6",
                    "os",
                    "user",
                    "tags",
                    "node_key",
                    "home_derp",
                ],
                help: "Who the peer is: first label of its DNS name, Tailscale addresses, operating system, login \
                       name of the owner, ACL tags joined by commas, node key, and its home DERP region, which says \
                       nothing about its path.",
            },
            samples: |view, samples| {
                for (_, _, labels) in view.peers() {
                    samples.sample().rendered(&labels.info).integer(1);
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_receive_bytes_total",
                &["peer_id", "class"],
                "Layer 3 bytes from the peer, as they were sent one by one (super-packets taken apart).",
            ),
            samples: |view, samples| by_class(view, samples, RECEIVE, |wire| wire.bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_transmit_bytes_total",
                &["peer_id", "class"],
                "Layer 3 bytes to the peer, as they were sent one by one (super-packets taken apart).",
            ),
            samples: |view, samples| by_class(view, samples, TRANSMIT, |wire| wire.bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_receive_packets_total",
                &["peer_id", "class"],
                "Packets from the peer, as they were sent one by one (super-packets taken apart).",
            ),
            samples: |view, samples| by_class(view, samples, RECEIVE, |wire| wire.packets),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_transmit_packets_total",
                &["peer_id", "class"],
                "Packets to the peer, as they were sent one by one (super-packets taken apart).",
            ),
            samples: |view, samples| by_class(view, samples, TRANSMIT, |wire| wire.packets),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_receive_skbs_total",
                &["peer_id"],
                "Packets from the peer as the interface counts them: a super-packet is one. Packets per skb near 1 \
                 under load mean that offload is lost.",
            ),
            samples: |view, samples| skbs(view, samples, RECEIVE),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_transmit_skbs_total",
                &["peer_id"],
                "Packets to the peer as the interface counts them: a super-packet is one.",
            ),
            samples: |view, samples| skbs(view, samples, TRANSMIT),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_online",
                &["peer_id"],
                "1 while the peer is connected to the control plane.",
            ),
            samples: |view, samples| {
                for (_, slot, labels) in view.peers() {
                    let online = slot.peer.online && slot.gone_since.is_none();
                    samples.sample().rendered(&labels.id).flag(online);
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_path",
                &["peer_id", "path"],
                "1 for the path by which the peer is reached now, 0 for the others: direct_ipv4, direct_ipv6, derp, \
                 peer_relay_ipv4, peer_relay_ipv6, or idle while tailscaled keeps none. As tailscaled says, corrected at \
                 once by what the underlay shows. The last known one while neither says any.",
            ),
            samples: |view, samples| {
                for (_, slot, labels) in view.peers() {
                    let current = if slot.gone_since.is_none() { slot.paths.current() } else { Path::Idle };
                    for path in Path::ALL {
                        let line = samples.sample().rendered(&labels.id).label("path", path.as_str());
                        line.flag(path == current);
                    }
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_path_seconds_total",
                &["peer_id", "path"],
                "Time for which the peer was reached by each path that it had so far. Stands still while tailscaled \
                 is away or starts and no data shows the path, and while the peer is not in the tailnet: what is unknown \
                 is not counted.",
            ),
            samples: |view, samples| {
                for (_, slot, labels) in view.peers() {
                    for path in Path::ALL {
                        if let Some(spent) = slot.paths.spent(path, view.now) {
                            let line = samples.sample().rendered(&labels.id).label("path", path.as_str());
                            line.decimal(spent.as_millis() as u64, 3);
                        }
                    }
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_path_changes_total",
                &["peer_id"],
                "Times that the peer was reached by another path than before; idle in between is no change.",
            ),
            samples: |view, samples| {
                for (_, slot, labels) in view.peers() {
                    samples.sample().rendered(&labels.id).integer(slot.paths.changes());
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_last_handshake_timestamp_seconds",
                &["peer_id"],
                "Unix time of the last completed WireGuard handshake; absent before the first one.",
            ),
            samples: |view, samples| moments(view, samples, |slot| slot.peer.last_handshake),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_wireguard_session",
                &["peer_id", "state"],
                "1 for the state that the WireGuard session with the peer is in, 0 for the others: none, handshake, \
                 established or expired. As tailscaled 1.102 and later tell; absent for peers of which it has told \
                 nothing.",
            ),
            samples: |view, samples| {
                for (_, slot, labels) in view.peers() {
                    let Some(session) = slot.session() else { continue };
                    for state in WireGuardState::ALL {
                        let line = samples.sample().rendered(&labels.id).label("state", state.as_str());
                        line.flag(state == session.state);
                    }
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_wireguard_session_change_timestamp_seconds",
                &["peer_id"],
                "Unix time at which the WireGuard session with the peer came into its state.",
            ),
            samples: |view, samples| moments(view, samples, |slot| slot.session()?.since),
        },
    ],
};

/// Label by class index (`layout::CLASS_LOCAL`, `CLASS_SUBNET`, `CLASS_EXIT`).
const CLASS_LABELS: [&[u8]; CLASSES] = [b"class=\"local\"", b"class=\"subnet\"", b"class=\"exit\""];

fn by_class(view: &View<'_>, samples: &mut Samples<'_>, direction: u32, value: fn(&Wire) -> u64) {
    for (slot, _, labels) in view.peers() {
        for (wire, class) in view.line(slot, direction).wire.iter().zip(CLASS_LABELS) {
            samples.sample().rendered(&labels.id).rendered(class).integer(value(wire));
        }
    }
}

fn moments(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Slot) -> Option<SystemTime>) {
    for (_, slot, labels) in view.peers() {
        if let Some(since_epoch) = value(slot).and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
            samples.sample().rendered(&labels.id).decimal(since_epoch.as_millis() as u64, 3);
        }
    }
}

fn skbs(view: &View<'_>, samples: &mut Samples<'_>, direction: u32) {
    for (slot, _, labels) in view.peers() {
        samples.sample().rendered(&labels.id).integer(view.line(slot, direction).skbs);
    }
}
