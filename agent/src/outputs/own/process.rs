//! `process_*`: what the kernel says of this process (the names that all client libraries use).

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::outputs::prometheus::Header;

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

/// More than a line of /proc/PID/stat takes: 51 numbers of 64 bits, and a name of 64 bytes.
const STAT_BYTES: usize = 2048;

/// Keeps /proc/self/stat open.
#[derive(Debug)]
pub(super) struct Process {
    stat: Option<File>,
    /// Since the Unix epoch, seconds.
    started: Option<f64>,
}

/// A family and its only sample; `None` for what cannot be read, or has no value.
type Value = (&'static Header, Option<f64>);

impl Process {
    pub(super) fn new() -> Self {
        let mut process = Self { stat: File::open("/proc/self/stat").ok(), started: None };
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let boot = procfs::boot_time_secs().ok();
        process.started =
            process.read_stat().zip(boot).map(|(stat, boot)| boot as f64 + stat.started_ticks / ticks);
        process
    }

    /// In the order of names.
    pub(super) fn read(&self) -> [Value; 8] {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let stat = self.read_stat();
        let of_stat = |value: fn(&Stat) -> f64| stat.as_ref().map(value);
        let limit = |resource| getrlimit(resource).current.map(|limit| limit as f64);
        [
            (&CPU, Some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)),
            (&MAX_FDS, limit(Resource::Nofile)),
            (&OPEN_FDS, open_fds()),
            (&RESIDENT_MEMORY, of_stat(|stat| stat.resident_bytes)),
            (&START_TIME, self.started),
            (&THREADS, of_stat(|stat| stat.threads)),
            (&VIRTUAL_MEMORY, of_stat(|stat| stat.virtual_bytes)),
            (&VIRTUAL_MEMORY_MAX, limit(Resource::As)),
        ]
    }

    fn read_stat(&self) -> Option<Stat> {
        let mut buffer = [0; STAT_BYTES];
        let length = self.stat.as_ref()?.read_at(&mut buffer, 0).ok()?;
        Stat::parse(std::str::from_utf8(&buffer[..length]).ok()?)
    }
}

/// What is used of /proc/PID/stat (proc_pid_stat(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    threads: f64,
    /// Since boot.
    started_ticks: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        let (_, columns) = line.rsplit_once(')')?;
        // The first of these is the third column.
        let mut columns = columns.split_ascii_whitespace().skip(20 - 3);
        let mut next = || columns.next()?.parse::<f64>().ok();
        let (threads, _, started_ticks) = (next()?, next()?, next()?);
        let (virtual_bytes, resident_pages) = (next()?, next()?);
        let resident_bytes = resident_pages * rustix::param::page_size() as f64;
        Some(Self { threads, started_ticks, virtual_bytes, resident_bytes })
    }
}

/// Since kernel 6.2 the directory's size is the number of open files; before, it is 0.
fn open_fds() -> Option<f64> {
    let directory = "/proc/self/fd";
    let size = fs::metadata(directory).ok()?.len();
    // Counting opens one more.
    let count = || Some(fs::read_dir(directory).ok()?.count().saturating_sub(1) as f64);
    if size > 0 { Some(size as f64) } else { count() }
}

#[cfg(test)]
mod tests {
    use procfs::WithCurrentSystemInfo as _;

    use super::*;

    fn value(header: &Header) -> f64 {
        let values = Process::new().read();
        let found = values.iter().find(|(found, _)| found.name == header.name);
        found.and_then(|(_, value)| *value).unwrap()
    }

    #[test]
    fn this_process_has_plausible_numbers() {
        assert!(value(&RESIDENT_MEMORY) > 1e6 && value(&RESIDENT_MEMORY) <= value(&VIRTUAL_MEMORY));
        assert!(value(&THREADS) >= 1.0 && value(&OPEN_FDS) >= 3.0 && value(&MAX_FDS) >= value(&OPEN_FDS));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - value(&START_TIME)).abs() < 3600.0, "started {} of {now}", value(&START_TIME));
    }

    #[test]
    fn its_time_and_limits_are_those_that_another_reader_sees() {
        let process = procfs::process::Process::myself().unwrap();
        let stat = process.stat().unwrap();
        let ticks = procfs::ticks_per_second() as f64;
        let began = procfs::boot_time_secs().unwrap() as f64 + stat.starttime as f64 / ticks;
        assert!((value(&START_TIME) - began).abs() < 1.5, "{} is not {began}", value(&START_TIME));
        assert!(value(&CPU) + 0.1 >= (stat.utime + stat.stime) as f64 / ticks);
        assert!(value(&VIRTUAL_MEMORY) > stat.vsize as f64 / 2.0 && stat.rss_bytes().get() > 0);
        let files = process.limits().unwrap().max_open_files.soft_limit;
        let same = |limit| matches!(limit, procfs::process::LimitValue::Value(limit) if limit as f64 == value(&MAX_FDS));
        assert!(same(files), "{files:?}");
    }

    #[test]
    fn a_name_may_hold_anything_and_a_short_line_says_nothing() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 11 0 4200 1300000000 2500 184\n";
        let page = rustix::param::page_size() as f64;
        let expected = Stat {
            threads: 11.0,
            started_ticks: 4200.0,
            virtual_bytes: 1.3e9,
            resident_bytes: 2500.0 * page,
        };
        assert_eq!(Stat::parse(line), Some(expected));
        for text in ["", "7 (a S 1", "7 (a) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 11 0 4200 13000"] {
            assert_eq!(Stat::parse(text), None, "{text:?}");
        }
    }
}
