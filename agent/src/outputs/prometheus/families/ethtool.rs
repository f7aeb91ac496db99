//! How network devices are set, and what their drivers say.

use std::sync::Arc;

use super::{Family, Section, View};
use crate::model::host::{Coalescing, DeviceSettings, DriverStatistics};
use crate::outputs::prometheus::family::{Header, Kind};
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "Settings and drivers of network devices",
    about: "Of up to 16 devices that are up: the tunnel, hardware, then others, the oldest first. Settings are read every \
            10 seconds, statistics of drivers at each scrape, or more seldom where that takes long. They go back when a \
            device is reset or gets fewer queues. What a device or this kernel does not have is absent.",
    families: &[
        Family {
            header: Header {
                name: "tailgauge_host_network_driver_info",
                kind: Kind::Info,
                labels: &["device", "driver"],
                help: "Driver of the device, such as virtio_net in a virtual machine.",
            },
            samples: |view, samples| {
                for device in settings(view) {
                    if let Some(driver) = &device.driver {
                        samples.sample().label("device", &device.device).label("driver", driver).integer(1);
                    }
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_offload_enabled",
                &["device", "feature"],
                "1 if the feature is on, by the names that ethtool -k prints and ethtool -K takes. An exit node wants \
                 rx-udp-gro-forwarding on and rx-gro-list off on its uplink.",
            ),
            samples: |view, samples| {
                for device in settings(view) {
                    for (feature, on) in &device.offloads {
                        samples.sample().label("device", &device.device).label("feature", feature).flag(*on);
                    }
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_receive_ring_descriptors",
                &["device"],
                "Packets that a receive queue of the device has room for.",
            ),
            samples: |view, samples| setting(view, samples, |device| device.receive_ring.now),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_receive_ring_descriptors_limit",
                &["device"],
                "The most that ethtool -G could set.",
            ),
            samples: |view, samples| setting(view, samples, |device| device.receive_ring.most),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_transmit_ring_descriptors",
                &["device"],
                "Packets that a transmit queue of the device has room for.",
            ),
            samples: |view, samples| setting(view, samples, |device| device.transmit_ring.now),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_transmit_ring_descriptors_limit",
                &["device"],
                "The most that ethtool -G could set.",
            ),
            samples: |view, samples| setting(view, samples, |device| device.transmit_ring.most),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_receive_queues",
                &["device"],
                "Queues that receive, each served by one CPU at a time.",
            ),
            samples: |view, samples| setting(view, samples, |device| device.receive_queues.now),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_receive_queues_limit",
                &["device"],
                "The most that ethtool -L could set.",
            ),
            samples: |view, samples| setting(view, samples, |device| device.receive_queues.most),
        },
        Family {
            header: Header::gauge("tailgauge_host_network_transmit_queues", &["device"], "Queues that send."),
            samples: |view, samples| setting(view, samples, |device| device.transmit_queues.now),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_transmit_queues_limit",
                &["device"],
                "The most that ethtool -L could set.",
            ),
            samples: |view, samples| setting(view, samples, |device| device.transmit_queues.most),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_receive_interrupt_delay_seconds",
                &["device"],
                "Time that the device waits for further packets before it interrupts a CPU for one (ethtool -C rx-usecs).",
            ),
            samples: |view, samples| delay(view, samples, |device| device.receive_coalescing),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_receive_interrupt_adaptive_enabled",
                &["device"],
                "1 if the driver chooses that time by the traffic.",
            ),
            samples: |view, samples| {
                setting(view, samples, |device| device.receive_coalescing.adaptive.map(u64::from));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_transmit_interrupt_delay_seconds",
                &["device"],
                "Time that the device waits before it interrupts a CPU to say that a packet was sent (ethtool -C tx-usecs).",
            ),
            samples: |view, samples| delay(view, samples, |device| device.transmit_coalescing),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_transmit_interrupt_adaptive_enabled",
                &["device"],
                "1 if the driver chooses that time by the traffic.",
            ),
            samples: |view, samples| {
                setting(view, samples, |device| device.transmit_coalescing.adaptive.map(u64::from));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_receive_pause_enabled",
                &["device"],
                "1 if the device stops sending when the other end asks for it (Ethernet flow control).",
            ),
            samples: |view, samples| setting(view, samples, |device| device.receive_pause.map(u64::from)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_transmit_pause_enabled",
                &["device"],
                "1 if the device asks the other end to stop sending (Ethernet flow control).",
            ),
            samples: |view, samples| setting(view, samples, |device| device.transmit_pause.map(u64::from)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_allowance_exceeded_packets_total",
                &["device", "allowance"],
                "Packets that were held up or lost because the cloud allows this machine no more: bw_in, bw_out (bytes), \
                 pps (packets), conntrack (connections), linklocal (services of the cloud).",
            ),
            samples: |view, samples| driver(view, samples, "allowance", |driver| &driver.allowances_exceeded),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_allowance_available",
                &["device", "allowance"],
                "What is left of an allowance of the cloud; conntrack: connections.",
            ),
            samples: |view, samples| {
                driver(view, samples, "allowance", |driver| &driver.allowances_available);
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_host_network_driver_losses_total",
                &["device", "statistic"],
                "Packets lost and limits met, as the driver counts and names them (ethtool -S), queues added up. Do not \
                 add statistics up: a driver may count one loss in several of them.",
            ),
            samples: |view, samples| driver(view, samples, "statistic", |driver| &driver.losses),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_network_driver_statistics",
                &["device"],
                "Statistics of loss and limits that the driver has; beyond 64 they have no series.",
            ),
            samples: |view, samples| {
                for driver in view.model.host.driver_statistics.iter().flatten() {
                    samples.sample().label("device", &driver.device).integer(driver.found);
                }
            },
        },
    ],
};

/// Statistics by name.
type Named = [(Arc<str>, u64)];

fn settings<'a>(view: &View<'a>) -> impl Iterator<Item = &'a DeviceSettings> {
    view.model.host.device_settings.iter().flat_map(|devices| devices.iter())
}

fn setting(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&DeviceSettings) -> Option<u64>) {
    for device in settings(view) {
        if let Some(value) = value(device) {
            samples.sample().label("device", &device.device).integer(value);
        }
    }
}

fn delay(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&DeviceSettings) -> Coalescing) {
    for device in settings(view) {
        if let Some(microseconds) = value(device).delay_microseconds {
            samples.sample().label("device", &device.device).decimal(microseconds, 6);
        }
    }
}

fn driver(view: &View<'_>, samples: &mut Samples<'_>, label: &str, list: fn(&DriverStatistics) -> &Named) {
    for driver in view.model.host.driver_statistics.iter().flatten() {
        for (name, value) in list(driver) {
            samples.sample().label("device", &driver.device).label(label, name).integer(*value);
        }
    }
}
