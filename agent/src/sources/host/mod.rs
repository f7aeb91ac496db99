//! /proc, /sys: the host beside the traffic, one file a collector.
//!
//! To add a collector: a file with a type that implements `Collector`, a field in `model::host::Host`, and a
//! line in [`COLLECTORS`].

mod boot;
mod cgroup;
mod conntrack;
mod cpu;
mod cpu_list;
mod cpufreq;
mod diskstats;
mod ethtool;
mod filesystem;
mod hanging;
mod interrupts;
mod link;
mod loadavg;
mod meminfo;
mod mount_tree;
mod mountinfo;
mod netstat;
mod node;
mod pressure;
mod proc_file;
mod processes;
mod qdisc;
mod remote;
mod rest;
mod route;
mod sock_diag;
mod sockstat;
mod softirqs;
mod softnet;
mod sysctl;
mod tailscaled;
mod tcp;
mod time;
mod udp;
mod vmstat;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::model::collector::Collectors;
use crate::model::host::Host;
use crate::model::tailnet::Tailnet;

pub use boot::boot;
pub use cgroup::memory_limit;
pub(super) use cpu::CpuReader;
pub(super) use cpu_list::CpuList;
pub use node::NodeSource;
pub(super) use pressure::PressureReader;
pub(super) use qdisc::roots as root_qdiscs;
pub(super) use tailscaled::{Finder, Process, Stat, Threads};
pub(super) use udp::Sockets as UdpSockets;

/// Where the host's file systems are found (`--path.procfs`, `--path.sysfs`, `--path.rootfs`), and what is
/// tailscaled's of all that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Mount point of procfs.
    pub procfs: PathBuf,
    /// Mount point of sysfs.
    pub sysfs: PathBuf,
    /// What stands before a mount point to reach it.
    pub rootfs: PathBuf,
    /// LocalAPI socket of tailscaled (`--tailscale.socket`): whoever listens on it is tailscaled.
    pub localapi: PathBuf,
    /// Tunnel device of tailscaled (`--interface`).
    pub interface: String,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            procfs: PathBuf::from("/proc"),
            sysfs: PathBuf::from("/sys"),
            rootfs: PathBuf::from("/"),
            localapi: PathBuf::from("/var/run/tailscale/tailscaled.sock"),
            interface: "tailscale0".to_owned(),
        }
    }
}

/// Why a collector has nothing.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The kernel does not offer this file: not built in, switched off, or another procfs.
    #[error("not available: this kernel does not offer {path}")]
    Unavailable {
        /// The file.
        path: PathBuf,
    },
    /// The file is there but cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is larger than anything the kernel writes.
    #[error("{path} has more than {limit} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Bytes that are read at most.
        limit: usize,
    },
    /// The kernel did not answer a question.
    #[error("cannot {operation}")]
    Netlink {
        /// What was asked.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {operation}")]
    Call {
        /// What it was for.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is not what the kernel writes.
    #[error("{path}, line {line}: expected {expected}, found {found:?}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What would be right.
        expected: &'static str,
        /// The beginning of the line.
        found: String,
    },
    /// A line that every kernel writes is not there.
    #[error("{path} has no line {expected}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What the line begins with.
        expected: &'static str,
    },
}

/// One group of figures from one place.
trait Collector: Default + 'static {
    /// Name in `--collector.NAME` and in the self metrics.
    const NAME: &'static str;
    /// What it reads, for `--help`.
    const HELP: &'static str;
    /// Whether it runs unless it is switched off.
    const DEFAULT: bool = true;
    /// What it fills.
    type Output;

    /// Its field of the model.
    fn field(host: &mut Host) -> &mut Option<Self::Output>;

    /// Takes over who is in the tailnet; most collectors do not care.
    fn follow(&mut self, _tailnet: &Arc<Tailnet>) {}

    /// Whether what was read last is to stay for now: reading costs much, or changes are rare.
    fn rests(&self) -> bool {
        false
    }

    /// Reads once. `Ok(None)` when there is nothing to say and nothing wrong with that.
    fn collect(&mut self, paths: &Paths) -> Result<Option<Self::Output>, HostError>;
}

