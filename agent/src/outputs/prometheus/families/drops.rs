//! Dropped packets, by device and reason.

use tailgauge_ebpf::layout::{DROPPED_BY_RING, DROPPED_BY_SOCKET};

use super::window::peak;
use super::{Family, Section};
use crate::outputs::prometheus::buckets::DROPS;
use crate::outputs::prometheus::family::{Header, Kind};

pub(super) const SECTION: Section = Section {
    title: "Drops",
    about: "Packets that the kernel threw away in the network namespace of the agent, by the tracepoint kfree_skb. \
            Packets are counted as the interface counts them: a super-packet is one. Reasons are the kernel's own \
            (`enum skb_drop_reason`; `bpftrace -l`, or include/net/dropreason-core.h), a number where it gives none, \
            `other` for those of wireless and other subsystems. Many are healthy: a packet that no socket wants is \
            `NO_SOCKET`, one that a firewall refuses `NETFILTER_DROP`. Two matter to an exit node: \
            `FULL_RING` on tailscale0 (tailscaled reads too slowly; equal to the device's transmit drops) and \
            `SOCKET_RCVBUFF` (a socket's receive buffer is full; tailscaled's own have \
            `tailgauge_tailscaled_udp_drops_total`). Both are summed over windows of 10 ms too, which shows whether \
            they come in bursts. Device `unknown` has packets that belonged to none any more, `other` those of \
            devices without a row (more than 62, or gone).",
    families: &[
        Family {
            header: Header::counter(
                "tailgauge_drops_total",
                &["device", "reason"],
                "Packets dropped, a super-packet as one. Reasons that did not occur are absent, but for FULL_RING on \
                 the tunnel.",
            ),
            samples: |view, samples| {
                let names = &view.model.kernel.drop_reasons.names;
                for device in &view.model.kernel.drops {
                    for (reason, count) in &device.counts {
                        if let Some(Some(name)) = names.get(usize::from(*reason)) {
                            let line = samples.sample().label("device", &device.device);
                            line.label("reason", name).integer(*count);
                        }
                    }
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_drops_without_namespace_total",
                &[],
                "Packets dropped somewhere on this host that belonged to no device and no socket; they may be of \
                 another network namespace, and are not in tailgauge_drops_total.",
            ),
            samples: |view, samples| {
                if !view.model.kernel.drops.is_empty() {
                    samples.plain(Some(view.model.kernel.health.drops_without_namespace));
                }
            },
        },
        Family {
            header: Header {
                name: "tailgauge_drop_window_packets",
                kind: Kind::Histogram,
                labels: &["reason"],
                help: "Packets dropped per 10 ms window that saw any: by the ring of the tunnel (FULL_RING), and by \
                       receive buffers of sockets (SOCKET_RCVBUFF). A super-packet is one.",
            },
            samples: |view, samples| {
                let kernel = &view.model.kernel;
                if let Some(windows) = kernel.drop_windows.as_ref().filter(|_| !kernel.drops.is_empty()) {
                    for (reason, kind) in KINDS {
                        samples.histogram([reason, b""], &windows.direction[kind as usize].histogram, &DROPS);
                    }
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_drop_window_peak_15s_packets",
                &["reason"],
                "Packets dropped in the worst 10 ms window of the last 15 s (aligned seconds, not reset by reading).",
            ),
            samples: |view, samples| {
                let kernel = &view.model.kernel;
                if let Some(windows) = kernel.drop_windows.as_ref().filter(|_| !kernel.drops.is_empty()) {
                    for (reason, kind) in KINDS {
                        let peak = peak(&windows.direction[kind as usize], kernel.monotonic_second);
                        samples.sample().rendered(reason).integer(peak);
                    }
                }
            },
        },
    ],
};

/// The two reasons that have windows, rendered.
const KINDS: [(&[u8], u32); 2] =
    [(b"reason=\"FULL_RING\"", DROPPED_BY_RING), (b"reason=\"SOCKET_RCVBUFF\"", DROPPED_BY_SOCKET)];
