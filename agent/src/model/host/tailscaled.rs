//! The tailscaled process.

use std::time::Duration;

/// The tailscaled process (/proc/PID).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tailscaled {
    /// Process id; changes when it is restarted.
    pub pid: i32,
    /// From boot to its start: when that was depends on the clock, which may be set.
    pub started: Duration,
    /// CPU seconds in user mode, all threads.
    pub user_seconds: f64,
    /// CPU seconds in kernel mode, all threads.
    pub system_seconds: f64,
    /// Seconds that its threads were ready but had to wait for a CPU (schedstat field 2), added up over
    /// threads by increments, so that a thread's end does not turn it back. `None` when the kernel keeps no
    /// such count.
    pub run_queue_delay_seconds: Option<f64>,
    /// Times that one of its threads gave its CPU up by itself; `None` with the delay.
    pub voluntary_context_switches: Option<u64>,
    /// Times that one of its threads was made to give its CPU up; `None` with the delay.
    pub involuntary_context_switches: Option<u64>,
    /// Threads now.
    pub threads: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Address space in bytes.
    pub virtual_bytes: u64,
    /// Memory that was swapped out, in bytes.
    pub swapped_bytes: Option<u64>,
    /// Open file descriptors; `None` without the right to look (another user's process).
    pub open_fds: Option<u64>,
    /// Most open file descriptors that it may have (soft limit); `None` without a limit.
    pub max_fds: Option<u64>,
    /// CPUs that it may run on (affinity) and that are online.
    pub allowed_cpus: Option<u32>,
}
