//! Layout of the sampler: what it is to look at, where the kernel has that, and what it saw.

/// Rows of [`Sample`], a power of two: so many samples may be taken before the first of them is read.
pub const SAMPLES: u32 = 128;
/// UDP sockets of tailscaled that are watched: two, two of its peer relay server, and those of a port mapper.
pub const WATCHED_SOCKETS: usize = 8;
/// Devices whose queueing disciplines are watched: the tunnel, and those on the way to the internet by IPv4 and IPv6.
pub const WATCHED_DEVICES: usize = 3;
/// Threads of tailscaled that are walked; with more of them, nothing is said about it.
pub const MOST_THREADS: u32 = 1024;

/// No such thing, or not known at this moment.
pub const UNKNOWN: u64 = u64::MAX;
/// The same for what has 32 bits.
pub const UNKNOWN_32: u32 = u32::MAX;

/// Where the running kernel has what is read, bytes from the start of the structure that a field is named after, and
/// values of its enumerations; the agent finds them in the kernel's description of its types.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's names")]
pub struct Fields {
    pub task_tgid: u32,
    pub task_exit_state: u32,
    pub task_start_boottime: u32,
    pub task_real_parent: u32,
    pub task_tasks: u32,
    pub task_signal: u32,
    pub task_thread_node: u32,
    pub task_sum_exec_runtime: u32,
    pub task_run_delay: u32,
    pub task_nsproxy: u32,
    pub task_cgroups: u32,
    pub task_files: u32,
    pub signal_thread_head: u32,
    pub signal_sum_sched_runtime: u32,
    /// Of the lock of the one before: odd while a thread ends.
    pub signal_stats_sequence: u32,
    pub nsproxy_net_ns: u32,
    pub css_set_dfl_cgrp: u32,
    /// Of the pointer to the state of the subsystem cpuacct.
    pub css_set_cpuacct: u32,
    pub css_parent: u32,
    pub css_sibling: u32,
    pub cgroup_self: u32,
    pub cgroup_children: u32,
    /// Non-zero where the kernel has pressure; otherwise what belongs to that is 0.
    pub has_pressure: u32,
    pub cgroup_psi: u32,
    pub cpuacct_cpustat: u32,
    pub files_fdt: u32,
    pub fdtable_fd: u32,
    pub file_private_data: u32,
    pub seq_file_private: u32,
    pub psi_trigger_group: u32,
    pub psi_group_parent: u32,
    pub psi_group_pcpu: u32,
    /// Of the time in the state `PSI_CPU_SOME`.
    pub psi_cpu_some: u32,
    /// The same for `PSI_NONIDLE`.
    pub psi_nonidle: u32,
    pub psi_state_mask: u32,
    pub psi_state_start: u32,
    /// Numbers of the two states.
    pub psi_cpu_some_state: u32,
    pub psi_nonidle_state: u32,
    pub net_dev_index_head: u32,
    pub device_index_hlist: u32,
    pub device_ifindex: u32,
    pub device_qdisc: u32,
    pub device_tx: u32,
    pub device_real_num_tx_queues: u32,
    pub netdev_queue_qdisc: u32,
    /// `sizeof(struct netdev_queue)`.
    pub netdev_queue_bytes: u32,
    pub qdisc_flags: u32,
    pub qdisc_enqueue: u32,
    pub qdisc_state: u32,
    pub qdisc_backlog: u32,
    pub qdisc_cpu_qstats: u32,
    /// `QDISC_STATE_NON_EMPTY`, bits of the state.
    pub qdisc_non_empty: u32,
    pub qstats_backlog: u32,
    pub sock_cookie: u32,
    pub sock_socket: u32,
    pub sock_rmem_alloc: u32,
    pub sock_rcvbuf: u32,
    pub bpf_array_pptrs: u32,
    /// Of the pointer to the event in what the program on it gets.
    pub perf_context_event: u32,
    /// Of the clock when the event was last read.
    pub perf_event_clock: u32,
}

