//! Collector `cgroup`: the control group of tailscaled, version 2 or 1
//! (`cpu_cfs_stat_show`, `cpu_max_show` in kernel/sched/core.c; mm/memcontrol.c).
//!
//! A quota of an ancestor throttles as well as one's own, and shows in the ancestor's files alone: every level is read.

mod files;
mod own;
mod place;
mod pressure;
#[cfg(test)]
mod tests;
mod version;

use std::time::{Duration, Instant};

use super::proc_file::{ProcFile, unless_gone};
use super::tailscaled::{Finder, Process};
use super::{Collector, HostError, Paths};
use crate::model::host::{Cgroup, Host};
use files::Files;
pub use own::memory_limit;
use place::Place;
use pressure::GroupPressure;

/// How long it is believed where a hierarchy is mounted.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Remembers which process tailscaled is, and where its group is.
#[derive(Default)]
pub(super) struct CgroupCollector {
    finder: Finder,
    known: Option<Known>,
}

impl Collector for CgroupCollector {
    const NAME: &'static str = "cgroup";
    const HELP: &'static str =
        "CPU quota, throttling, memory and pressure of the control group of tailscaled";
    type Output = Cgroup;

    fn field(host: &mut Host) -> &mut Option<Cgroup> {
        &mut host.cgroup
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Cgroup>, HostError> {
        // A file that is open tells whether its process is still there, and cheaper than the process' own.
        if let Some(mut known) = self.known.take()
            && let Some(found) = known.read(paths)?
        {
            self.known = Some(known);
            return Ok(Some(found));
        }
        let Some((process, _)) = self.finder.find(paths)? else { return Ok(None) };
        let mut known = Known::new(process);
        let found = known.read(paths)?;
        self.known = Some(known);
        Ok(found)
    }
}

/// A process and its group.
struct Known {
    process: Process,
    membership: ProcFile,
    /// What was in there last, and when it was looked where that is.
    groups: String,
    looked: Option<Instant>,
    places: [Option<Place>; 2],
    files: Files,
    pressure: Option<GroupPressure>,
}

impl Known {
    fn new(process: Process) -> Self {
        Self {
            process,
            membership: ProcFile::default(),
            groups: String::new(),
            looked: None,
            places: [None, None],
            files: Files::default(),
            pressure: None,
        }
    }

    /// `None` when the process is gone.
    fn read(&mut self, paths: &Paths) -> Result<Option<Cgroup>, HostError> {
        let Self { process, membership, groups, looked, places, files, pressure } = self;
        let directory = paths.procfs.join(process.pid.to_string());
        let stays = unless_gone(membership.parse_whole(&directory, "cgroup", |text| {
            let stays = text == groups;
            text.clone_into(groups);
            Ok(stays)
        }))?;
        let Some(stays) = stays else { return Ok(None) };
        if !stays || looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
            let root = paths.sysfs.join("fs/cgroup");
            *places = ["cpu", "memory"].map(|controller| Place::of(controller, groups, &root));
            *looked = Some(Instant::now());
            *files = Files::default();
            *pressure = GroupPressure::of(groups, &root);
        }
        let pressure = pressure.as_mut().map(GroupPressure::read).transpose()?;
        let mut found = Cgroup { pressure, ..Cgroup::default() };
        let [cpu, memory] = places;
        if let Some(place) = cpu {
            found.cpu_quota = Some(f64::INFINITY);
            for level in place.levels(true) {
                place.version.cpu(&level, files, &mut found)?;
            }
        }
        if let Some(place) = memory {
            for (distance, level) in place.memory_levels().enumerate() {
                place.version.memory(&level, files, distance == 0, &mut found)?;
            }
        }
        Ok(Some(found))
    }
}
