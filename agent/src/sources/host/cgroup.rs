//! Collector `cgroup`: the control group of tailscaled, version 2 or 1
//! (`cpu_cfs_stat_show`, `cpu_max_show` in kernel/sched/core.c; mm/memcontrol.c).
//!
//! A quota of an ancestor throttles as well as one's own, and shows in the ancestor's files alone: every level is read.

mod own;
mod pressure;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use self::own::memory_limit;
use self::pressure::GroupPressure;
use super::proc_file::{ProcFile, number, unless_gone};
use super::tailscaled::{Finder, Process};
use super::{Collector, HostError, Paths, malformed};
use crate::model::host::{Cgroup, Host};

/// How long it is believed where a hierarchy is mounted.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Files that stay open: those of eleven levels.
const MOST_OPEN: usize = 64;

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
            for level in place.levels() {
                place.version.cpu(&level, files, &mut found)?;
            }
        }
        if let Some(place) = memory {
            for (distance, level) in place.levels().enumerate() {
                place.version.memory(&level, files, distance == 0, &mut found)?;
            }
        }
        Ok(Some(found))
    }
}

/// Files of groups, as many as stay open.
#[derive(Default)]
struct Files(HashMap<PathBuf, ProcFile>);

impl Files {
    /// `None` when the level has no such file, or went meanwhile.
    fn read(&mut self, level: &Path, name: &str) -> Result<Option<String>, HostError> {
        let path = level.join(name);
        let mut other = ProcFile::default();
        let file = match self.0.len() < MOST_OPEN {
            true => self.0.entry(path).or_default(),
            false => self.0.get_mut(&path).unwrap_or(&mut other),
        };
        unless_gone(file.parse_whole(level, name, |text| Ok(text.to_owned())))
    }

    /// A file of one number; `None` when there is no such file, and for `max`.
    fn value(&mut self, level: &Path, name: &str) -> Result<Option<f64>, HostError> {
        let Some(text) = self.read(level, name)? else { return Ok(None) };
        match text.trim() {
            "max" => Ok(None),
            text => match number::<i64>(Some(text)) {
                Some(number) => Ok(Some(number as f64)),
                None => Err(malformed(level.join(name), "a number or `max`", text)),
            },
        }
    }
}

/// Where a controller's files of a group are.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    version: Version,
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    /// The group below it; empty for the root.
    group: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Place {
    /// Finds it in /proc/PID/cgroup (cgroups(7)): `5:cpu,cpuacct:/group` for version 1, `0::/group` for version 2.
    /// `None` for a group outside of what this process may see, or with an odd name.
    fn of(controller: &str, membership: &str, root: &Path) -> Option<Self> {
        let mut unified = None;
        for line in membership.lines() {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            if controllers.split(',').any(|name| name == controller) {
                // Named after all its controllers, with links of single names beside it.
                let mount = [controller, controllers].map(|name| root.join(name));
                let mount = mount.into_iter().find(|mount| mount.is_dir())?;
                return Self::new(Version::One, mount, path);
            }
            if controllers.is_empty() {
                unified = Some(path);
            }
        }
        Self::new(Version::Two, root.to_owned(), unified?)
    }

    fn new(version: Version, mount: PathBuf, path: &str) -> Option<Self> {
        let group = PathBuf::from(path.trim_start_matches('/'));
        // Somebody may name groups as he likes, but for the line feed.
        if path.len() >= libc::PATH_MAX as usize || path.contains(char::is_control) {
            return None;
        }
        let inside = group.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        inside.then_some(Self { version, mount, group })
    }

    /// The group and its ancestors but for the root, which has no limits.
    fn levels(&self) -> impl Iterator<Item = PathBuf> {
        let named = self.group.ancestors().filter(|group| !group.as_os_str().is_empty());
        named.map(|group| self.mount.join(group))
    }
}

