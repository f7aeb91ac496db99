//! What node_exporter's families are made of, raw: as the kernel prints it, in the kernel's words.
//!
//! Beside [`crate::model::host`], which holds the few figures that say what limits a node. Filled by
//! `sources::host::node` when somebody asks for it and at no other time. Memory is kept from scrape to scrape; what a
//! table holds means something only while its collector is [shown](Node::shown).

mod disk;
mod kernel;
mod network;
mod rows;
mod selection;
mod system;

use std::time::Duration;

pub use disk::{AtaProperties, BlockDevice, DeviceMapper, DiskFilesystem, Mount, Space, UdevProperties};
pub use kernel::{Conntrack, CoreThrottles, Cpus, Stat};
pub use network::{LinkCounter, NetClass, NetDevice, QueuedBytes, TcpStates, UdpQueues};
pub use rows::{Named, Recycled, Rows};
pub use selection::{NodeCollector, Selection};
pub use system::{Clock, ClockSource, OsRelease, Processes, Uname};

use super::host::{Load, Pressure, Softnet};

/// How a collector's last run went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How long it took.
    pub duration: Duration,
    /// Whether it found all that it looks for.
    pub success: bool,
    /// Whether it found anything.
    pub shown: bool,
}

/// The tables, by collector.
#[derive(Debug, Default)]
pub struct Node {
    runs: [Option<Run>; NodeCollector::ALL.len()],
    /// Collector `conntrack`.
    pub conntrack: Conntrack,
    /// Collector `cpu`.
    pub cpus: Cpus,
    /// Collector `diskstats`, in the order of the file.
    pub disks: Rows<BlockDevice>,
    /// Collector `filesystem`, in the order of the mount table.
    pub mounts: Rows<Mount>,
    /// Collector `loadavg`.
    pub load: Load,
    /// Collector `meminfo`: bytes, or a count where the name does not end in `_bytes`.
    pub meminfo: Named,
    /// Collector `netclass`.
    pub netclass: Rows<NetClass>,
    /// Collector `netdev`.
    pub netdev: Rows<NetDevice>,
    /// Collector `netstat`: `Protocol_Name`.
    pub netstat: Named,
    /// Collector `os`.
    pub os: OsRelease,
    /// Collector `pressure`.
    pub pressure: Pressure,
    /// Collector `processes`.
    pub processes: Processes,
    /// Collector `sockstat`: `Protocol_key`, as the file has it, and `Protocol_mem_bytes`.
    pub sockstat: Named,
    /// Collector `softnet`.
    pub softnet: Vec<Softnet>,
    /// Collector `stat`.
    pub stat: Stat,
    /// Collector `tcpstat`.
    pub tcp: TcpStates,
    /// Collector `time`.
    pub clock: Clock,
    /// Collector `udp_queues`.
    pub udp: UdpQueues,
    /// Collector `uname`.
    pub uname: Uname,
    /// Collector `vmstat`.
    pub vmstat: Named,
}

impl Node {
    /// Forgets all runs: a new scrape begins.
    pub fn begin(&mut self) {
        self.runs = [None; NodeCollector::ALL.len()];
    }

    /// Notes a run of this scrape.
    pub fn record(&mut self, collector: NodeCollector, run: Run) {
        self.runs[collector as usize] = Some(run);
    }

    /// The run of this scrape; `None` when the collector was not asked for.
    #[must_use]
    pub fn run(&self, collector: NodeCollector) -> Option<Run> {
        self.runs[collector as usize]
    }

    /// Whether the collector's table is of this scrape.
    #[must_use]
    pub fn shown(&self, collector: NodeCollector) -> bool {
        self.run(collector).is_some_and(|run| run.shown)
    }
}
