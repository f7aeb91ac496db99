//! Network devices and what queues before them.

use super::{Family, Section, View};
use crate::model::host::{NetworkDevice, Qdisc};
use crate::outputs::prometheus::family::Header;
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "Network devices of the host",
    about: "As the kernel counts them: a super-packet is one packet. Of the network namespace that the agent runs in; \
            with more than 128 devices, the oldest 128. A device that is gone has no series; made anew, as tailscale0 \
            is when tailscaled restarts, its counters begin at 0.",
    families: &[
        Family {
            header: Header::gauge(
                "tailgauge_host_network_devices",
                &[],
                "Network devices, those without series of their own included.",
            ),
            samples: |view, samples| samples.plain(view.model.host.devices.as_ref().map(|found| found.count)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_receive_bytes_total",
                &["device"],
                "Bytes received.",
            ),
            samples: |view, samples| device(view, samples, |device| Some(device.receive.bytes)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_receive_packets_total",
                &["device"],
                "Packets received.",
            ),
            samples: |view, samples| device(view, samples, |device| Some(device.receive.packets)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_receive_errors_total",
                &["device"],
                "Packets received that were damaged.",
            ),
            samples: |view, samples| device(view, samples, |device| Some(device.receive.errors)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_receive_drops_total",
                &["device"],
                "Packets received and dropped for want of room or of anybody who wants them.",
            ),
            samples: |view, samples| device(view, samples, |device| Some(device.receive.dropped)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_transmit_bytes_total",
                &["device"],
                "Bytes sent.",
            ),
            samples: |view, samples| device(view, samples, |device| Some(device.transmit.bytes)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_transmit_packets_total",
                &["device"],
                "Packets sent.",
            ),
            samples: |view, samples| device(view, samples, |device| Some(device.transmit.packets)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_transmit_errors_total",
                &["device"],
                "Packets that could not be sent.",
            ),
            samples: |view, samples| device(view, samples, |device| Some(device.transmit.errors)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_transmit_drops_total",
                &["device"],
                "Packets dropped on their way out; on tailscale0, those that the ring to tailscaled had no room for.",
            ),
            samples: |view, samples| device(view, samples, |device| Some(device.transmit.dropped)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_receive_missed_total",
                &["device"],
                "Packets that the device itself had no room for.",
            ),
            samples: |view, samples| device(view, samples, |device| Some(device.receive_missed)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_receive_no_handler_total",
                &["device"],
                "Packets received of a protocol that nobody handles.",
            ),
            samples: |view, samples| device(view, samples, |device| Some(device.receive_no_handler)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_carrier_changes_total",
                &["device"],
                "Times that the carrier came or went.",
            ),
            samples: |view, samples| device(view, samples, |device| device.carrier_changes),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_up",
                &["device"],
                "1 if the device is switched on and can pass packets.",
            ),
            samples: |view, samples| device(view, samples, |device| Some(works(device).into())),
        },
        Family {
            header: Header::gauge("tailgauge_host_network_mtu_bytes", &["device"], "Largest packet."),
            samples: |view, samples| device(view, samples, |device| device.mtu),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_gso_max_bytes",
                &["device"],
                "Largest super-packet that the device takes.",
            ),
            samples: |view, samples| device(view, samples, |device| device.gso_max_bytes),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_transmit_queue_packets",
                &["device"],
                "Most packets that may wait to be sent (txqueuelen); on tailscale0, the size of the ring to tailscaled.",
            ),
            samples: |view, samples| device(view, samples, |device| device.transmit_queue_length),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_speed_bytes",
                &["device"],
                "Bytes a second that the link can carry; absent for devices without a speed.",
            ),
            samples: |view, samples| {
                device(view, samples, |device| device.speed_megabits.map(|megabits| megabits * 125_000));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_full_duplex",
                &["device"],
                "1 if the link sends and receives at once; absent for devices that do not say.",
            ),
            samples: |view, samples| {
                device(view, samples, |device| device.duplex.map(|duplex| u64::from(duplex == "full")));
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_interrupts_total",
                &["device", "cpu"],
                "Interrupts of the device on each CPU, of all its queues: a device that interrupts one CPU only has its \
                 packets handled by that one. Devices without hardware have none; with more than 16 others, the first \
                 16 by name.",
            ),
            samples: |view, samples| {
                for row in view.model.host.interrupts.iter().flatten() {
                    for (cpu, count) in &row.by_cpu {
                        let line = samples.sample().label("device", &row.device);
                        line.number_label("cpu", *cpu).integer(*count);
                    }
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_interrupt_lines",
                &["device"],
                "Interrupts that the device has, one a queue with most drivers.",
            ),
            samples: |view, samples| {
                for row in view.model.host.interrupts.iter().flatten() {
                    samples.sample().label("device", &row.device).integer(row.lines);
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_host_qdisc_bytes_total",
                &["device", "kind"],
                "Bytes sent through the root queueing discipline of the device.",
            ),
            samples: |view, samples| qdisc(view, samples, |qdisc| qdisc.bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_qdisc_packets_total",
                &["device", "kind"],
                "Packets sent through the root queueing discipline of the device.",
            ),
            samples: |view, samples| qdisc(view, samples, |qdisc| qdisc.packets),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_qdisc_drops_total",
                &["device", "kind"],
                "Packets that the queueing discipline dropped.",
            ),
            samples: |view, samples| qdisc(view, samples, |qdisc| qdisc.drops.into()),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_qdisc_requeues_total",
                &["device", "kind"],
                "Packets put back because the device was busy.",
            ),
            samples: |view, samples| qdisc(view, samples, |qdisc| qdisc.requeues.into()),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_qdisc_overlimits_total",
                &["device", "kind"],
                "Times that a limit of the queueing discipline held packets back.",
            ),
            samples: |view, samples| qdisc(view, samples, |qdisc| qdisc.overlimits.into()),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_qdisc_backlog_bytes",
                &["device", "kind"],
                "Bytes that wait now.",
            ),
            samples: |view, samples| qdisc(view, samples, |qdisc| qdisc.backlog_bytes.into()),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_qdisc_queue_packets",
                &["device", "kind"],
                "Packets that wait now.",
            ),
            samples: |view, samples| qdisc(view, samples, |qdisc| qdisc.queue_packets.into()),
        },
    ],
};

fn device(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&NetworkDevice) -> Option<u64>) {
    let Some(found) = &view.model.host.devices else { return };
    for device in &found.devices {
        if let Some(value) = value(device) {
            samples.sample().label("device", &device.name).integer(value);
        }
    }
}

/// Devices without a carrier of their own, such as TUN ones, have an unknown state.
fn works(device: &NetworkDevice) -> bool {
    device.up && matches!(device.operational_state, "up" | "unknown")
}

fn qdisc(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Qdisc) -> u64) {
    for qdisc in view.model.host.qdiscs.iter().flatten() {
        samples.sample().label("device", &qdisc.device).label("kind", &qdisc.kind).integer(value(qdisc));
    }
}