impl Version {
    fn cpu(self, level: &Path, files: &mut Files, found: &mut Cgroup) -> Result<(), HostError> {
        let (quota, period, time_unit) = match self {
            Self::One => {
                let quota = files.value(level, "cpu.cfs_quota_us")?;
                // -1 without a quota.
                (quota.filter(|quota| *quota > 0.0), files.value(level, "cpu.cfs_period_us")?, 1e9)
            }
            Self::Two => {
                let (quota, period) = cpu_max(level, files)?;
                (quota, period, 1e6)
            }
        };
        if let (Some(quota), Some(period)) = (quota, period.filter(|period| *period > 0.0)) {
            let cpus = quota / period;
            found.cpu_quota = Some(found.cpu_quota.map_or(cpus, |other| other.min(cpus)));
        }
        let Some(text) = files.read(level, "cpu.stat")? else { return Ok(()) };
        for line in text.lines() {
            let Some((key, value)) = line.split_once(' ') else { continue };
            // Version 2 has the file, without these lines, where the controller is off.
            if !matches!(key, "nr_periods" | "nr_throttled" | "throttled_time" | "throttled_usec") {
                continue;
            }
            let count: u64 = number(Some(value))
                .ok_or_else(|| malformed(level.join("cpu.stat"), "a name and a count", line))?;
            let sum = found.throttling.get_or_insert_default();
            match key {
                "nr_periods" => sum.periods = sum.periods.saturating_add(count),
                "nr_throttled" => sum.throttled_periods = sum.throttled_periods.saturating_add(count),
                _ => sum.throttled_seconds += count as f64 / time_unit,
            }
        }
        Ok(())
    }

    fn memory(self, level: &Path, files: &mut Files, own: bool, found: &mut Cgroup) -> Result<(), HostError> {
        let (used, limit, events) = match self {
            Self::One => ("memory.usage_in_bytes", "memory.limit_in_bytes", "memory.oom_control"),
            Self::Two => ("memory.current", "memory.max", "memory.events"),
        };
        if own {
            found.memory_bytes = files.value(level, used)?.map(|bytes| bytes as u64);
            let text = files.read(level, events)?.unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            found.oom_kills = number(line);
        }
        // Version 1 says 2^63 rounded down to a page where there is no limit, version 2 says `max`.
        let limit = files.value(level, limit)?.filter(|bytes| *bytes < (1u64 << 62) as f64);
        if let Some(bytes) = limit.map(|bytes| bytes as u64) {
            found.memory_limit_bytes = Some(found.memory_limit_bytes.map_or(bytes, |other| other.min(bytes)));
        }
        Ok(())
    }
}

