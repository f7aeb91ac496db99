//! What the host says about itself: base units (seconds, bytes), counters since boot unless said otherwise.
//!
//! Every field of [`Host`] belongs to one collector of `sources::host` and is `None` while that collector is
//! off, not available on this host, or failed on its last run: a frozen value would look like an idle host.
//! An `Option` inside a struct is `None` when this kernel does not say it.

use std::time::Duration;

/// Filled by `sources::host`, one field a collector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// Facts that do not change until the next boot.
    pub boot: Option<Boot>,
    /// Collector `cpu`.
    pub cpu: Option<Cpu>,
    /// Collector `loadavg`.
    pub load: Option<Load>,
    /// Collector `meminfo`.
    pub memory: Option<Memory>,
    /// Collector `vmstat`.
    pub paging: Option<Paging>,
    /// Collector `diskstats`: whole disks, in the order of the file.
    pub disks: Option<Vec<Disk>>,
    /// Collector `filesystem`: local file systems that hold data, in the order of the mount table.
    pub filesystems: Option<Vec<Filesystem>>,
    /// Collector `netstat`.
    pub protocols: Option<Protocols>,
    /// Collector `softnet`: one row a CPU that is online.
    pub softnet: Option<Vec<Softnet>>,
    /// Collector `pressure`.
    pub pressure: Option<Pressure>,
    /// Collector `tailscaled`; `None` while no such process runs, too.
    pub tailscaled: Option<Tailscaled>,
}

/// Facts that do not change until the next boot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Boot {
    /// Host name (`uname` nodename).
    pub hostname: String,
    /// Kernel release, such as `6.18.44`.
    pub kernel_release: String,
    /// Logical CPUs that this process may run on.
    pub cpus: u32,
    /// Moment of boot, since the Unix epoch.
    pub boot_time: Duration,
}

/// /proc/stat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cpu {
    /// All CPUs together (line `cpu`).
    pub total: CpuTime,
    /// By CPU number, online CPUs only (lines `cpuN`).
    pub per_cpu: Vec<(u32, CpuTime)>,
    /// Context switches (line `ctxt`).
    pub context_switches: u64,
    /// Interrupts served (first number of line `intr`).
    pub interrupts: u64,
    /// Processes and threads created (line `processes`).
    pub forks: u64,
    /// Tasks that are running or ready to run now (line `procs_running`).
    pub running: u64,
    /// Tasks that wait for a disk now (line `procs_blocked`).
    pub blocked: u64,
}

/// Seconds that a CPU spent in each mode. The first eight add up to the time since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTime {
    /// Programs, guests included.
    pub user: f64,
    /// Programs of low priority, guests included.
    pub nice: f64,
    /// Kernel on behalf of programs.
    pub system: f64,
    /// Nothing to do.
    pub idle: f64,
    /// Nothing to do but wait for a disk.
    pub iowait: f64,
    /// Interrupt handlers.
    pub irq: f64,
    /// Soft interrupts: most of packet processing.
    pub softirq: f64,
    /// Taken by the hypervisor for others.
    pub steal: f64,
    /// Part of `user` that ran guests.
    pub guest: f64,
    /// Part of `nice` that ran guests.
    pub guest_nice: f64,
}

impl CpuTime {
    /// Label values and seconds of the modes that add up to the time since boot.
    #[must_use]
    pub const fn modes(&self) -> [(&'static str, f64); 8] {
        [
            ("user", self.user),
            ("nice", self.nice),
            ("system", self.system),
            ("idle", self.idle),
            ("iowait", self.iowait),
            ("irq", self.irq),
            ("softirq", self.softirq),
            ("steal", self.steal),
        ]
    }
}

/// /proc/loadavg: mean number of tasks that run or wait for CPU or disk.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Over one minute.
    pub one: f64,
    /// Over five minutes.
    pub five: f64,
    /// Over fifteen minutes.
    pub fifteen: f64,
}

/// /proc/meminfo, in bytes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemFree`.
    pub free: u64,
    /// `MemAvailable`: what programs could get without swapping.
    pub available: Option<u64>,
    /// `Buffers`.
    pub buffers: u64,
    /// `Cached`.
    pub cached: u64,
    /// `Active`.
    pub active: u64,
    /// `Inactive`.
    pub inactive: u64,
    /// `AnonPages`: memory of programs that is not backed by files.
    pub anonymous: Option<u64>,
    /// `Shmem`.
    pub shared: Option<u64>,
    /// `Slab`: kernel objects, conntrack entries among them.
    pub slab: u64,
    /// `SReclaimable`: the part of `slab` that can be freed.
    pub slab_reclaimable: Option<u64>,
    /// `Dirty`: waits to be written.
    pub dirty: u64,
    /// `Writeback`: is being written.
    pub writeback: u64,
    /// `SwapTotal`.
    pub swap_total: u64,
    /// `SwapFree`.
    pub swap_free: u64,
    /// `Committed_AS`.
    pub committed: u64,
}

