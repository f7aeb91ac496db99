//! Network devices, how they are set, what their drivers say, and what queues before them.

use std::sync::Arc;

/// A network device (RTM_GETLINK, `struct rtnl_link_stats64`). A super-packet counts as one packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkDevice {
    /// Number of the device, never reused while the namespace lives.
    pub index: u32,
    /// Name; cleaned, and with `#index` behind it when two would be the same.
    pub name: String,
    /// Operational state (RFC 2863), such as `up`; devices without a carrier of their own say `unknown`.
    pub operational_state: &'static str,
    /// Whether an administrator has switched it on (`IFF_UP`).
    pub up: bool,
    /// Whether there is a carrier; `None` when the kernel does not say.
    pub carrier: Option<bool>,
    /// Times that the carrier came or went.
    pub carrier_changes: Option<u64>,
    /// Largest packet in bytes.
    pub mtu: Option<u64>,
    /// Largest super-packet that the device takes, in bytes.
    pub gso_max_bytes: Option<u64>,
    /// Most packets that wait to be sent (`txqueuelen`); 0 for devices without a queue.
    pub transmit_queue_length: Option<u64>,
    /// Megabits a second; `None` for devices without a speed.
    pub speed_megabits: Option<u64>,
    /// `full` or `half`; `None` for devices without.
    pub duplex: Option<&'static str>,
    /// Packets and bytes from the device.
    pub receive: DeviceTraffic,
    /// Packets and bytes to the device; on a TUN device, `dropped` are those that its ring had no room for.
    pub transmit: DeviceTraffic,
    /// Packets that the device had no room for (`rx_missed_errors`).
    pub receive_missed: u64,
    /// Packets of a protocol that nobody handles (`rx_nohandler`).
    pub receive_no_handler: u64,
}

/// Counters of one direction of a device, since it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceTraffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were damaged or could not be sent.
    pub errors: u64,
    /// Packets dropped for want of room.
    pub dropped: u64,
}

/// All devices of the network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkDevices {
    /// How many there are; more than `devices` holds when there are very many.
    pub count: u64,
    /// By number, the oldest first.
    pub devices: Vec<NetworkDevice>,
}

/// How a network device is set (ethtool netlink).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSettings {
    /// Device name; cleaned.
    pub device: String,
    /// Name of its driver, such as `virtio_net`; cleaned.
    pub driver: Option<String>,
    /// Features by the names that ethtool(8) prints, and whether they are on. What this kernel does not know is not
    /// in the list.
    pub offloads: Vec<(&'static str, bool)>,
    /// Descriptors of a receive ring.
    pub receive_ring: Sizes,
    /// Descriptors of a transmit ring.
    pub transmit_ring: Sizes,
    /// Queues that receive.
    pub receive_queues: Sizes,
    /// Queues that send.
    pub transmit_queues: Sizes,
    /// When it interrupts for packets that came.
    pub receive_coalescing: Coalescing,
    /// When it interrupts for packets that were sent.
    pub transmit_coalescing: Coalescing,
    /// Whether the device stops sending when the other end asks for it.
    pub receive_pause: Option<bool>,
    /// Whether the device asks the other end to stop sending.
    pub transmit_pause: Option<bool>,
}

/// How interrupts are put off so that one does for several packets; `None` for devices that cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coalescing {
    /// Microseconds from a packet to its interrupt.
    pub delay_microseconds: Option<u64>,
    /// Whether the driver chooses the delay by the traffic.
    pub adaptive: Option<bool>,
}

/// A size that can be set; `None` for devices without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Now.
    pub now: Option<u64>,
    /// The most that the device allows.
    pub most: Option<u64>,
}

/// What the driver of a network device says of loss and limits (`ethtool -S`), queues added up. Names are the driver's,
/// without the numbers of queues. Counters of a driver may go back: when a device is reset, or has fewer queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverStatistics {
    /// Device name; cleaned.
    pub device: String,
    /// Packets lost, and times that a limit was met. One loss may be in several of them.
    pub losses: Vec<(Arc<str>, u64)>,
    /// Packets that were held up or lost because the cloud allows no more, by what it allows.
    pub allowances_exceeded: Vec<(Arc<str>, u64)>,
    /// What is left of an allowance now.
    pub allowances_available: Vec<(Arc<str>, u64)>,
    /// How many such statistics the driver has, those that are left out because they are too many included.
    pub found: u64,
}

/// Root queueing discipline of a device (RTM_GETQDISC, `TCA_STATS2`), its children included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Qdisc {
    /// Device name; cleaned.
    pub device: String,
    /// Kind, such as `fq_codel`; cleaned.
    pub kind: String,
    /// Bytes sent.
    pub bytes: u64,
    /// Packets sent.
    pub packets: u64,
    /// Packets dropped; begins anew at 2^32, as the kernel's counter does.
    pub drops: u32,
    /// Packets put back because the device was busy; begins anew at 2^32.
    pub requeues: u32,
    /// Times that a limit held packets back; begins anew at 2^32.
    pub overlimits: u32,
    /// Bytes that wait now.
    pub backlog_bytes: u32,
    /// Packets that wait now.
    pub queue_packets: u32,
}
