//! The network stack: protocol counters and receive backlogs.

/// Protocol counters of the network namespace: /proc/net/snmp, netstat and snmp6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    /// IPv4.
    pub ipv4: Ip,
    /// IPv6; `None` when the kernel runs without it.
    pub ipv6: Option<Ip>,
    /// UDP over IPv4.
    pub udp: Udp,
    /// UDP over IPv6; `None` when the kernel runs without IPv6.
    pub udp6: Option<Udp>,
    /// TCP over both.
    pub tcp: Tcp,
}

/// IP and the ICMP beside it (RFC 4293 names). A super-packet counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ip {
    /// `InReceives`.
    pub in_receives: Option<u64>,
    /// `InHdrErrors`.
    pub in_header_errors: Option<u64>,
    /// `InAddrErrors`: for somebody else, while this host does not forward.
    pub in_address_errors: Option<u64>,
    /// `InNoRoutes` (IPv4: of `IpExt`): to be forwarded, and no route leads there.
    pub in_no_routes: Option<u64>,
    /// `IPReversePathFilter`: came by another way than an answer would leave by (`rp_filter`); IPv4 only.
    pub reverse_path_drops: Option<u64>,
    /// `InDiscards`.
    pub in_discards: Option<u64>,
    /// `ForwDatagrams` (IPv6: `OutForwDatagrams`).
    pub forwarded: Option<u64>,
    /// `OutRequests`.
    pub out_requests: Option<u64>,
    /// `OutDiscards`.
    pub out_discards: Option<u64>,
    /// `OutNoRoutes`.
    pub out_no_routes: Option<u64>,
    /// `ReasmFails`.
    pub reassembly_failures: Option<u64>,
    /// `FragFails`: too big and not to be fragmented, the sign of a path MTU problem.
    pub fragmentation_failures: Option<u64>,
    /// `FragCreates`.
    pub fragments_created: Option<u64>,
    /// ICMP `OutDestUnreachs`.
    pub icmp_out_destination_unreachable: Option<u64>,
    /// ICMPv6 `OutPktTooBigs`; IPv4 counts it among the unreachable ones.
    pub icmp_out_packet_too_big: Option<u64>,
}

/// UDP (RFC 4113 names and Linux' own).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Udp {
    /// `InDatagrams`.
    pub in_datagrams: Option<u64>,
    /// `OutDatagrams`.
    pub out_datagrams: Option<u64>,
    /// `NoPorts`.
    pub no_ports: Option<u64>,
    /// `InErrors`: not given to a socket, for want of buffer or memory, a wrong checksum, or any other reason.
    pub in_errors: Option<u64>,
    /// `RcvbufErrors`: the socket's receive buffer was full.
    pub receive_buffer_errors: Option<u64>,
    /// `SndbufErrors`.
    pub send_buffer_errors: Option<u64>,
    /// `InCsumErrors`.
    pub checksum_errors: Option<u64>,
    /// `MemErrors`: `udp_mem` was exhausted (kernel 5.11 and later).
    pub memory_errors: Option<u64>,
}

/// TCP of this host's own sockets: forwarded connections are not in it (RFC 4022 and Linux' `TcpExt`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// `ActiveOpens`.
    pub active_opens: Option<u64>,
    /// `PassiveOpens`.
    pub passive_opens: Option<u64>,
    /// `AttemptFails`.
    pub attempt_fails: Option<u64>,
    /// `EstabResets`.
    pub established_resets: Option<u64>,
    /// `CurrEstab`: connections now, not a counter.
    pub established: Option<u64>,
    /// `InSegs`.
    pub in_segments: Option<u64>,
    /// `OutSegs`.
    pub out_segments: Option<u64>,
    /// `RetransSegs`.
    pub retransmitted_segments: Option<u64>,
    /// `InErrs`.
    pub in_errors: Option<u64>,
    /// `TCPTimeouts`.
    pub timeouts: Option<u64>,
    /// `TCPLostRetransmit`: a retransmitted segment was lost, too.
    pub lost_retransmits: Option<u64>,
    /// `TCPSynRetrans`.
    pub syn_retransmits: Option<u64>,
    /// `TCPSackRecovery`: selective acknowledgements told of a loss.
    pub sack_recoveries: Option<u64>,
    /// `ListenOverflows`.
    pub listen_overflows: Option<u64>,
    /// `ListenDrops`.
    pub listen_drops: Option<u64>,
    /// `PruneCalled`: a receive buffer had to be pruned.
    pub prunes: Option<u64>,
    /// `TCPBacklogDrop`.
    pub backlog_drops: Option<u64>,
    /// `TCPMemoryPressures`.
    pub memory_pressures: Option<u64>,
    /// `TCPMTUPFail`.
    pub mtu_probe_failures: Option<u64>,
    /// `TCPMTUPSuccess`.
    pub mtu_probe_successes: Option<u64>,
}

/// Receive backlog of one CPU (/proc/net/softnet_stat, `net/core/net-procfs.c`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Softnet {
    /// CPU number.
    pub cpu: u32,
    /// Packets that the CPU passed to the network stack (`__netif_receive_skb_core`).
    pub processed: u64,
    /// Packets dropped because the backlog was full (`net.core.netdev_max_backlog`).
    pub dropped: u64,
    /// Times that the budget ran out with work left (`net.core.netdev_budget`).
    pub squeezed: u64,
    /// Times that a device's transmit lock was held by another CPU; always 0 on current kernels.
    pub collisions: u64,
    /// Wake-ups for packets that another CPU steered here (RPS).
    pub received_rps: u64,
    /// Packets dropped by the flow limit.
    pub flow_limited: u64,
    /// Packets that wait now (kernel 5.14 and later).
    pub backlog: Option<u64>,
}
