//! Network devices and what queues before them.

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