/// A UDP socket that is bound and not connected.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchedSocket {
    /// Its number, which no other socket ever gets; 0 for a place that is free.
    pub cookie: u64,
    /// Address that it is bound to, network order; of IPv4, the first 4 bytes. A wildcard is found by the loopback's.
    pub address: [u32; 4],
    /// Port that it is bound to, network order.
    pub port: u32,
    /// Non-zero for IPv6.
    pub is_v6: u32,
}

/// What the sampler is to look at; one row, written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Another number after every change; odd while it is being written.
    pub generation: u64,
    /// Where the kernel has it.
    pub fields: Fields,
    /// Possible CPUs.
    pub cpus: u32,
    /// Process id of tailscaled, 0 while there is none.
    pub process: u32,
    /// Its sockets.
    pub sockets: [WatchedSocket; WATCHED_SOCKETS],
    /// Indexes of devices, 0 for a place that is free.
    pub devices: [u32; WATCHED_DEVICES],
    /// File of the agent that holds a trigger of the pressure of CPUs (Documentation/accounting/psi.rst), 0 for none.
    pub trigger: u32,
}

/// Where that is: addresses of the kernel, 0 for what was not found; one row, written by
/// [`super::programs::SAMPLING_FIND`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// `kernel_cpustat`, a variable of each CPU.
    pub cpu_times: u64,
    /// `psi_group_cpu` of the whole system, of each CPU; once found, it stays.
    pub pressure: u64,
    /// `struct net` of the agent.
    pub namespace: u64,
    /// `struct task_struct` of tailscaled's first thread.
    pub task: u64,
    /// When that began, nanoseconds since boot.
    pub task_started: u64,
    /// `struct sock`, by place in [`Watched::sockets`].
    pub sockets: [u64; WATCHED_SOCKETS],
    /// Holds an address for a moment: from a map's memory it is a number like any other.
    pub scratch: u64,
}

/// A receive queue.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampledQueue {
    /// Bytes that it takes; [`UNKNOWN_32`] when the socket is gone.
    pub bytes: u32,
    /// Bytes that it may take.
    pub room: u32,
}

/// What was seen at one moment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Samples are numbered from 1; 0 while this one is being written.
    pub number: u64,
    /// [`Watched::generation`].
    pub generation: u64,
    /// CLOCK_MONOTONIC nanoseconds.
    pub at: u64,
    /// Nanoseconds that it took.
    pub cost: u64,
    /// Packets that the tunnel's ring had no room for so far.
    pub ring_drops: u64,
    /// Nanoseconds that threads of tailscaled ran, those that ended included; [`UNKNOWN`] when it is gone.
    pub ran: u64,
    /// Nanoseconds that its threads waited for a CPU, those that ended left out.
    pub waited: u64,
    /// Nanoseconds that those that ended ran: another number says that `waited` is without another one.
    pub ended: u64,
    /// By place in [`Watched::sockets`].
    pub sockets: [SampledQueue; WATCHED_SOCKETS],
    /// Bytes that wait in the queueing discipline, by place in [`Watched::devices`]; [`UNKNOWN`] without one.
    pub backlogs: [u64; WATCHED_DEVICES],
}

impl Sample {
    /// None yet.
    pub const EMPTY: Self = Self {
        number: 0,
        generation: 0,
        at: 0,
        cost: 0,
        ring_drops: 0,
        ran: 0,
        waited: 0,
        ended: 0,
        sockets: [SampledQueue { bytes: 0, room: 0 }; WATCHED_SOCKETS],
        backlogs: [0; WATCHED_DEVICES],
    };
}

/// One CPU in a sample: row `sample * cpus + cpu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuSample {
    /// Nanoseconds that it had something to do; [`UNKNOWN`] for a CPU that cannot be read.
    pub busy: u64,
    /// Nanoseconds in soft interrupts.
    pub softirq: u64,
    /// Nanoseconds in which a task waited for it; begins anew at 2^32. [`UNKNOWN_32`] when it could not be read.
    pub waiting: u32,
    /// Nanoseconds in which it had any task, those included that wait for storage; the same.
    pub nonidle: u32,
}
