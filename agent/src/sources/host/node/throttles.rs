//! How often cores and packages were slowed down for heat (`therm_throt.c`): bare metal from Intel only.

use std::path::{Path, PathBuf};

use super::sysfs;
use crate::model::node::{CoreThrottles, Cpus};

/// The files that there are, found anew when a CPU comes or goes.
#[derive(Debug, Default)]
pub(super) struct Throttles {
    found: bool,
    cores: Vec<(u64, u64, PathBuf)>,
    packages: Vec<(u64, PathBuf)>,
}

impl Throttles {
    /// Reads all counts; `changed` says that a CPU came or went.
    pub(super) fn read(&mut self, folder: &Path, changed: bool, cpus: &mut Cpus) {
        if changed || !self.found {
            self.find(folder, cpus.time.iter().map(|(cpu, _)| *cpu));
        }
        cpus.core_throttles.clear();
        cpus.core_throttles.extend(self.cores.iter().filter_map(|(package, core, path)| {
            Some(CoreThrottles { package: *package, core: *core, count: sysfs::number(path)? })
        }));
        cpus.package_throttles.clear();
        cpus.package_throttles.extend(
            self.packages.iter().filter_map(|(package, path)| Some((*package, sysfs::number(path)?))),
        );
    }

    /// The threads of a core share its count, as the cores of a package do.
    fn find(&mut self, folder: &Path, cpus: impl Iterator<Item = u32>) {
        *self = Self { found: true, ..Self::default() };
        for cpu in cpus {
            let cpu = folder.join(format!("cpu{cpu}"));
            let id = |name: &str| sysfs::number(&cpu.join("topology").join(name));
            let (Some(package), Some(core)) = (id("physical_package_id"), id("core_id")) else { continue };
            let file = |name: &str| {
                let path = cpu.join("thermal_throttle").join(name);
                path.exists().then_some(path)
            };
            if !self.cores.iter().any(|(p, c, _)| (*p, *c) == (package, core)) {
                self.cores.extend(file("core_throttle_count").map(|path| (package, core, path)));
            }
            if !self.packages.iter().any(|(p, _)| *p == package) {
                self.packages.extend(file("package_throttle_count").map(|path| (package, path)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::host::CpuTime;

    #[test]
    fn two_threads_of_a_core_are_one_row() {
        let root = tempfile::tempdir().unwrap();
        for (cpu, core) in [(0, 0), (1, 0), (2, 4)] {
            let folder = root.path().join(format!("cpu{cpu}"));
            for (name, text) in [
                ("topology/physical_package_id", "0".to_owned()),
                ("topology/core_id", format!("{core}\n")),
                ("thermal_throttle/core_throttle_count", format!("{}\n", cpu + 10)),
                ("thermal_throttle/package_throttle_count", "7\n".to_owned()),
            ] {
                let path = folder.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
        }
        let time = [0, 1, 2].map(|cpu| (cpu, CpuTime::default())).to_vec();
        let mut cpus = Cpus { time, ..Cpus::default() };
        let mut throttles = Throttles::default();
        throttles.read(root.path(), false, &mut cpus);
        let rows: Vec<_> = cpus.core_throttles.iter().map(|row| (row.package, row.core, row.count)).collect();
        assert_eq!(rows, [(0, 0, 10), (0, 4, 12)]);
        assert_eq!(cpus.package_throttles, [(0, 7)]);
        cpus.time.truncate(1);
        throttles.read(root.path(), true, &mut cpus);
        assert_eq!(cpus.core_throttles.len(), 1);
    }
}
