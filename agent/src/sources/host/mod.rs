//! /proc, /sys: the host beside the traffic, one file a collector.
//!
//! To add a collector: a file with a type that implements [`Collector`], a field in `model::host::Host`, and a
//! line in [`COLLECTORS`].

mod boot;
mod cpu;
mod diskstats;
mod filesystem;
mod loadavg;
mod meminfo;
mod netstat;
mod pressure;
mod proc_file;
mod softnet;
mod tailscaled;
mod vmstat;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use crate::model::collector::Collectors;
use crate::model::host::Host;

pub use boot::boot;

/// Where the host's file systems are found (`--path.procfs`, `--path.rootfs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Mount point of procfs.
    pub procfs: PathBuf,
    /// What stands before a mount point to reach it.
    pub rootfs: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { procfs: PathBuf::from("/proc"), rootfs: PathBuf::from("/") }
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

    /// Reads once. `Ok(None)` when there is nothing to say and nothing wrong with that.
    fn collect(&mut self, paths: &Paths) -> Result<Option<Self::Output>, HostError>;
}

/// A [`Collector`] of any output.
trait Run {
    /// Reads once and fills the collector's field, with `None` on failure.
    fn run(&mut self, paths: &Paths, host: &mut Host) -> Result<(), HostError>;
}

impl<C: Collector> Run for C {
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
pub const COLLECTORS: [CollectorInfo; 10] = [
    info::<cpu::CpuCollector>(),
    info::<diskstats::DiskstatsCollector>(),
    info::<filesystem::FilesystemCollector>(),
    info::<loadavg::LoadavgCollector>(),
    info::<meminfo::MeminfoCollector>(),
    info::<netstat::NetstatCollector>(),
    info::<pressure::PressureCollector>(),
    info::<softnet::SoftnetCollector>(),
    info::<tailscaled::TailscaledCollector>(),
    info::<vmstat::VmstatCollector>(),
];

/// The collectors that are switched on, with what they keep between runs.
pub struct HostSource {
    paths: Paths,
    collectors: Vec<(&'static str, Box<dyn Run>)>,
    complaints: HashMap<&'static str, String>,
}

impl HostSource {
    /// Takes the collectors for which `enabled` says yes.
    #[must_use]
    pub fn new(paths: Paths, enabled: impl Fn(&CollectorInfo) -> bool) -> Self {
        let collectors =
            COLLECTORS.iter().filter(|info| enabled(info)).map(|info| (info.name, (info.create)())).collect();
        Self { paths, collectors, complaints: HashMap::new() }
    }

    /// Runs every collector once: fills `host`, notes duration and success under the collector's name. A
    /// failure is logged when it begins or changes, and takes no other collector down.
    pub fn collect(&mut self, host: &mut Host, status: &mut Collectors) {
        for (name, collector) in &mut self.collectors {
            let started = Instant::now();
            let outcome = collector.run(&self.paths, host);
            status.record(name, started, Instant::now(), outcome.is_ok());
            complain(&mut self.complaints, name, outcome.err());
        }
    }
}

/// Logs an error when it is new for this collector, and its end.
fn complain(complaints: &mut HashMap<&'static str, String>, name: &'static str, error: Option<HostError>) {
    let Some(error) = error else {
        if complaints.remove(name).is_some() {
            tracing::info!(collector = name, "works again");
        }
        return;
    };
    let mut text = error.to_string();
    if let HostError::Read { source, .. } = &error {
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
