//! Where the groups of a process are (cgroups(7)).

use std::path::{Component, Path, PathBuf};

use super::version::Version;

/// What every group has, in both versions.
const IN_EVERY_GROUP: &str = "cgroup.procs";

/// Where a controller's files of a group are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) version: Version,
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    /// The group below it; empty for the root.
    group: PathBuf,
}

impl Place {
    /// Finds it in /proc/PID/cgroup (cgroups(7)): `5:cpu,cpuacct:/group` for version 1, `0::/group` for version 2.
    /// `None` for a group that this process does not see (outside of its namespace, not mounted), or with an odd name.
    pub(super) fn of(controller: &str, membership: &str, root: &Path) -> Option<Self> {
        let mut unified = None;
        for line in membership.lines() {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            if controllers.split(',').any(|name| name == controller) {
                // Named after all its controllers, with links of single names beside it.
                let mounts = [controller, controllers].map(|name| root.join(name));
                return Self::new(Version::One, mounts, path);
            }
            if controllers.is_empty() {
                unified = Some(path);
            }
        }
        // Beside controllers of version 1 it has a mount of its own.
        Self::new(Version::Two, [root.to_owned(), root.join("unified")], unified?)
    }

    /// In the first of `mounts` that has the group.
    fn new(version: Version, mounts: impl IntoIterator<Item = PathBuf>, path: &str) -> Option<Self> {
        let group = PathBuf::from(path.trim_start_matches('/'));
        // Somebody may name groups as he likes, but for the line feed.
        if path.len() >= libc::PATH_MAX as usize || path.contains(char::is_control) {
            return None;
        }
        let inside = group.components().all(|part| matches!(part, Component::Normal(_)));
        let mut mounts = mounts.into_iter().filter(|_| inside);
        let mount = mounts.find(|mount| mount.join(&group).join(IN_EVERY_GROUP).exists())?;
        Some(Self { version, mount, group })
    }

    /// The group itself.
    pub(super) fn own(&self) -> PathBuf {
        self.mount.join(&self.group)
    }

    /// The group and its ancestors, to the mount `with_mount` or below it. The mount is the real root, which has no
    /// limits, or the root of a namespace (cgroup_namespaces(7)): then its limits are those of a container.
    pub(super) fn levels(&self, with_mount: bool) -> impl Iterator<Item = PathBuf> {
        let groups = self.group.ancestors().filter(move |group| with_mount || !group.as_os_str().is_empty());
        groups.map(|group| self.mount.join(group))
    }

    /// The levels that limit memory: what the real root of version 1 says of it is that of the whole machine.
    pub(super) fn memory_levels(&self) -> impl Iterator<Item = PathBuf> {
        self.levels(self.version == Version::Two)
    }
}
