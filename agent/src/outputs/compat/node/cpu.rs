//! Collectors `cpu`, `softnet` and `stat`.

use super::family::{Family, Values};
use crate::model::node::NodeCollector::{Cpu, Softnet, Stat};
use crate::outputs::prometheus::{Header, Kind};

const PACKETS: (crate::model::node::NodeCollector, Kind) = (Softnet, Kind::Counter);
const CPU: &[&str] = &["cpu"];

pub(super) const FAMILIES: &[Family] = &[
    Family::new(
        Cpu,
        Header::counter("node_cpu_seconds_total", &["cpu", "mode"], "Time that a CPU spent in each mode."),
        Values::Samples(|node, samples| {
            for (cpu, time) in &node.cpus.time {
                for (mode, seconds) in time.modes() {
                    samples.sample().number_label("cpu", *cpu).label("mode", mode).float(seconds);
                }
            }
        }),
    ),
    Family::new(
        Cpu,
        Header::counter(
            "node_cpu_guest_seconds_total",
            &["cpu", "mode"],
            "Part of a CPU's user and nice time that ran virtual machines.",
        ),
        Values::Samples(|node, samples| {
            for (cpu, time) in &node.cpus.time {
                for (mode, seconds) in [("user", time.guest), ("nice", time.guest_nice)] {
                    samples.sample().number_label("cpu", *cpu).label("mode", mode).float(seconds);
                }
            }
        }),
    ),
    Family::new(
        Cpu,
        Header::gauge("node_cpu_isolated", CPU, "1 for each CPU that the scheduler leaves alone."),
        Values::Samples(|node, samples| {
            for cpu in &node.cpus.isolated {
                samples.sample().number_label("cpu", *cpu).integer(1);
            }
        }),
    ),
    Family::new(
        Cpu,
        Header::gauge("node_cpu_online", CPU, "1 if a CPU is switched on, where it can be switched off."),
        Values::Samples(|node, samples| {
            for (cpu, online) in &node.cpus.online {
                samples.sample().number_label("cpu", *cpu).flag(*online);
            }
        }),
    ),
    Family::new(
        Cpu,
        Header::counter(
            "node_cpu_core_throttles_total",
            &["package", "core"],
            "Times that a core was slowed down for heat.",
        ),
        Values::Samples(|node, samples| {
            for row in &node.cpus.core_throttles {
                let line = samples.sample().number_label("package", row.package);
                line.number_label("core", row.core).integer(row.count);
            }
        }),
    ),
    Family::new(
        Cpu,
        Header::counter(
            "node_cpu_package_throttles_total",
            &["package"],
            "Times that a package was slowed down for heat.",
        ),
        Values::Samples(|node, samples| {
            for (package, count) in &node.cpus.package_throttles {
                samples.sample().number_label("package", *package).integer(*count);
            }
        }),
    ),
    Family::by(
        PACKETS,
        CPU,
        "node_softnet_processed_total",
        "Packets that a CPU passed to the network stack.",
        Values::Softnet(|row| Some(row.processed)),
    ),
    Family::by(
        PACKETS,
        CPU,
        "node_softnet_dropped_total",
        "Packets dropped because a CPU's backlog was full.",
        Values::Softnet(|row| Some(row.dropped)),
    ),
    Family::by(
        PACKETS,
        CPU,
        "node_softnet_times_squeezed_total",
        "Times that a CPU stopped taking packets with some left.",
        Values::Softnet(|row| Some(row.squeezed)),
    ),
    Family::by(
        PACKETS,
        CPU,
        "node_softnet_cpu_collision_total",
        "Times that a CPU found a device's transmit lock taken; 0 on current kernels.",
        Values::Softnet(|row| Some(row.collisions)),
    ),
    Family::by(
        PACKETS,
        CPU,
        "node_softnet_received_rps_total",
        "Times that a CPU was woken up for packets that another one steered to it.",
        Values::Softnet(|row| Some(row.received_rps)),
    ),
    Family::by(
        PACKETS,
        CPU,
        "node_softnet_flow_limit_count_total",
        "Packets dropped by a CPU's flow limit.",
        Values::Softnet(|row| Some(row.flow_limited)),
    ),
    Family::by(
        (Softnet, Kind::Gauge),
        CPU,
        "node_softnet_backlog_len",
        "Packets in a CPU's backlog.",
        Values::Softnet(|row| row.backlog),
    ),
    Family::new(
        Stat,
        Header::counter("node_intr_total", &[], "Interrupts served."),
        Values::Plain(|node| Some(node.stat.interrupts)),
    ),
    Family::new(
        Stat,
        Header::counter("node_context_switches_total", &[], "Context switches."),
        Values::Plain(|node| Some(node.stat.context_switches)),
    ),
    Family::new(
        Stat,
        Header::counter("node_forks_total", &[], "Processes and threads created."),
        Values::Plain(|node| Some(node.stat.forks)),
    ),
    Family::new(
        Stat,
        Header::gauge("node_boot_time_seconds", &[], "Unix time of the boot."),
        Values::Plain(|node| node.stat.boot_time),
    ),
    Family::new(
        Stat,
        Header::gauge("node_procs_running", &[], "Tasks that run or are ready to."),
        Values::Plain(|node| Some(node.stat.running)),
    ),
    Family::new(
        Stat,
        Header::gauge("node_procs_blocked", &[], "Tasks that wait for a disk."),
        Values::Plain(|node| Some(node.stat.blocked)),
    ),
];