/// `cpu.max` of version 2: quota and period in microseconds; the quota is `max` where there is none.
fn cpu_max(level: &Path, files: &mut Files) -> Result<(Option<f64>, Option<f64>), HostError> {
    let Some(text) = files.read(level, "cpu.max")? else { return Ok((None, None)) };
    let mut words = text.split_ascii_whitespace();
    let (quota, period) = (words.next(), number::<u32>(words.next()));
    match (quota, period) {
        (Some("max"), Some(period)) => Ok((None, Some(period.into()))),
        (quota, Some(period)) if number::<u64>(quota).is_some() => {
            Ok((number::<u64>(quota).map(|quota| quota as f64), Some(period.into())))
        }
        _ => Err(malformed(level.join("cpu.max"), "a quota or `max`, and a period", &text)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::host::Throttling;

    /// A procfs and a sysfs with this process as tailscaled in a group.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(membership: &str) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            tree.write("proc/stat", "cpu 1 2 3 4\nbtime 1000\n");
            tree.write("proc/77/comm", "tailscaled\n");
            tree.write("proc/77/stat", &format!("77 (tailscaled) S 1{}\n", " 0".repeat(40)));
            tree.write("proc/77/cgroup", membership);
            tree
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn collect(&self) -> Result<Option<Cgroup>, HostError> {
            self.collect_with(&mut CgroupCollector::default())
        }

        fn collect_with(&self, collector: &mut CgroupCollector) -> Result<Option<Cgroup>, HostError> {
            let at = |name| self.0.path().join(name);
            let paths =
                Paths { procfs: at("proc"), sysfs: at("sys"), localapi: at("none"), ..Paths::default() };
            collector.collect(&paths)
        }
    }

    #[test]
    fn version_2_with_a_quota_on_the_slice_above() {
        let tree = Tree::new("0::/system.slice/tailscaled.service\n");
        tree.write("sys/fs/cgroup/system.slice/tailscaled.service/cpu.max", "max 100000\n");
        let own = "usage_usec 5\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n";
        tree.write("sys/fs/cgroup/system.slice/tailscaled.service/cpu.stat", own);
        tree.write("sys/fs/cgroup/system.slice/tailscaled.service/memory.current", "4096\n");
        tree.write("sys/fs/cgroup/system.slice/tailscaled.service/memory.max", "max\n");
        tree.write("sys/fs/cgroup/system.slice/tailscaled.service/memory.events", "oom 3\noom_kill 2\n");
        tree.write("sys/fs/cgroup/system.slice/cpu.max", "20000 100000\n");
        let slice = "nr_periods 10\nnr_throttled 4\nthrottled_usec 1500000\n";
        tree.write("sys/fs/cgroup/system.slice/cpu.stat", slice);
        tree.write("sys/fs/cgroup/system.slice/memory.max", "1048576\n");
        let expected = Cgroup {
            cpu_quota: Some(0.2),
            throttling: Some(Throttling { periods: 10, throttled_periods: 4, throttled_seconds: 1.5 }),
            memory_bytes: Some(4096),
            memory_limit_bytes: Some(1_048_576),
            oom_kills: Some(2),
            pressure: None,
        };
        assert_eq!(tree.collect().unwrap(), Some(expected));
    }

    #[test]
    fn a_process_that_moves_is_followed_and_so_is_a_file_that_comes_and_changes() {
        let tree = Tree::new("0::/vpn\n");
        let mut collector = CgroupCollector::default();
        let mut limit = || tree.collect_with(&mut collector).unwrap().unwrap().memory_limit_bytes;
        assert_eq!(limit(), None);
        tree.write("sys/fs/cgroup/vpn/memory.max", "8192\n");
        assert_eq!(limit(), Some(8192));
        tree.write("sys/fs/cgroup/vpn/memory.max", "4096\n");
        assert_eq!(limit(), Some(4096));
        tree.write("sys/fs/cgroup/other/memory.max", "12288\n");
        tree.write("proc/77/cgroup", "0::/other\n");
        assert_eq!(limit(), Some(12_288));
        fs::remove_dir_all(tree.0.path().join("proc/77")).unwrap();
        collector.known.as_mut().unwrap().membership = ProcFile::default();
        assert_eq!(tree.collect_with(&mut collector).unwrap(), None, "it is gone");
    }

    #[test]
    fn more_levels_than_files_may_be_open_are_read_all_the_same() {
        let group = "/deep".repeat(MOST_OPEN);
        let tree = Tree::new(&format!("0::{group}\n"));
        tree.write("sys/fs/cgroup/deep/memory.max", "4096\n");
        tree.write("sys/fs/cgroup/deep/cpu.max", "20000 100000\n");
        let mut collector = CgroupCollector::default();
        for _ in 0..2 {
            let found = tree.collect_with(&mut collector).unwrap().unwrap();
            assert_eq!((found.memory_limit_bytes, found.cpu_quota), (Some(4096), Some(0.2)));
            assert_eq!(collector.known.as_ref().unwrap().files.0.len(), MOST_OPEN);
        }
    }

    #[test]
    fn without_the_cpu_controller_nothing_is_known_of_throttling() {
        let tree = Tree::new("0::/vpn\n");
        tree.write("sys/fs/cgroup/vpn/cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\n");
        assert_eq!(tree.collect().unwrap(), Some(Cgroup::default()));
    }

    #[test]
    fn version_1_with_controllers_in_one_mount() {
        let tree = Tree::new("4:memory:/vpn\n2:cpu,cpuacct:/vpn\n0::/\n");
        tree.write("sys/fs/cgroup/cpu,cpuacct/vpn/cpu.cfs_quota_us", "50000\n");
        tree.write("sys/fs/cgroup/cpu,cpuacct/vpn/cpu.cfs_period_us", "100000\n");
        let stat = "nr_periods 7\nnr_throttled 3\nthrottled_time 2000000000\n";
        tree.write("sys/fs/cgroup/cpu,cpuacct/vpn/cpu.stat", stat);
        tree.write("sys/fs/cgroup/memory/vpn/memory.usage_in_bytes", "8192\n");
        tree.write("sys/fs/cgroup/memory/vpn/memory.limit_in_bytes", "9223372036854771712\n");
        let found = tree.collect().unwrap().unwrap();
        assert_eq!(
            (found.cpu_quota, found.memory_bytes, found.memory_limit_bytes),
            (Some(0.5), Some(8192), None)
        );
        let throttling = Throttling { periods: 7, throttled_periods: 3, throttled_seconds: 2.0 };
        assert_eq!(found.throttling, Some(throttling));
    }

    #[test]
    fn a_group_outside_of_the_namespace_or_with_an_odd_name_says_nothing() {
        for group in ["../other".to_owned(), "\u{1b}[2J".to_owned(), "x".repeat(5000)] {
            let found = Tree::new(&format!("0::/{group}\n")).collect().unwrap();
            assert_eq!(found, Some(Cgroup::default()), "{group:?}");
        }
    }

    #[test]
    fn bad_content_is_named() {
        let tree = Tree::new("0::/vpn\n");
        tree.write("sys/fs/cgroup/vpn/cpu.max", "some 100000\n");
        let error = tree.collect().unwrap_err().to_string();
        assert!(error.contains("vpn/cpu.max") && error.contains("a quota or `max`"), "{error}");
    }
}
