//! The system as a whole: its name, its clock, its processes.

use std::time::Duration;

/// uname(2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of uname(2)")]
pub struct Uname {
    pub sysname: String,
    pub release: String,
    pub version: String,
    pub machine: String,
    pub nodename: String,
    pub domainname: String,
}

/// os-release(5); empty where the file says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the names of os-release(5)")]
pub struct OsRelease {
    pub build_id: String,
    pub id: String,
    pub id_like: String,
    pub image_id: String,
    pub image_version: String,
    pub name: String,
    pub pretty_name: String,
    pub variant: String,
    pub variant_id: String,
    pub version: String,
    pub version_codename: String,
    pub version_id: String,
    /// The begin of `version_id` as a number, such as 24.04.
    pub version_number: Option<f64>,
    /// `SUPPORT_END`, its first moment, seconds since the Unix epoch.
    pub support_end: Option<i64>,
}

/// Collector `time`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Since the Unix epoch.
    pub now: Duration,
    /// Seconds east of Greenwich.
    pub zone_offset: i64,
    /// Abbreviation of the time zone.
    pub zone: String,
    /// /sys/devices/system/clocksource/clocksourceN, by N.
    pub sources: Vec<ClockSource>,
}

/// What the kernel counts time with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockSource {
    /// Those that it could use.
    pub available: Vec<String>,
    /// The one that it uses.
    pub current: String,
}

/// Collector `processes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// Processes that are there.
    pub processes: u64,
    /// Threads of them.
    pub threads: u64,
    /// Processes by the letter of their state (proc_pid_stat(5)).
    pub states: Vec<(char, u64)>,
    /// Threads by the letter of their state.
    pub thread_states: Vec<(char, u64)>,
    /// Most processes and threads (kernel.pid_max).
    pub max_processes: u64,
    /// Most threads (kernel.threads-max).
    pub max_threads: u64,
}
