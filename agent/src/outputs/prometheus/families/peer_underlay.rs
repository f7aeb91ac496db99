//! UDP between tailscaled and each peer, by path.

use tailgauge_ebpf::layout::{PathCounters, RECEIVE, TRANSMIT, UDP_PATHS, UNATTRIBUTED};

use super::{Family, Section, View};
use crate::outputs::prometheus::family::Header;
use crate::outputs::prometheus::text::Samples;

/// Label by path index (`layout::PATH_*`).
const PATH_LABELS: [&[u8]; UDP_PATHS] = [
    b"path=\"direct_ipv4\"",
    b"path=\"direct_ipv6\"",
    b"path=\"peer_relay_ipv4\"",
    b"path=\"peer_relay_ipv6\"",
];

pub(super) const SECTION: Section = Section {
    title: "Underlay of peers",
    about: "UDP packets between tailscaled and each peer on the interfaces under the tunnel: WireGuard and disco, told \
            apart by where they come from or go to (the address that tailscaled uses, those of the network map, the \
            disco key). `path` is one of direct_ipv4, direct_ipv6, peer_relay_ipv4, peer_relay_ipv6; a path has its \
            series once it carried anything either way. What goes by DERP is inside TLS and in none of them. While \
            tailscaled does not trust an address it sends there and by DERP, so for seconds more may be sent than the \
            peer needs. What the tunnel costs, underlay to tunnel per peer, 1 is nothing: \
            `sum by (instance, peer_id) (rate(tailgauge_peer_underlay_transmit_bytes_total[1m])) / \
            sum by (instance, peer_id) (rate(tailgauge_peer_transmit_bytes_total[1m]))`; below 1 something went by \
            DERP or was dropped before it was sent.",
    families: &[
        Family {
            header: Header::counter(
                "tailgauge_peer_underlay_receive_bytes_total",
                &["peer_id", "path"],
                "Bytes of UDP packets from the peer, IP header included, as they were sent one by one.",
            ),
            samples: |view, samples| by_path(view, samples, RECEIVE, |path| path.bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_underlay_transmit_bytes_total",
                &["peer_id", "path"],
                "Bytes of UDP packets to the peer, IP header included, as they are sent one by one.",
            ),
            samples: |view, samples| by_path(view, samples, TRANSMIT, |path| path.bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_underlay_receive_packets_total",
                &["peer_id", "path"],
                "UDP packets from the peer, as they were sent one by one.",
            ),
            samples: |view, samples| by_path(view, samples, RECEIVE, PathCounters::packets),
        },
        Family {
            header: Header::counter(
                "tailgauge_peer_underlay_transmit_packets_total",
                &["peer_id", "path"],
                "UDP packets to the peer, as they are sent one by one.",
            ),
            samples: |view, samples| by_path(view, samples, TRANSMIT, PathCounters::packets),
        },
        Family {
            header: Header::counter(
                "tailgauge_unattributed_underlay_receive_bytes_total",
                &[],
                "Bytes of UDP packets for tailscaled from an endpoint of no known peer: STUN, peers that look for a \
                 path, a peer relay's clients, strangers.",
            ),
            samples: |view, samples| unattributed(view, samples, RECEIVE, |path| path.bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_unattributed_underlay_transmit_bytes_total",
                &[],
                "Bytes of UDP packets from tailscaled to an endpoint of no known peer.",
            ),
            samples: |view, samples| unattributed(view, samples, TRANSMIT, |path| path.bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_unattributed_underlay_receive_packets_total",
                &[],
                "UDP packets for tailscaled from an endpoint of no known peer.",
            ),
            samples: |view, samples| unattributed(view, samples, RECEIVE, PathCounters::packets),
        },
        Family {
            header: Header::counter(
                "tailgauge_unattributed_underlay_transmit_packets_total",
                &[],
                "UDP packets from tailscaled to an endpoint of no known peer.",
            ),
            samples: |view, samples| unattributed(view, samples, TRANSMIT, PathCounters::packets),
        },
    ],
};

fn by_path(view: &View<'_>, samples: &mut Samples<'_>, direction: u32, value: fn(&PathCounters) -> u64) {
    for (slot, _, labels) in view.peers() {
        let Some(lines) = view.model.kernel.peer_underlay.get(slot as usize) else { continue };
        for (path, label) in PATH_LABELS.into_iter().enumerate() {
            if lines.iter().any(|line| line.path[path].packets() > 0) {
                let counters = &lines[direction as usize].path[path];
                samples.sample().rendered(&labels.id).rendered(label).integer(value(counters));
            }
        }
    }
}

fn unattributed(view: &View<'_>, samples: &mut Samples<'_>, direction: u32, value: fn(&PathCounters) -> u64) {
    let lines = view.model.kernel.peer_underlay.get(UNATTRIBUTED as usize);
    samples.plain(lines.map(|lines| lines[direction as usize].path.iter().map(value).sum()));
}
