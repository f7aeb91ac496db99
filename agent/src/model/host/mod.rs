//! What the host says about itself: base units (seconds, bytes), counters since boot unless said otherwise.
//!
//! Every field of [`Host`] belongs to one collector of `sources::host` and is `None` while that collector is
//! off, not available on this host, or failed on its last run: a frozen value would look like an idle host.
//! An `Option` inside a struct is `None` when this kernel does not say it.

mod cgroup;
mod cpu;
mod devices;
mod disk;
mod interrupts;
mod memory;
mod network;
mod processes;
mod settings;
mod sockets;
mod tailscaled;
mod tcp;
mod time;
mod udp;

use std::time::Duration;

pub use cgroup::{Cgroup, Throttling};
pub use cpu::{Cpu, CpuFrequency, CpuTime, Load, Pressure, Stall};
pub use devices::{
    Coalescing, DeviceSettings, DeviceTraffic, DriverStatistics, NetworkDevice, NetworkDevices, Qdisc, Sizes,
};
pub use disk::{Disk, Filesystem};
pub use interrupts::{DeviceInterrupts, SoftirqVector, Softirqs};
pub use memory::{Memory, Paging};
pub use network::{Ip, Protocols, Softnet, Tcp, Udp};
pub use processes::Processes;
pub use settings::Settings;
pub use sockets::{Conntrack, ConntrackStatistics, SocketUse};
pub use tailscaled::Tailscaled;
pub use tcp::{Connections, RoundTrip, TcpSockets, TcpStates};
pub use time::{Discipline, Time};
pub use udp::{TailscaledUdp, UdpBuffers, UdpSockets};

/// Filled by `sources::host`, one field a collector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// Facts that do not change until the next boot.
    pub boot: Option<Boot>,
    /// Collector `cpu`.
    pub cpu: Option<Cpu>,
    /// Collector `cpufreq`: by number, CPUs that say something.
    pub cpu_frequencies: Option<Vec<CpuFrequency>>,
    /// Collector `loadavg`.
    pub load: Option<Load>,
    /// Collector `processes`.
    pub processes: Option<Processes>,
    /// Collector `time`.
    pub time: Option<Time>,
    /// Collector `meminfo`.
    pub memory: Option<Memory>,
    /// Collector `vmstat`.
    pub paging: Option<Paging>,
    /// Collector `diskstats`: whole disks, in the order of the file.
    pub disks: Option<Vec<Disk>>,
    /// Collector `filesystem`: local file systems that hold data, in the order of the mount table, no mount point twice.
    pub filesystems: Option<Vec<Filesystem>>,
    /// Collector `netstat`.
    pub protocols: Option<Protocols>,
    /// Collector `softnet`: one row a CPU that is online.
    pub softnet: Option<Vec<Softnet>>,
    /// Collector `cgroup`; `None` while tailscaled does not run, too.
    pub cgroup: Option<Cgroup>,
    /// Collector `udp`; `None` without the right to see which sockets are tailscaled's, too.
    pub udp: Option<TailscaledUdp>,
    /// Collector `tcp`.
    pub tcp: Option<TcpSockets>,
    /// Collector `link`.
    pub devices: Option<NetworkDevices>,
    /// Collector `ethtool`: the tunnel, then hardware, then other devices that are up.
    pub device_settings: Option<Vec<DeviceSettings>>,
    /// Collector `driver`: devices whose drivers say something of loss, in the same order.
    pub driver_statistics: Option<Vec<DriverStatistics>>,
    /// Collector `qdisc`: roots that can hold packets.
    pub qdiscs: Option<Vec<Qdisc>>,
    /// Collector `interrupts`: network devices that have interrupts of their own, by name.
    pub interrupts: Option<Vec<DeviceInterrupts>>,
    /// Collector `softirqs`.
    pub softirqs: Option<Softirqs>,
    /// Collector `sockstat`.
    pub sockets: Option<SocketUse>,
    /// Collector `conntrack`; `None` while the kernel tracks nothing, too.
    pub conntrack: Option<Conntrack>,
    /// Collector `sysctl`.
    pub settings: Option<Settings>,
    /// Collector `pressure`.
    pub pressure: Option<Pressure>,
    /// Collector `tailscaled`; `None` while no such process runs, too.
    pub tailscaled: Option<Tailscaled>,
}

impl Host {
    /// Moment of boot, since the Unix epoch, by the clock as it is set now: a board whose clock has no battery boots in
    /// another year. `None` without collector `cpu`.
    #[must_use]
    pub fn boot_time(&self) -> Option<Duration> {
        self.cpu.as_ref().and_then(|cpu| cpu.boot_time).map(Duration::from_secs)
    }
}

/// Facts that do not change until the next boot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Boot {
    /// Host name (`uname` nodename).
    pub hostname: String,
    /// Kernel release, such as `6.18.44`.
    pub kernel_release: String,
}
