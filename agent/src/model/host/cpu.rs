//! CPUs: where their time went, and who waited for them.

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
    /// Moment of boot, seconds since the Unix epoch (line `btime`); moves when the clock is set.
    pub boot_time: Option<u64>,
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
    /// Every mode, those of guests last.
    #[must_use]
    pub const fn all(&self) -> [f64; 10] {
        let Self { user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice } = *self;
        [user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice]
    }

    /// As [`Self::all`], to be changed.
    pub const fn all_mut(&mut self) -> [&mut f64; 10] {
        let Self { user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice } = self;
        [user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice]
    }

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

/// How fast a CPU runs, and what slowed it down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuFrequency {
    /// CPU number.
    pub cpu: u32,
    /// Now; `None` where the kernel does not say, or says it too slowly.
    pub hertz: Option<u64>,
    /// The most that it can do.
    pub limit_hertz: Option<u64>,
    /// Times that heat slowed the core down.
    pub core_throttles: Option<u64>,
    /// Times that heat slowed the whole package down, as this CPU saw it.
    pub package_throttles: Option<u64>,
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

/// Pressure stall information (/proc/pressure/*).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Waiting for CPU.
    pub cpu: Option<Stall>,
    /// Waiting for memory.
    pub memory: Option<Stall>,
    /// Waiting for disks.
    pub io: Option<Stall>,
    /// Seconds during which interrupts kept all tasks of a CPU waiting; `None` before kernel 6.1 and where the
    /// kernel does not account for them.
    pub irq: Option<f64>,
}

/// Seconds lost to one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// At least one task waited.
    pub some_seconds: f64,
    /// All tasks waited at once; `None` for CPU before kernel 5.13.
    pub full_seconds: Option<f64>,
}
