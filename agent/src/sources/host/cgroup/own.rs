//! What the agent's own control group leaves it.

use std::path::Path;

use super::files::Files;
use super::place::Place;
use crate::model::host::Cgroup;
use crate::sources::host::proc_file::read_once;
use crate::sources::host::{HostError, Paths};

/// Tightest memory limit of the control groups of this process, in bytes; `None` without one.
///
/// # Errors
/// A file is not as the kernel writes it, or cannot be read.
pub fn memory_limit(paths: &Paths) -> Result<Option<u64>, HostError> {
    let path = paths.procfs.join("self/cgroup");
    let membership = read_once(&path).map_err(|source| HostError::Read { path, source })?;
    limit(&String::from_utf8_lossy(&membership), &paths.sysfs.join("fs/cgroup"))
}

fn limit(membership: &str, root: &Path) -> Result<Option<u64>, HostError> {
    let Some(place) = Place::of("memory", membership, root) else { return Ok(None) };
    let (mut found, mut files) = (Cgroup::default(), Files::default());
    for level in place.memory_levels() {
        place.version.memory(&level, &mut files, false, &mut found)?;
    }
    Ok(found.memory_limit_bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_tightest_of_all_levels_counts() {
        let root = tempfile::tempdir().unwrap();
        let service = root.path().join("system.slice/tailgauge.service");
        fs::create_dir_all(&service).unwrap();
        fs::write(service.join("cgroup.procs"), "").unwrap();
        let found = || limit("0::/system.slice/tailgauge.service\n", root.path()).unwrap();
        assert_eq!(found(), None);
        fs::write(service.join("memory.max"), "268435456\n").unwrap();
        assert_eq!(found(), Some(256 << 20));
        fs::write(service.parent().unwrap().join("memory.max"), "134217728\n").unwrap();
        assert_eq!(found(), Some(128 << 20));
        fs::write(service.join("memory.max"), "max\n").unwrap();
        assert_eq!(found(), Some(128 << 20));
    }

    #[test]
    fn this_process_has_one_or_none() {
        assert!(memory_limit(&Paths::default()).unwrap().is_none_or(|limit| limit > 1 << 20));
    }
}
