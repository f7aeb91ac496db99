//! Collector `netclass`.

use super::family::{Family, Values};
use crate::model::node::NodeCollector::{self, Netclass};
use crate::outputs::prometheus::{Header, Kind};

const COUNTER: (NodeCollector, Kind) = (Netclass, Kind::Counter);
const GAUGE: (NodeCollector, Kind) = (Netclass, Kind::Gauge);
const DEVICE: &[&str] = &["device"];
/// `IFF_UP`.
const UP: i64 = libc::IFF_UP as i64;

pub(super) const FAMILIES: &[Family] = &[
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_up",
        "1 if a device's operational state is up.",
        Values::Attribute(|device| Some(i64::from(device.operstate == "up"))),
    ),
    Family::new(
        Netclass,
        Header::gauge(
            "node_network_info",
            &["device", "address", "broadcast", "duplex", "operstate", "adminstate", "ifalias"],
            "Always 1; addresses, states and the other name of a device.",
        ),
        Values::Samples(|node, samples| {
            for device in node.netclass.iter() {
                let line = samples.sample().label("device", &device.name).label("address", &device.address);
                let line = line.label("broadcast", &device.broadcast).label("duplex", &device.duplex);
                let state =
                    device.flags.map_or("unknown", |flags| if flags & UP != 0 { "up" } else { "down" });
                let line = line.label("operstate", &device.operstate).label("adminstate", state);
                line.label("ifalias", &device.ifalias).integer(1);
            }
        }),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_address_assign_type",
        "How a device got its address (NET_ADDR_…).",
        Values::Attribute(|device| device.addr_assign_type),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_carrier",
        "1 if a device has a link.",
        Values::Attribute(|device| device.carrier),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_carrier_changes_total",
        "Times that the link came or went.",
        Values::Attribute(|device| device.carrier_changes),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_carrier_up_changes_total",
        "Times that the link came.",
        Values::Attribute(|device| device.carrier_up_count),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_carrier_down_changes_total",
        "Times that the link went.",
        Values::Attribute(|device| device.carrier_down_count),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_device_id",
        "Tells devices with the same address apart.",
        Values::Attribute(|device| device.dev_id),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_dormant",
        "1 if a device waits for something else, such as authentication.",
        Values::Attribute(|device| device.dormant),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_flags",
        "Flags of a device (IFF_…).",
        Values::Attribute(|device| device.flags),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_iface_id",
        "Number of a device.",
        Values::Attribute(|device| device.ifindex),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_iface_link",
        "Number of the device below.",
        Values::Attribute(|device| device.iflink),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_iface_link_mode",
        "1 if a device becomes dormant when it gets a link.",
        Values::Attribute(|device| device.link_mode),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_mtu_bytes",
        "Largest packet.",
        Values::Attribute(|device| device.mtu),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_name_assign_type",
        "How a device got its name (NET_NAME_…).",
        Values::Attribute(|device| device.name_assign_type),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_net_dev_group",
        "Group of a device.",
        Values::Attribute(|device| device.netdev_group),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_transmit_queue_length",
        "Packets that the transmit queue may hold.",
        Values::Attribute(|device| device.tx_queue_len),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_protocol_type",
        "Kind of hardware (ARPHRD_…).",
        Values::Attribute(|device| device.r#type),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_network_speed_bytes",
        "Bytes a second; negative if a device does not know.",
        Values::Attribute(|device| device.speed?.checked_mul(1_000_000 / 8)),
    ),
];
