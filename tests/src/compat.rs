//! What `/compat/node` stands in for.

/// Its collectors that node_exporter runs by default, too.
pub const BY_DEFAULT: [&str; 18] = [
    "conntrack",
    "cpu",
    "diskstats",
    "filesystem",
    "loadavg",
    "meminfo",
    "netclass",
    "netdev",
    "netstat",
    "os",
    "pressure",
    "sockstat",
    "softnet",
    "stat",
    "time",
    "udp_queues",
    "uname",
    "vmstat",
];
/// Those that run on demand only.
pub const ON_DEMAND: [&str; 2] = ["processes", "tcpstat"];

/// All of them.
pub fn collectors() -> impl Iterator<Item = &'static str> {
    BY_DEFAULT.into_iter().chain(ON_DEMAND)
}
