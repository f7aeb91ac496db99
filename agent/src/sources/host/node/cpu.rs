//! Collectors `cpu` and `stat`: /proc/stat, read once for both, and what /sys says of CPUs.

use std::path::Path;

use super::super::cpu::{CpuReader, hold};
use super::super::cpu_list::CpuList;
use super::super::{HostError, Paths};
use super::sysfs;
use super::throttles::Throttles;
use crate::model::host::{Cpu, CpuTime};
use crate::model::node::{Cpus, Stat};

/// Keeps /proc/stat open, and the counts that were shown last.
#[derive(Default)]
pub(super) struct Reader {
    reader: CpuReader,
    latest: Cpu,
    fresh: bool,
    shown: Vec<(u32, CpuTime)>,
    throttles: Throttles,
    isolated: CpuList,
    present: CpuList,
}

impl Reader {
    /// A new scrape begins.
    pub(super) const fn begin(&mut self) {
        self.fresh = false;
    }

    fn read(&mut self, paths: &Paths) -> Result<(), HostError> {
        if !self.fresh {
            self.reader.read_into(paths, &mut self.latest)?;
            self.fresh = true;
        }
        Ok(())
    }

    /// Collector `cpu`.
    pub(super) fn cpus(&mut self, paths: &Paths, cpus: &mut Cpus) -> Result<(), HostError> {
        self.read(paths)?;
        let changed = advance(&mut self.shown, &self.latest.per_cpu);
        cpus.time.clone_from(&self.shown);
        let folder = paths.sysfs.join("devices/system/cpu");
        self.isolated.read(&folder, "isolated")?;
        cpus.isolated.clear();
        cpus.isolated.extend_from_slice(self.isolated.cpus());
        self.online(&folder, &mut cpus.online)?;
        self.throttles.read(&folder, changed, cpus);
        Ok(())
    }

    /// Collector `stat`.
    pub(super) fn stat(&mut self, paths: &Paths, stat: &mut Stat) -> Result<(), HostError> {
        self.read(paths)?;
        let Cpu { context_switches, interrupts, forks, boot_time, running, blocked, .. } = self.latest;
        *stat = Stat { interrupts, context_switches, forks, boot_time, running, blocked };
        Ok(())
    }

    /// Nothing where CPU 0 has no switch.
    fn online(&mut self, folder: &Path, online: &mut Vec<(u32, bool)>) -> Result<(), HostError> {
        let switch = |cpu: u32| sysfs::text(&folder.join(format!("cpu{cpu}/online"))).map(|text| text == "1");
        online.clear();
        if switch(0).is_none() {
            return Ok(());
        }
        self.present.read(folder, "present")?;
        online.extend(self.present.cpus().iter().filter_map(|cpu| Some((*cpu, switch(*cpu)?))));
        Ok(())
    }
}

/// Brings `shown` up to `now`: no count falls while its CPU is online, and CPUs that are offline are left out. Says
/// whether a CPU came or went.
fn advance(shown: &mut Vec<(u32, CpuTime)>, now: &[(u32, CpuTime)]) -> bool {
    let before = shown.len();
    shown.retain(|(cpu, _)| now.iter().any(|(other, _)| other == cpu));
    let mut changed = shown.len() < before;
    for (cpu, mut time) in now.iter().copied() {
        match shown.binary_search_by_key(&cpu, |(cpu, _)| *cpu) {
            Ok(place) => {
                hold(&shown[place].1, &mut time);
                shown[place].1 = time;
            }
            Err(place) => {
                shown.insert(place, (cpu, time));
                changed = true;
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    fn time(idle: f64, iowait: f64) -> CpuTime {
        CpuTime { idle, iowait, user: 7.0, ..CpuTime::default() }
    }

    #[test]
    fn a_count_that_falls_a_little_stays_and_one_that_falls_far_begins_anew() {
        let mut shown = Vec::new();
        assert!(advance(&mut shown, &[(0, time(100.0, 5.0)), (1, time(100.0, 5.0))]));
        assert!(!advance(&mut shown, &[(0, time(98.0, 4.0)), (1, time(97.0, 1.0))]));
        assert_eq!(shown, [(0, time(100.0, 5.0)), (1, time(97.0, 1.0))]);
    }

    #[test]
    fn a_cpu_that_is_offline_is_left_out_and_comes_back_in_its_place() {
        let mut shown = Vec::new();
        advance(&mut shown, &[(0, time(1.0, 0.0)), (1, time(1.0, 0.0)), (2, time(1.0, 0.0))]);
        assert!(advance(&mut shown, &[(0, time(2.0, 0.0)), (2, time(2.0, 0.0))]));
        assert_eq!(shown.iter().map(|(cpu, _)| *cpu).collect::<Vec<_>>(), [0, 2]);
        assert!(advance(&mut shown, &[(0, time(3.0, 0.0)), (1, time(0.5, 0.0)), (2, time(3.0, 0.0))]));
        assert_eq!(shown[1], (1, time(0.5, 0.0)));
    }

    #[test]
    fn one_reading_serves_both_collectors() {
        let root = tempfile::tempdir().unwrap();
        let stat = root.path().join("stat");
        std::fs::write(&stat, "cpu 1 2 3 4\ncpu0 1 2 3 4\nctxt 5\nbtime 9\n").unwrap();
        let paths =
            Paths { procfs: root.path().to_owned(), sysfs: root.path().to_owned(), ..Paths::default() };
        let (mut reader, mut cpus, mut counts) = (Reader::default(), Cpus::default(), Stat::default());
        reader.cpus(&paths, &mut cpus).unwrap();
        std::fs::write(&stat, "cpu 1 2 3 4\ncpu0 1 2 3 4\nctxt 6\nbtime 9\n").unwrap();
        reader.stat(&paths, &mut counts).unwrap();
        assert_eq!((cpus.time.len(), counts.context_switches, counts.boot_time), (1, 5, Some(9)));
        reader.begin();
        reader.stat(&paths, &mut counts).unwrap();
        assert_eq!(counts.context_switches, 6);
    }

    #[test]
    fn switches_and_isolation_are_read_where_they_are() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("devices/system/cpu");
        for (cpu, online) in [(0, "1\n"), (1, "0\n")] {
            std::fs::create_dir_all(folder.join(format!("cpu{cpu}"))).unwrap();
            std::fs::write(folder.join(format!("cpu{cpu}/online")), online).unwrap();
        }
        std::fs::write(folder.join("present"), "0-1\n").unwrap();
        std::fs::write(folder.join("isolated"), "1\n").unwrap();
        std::fs::write(root.path().join("stat"), "cpu 1 2 3 4\ncpu0 1 2 3 4\n").unwrap();
        let paths =
            Paths { procfs: root.path().to_owned(), sysfs: root.path().to_owned(), ..Paths::default() };
        let mut cpus = Cpus::default();
        Reader::default().cpus(&paths, &mut cpus).unwrap();
        assert_eq!((cpus.online, cpus.isolated), (vec![(0, true), (1, false)], vec![1]));
    }
}
