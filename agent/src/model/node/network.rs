//! Network devices and sockets.

use super::Recycled;

/// A device's counters (`struct rtnl_link_stats64`, include/uapi/linux/if_link.h).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetDevice {
    /// Name.
    pub name: String,
    /// In the kernel's order, which [`LinkCounter`] has the places of.
    pub counters: [u64; LinkCounter::COUNT],
}

impl NetDevice {
    /// The sum of some counters.
    #[must_use]
    pub fn sum(&self, places: &[LinkCounter]) -> u64 {
        places.iter().fold(0, |sum, place| sum.wrapping_add(self.counters[*place as usize]))
    }
}

impl Recycled for NetDevice {
    fn recycle(&mut self) {
        self.name.clear();
    }
}

/// Places in `struct rtnl_link_stats64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's names")]
pub enum LinkCounter {
    RxPackets,
    TxPackets,
    RxBytes,
    TxBytes,
    RxErrors,
    TxErrors,
    RxDropped,
    TxDropped,
    Multicast,
    Collisions,
    RxLengthErrors,
    RxOverErrors,
    RxCrcErrors,
    RxFrameErrors,
    RxFifoErrors,
    RxMissedErrors,
    TxAbortedErrors,
    TxCarrierErrors,
    TxFifoErrors,
    TxHeartbeatErrors,
    TxWindowErrors,
    RxCompressed,
    TxCompressed,
    RxNohandler,
}

impl LinkCounter {
    /// How many there are.
    pub const COUNT: usize = Self::RxNohandler as usize + 1;
}

/// A device's attributes below /sys/class/net (Documentation/ABI/testing/sysfs-class-net); `None` for those that the
/// device does not have or does not tell in its present state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's names")]
pub struct NetClass {
    pub name: String,
    pub address: String,
    pub broadcast: String,
    pub duplex: String,
    pub ifalias: String,
    pub operstate: String,
    pub addr_assign_type: Option<i64>,
    pub carrier: Option<i64>,
    pub carrier_changes: Option<i64>,
    pub carrier_down_count: Option<i64>,
    pub carrier_up_count: Option<i64>,
    pub dev_id: Option<i64>,
    pub dormant: Option<i64>,
    pub flags: Option<i64>,
    pub ifindex: Option<i64>,
    pub iflink: Option<i64>,
    pub link_mode: Option<i64>,
    pub mtu: Option<i64>,
    pub name_assign_type: Option<i64>,
    pub netdev_group: Option<i64>,
    /// Megabits per second; -1 when unknown.
    pub speed: Option<i64>,
    pub tx_queue_len: Option<i64>,
    /// ARPHRD_….
    pub r#type: Option<i64>,
}

impl Recycled for NetClass {
    fn recycle(&mut self) {
        let strings = [&mut self.name, &mut self.address, &mut self.broadcast, &mut self.duplex];
        let mut kept = strings.map(std::mem::take);
        let [mut ifalias, mut operstate] = [&mut self.ifalias, &mut self.operstate].map(std::mem::take);
        kept.iter_mut().chain([&mut ifalias, &mut operstate]).for_each(String::clear);
        let [name, address, broadcast, duplex] = kept;
        *self = Self { name, address, broadcast, duplex, ifalias, operstate, ..Self::default() };
    }
}

/// Collector `tcpstat`: sockets of this network namespace, IPv4 and IPv6 together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpStates {
    /// Sockets by the kernel's number of the state (include/net/tcp_states.h): place 1 is ESTABLISHED.
    pub sockets: [u64; 12],
    /// Bytes that wait; of a socket that listens, connections.
    pub queued: QueuedBytes,
}

/// What waits in sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuedBytes {
    /// For the program.
    pub receive: u64,
    /// For the network.
    pub transmit: u64,
}

/// Collector `udp_queues`: memory that datagrams take, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpQueues {
    /// Of IPv4 sockets; `None` when the kernel runs without.
    pub ipv4: Option<QueuedBytes>,
    /// Of IPv6 sockets; `None` when the kernel runs without.
    pub ipv6: Option<QueuedBytes>,
}
