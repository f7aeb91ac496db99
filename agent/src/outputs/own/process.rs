//! `process_*`: what /proc/self says (the names that all client libraries use).

use procfs::WithCurrentSystemInfo as _;
use prometheus::Error;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

use crate::outputs::prometheus::{Header, Kind};

pub(super) const CPU: Header =
    Header::counter("process_cpu_seconds_total", &[], "CPU time of the agent, user and system.");
pub(super) const OPEN_FDS: Header =
    Header::gauge("process_open_fds", &[], "Open file descriptors of the agent.");
pub(super) const MAX_FDS: Header =
    Header::gauge("process_max_fds", &[], "File descriptors that the agent may open.");
pub(super) const VIRTUAL_MEMORY: Header =
    Header::gauge("process_virtual_memory_bytes", &[], "Address space of the agent.");
pub(super) const VIRTUAL_MEMORY_MAX: Header = Header::gauge(
    "process_virtual_memory_max_bytes",
    &[],
    "Address space that the agent may take; absent when there is no limit.",
);
pub(super) const RESIDENT_MEMORY: Header =
    Header::gauge("process_resident_memory_bytes", &[], "Resident memory of the agent.");
pub(super) const START_TIME: Header =
    Header::gauge("process_start_time_seconds", &[], "Unix time at which the agent was started.");
pub(super) const THREADS: Header = Header::gauge("process_threads", &[], "Threads of the agent.");

const HEADERS: [&Header; 8] = [
    &CPU,
    &OPEN_FDS,
    &MAX_FDS,
    &VIRTUAL_MEMORY,
    &VIRTUAL_MEMORY_MAX,
    &RESIDENT_MEMORY,
    &START_TIME,
    &THREADS,
];

/// Reads /proc/self when it is gathered.
#[derive(Debug)]
pub(super) struct Process {
    descriptions: Vec<Desc>,
}

impl Process {
    pub(super) fn new() -> Result<Self, Error> {
        let describe = |header: &&Header| {
            Desc::new(header.name.to_owned(), header.help.to_owned(), Vec::new(), Default::default())
        };
        Ok(Self { descriptions: HEADERS.iter().map(describe).collect::<Result<_, _>>()? })
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    /// What cannot be read is left out.
    fn collect(&self) -> Vec<MetricFamily> {
        read().into_iter().filter_map(|(header, value)| Some(gathered(header, value?))).collect()
    }
}

fn read() -> Vec<(&'static Header, Option<f64>)> {
    let Ok(process) = procfs::process::Process::myself() else { return Vec::new() };
    let mut values = vec![(&OPEN_FDS, process.fd_count().ok().map(|count| count as f64))];
    if let Ok(stat) = process.stat() {
        let ticks = procfs::ticks_per_second() as f64;
        let boot = procfs::boot_time_secs().ok();
        values.extend([
            (&CPU, Some((stat.utime + stat.stime) as f64 / ticks)),
            (&VIRTUAL_MEMORY, Some(stat.vsize as f64)),
            (&RESIDENT_MEMORY, Some(stat.rss_bytes().get() as f64)),
            (&START_TIME, boot.map(|boot| boot as f64 + stat.starttime as f64 / ticks)),
            (&THREADS, Some(stat.num_threads as f64)),
        ]);
    }
    if let Ok(limits) = process.limits() {
        values.push((&MAX_FDS, limit(limits.max_open_files.soft_limit)));
        values.push((&VIRTUAL_MEMORY_MAX, limit(limits.max_address_space.soft_limit)));
    }
    values
}

fn limit(value: procfs::process::LimitValue) -> Option<f64> {
    match value {
        procfs::process::LimitValue::Value(value) => Some(value as f64),
        procfs::process::LimitValue::Unlimited => None,
    }
}

fn gathered(header: &Header, value: f64) -> MetricFamily {
    let mut metric = Metric::default();
    let kind = if header.kind == Kind::Counter {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
        MetricType::COUNTER
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
        MetricType::GAUGE
    };
    let mut family = MetricFamily::default();
    family.set_name(header.name.to_owned());
    family.set_help(header.help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_plausible_numbers() {
        let values = read();
        let value = |header: &Header| {
            values.iter().find(|(found, _)| found.name == header.name).and_then(|(_, value)| *value).unwrap()
        };
        assert!(value(&RESIDENT_MEMORY) > 1e6 && value(&RESIDENT_MEMORY) <= value(&VIRTUAL_MEMORY));
        assert!(value(&THREADS) >= 1.0 && value(&OPEN_FDS) >= 3.0 && value(&MAX_FDS) >= value(&OPEN_FDS));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - value(&START_TIME)).abs() < 3600.0, "started {} of {now}", value(&START_TIME));
    }
}
