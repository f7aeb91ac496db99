//! How many threads there are.

/// Threads of the whole host against what limits them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// Threads of all processes, kernel threads included (/proc/loadavg).
    pub threads: u64,
    /// `kernel.threads-max`.
    pub threads_limit: u64,
    /// `kernel.pid_max`: a thread takes a process id, too.
    pub pids_limit: u64,
}