/// /proc/vmstat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paging {
    /// Pages read from swap (`pswpin`).
    pub swap_in_pages: Option<u64>,
    /// Pages written to swap (`pswpout`).
    pub swap_out_pages: Option<u64>,
    /// Page faults that had to read from a disk (`pgmajfault`).
    pub major_faults: Option<u64>,
    /// Processes killed for want of memory (`oom_kill`).
    pub oom_kills: Option<u64>,
}

/// One line of /proc/diskstats (Documentation/admin-guide/iostats.rst).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disk {
    /// Kernel name, such as `vda`.
    pub name: String,
    /// Reads completed.
    pub reads: u64,
    /// Reads merged into others before they were issued.
    pub reads_merged: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Seconds all reads took together.
    pub read_seconds: f64,
    /// Writes completed.
    pub writes: u64,
    /// Writes merged.
    pub writes_merged: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Seconds all writes took together.
    pub write_seconds: f64,
    /// Operations under way now.
    pub io_now: u64,
    /// Seconds during which at least one operation was under way.
    pub io_seconds: f64,
    /// Seconds weighted by the number of operations under way.
    pub io_weighted_seconds: f64,
}

/// Space of one mounted file system (statvfs of its first mount in /proc/self/mountinfo).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    /// What is mounted, such as `/dev/vda`; cleaned.
    pub device: String,
    /// Where; cleaned.
    pub mount_point: String,
    /// File system type.
    pub fstype: String,
    /// Mounted read-only.
    pub read_only: bool,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Free bytes, those reserved for root included.
    pub free_bytes: u64,
    /// Free bytes for everyone.
    pub available_bytes: u64,
    /// Inodes; 0 where the file system has no fixed number.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

/// Protocol counters of the network namespace: /proc/net/snmp, netstat and snmp6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    /// IPv4.
    pub ipv4: Ip,
    /// IPv6; `None` when the kernel runs without it.
    pub ipv6: Option<Ip>,
    /// UDP over IPv4.
    pub udp: Udp,
    /// UDP over IPv6; `None` when the kernel runs without IPv6.
    pub udp6: Option<Udp>,
    /// TCP over both.
    pub tcp: Tcp,
}

/// IP and the ICMP beside it (RFC 4293 names). A super-packet counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ip {
    /// `InReceives`.
    pub in_receives: Option<u64>,
    /// `InHdrErrors`.
    pub in_header_errors: Option<u64>,
    /// `InDiscards`.
    pub in_discards: Option<u64>,
    /// `InDelivers`.
    pub in_delivers: Option<u64>,
    /// `ForwDatagrams` (IPv6: `OutForwDatagrams`).
    pub forwarded: Option<u64>,
    /// `OutRequests`.
    pub out_requests: Option<u64>,
    /// `OutDiscards`.
    pub out_discards: Option<u64>,
    /// `OutNoRoutes`.
    pub out_no_routes: Option<u64>,
    /// `ReasmFails`.
    pub reassembly_failures: Option<u64>,
    /// `FragFails`: too big and not to be fragmented, the sign of a path MTU problem.
    pub fragmentation_failures: Option<u64>,
    /// `FragCreates`.
    pub fragments_created: Option<u64>,
    /// ICMP `OutDestUnreachs`.
    pub icmp_out_destination_unreachable: Option<u64>,
    /// ICMPv6 `OutPktTooBigs`; IPv4 counts it among the unreachable ones.
    pub icmp_out_packet_too_big: Option<u64>,
}

/// UDP (RFC 4113 names and Linux' own).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Udp {
    /// `InDatagrams`.
    pub in_datagrams: Option<u64>,
    /// `OutDatagrams`.
    pub out_datagrams: Option<u64>,
    /// `NoPorts`.
    pub no_ports: Option<u64>,
    /// `InErrors`, the three below included.
    pub in_errors: Option<u64>,
    /// `RcvbufErrors`: the socket's receive buffer was full.
    pub receive_buffer_errors: Option<u64>,
    /// `SndbufErrors`.
    pub send_buffer_errors: Option<u64>,
    /// `InCsumErrors`.
    pub checksum_errors: Option<u64>,
    /// `MemErrors`: `udp_mem` was exhausted (kernel 5.11 and later).
    pub memory_errors: Option<u64>,
}

