//! Collectors `loadavg`, `os`, `pressure`, `processes`, `time` and `uname`.

use super::family::{Family, Values};
use crate::model::host::Stall;
use crate::model::node::NodeCollector::{self, Loadavg, Os, Pressure, Processes, Time, Uname};
use crate::outputs::prometheus::{Header, Kind, Samples};

const STALL: (NodeCollector, Kind) = (Pressure, Kind::Counter);
const PROCESSES: (NodeCollector, Kind) = (Processes, Kind::Gauge);

fn seconds(samples: &mut Samples<'_>, value: Option<f64>) {
    if let Some(value) = value {
        samples.sample().float(value);
    }
}

fn some(stall: Option<Stall>) -> Option<f64> {
    stall.map(|stall| stall.some_seconds)
}

fn full(stall: Option<Stall>) -> Option<f64> {
    stall?.full_seconds
}

fn states(samples: &mut Samples<'_>, label: &str, states: &[(char, u64)]) {
    for (state, count) in states {
        samples.sample().label(label, state.encode_utf8(&mut [0; 4])).integer(*count);
    }
}

pub(super) const FAMILIES: &[Family] = &[
    Family::new(
        Loadavg,
        Header::gauge("node_load1", &[], "Load average over a minute."),
        Values::Samples(|node, samples| samples.sample().float(node.load.one)),
    ),
    Family::new(
        Loadavg,
        Header::gauge("node_load5", &[], "Load average over 5 minutes."),
        Values::Samples(|node, samples| samples.sample().float(node.load.five)),
    ),
    Family::new(
        Loadavg,
        Header::gauge("node_load15", &[], "Load average over 15 minutes."),
        Values::Samples(|node, samples| samples.sample().float(node.load.fifteen)),
    ),
    Family::by(
        STALL,
        &[],
        "node_pressure_cpu_waiting_seconds_total",
        "Time during which a task waited for a CPU.",
        Values::Samples(|node, samples| seconds(samples, some(node.pressure.cpu))),
    ),
    Family::by(
        STALL,
        &[],
        "node_pressure_io_waiting_seconds_total",
        "Time during which a task waited for a disk.",
        Values::Samples(|node, samples| seconds(samples, some(node.pressure.io))),
    ),
    Family::by(
        STALL,
        &[],
        "node_pressure_io_stalled_seconds_total",
        "Time during which all tasks waited for disks.",
        Values::Samples(|node, samples| seconds(samples, full(node.pressure.io))),
    ),
    Family::by(
        STALL,
        &[],
        "node_pressure_memory_waiting_seconds_total",
        "Time during which a task waited for memory.",
        Values::Samples(|node, samples| seconds(samples, some(node.pressure.memory))),
    ),
    Family::by(
        STALL,
        &[],
        "node_pressure_memory_stalled_seconds_total",
        "Time during which all tasks waited for memory.",
        Values::Samples(|node, samples| seconds(samples, full(node.pressure.memory))),
    ),
    Family::by(
        STALL,
        &[],
        "node_pressure_irq_stalled_seconds_total",
        "Time during which interrupts kept all tasks of a CPU waiting.",
        Values::Samples(|node, samples| seconds(samples, node.pressure.irq)),
    ),
    Family::by(
        PROCESSES,
        &[],
        "node_processes_pids",
        "Processes.",
        Values::Plain(|node| Some(node.processes.processes)),
    ),
    Family::by(
        PROCESSES,
        &[],
        "node_processes_threads",
        "Threads of all processes.",
        Values::Plain(|node| Some(node.processes.threads)),
    ),
    Family::by(
        PROCESSES,
        &[],
        "node_processes_max_processes",
        "Largest process id.",
        Values::Plain(|node| Some(node.processes.max_processes)),
    ),
    Family::by(
        PROCESSES,
        &[],
        "node_processes_max_threads",
        "Threads that there may be.",
        Values::Plain(|node| Some(node.processes.max_threads)),
    ),
    Family::by(
        PROCESSES,
        &["state"],
        "node_processes_state",
        "Processes by the letter of their state.",
        Values::Samples(|node, samples| states(samples, "state", &node.processes.states)),
    ),
    Family::by(
        PROCESSES,
        &["thread_state"],
        "node_processes_threads_state",
        "Threads by the letter of their state.",
        Values::Samples(|node, samples| states(samples, "thread_state", &node.processes.thread_states)),
    ),
    Family::new(
        Time,
        Header::gauge("node_time_seconds", &[], "Unix time."),
        Values::Samples(|node, samples| {
            let nanoseconds = u64::try_from(node.clock.now.as_nanos()).unwrap_or(u64::MAX);
            samples.sample().decimal(nanoseconds, 9);
        }),
    ),
    Family::new(
        Time,
        Header::gauge("node_time_zone_offset_seconds", &["time_zone"], "Seconds east of Greenwich."),
        Values::Samples(|node, samples| {
            samples.sample().label("time_zone", &node.clock.zone).signed(node.clock.zone_offset);
        }),
    ),
    Family::new(
        Time,
        Header::gauge(
            "node_time_clocksource_available_info",
            &["device", "clocksource"],
            "Always 1; what the kernel could count time with.",
        ),
        Values::Samples(|node, samples| {
            for (device, source) in (0u32..).zip(&node.clock.sources) {
                for name in &source.available {
                    samples.sample().number_label("device", device).label("clocksource", name).integer(1);
                }
            }
        }),
    ),
    Family::new(
        Time,
        Header::gauge(
            "node_time_clocksource_current_info",
            &["device", "clocksource"],
            "Always 1; what the kernel counts time with.",
        ),
        Values::Samples(|node, samples| {
            for (device, source) in (0u32..).zip(&node.clock.sources) {
                let line = samples.sample().number_label("device", device);
                line.label("clocksource", &source.current).integer(1);
            }
        }),
    ),
    Family::new(
        Uname,
        Header::gauge(
            "node_uname_info",
            &["sysname", "release", "version", "machine", "nodename", "domainname"],
            "Always 1; what uname says.",
        ),
        Values::Samples(|node, samples| {
            let uname = &node.uname;
            let line = samples.sample().label("sysname", &uname.sysname).label("release", &uname.release);
            let line = line.label("version", &uname.version).label("machine", &uname.machine);
            line.label("nodename", &uname.nodename).label("domainname", &uname.domainname).integer(1);
        }),
    ),
    Family::new(
        Os,
        Header::gauge(
            "node_os_info",
            &[
                "build_id",
                "id",
                "id_like",
                "image_id",
                "image_version",
                "name",
                "pretty_name",
                "variant",
                "variant_id",
                "version",
                "version_codename",
                "version_id",
            ],
            "Always 1; what os-release says.",
        ),
        Values::Samples(|node, samples| {
            let os = &node.os;
            let line = samples.sample().label("build_id", &os.build_id).label("id", &os.id);
            let line = line.label("id_like", &os.id_like).label("image_id", &os.image_id);
            let line = line.label("image_version", &os.image_version).label("name", &os.name);
            let line = line.label("pretty_name", &os.pretty_name).label("variant", &os.variant);
            let line = line.label("variant_id", &os.variant_id).label("version", &os.version);
            let line = line.label("version_codename", &os.version_codename);
            line.label("version_id", &os.version_id).integer(1);
        }),
    ),
    Family::new(
        Os,
        Header::gauge(
            "node_os_version",
            &["id", "id_like", "name"],
            "Version of the distribution, as far as it is a number.",
        ),
        Values::Samples(|node, samples| {
            let os = &node.os;
            if let Some(version) = os.version_number {
                let line = samples.sample().label("id", &os.id).label("id_like", &os.id_like);
                line.label("name", &os.name).float(version);
            }
        }),
    ),
    Family::new(
        Os,
        Header::gauge(
            "node_os_support_end_timestamp_seconds",
            &[],
            "Unix time at which support of the distribution ends.",
        ),
        Values::Samples(|node, samples| {
            if let Some(end) = node.os.support_end {
                samples.sample().signed(end);
            }
        }),
    ),
];
