//! What is rightly not the same.

/// Families that one of the two has and the other has not, or whose values say nothing about the other. An asterisk
/// at the end stands for anything.
pub(crate) const FAMILIES: [(&str, &str); 9] = [
    ("node_exporter_build_info", "tailgauge is not node_exporter and has no version of it"),
    ("promhttp_*", "requests to node_exporter itself"),
    ("node_softnet_cpu_collision_total", "since node_exporter 1.6"),
    ("node_softnet_received_rps_total", "since node_exporter 1.6"),
    ("node_softnet_flow_limit_count_total", "since node_exporter 1.6"),
    ("node_softnet_backlog_len", "since node_exporter 1.6"),
    ("node_cpu_online", "since node_exporter 1.9"),
    ("node_filesystem_mount_info", "since node_exporter 1.9"),
    ("node_pressure_irq_stalled_seconds_total", "since node_exporter 1.9"),
];

/// Labels that node_exporter 1.5 does not have yet, by family.
pub(crate) const LABELS: [(&str, &str, &str); 3] = [
    ("node_disk_info", "rotational", "since node_exporter 1.9"),
    ("node_filesystem_*", "device_error", "since node_exporter 1.8"),
    ("node_network_info", "adminstate", "since node_exporter 1.6"),
];

/// Who counts processes runs meanwhile, and nobody else sees it so.
const ITSELF: &str = "each of the two sees itself running";

/// Series that are not held against each other: family, a label and its value.
pub(crate) const SERIES: [(&str, (&str, &str), &str); 5] = [
    (
        "node_filesystem_readonly",
        ("mountpoint", COVERED),
        "since node_exporter 1.7 also of what cannot be asked",
    ),
    ("node_processes_state", ("state", "R"), ITSELF),
    ("node_processes_state", ("state", "S"), ITSELF),
    ("node_processes_threads_state", ("thread_state", "R"), ITSELF),
    ("node_processes_threads_state", ("thread_state", "S"), ITSELF),
];

/// A mount point that another mount hides.
pub(crate) const COVERED: &str = "/run/covered/below";

/// Values that are each program's own.
pub(crate) const VALUES: [(&str, &str); 1] =
    [("node_scrape_collector_duration_seconds", "the time that each of the two took")];

/// Gauges of which whoever reads them is a part, so that two readings of the one and none of the other are the same: they
/// have to agree once.
pub(crate) const RESTLESS: [(&str, &str); 2] = [
    ("node_procs_running", ITSELF),
    ("node_sockstat_sockets_used", "each of the two has sockets of its own while it answers"),
];

/// Whether `name` is what `pattern` stands for.
pub(crate) fn is(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    }
}
