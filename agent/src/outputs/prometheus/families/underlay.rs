//! What the interfaces under the tunnel carry.

use tailgauge_ebpf::layout::{Carried, KIND_FORWARDED, KIND_TAILSCALED, RECEIVE, TRANSMIT};

use super::{Family, Section, View};
use crate::outputs::prometheus::family::Header;
use crate::outputs::prometheus::text::Samples;

const LABELS: &[&str] = &["device", "kind"];

pub(super) const SECTION: Section = Section {
    title: "Underlay",
    about: "What the interfaces under the tunnel carry for Tailscale; all their other traffic is left out. \
            Kind `tailscaled`: on transmit everything that tailscaled sends (WireGuard, disco, STUN, DERP, control), \
            by its mark; on receive the UDP datagrams for its ports at this host, fragments after the first left out, \
            as they carry no port. Kind `forwarded`, on transmit only: packets from the tunnel that go on to the \
            internet or to a subnet, by their mark; tailscaled sets it unless its firewall rules are switched off. \
            Bytes are those of layer 3, as they are of the tunnel, so the two compare: what came out of the tunnel \
            for others is `sum(rate(tailgauge_peer_receive_bytes_total{class!=\"local\"}[1m]))`, what left the machine \
            `sum(rate(tailgauge_underlay_transmit_bytes_total{kind=\"forwarded\"}[1m]))`; what is missing was dropped \
            in between (firewall, conntrack, no route). What went into the tunnel is \
            `sum(rate(tailgauge_tunnel_transmit_bytes_total[1m]))`, what tailscaled made of it \
            `sum(rate(tailgauge_underlay_transmit_bytes_total{kind=\"tailscaled\"}[1m]))`: more by 60 bytes a packet over \
            IPv4 and 80 over IPv6 and by padding, less by what its queues dropped. On transmit, counts are of what enters \
            the queueing discipline of the interface. An interface that is no longer used keeps its series.",
    families: &[
        Family {
            header: Header::counter(
                "tailgauge_underlay_receive_bytes_total",
                LABELS,
                "Layer 3 bytes that arrived for tailscaled, as they were sent one by one.",
            ),
            samples: |view, samples| receive(view, samples, |carried| carried.wire.bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_underlay_transmit_bytes_total",
                LABELS,
                "Layer 3 bytes that left, as they are sent one by one.",
            ),
            samples: |view, samples| transmit(view, samples, |carried| carried.wire.bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_underlay_receive_packets_total",
                LABELS,
                "Packets that arrived for tailscaled, as they were sent one by one.",
            ),
            samples: |view, samples| receive(view, samples, |carried| carried.wire.packets),
        },
        Family {
            header: Header::counter(
                "tailgauge_underlay_transmit_packets_total",
                LABELS,
                "Packets that left, as they are sent one by one.",
            ),
            samples: |view, samples| transmit(view, samples, |carried| carried.wire.packets),
        },
        Family {
            header: Header::counter(
                "tailgauge_underlay_receive_skbs_total",
                LABELS,
                "Packets that arrived for tailscaled as the interface counts them: a super-packet is one.",
            ),
            samples: |view, samples| receive(view, samples, |carried| carried.skbs),
        },
        Family {
            header: Header::counter(
                "tailgauge_underlay_transmit_skbs_total",
                LABELS,
                "Packets that left as the interface counts them: a super-packet is one.",
            ),
            samples: |view, samples| transmit(view, samples, |carried| carried.skbs),
        },
        Family {
            header: Header::counter(
                "tailgauge_underlay_receive_skb_bytes_total",
                LABELS,
                "Bytes that arrived for tailscaled as the interface counts them: with the header of layer 2, a \
                 super-packet has its headers once.",
            ),
            samples: |view, samples| receive(view, samples, |carried| carried.skb_bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_underlay_transmit_skb_bytes_total",
                LABELS,
                "Bytes that left as the interface counts them: with the header of layer 2, a super-packet has its \
                 headers once.",
            ),
            samples: |view, samples| transmit(view, samples, |carried| carried.skb_bytes),
        },
    ],
};

fn receive(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Carried) -> u64) {
    for counters in &view.model.kernel.underlay {
        let line = samples.sample().label("device", &counters.device).label("kind", "tailscaled");
        line.integer(value(&counters.direction[RECEIVE as usize].kind[KIND_TAILSCALED]));
    }
}

fn transmit(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Carried) -> u64) {
    for counters in &view.model.kernel.underlay {
        for (kind, name) in [(KIND_TAILSCALED, "tailscaled"), (KIND_FORWARDED, "forwarded")] {
            let line = samples.sample().label("device", &counters.device).label("kind", name);
            line.integer(value(&counters.direction[TRANSMIT as usize].kind[kind]));
        }
    }
}
