//! Control groups of tests, version 1 or 2, whichever this machine mounts; they go with their guard.
//!
//! Named by [`unique_prefix`], so that the next run removes those of a process that was killed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::leftovers::{self, unique_prefix};
use crate::process::wait_until;

const MOUNT: &str = "/sys/fs/cgroup";
/// Where version 2 is beside version 1.
const UNIFIED: &str = "unified";
/// The kernel takes a moment to let go of a group after its last process ended.
const REMOVAL: Duration = Duration::from_secs(5);

/// Which files a group has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Which resource is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// CPU time.
    Cpu,
    /// Memory.
    Memory,
    /// Processes and threads.
    Pids,
}

impl Controller {
    const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

/// A group directly below the root of its hierarchy; dropped, it is removed, which its processes must have left.
#[derive(Debug)]
pub struct Group {
    version: Version,
    path: PathBuf,
}

impl Group {
    /// Makes a group that `controller` watches over.
    ///
    /// # Errors
    /// This machine does not offer the controller, or not to us.
    pub fn create(controller: Controller) -> io::Result<Self> {
        leftovers::guard();
        let one = Path::new(MOUNT).join(controller.name());
        let two = Path::new(MOUNT).join("cgroup.subtree_control");
        let (version, hierarchy) = if one.join("cgroup.procs").exists() {
            (Version::One, one)
        } else {
            fs::write(&two, format!("+{}", controller.name()))?;
            (Version::Two, PathBuf::from(MOUNT))
        };
        Self::below(&hierarchy, version)
    }

    /// Makes a group of version 2 that limits nothing, on machines whose controllers are of version 1 as well.
    ///
    /// # Errors
    /// This machine mounts none, or not for us.
    pub fn create_unified() -> io::Result<Self> {
        leftovers::guard();
        let mounts = ["", UNIFIED].map(|name| Path::new(MOUNT).join(name));
        let mount = mounts.into_iter().find(|mount| mount.join("cgroup.controllers").exists());
        Self::below(&mount.ok_or(io::ErrorKind::Unsupported)?, Version::Two)
    }

    fn below(hierarchy: &Path, version: Version) -> io::Result<Self> {
        let path = hierarchy.join(format!("{}-group", unique_prefix()));
        fs::create_dir(&path)?;
        Ok(Self { version, path })
    }

    /// Moves a process into the group.
    ///
    /// # Errors
    /// It is gone.
    pub fn add(&self, process: u32) -> io::Result<()> {
        fs::write(self.processes(), process.to_string())
    }

    /// The file that takes the ids of processes to be moved here.
    #[must_use]
    pub fn processes(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Limits CPU time to a part of one CPU.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn limit_cpu(&self, part: f64) -> io::Result<()> {
        const PERIOD: u32 = 20_000;
        let quota = (f64::from(PERIOD) * part) as u64;
        match self.version {
            Version::One => {
                self.write("cpu.cfs_period_us", &PERIOD.to_string())?;
                self.write("cpu.cfs_quota_us", &quota.to_string())
            }
            Version::Two => self.write("cpu.max", &format!("{quota} {PERIOD}")),
        }
    }

    /// Limits memory.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        let file = match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        self.write(file, &bytes.to_string())
    }

    /// Limits how many threads there may be; those that there are may stay.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn limit_threads(&self, count: u32) -> io::Result<()> {
        self.write("pids.max", &count.to_string())
    }

    /// Periods, throttled periods, and throttled nanoseconds.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn throttling(&self) -> io::Result<[u64; 3]> {
        let text = fs::read_to_string(self.path.join("cpu.stat"))?;
        let (time, unit) = match self.version {
            Version::One => ("throttled_time", 1),
            Version::Two => ("throttled_usec", 1000),
        };
        Ok([line(&text, "nr_periods"), line(&text, "nr_throttled"), line(&text, time) * unit])
    }

    /// Bytes in use.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn memory(&self) -> io::Result<u64> {
        let file = match self.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        };
        let text = fs::read_to_string(self.path.join(file))?;
        text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Processes that were killed for want of memory.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn oom_kills(&self) -> io::Result<u64> {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        Ok(line(&fs::read_to_string(self.path.join(file))?, "oom_kill"))
    }

    /// Seconds that some, and that all of its tasks waited for a CPU. Of version 2 only.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn cpu_pressure(&self) -> io::Result<[f64; 2]> {
        let text = fs::read_to_string(self.path.join("cpu.pressure"))?;
        let total = |name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.rsplit_once("total=")?.1.parse::<u64>().ok()
        };
        let totals = total("some ").zip(total("full ")).ok_or(io::ErrorKind::InvalidData)?;
        Ok([totals.0 as f64 / 1e6, totals.1 as f64 / 1e6])
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.path.join(file), value)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(timeout) =
            wait_until("the group to be empty", REMOVAL, || fs::remove_dir(&self.path).is_ok())
        {
            eprintln!("{} was not removed: {timeout}", self.path.display());
        }
    }
}

/// Removes groups whose names satisfy `chosen`, as far as nothing runs in them.
pub(crate) fn remove_where(chosen: impl Fn(&str) -> bool) {
    let controllers = [Controller::Cpu, Controller::Memory, Controller::Pids].map(Controller::name);
    let hierarchies = ["", UNIFIED].into_iter().chain(controllers);
    for hierarchy in hierarchies.map(|name| Path::new(MOUNT).join(name)) {
        for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(&chosen) {
                // Its owner's processes may still be ending: the next run tries again.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// The count after `name` and a blank; 0 when there is no such line, as in a group without a limit.
fn line(text: &str, name: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
