//! CPUs, connection tracking and what else the kernel counts as one.

use crate::model::host::{Conntrack as Tracked, CpuTime};

/// Collector `cpu`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cpus {
    /// Online CPUs by number. Never falls while a CPU stays online, though the kernel's own counts do.
    pub time: Vec<(u32, CpuTime)>,
    /// CPUs that the scheduler leaves alone (/sys/devices/system/cpu/isolated).
    pub isolated: Vec<u32>,
    /// Whether each CPU is online; empty where the kernel does not let CPUs be switched off.
    pub online: Vec<(u32, bool)>,
    /// Each core once.
    pub core_throttles: Vec<CoreThrottles>,
    /// Package, and the times that it was slowed down for heat.
    pub package_throttles: Vec<(u64, u64)>,
}

/// Times that a core was slowed down for heat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreThrottles {
    /// Its package.
    pub package: u64,
    /// Its number within the package.
    pub core: u64,
    /// How often.
    pub count: u64,
}

/// Collector `stat`: the lines of /proc/stat that are not about one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Interrupts served.
    pub interrupts: u64,
    /// Context switches.
    pub context_switches: u64,
    /// Processes and threads created.
    pub forks: u64,
    /// Moment of boot, seconds since the Unix epoch; `None` when the file does not say.
    pub boot_time: Option<u64>,
    /// Tasks that run or are ready to.
    pub running: u64,
    /// Tasks that wait for a disk.
    pub blocked: u64,
}

/// Collector `conntrack`; `None` while nothing is tracked.
pub type Conntrack = Option<Tracked>;