/// A [`Collector`] of any output.
trait Run {
    /// [`Collector::follow`].
    fn follow(&mut self, tailnet: &Arc<Tailnet>);

    /// [`Collector::rests`].
    fn rests(&self) -> bool;

    /// Reads once and fills the collector's field, with `None` on failure.
    fn run(&mut self, paths: &Paths, host: &mut Host) -> Result<(), HostError>;
}

impl<C: Collector> Run for C {
    fn follow(&mut self, tailnet: &Arc<Tailnet>) {
        Collector::follow(self, tailnet);
    }

    fn rests(&self) -> bool {
        Collector::rests(self)
    }

    fn run(&mut self, paths: &Paths, host: &mut Host) -> Result<(), HostError> {
        let field = C::field(host);
        *field = None;
        *field = self.collect(paths)?;
        Ok(())
    }
}

/// A collector as the command line sees it.
#[derive(Clone, Copy)]
pub struct CollectorInfo {
    /// Name in `--collector.NAME`, `--no-collector.NAME` and the self metrics.
    pub name: &'static str,
    /// What it reads, in one line.
    pub help: &'static str,
    /// Whether it runs unless it is switched off.
    pub default: bool,
    create: fn() -> Box<dyn Run>,
}

const fn info<C: Collector>() -> CollectorInfo {
    CollectorInfo { name: C::NAME, help: C::HELP, default: C::DEFAULT, create: || Box::new(C::default()) }
}

/// Every collector, by name.
pub const COLLECTORS: &[CollectorInfo] = &[
    info::<cgroup::CgroupCollector>(),
    info::<conntrack::ConntrackCollector>(),
    info::<cpu::CpuCollector>(),
    info::<cpufreq::CpufreqCollector>(),
    info::<diskstats::DiskstatsCollector>(),
    info::<ethtool::DriverCollector>(),
    info::<ethtool::EthtoolCollector>(),
    info::<filesystem::FilesystemCollector>(),
    info::<interrupts::InterruptsCollector>(),
    info::<link::LinkCollector>(),
    info::<loadavg::LoadavgCollector>(),
    info::<meminfo::MeminfoCollector>(),
    info::<netstat::NetstatCollector>(),
    info::<pressure::PressureCollector>(),
    info::<processes::ProcessesCollector>(),
    info::<qdisc::QdiscCollector>(),
    info::<sockstat::SockstatCollector>(),
    info::<softirqs::SoftirqsCollector>(),
    info::<softnet::SoftnetCollector>(),
    info::<sysctl::SysctlCollector>(),
    info::<tailscaled::TailscaledCollector>(),
    info::<tcp::TcpCollector>(),
    info::<time::TimeCollector>(),
    info::<udp::UdpCollector>(),
    info::<vmstat::VmstatCollector>(),
];

/// What was last complained of, by what it is about.
pub(super) type Complaints = HashMap<&'static str, String>;

/// The collectors that are switched on, with what they keep between runs.
pub struct HostSource {
    paths: Paths,
    collectors: Vec<(&'static str, Box<dyn Run>)>,
    complaints: Complaints,
}

impl HostSource {
    /// Takes the collectors for which `enabled` says yes.
    #[must_use]
    pub fn new(paths: Paths, enabled: impl Fn(&CollectorInfo) -> bool) -> Self {
        let collectors =
            COLLECTORS.iter().filter(|info| enabled(info)).map(|info| (info.name, (info.create)())).collect();
        Self { paths, collectors, complaints: Complaints::default() }
    }

    /// Tells the collectors who is in the tailnet.
    pub fn follow(&mut self, tailnet: &Arc<Tailnet>) {
        self.collectors.iter_mut().for_each(|(_, collector)| collector.follow(tailnet));
    }