/// TCP of this host's own sockets: forwarded connections are not in it (RFC 4022 and Linux' `TcpExt`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// `ActiveOpens`.
    pub active_opens: Option<u64>,
    /// `PassiveOpens`.
    pub passive_opens: Option<u64>,
    /// `AttemptFails`.
    pub attempt_fails: Option<u64>,
    /// `EstabResets`.
    pub established_resets: Option<u64>,
    /// `CurrEstab`: connections now, not a counter.
    pub established: Option<u64>,
    /// `InSegs`.
    pub in_segments: Option<u64>,
    /// `OutSegs`.
    pub out_segments: Option<u64>,
    /// `RetransSegs`.
    pub retransmitted_segments: Option<u64>,
    /// `InErrs`.
    pub in_errors: Option<u64>,
    /// `OutRsts`.
    pub out_resets: Option<u64>,
    /// `InCsumErrors`.
    pub checksum_errors: Option<u64>,
    /// `TCPTimeouts`.
    pub timeouts: Option<u64>,
    /// `TCPLostRetransmit`.
    pub lost_retransmits: Option<u64>,
    /// `TCPSynRetrans`.
    pub syn_retransmits: Option<u64>,
    /// `TCPFastRetrans`.
    pub fast_retransmits: Option<u64>,
    /// `TCPSackRecovery`.
    pub sack_recoveries: Option<u64>,
    /// `TCPSACKReorder`.
    pub sack_reorders: Option<u64>,
    /// `ListenOverflows`.
    pub listen_overflows: Option<u64>,
    /// `ListenDrops`.
    pub listen_drops: Option<u64>,
    /// `PruneCalled`: a receive buffer had to be pruned.
    pub prunes: Option<u64>,
    /// `TCPBacklogDrop`.
    pub backlog_drops: Option<u64>,
    /// `TCPMemoryPressures`.
    pub memory_pressures: Option<u64>,
    /// `TCPMTUPFail`.
    pub mtu_probe_failures: Option<u64>,
    /// `TCPMTUPSuccess`.
    pub mtu_probe_successes: Option<u64>,
}

/// Receive backlog of one CPU (/proc/net/softnet_stat, `net/core/net-procfs.c`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Softnet {
    /// CPU number.
    pub cpu: u32,
    /// Packets processed.
    pub processed: u64,
    /// Packets dropped because the backlog was full (`net.core.netdev_max_backlog`).
    pub dropped: u64,
    /// Times that the budget ran out with work left (`net.core.netdev_budget`).
    pub squeezed: u64,
    /// Wake-ups for packets that another CPU steered here (RPS).
    pub received_rps: u64,
    /// Packets dropped by the flow limit.
    pub flow_limited: u64,
    /// Packets that wait now (kernel 5.14 and later).
    pub backlog: Option<u64>,
}

/// Pressure stall information (/proc/pressure/*).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Waiting for CPU.
    pub cpu: Option<Stall>,
    /// Waiting for memory.
    pub memory: Option<Stall>,
    /// Waiting for disks.
    pub io: Option<Stall>,
}

/// Seconds lost to one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// At least one task waited.
    pub some_seconds: f64,
    /// All tasks waited at once; `None` for CPU before kernel 5.13.
    pub full_seconds: Option<f64>,
}

/// The tailscaled process (/proc/PID).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tailscaled {
    /// Process id; changes when it is restarted.
    pub pid: i32,
    /// Moment of its start, since the Unix epoch.
    pub start_time: Duration,
    /// CPU seconds in user mode, all threads.
    pub user_seconds: f64,
    /// CPU seconds in kernel mode, all threads.
    pub system_seconds: f64,
    /// Seconds that its threads were ready but had to wait for a CPU (schedstat field 2), added up over
    /// threads by increments, so that a thread's end does not turn it back. `None` when the kernel keeps no
    /// such count.
    pub run_queue_delay_seconds: Option<f64>,
    /// Threads now.
    pub threads: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Address space in bytes.
    pub virtual_bytes: u64,
    /// Open file descriptors; `None` without the right to look (another user's process).
    pub open_fds: Option<u64>,
}
