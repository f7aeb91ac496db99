//! The tunnel device as a whole, and what no peer accounts for.

use tailgauge_ebpf::layout::{Line, RECEIVE, TRANSMIT, UNATTRIBUTED, Wire};

use super::{Family, Section, View};
use crate::outputs::prometheus::family::Header;
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "Tunnel",
    about: "Sums over all peers, those that left and unattributed traffic included. The coverage ratio is the proof \
            that nothing was missed: it is 1 as long as every packet that the interface counted was counted here.",
    families: &[
        Family {
            header: Header::counter(
                "tailgauge_tunnel_receive_bytes_total",
                &["device"],
                "Layer 3 bytes from all peers, as they were sent one by one.",
            ),
            samples: |view, samples| total(view, samples, RECEIVE, |line| sum(line, |wire| wire.bytes)),
        },
        Family {
            header: Header::counter(
                "tailgauge_tunnel_transmit_bytes_total",
                &["device"],
                "Layer 3 bytes to all peers, as they were sent one by one.",
            ),
            samples: |view, samples| total(view, samples, TRANSMIT, |line| sum(line, |wire| wire.bytes)),
        },
        Family {
            header: Header::counter(
                "tailgauge_tunnel_receive_packets_total",
                &["device"],
                "Packets from all peers, as they were sent one by one.",
            ),
            samples: |view, samples| total(view, samples, RECEIVE, |line| sum(line, |wire| wire.packets)),
        },
        Family {
            header: Header::counter(
                "tailgauge_tunnel_transmit_packets_total",
                &["device"],
                "Packets to all peers, as they were sent one by one.",
            ),
            samples: |view, samples| total(view, samples, TRANSMIT, |line| sum(line, |wire| wire.packets)),
        },
        Family {
            header: Header::counter(
                "tailgauge_tunnel_receive_skbs_total",
                &["device"],
                "Packets from all peers as the interface counts them: a super-packet is one.",
            ),
            samples: |view, samples| total(view, samples, RECEIVE, |line| line.skbs),
        },
        Family {
            header: Header::counter(
                "tailgauge_tunnel_transmit_skbs_total",
                &["device"],
                "Packets to all peers as the interface counts them: a super-packet is one. Packets that the queue \
                 towards tailscaled refused are included.",
            ),
            samples: |view, samples| total(view, samples, TRANSMIT, |line| line.skbs),
        },
        Family {
            header: Header::counter(
                "tailgauge_tunnel_receive_skb_bytes_total",
                &["device"],
                "Bytes from all peers as the interface counts them: a super-packet has its headers once.",
            ),
            samples: |view, samples| total(view, samples, RECEIVE, |line| line.skb_bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_tunnel_transmit_skb_bytes_total",
                &["device"],
                "Bytes to all peers as the interface counts them: a super-packet has its headers once. Packets that \
                 the queue towards tailscaled refused are included.",
            ),
            samples: |view, samples| total(view, samples, TRANSMIT, |line| line.skb_bytes),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tunnel_coverage_ratio",
                &["device", "direction"],
                "Packets counted here to packets counted by the interface since the hooks were attached (transmit: \
                 sent and dropped); absent before the first packet. Directions: receive, transmit.",
            ),
            samples: |view, samples| {
                let Some(coverage) = &view.model.kernel.coverage else { return };
                for (index, direction) in ["receive", "transmit"].into_iter().enumerate() {
                    if let Some(ratio) = coverage.ratio(index) {
                        let line = samples.sample().rendered(view.labels.device());
                        line.label("direction", direction).float(ratio);
                    }
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_unattributed_receive_bytes_total",
                &[],
                "Layer 3 bytes that came in by the tunnel from an address of no known peer.",
            ),
            samples: |view, samples| unattributed(view, samples, RECEIVE, |wire| wire.bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_unattributed_transmit_bytes_total",
                &[],
                "Layer 3 bytes that went out by the tunnel to an address of no known peer.",
            ),
            samples: |view, samples| unattributed(view, samples, TRANSMIT, |wire| wire.bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_unattributed_receive_packets_total",
                &[],
                "Packets that came in by the tunnel from an address of no known peer.",
            ),
            samples: |view, samples| unattributed(view, samples, RECEIVE, |wire| wire.packets),
        },
        Family {
            header: Header::counter(
                "tailgauge_unattributed_transmit_packets_total",
                &[],
                "Packets that went out by the tunnel to an address of no known peer.",
            ),
            samples: |view, samples| unattributed(view, samples, TRANSMIT, |wire| wire.packets),
        },
        Family {
            header: Header::counter(
                "tailgauge_malformed_packets_total",
                &[],
                "Packets too short for what their headers promise, or neither IPv4 nor IPv6. They are counted in \
                 the totals.",
            ),
            samples: |view, samples| samples.plain(Some(view.model.kernel.health.malformed)),
        },
        Family {
            header: Header::counter(
                "tailgauge_fragment_packets_total",
                &[],
                "Fragments other than the first: counted in the totals, their ports unknown.",
            ),
            samples: |view, samples| samples.plain(Some(view.model.kernel.health.fragments)),
        },
    ],
};

/// All slots and those that were given back, so that the sum never falls.
fn total(view: &View<'_>, samples: &mut Samples<'_>, direction: u32, value: fn(&Line) -> u64) {
    let kernel = &view.model.kernel;
    let total: u64 = kernel
        .slots
        .iter()
        .chain([&kernel.retired])
        .map(|counters| value(&counters.direction[direction as usize]))
        .sum();
    samples.sample().rendered(view.labels.device()).integer(total);
}

fn unattributed(view: &View<'_>, samples: &mut Samples<'_>, direction: u32, value: fn(&Wire) -> u64) {
    samples.plain(Some(sum(&view.line(UNATTRIBUTED, direction), value)));
}

fn sum(line: &Line, value: fn(&Wire) -> u64) -> u64 {
    line.wire.iter().map(value).sum()
}