    /// Runs every collector once: fills `host`, notes duration and success under the collector's name. A
    /// failure is logged when it begins or changes, and takes no other collector down. What a collector that
    /// rests has filled before is left as it is, and its age says how old it is.
    pub fn collect(&mut self, host: &mut Host, status: &mut Collectors) {
        for (name, collector) in self.collectors.iter_mut().filter(|(_, collector)| !collector.rests()) {
            let started = Instant::now();
            let outcome = collector.run(&self.paths, host);
            status.record(name, started, Instant::now(), outcome.is_ok());
            complain(&mut self.complaints, name, outcome.err());
        }
    }
}

/// A one-line file that is not what the kernel writes.
fn malformed(path: PathBuf, expected: &'static str, text: &str) -> HostError {
    HostError::Malformed { path, line: 1, expected, found: text.chars().take(80).collect() }
}

/// Logs an error when it is new for this collector, and its end.
pub(super) fn complain(complaints: &mut Complaints, name: &'static str, error: Option<HostError>) {
    let Some(error) = error else {
        if complaints.remove(name).is_some() {
            tracing::info!(collector = name, "works again");
        }
        return;
    };
    let mut text = error.to_string();
    if let HostError::Read { source, .. }
    | HostError::Netlink { source, .. }
    | HostError::Call { source, .. } = &error
    {
        text = format!("{text}: {source}");
    }
    if complaints.get(name) != Some(&text) {
        match error {
            HostError::Unavailable { .. } => tracing::info!(collector = name, "{text}"),
            _ => tracing::warn!(collector = name, "{text}"),
        }
        complaints.insert(name, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(source: &mut HostSource) -> (Host, Vec<(&'static str, bool)>) {
        let (mut host, mut status) = (Host::default(), Collectors::default());
        source.collect(&mut host, &mut status);
        (host, status.iter().map(|(name, status)| (name, status.success)).collect())
    }

    #[test]
    fn the_collectors_are_in_order_and_no_name_comes_twice() {
        assert!(COLLECTORS.is_sorted_by(|a, b| a.name < b.name));
        assert!(COLLECTORS.iter().all(|info| info.default && !info.help.is_empty()));
    }

    #[test]
    fn everything_but_what_this_kernel_lacks_is_read_from_this_host() {
        let (host, outcomes) = collect(&mut HostSource::new(Paths::default(), |info| info.default));
        let failed: Vec<_> = outcomes.iter().filter(|(_, success)| !success).map(|(name, _)| *name).collect();
        assert!(failed.is_empty() || failed == ["pressure"], "{failed:?}");
        assert_eq!(outcomes.len(), COLLECTORS.len());
        assert!(host.cpu.is_some_and(|cpu| cpu.total.idle > 0.0 && !cpu.per_cpu.is_empty()));
        assert!(host.memory.is_some_and(|memory| memory.total > memory.free));
        assert!(host.softnet.is_some_and(|rows| !rows.is_empty()));
    }

    #[test]
    fn what_is_switched_off_is_not_read() {
        let (host, outcomes) = collect(&mut HostSource::new(Paths::default(), |info| info.name == "loadavg"));
        assert_eq!(outcomes, [("loadavg", true)]);
        assert!(host.load.is_some() && host.cpu.is_none());
    }

    #[test]
    fn one_bad_file_takes_no_other_collector_down_and_is_complained_of_until_it_is_good() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
        write("loadavg", "0.10 0.96 1.05 1/91 19623\n");
        write("stat", "cpu 1 2\n");
        let paths = Paths { procfs: root.path().to_owned(), ..Paths::default() };
        let mut source = HostSource::new(paths, |info| ["cpu", "loadavg", "vmstat"].contains(&info.name));
        let (host, outcomes) = collect(&mut source);
        assert_eq!(outcomes, [("cpu", false), ("loadavg", true), ("vmstat", false)]);
        assert!(host.cpu.is_none() && host.load.is_some());
        let path = root.path().display();
        assert_eq!(
            source.complaints["cpu"],
            format!(
                "{path}/stat, line 1: expected a CPU and at least four counts of ticks, found \"cpu 1 2\""
            )
        );
        assert_eq!(
            source.complaints["vmstat"],
            format!("not available: this kernel does not offer {path}/vmstat")
        );
        write("stat", "cpu 1 2 3 4\n");
        let (host, _) = collect(&mut source);
        assert!(host.cpu.is_some() && !source.complaints.contains_key("cpu"));
    }
}
