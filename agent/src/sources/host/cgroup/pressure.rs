//! Pressure of a control group (`*.pressure`, Documentation/admin-guide/cgroup-v2.rst): how long its tasks waited, however
//! idle the rest of the machine is. A CPU quota that ran out counts as waiting for a CPU.

use std::path::{Path, PathBuf};

use super::place::Place;
use crate::model::host::Pressure;
use crate::sources::host::HostError;
use crate::sources::host::pressure::{parse, parse_irq};
use crate::sources::host::proc_file::{ProcFile, unless_gone};

/// The file that every kernel with pressure has in a group.
const CPU: &str = "cpu.pressure";

/// Keeps the files of a group open.
#[derive(Debug, Default)]
pub(super) struct GroupPressure {
    group: PathBuf,
    files: [ProcFile; 4],
}

impl GroupPressure {
    /// Of the group of version 2, which may be mounted alone or beside controllers of version 1. `None` where there is
    /// none, and while pressure is off.
    pub(super) fn of(membership: &str, root: &Path) -> Option<Self> {
        // No controller's name, so none that version 1 may have taken.
        let group = Place::of("pressure", membership, root)?.own();
        group.join(CPU).exists().then(|| Self { group, ..Self::default() })
    }

    /// What it says of each resource; nothing of one that the kernel does not know, or that was switched off meanwhile
    /// (`cgroup.pressure`).
    pub(super) fn read(&mut self) -> Result<Pressure, HostError> {
        let Self { group, files: [cpu, memory, io, irq] } = self;
        Ok(Pressure {
            cpu: unless_gone(cpu.parse_whole(group, CPU, parse))?,
            memory: unless_gone(memory.parse_whole(group, "memory.pressure", parse))?,
            io: unless_gone(io.parse_whole(group, "io.pressure", parse))?,
            irq: unless_gone(irq.parse_whole(group, "irq.pressure", parse_irq))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::host::Stall;

    const GROUP: &str = "system.slice/tailscaled.service";
    const MEMBERSHIP: &str = "2:cpu,cpuacct:/other\n0::/system.slice/tailscaled.service\n";

    /// What is said with these files in the group below `mount`.
    fn read(mount: &str, files: &[(&str, &str)]) -> Option<Result<Pressure, String>> {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join(mount).join(GROUP);
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("cgroup.procs"), "").unwrap();
        for (name, text) in files {
            fs::write(group.join(name), text).unwrap();
        }
        let mut pressure = GroupPressure::of(MEMBERSHIP, root.path())?;
        Some(pressure.read().map_err(|error| error.to_string()))
    }

    #[test]
    fn each_resource_has_its_file_and_what_is_not_there_is_unknown() {
        let cpu = "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n\
                   full avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n";
        let irq = "full avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n";
        let files = [(CPU, cpu), ("io.pressure", "some total=250000\n"), ("irq.pressure", irq)];
        let expected = Pressure {
            cpu: Some(Stall { some_seconds: 2.5, full_seconds: Some(1.5) }),
            memory: None,
            io: Some(Stall { some_seconds: 0.25, full_seconds: None }),
            irq: Some(0.5),
        };
        for mount in ["", "unified"] {
            assert_eq!(read(mount, &files), Some(Ok(expected)), "{mount}");
            assert_eq!(read(mount, &[]), None);
        }
        assert!(GroupPressure::of("2:cpu,cpuacct:/\n", Path::new("/")).is_none(), "version 1 has none");
    }

    #[test]
    fn a_bad_file_is_named() {
        let error = read("", &[(CPU, "some total=1\n"), ("memory.pressure", "some total=-1\n")]);
        let error = error.unwrap().unwrap_err();
        assert!(error.contains("memory.pressure") && error.contains("`total=`"), "{error}");
    }

    #[test]
    fn what_this_kernel_offers_is_read() {
        let Some(mut pressure) = GroupPressure::of("0::/\n", Path::new("/sys/fs/cgroup")) else { return };
        let mut waited = || pressure.read().unwrap().cpu.unwrap().some_seconds;
        let (first, second) = (waited(), waited());
        assert!(first > 0.0 && second >= first, "{first} {second}");
    }
}
