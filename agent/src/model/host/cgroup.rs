//! The control group of tailscaled.

use super::Pressure;

/// What the group and its ancestors allow, and how often that was not enough (Documentation/admin-guide/cgroup-v2.rst
/// and cgroup-v1/).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cgroup {
    /// CPUs that the tightest quota allows, such as 0.5; infinitely many without a quota. `None` when the group cannot be
    /// seen, as from within another namespace.
    pub cpu_quota: Option<f64>,
    /// What quotas did; `None` where no level has the CPU controller.
    pub throttling: Option<Throttling>,
    /// Memory in use by the group itself, page cache included, in bytes.
    pub memory_bytes: Option<u64>,
    /// Tightest memory limit in bytes; `None` without a limit.
    pub memory_limit_bytes: Option<u64>,
    /// Processes of the group that were killed for want of memory.
    pub oom_kills: Option<u64>,
    /// How long tasks of the group itself waited; `None` where the kernel does not say.
    pub pressure: Option<Pressure>,
}

/// Added up over the group and its ancestors, as each may have a quota of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Throttling {
    /// Periods in which the group wanted to run (`nr_periods`).
    pub periods: u64,
    /// Periods in which the quota ran out (`nr_throttled`).
    pub throttled_periods: u64,
    /// Seconds that its run queues, one a CPU, were kept waiting, added up.
    pub throttled_seconds: f64,
}
