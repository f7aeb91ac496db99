//! Sockets and tracked connections.

/// /proc/net/sockstat and sockstat6 (net/ipv4/proc.c): of this network namespace but for the memory, which
/// all namespaces share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketUse {
    /// Sockets of every kind (`sockets: used`).
    pub sockets: u64,
    /// TCP over IPv4.
    pub tcp: u64,
    /// TCP over IPv6; `None` when the kernel runs without it.
    pub tcp6: Option<u64>,
    /// TCP sockets that no process owns any more.
    pub tcp_orphans: u64,
    /// TCP connections in TIME-WAIT.
    pub tcp_time_wait: u64,
    /// Memory of all TCP buffers, bytes; limited by `net.ipv4.tcp_mem`.
    pub tcp_memory_bytes: u64,
    /// UDP over IPv4.
    pub udp: u64,
    /// UDP over IPv6; `None` when the kernel runs without it.
    pub udp6: Option<u64>,
    /// Memory of all UDP buffers, bytes; limited by `net.ipv4.udp_mem`.
    pub udp_memory_bytes: u64,
    /// Memory of incomplete IPv4 fragments, bytes.
    pub fragment_memory_bytes: u64,
}

/// Connection tracking of this network namespace (net/netfilter/nf_conntrack_standalone.c).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// Entries now (`nf_conntrack_count`).
    pub entries: u64,
    /// Most entries that a namespace may have (`nf_conntrack_max`).
    pub limit: u64,
    /// Rows of the hash table (`nf_conntrack_buckets`).
    pub buckets: Option<u64>,
    /// What went wrong; `None` where the kernel has no /proc/net/stat/nf_conntrack.
    pub statistics: Option<ConntrackStatistics>,
}

/// Sums over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConntrackStatistics {
    /// Look-ups that found an entry.
    pub found: u64,
    /// Packets that fit no connection (`invalid`).
    pub invalid: u64,
    /// Packets of connections that are not tracked (`ignore`); always 0 on current kernels
    pub ignore: u64,
    /// Entries inserted (`insert`); always 0 on current kernels
    pub insert: u64,
    /// Entries that could not be inserted, mostly as another packet was first (`insert_failed`).
    pub insert_failed: u64,
    /// Packets dropped because the table was full (`drop`).
    pub drop: u64,
    /// Entries removed before their time to make room (`early_drop`).
    pub early_drop: u64,
    /// Look-ups that began anew because the table was being resized or an entry moved (`search_restart`).
    pub search_restart: u64,
}
