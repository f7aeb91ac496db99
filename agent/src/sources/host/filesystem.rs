//! Collector `filesystem`: space by statvfs of what is mounted.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::statvfs;

use super::mountinfo::{Line, MountTable, unescape};
use super::proc_file::Bad;
use super::rest::Rest;
use super::{Collector, HostError, Paths};
use crate::model::host::{Filesystem, Host};
use crate::sources::clean;

/// Types without space of their own that node_exporter knows (`defFSTypesExcluded` in collector/filesystem_linux.go).
pub(super) const PSEUDO_OF_NODE_EXPORTER: [&str; 25] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "erofs",
    "sysfs",
    "tracefs",
];
/// And those that it shows.
const PSEUDO_BESIDES: [&str; 4] = ["efivarfs", "ramfs", "nfsd", "resctrl"];
/// Types whose server can hang, and statvfs with it.
const REMOTE: [&str; 9] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "afs", "glusterfs", "lustre"];

/// Space fills up slowly, and every file system is a call of its own.
const INTERVAL: Duration = Duration::from_secs(5);

/// Keeps the mount table open.
#[derive(Default)]
pub(super) struct FilesystemCollector {
    table: MountTable,
    rest: Rest,
}

impl Collector for FilesystemCollector {
    const NAME: &'static str = "filesystem";
    const HELP: &'static str = "space and inodes of local file systems, by statvfs every 5 s";
    type Output = Vec<Filesystem>;

    fn field(host: &mut Host) -> &mut Option<Vec<Filesystem>> {
        &mut host.filesystems
    }

    fn rests(&self) -> bool {
        self.rest.is_on()
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Vec<Filesystem>>, HostError> {
        let mounts = self.table.parse(paths, parse)?;
        let mut filesystems: Vec<_> = mounts.iter().filter_map(|mount| space(&paths.rootfs, mount)).collect();
        // Two that only differed in what was cleaned away would be the same series.
        let mut seen = HashSet::new();
        filesystems.retain(|filesystem| seen.insert(filesystem.mount_point.clone()));
        self.rest.begin(INTERVAL);
        Ok(Some(filesystems))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: String,
    mount_point: PathBuf,
    fstype: String,
    read_only: bool,
}

/// The first mount of each local file system that holds data, in order; of several on one mount point the last,
/// which covers the others.
fn parse(text: &str) -> Result<Vec<Mount>, Bad> {
    let mut mounts: Vec<((u32, u32), Mount)> = Vec::new();
    let mut places: HashMap<PathBuf, usize> = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let (number, mount) = mount(line).ok_or(Bad::Line(index + 1, "a line of mountinfo"))?;
        let place = *places.entry(mount.mount_point.clone()).or_insert(mounts.len());
        match mounts.get_mut(place) {
            Some(covered) => *covered = (number, mount),
            None => mounts.push((number, mount)),
        }
    }
    let mut seen = HashSet::new();
    mounts.retain(|(number, mount)| holds_data(&mount.fstype) && seen.insert(*number));
    Ok(mounts.into_iter().map(|(_, mount)| mount).collect())
}

/// The device number and the mount.
fn mount(line: &str) -> Option<((u32, u32), Mount)> {
    let line = Line::parse(line)?;
    let mount = Mount {
        device: unescape(line.device).to_string_lossy().into_owned(),
        mount_point: unescape(line.mount_point),
        fstype: line.fstype.to_owned(),
        read_only: line.is_read_only(),
    };
    Some((line.number, mount))
}

fn holds_data(fstype: &str) -> bool {
    !PSEUDO_OF_NODE_EXPORTER.contains(&fstype) && !PSEUDO_BESIDES.contains(&fstype) && !may_hang(fstype)
}

/// Fuse may be anything, a hung server included, unless it says that a block device is behind it.
pub(super) fn may_hang(fstype: &str) -> bool {
    REMOTE.contains(&fstype) || fstype == "fuse" || fstype.starts_with("fuse.")
}

/// `None` when the file system cannot be asked (gone, no permission) or has no size.
fn space(rootfs: &Path, mount: &Mount) -> Option<Filesystem> {
    let below = mount.mount_point.strip_prefix("/").unwrap_or(Path::new(""));
    let stat = statvfs(rootfs.join(below)).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    (stat.f_blocks > 0).then(|| Filesystem {
        device: clean::text(&mount.device, "none"),
        mount_point: clean::text(&mount.mount_point.to_string_lossy(), "/"),
        fstype: clean::label(&mount.fstype, "unknown"),
        read_only: mount.read_only,
        size_bytes: bytes(stat.f_blocks),
        free_bytes: bytes(stat.f_bfree),
        available_bytes: bytes(stat.f_bavail),
        files: stat.f_files,
        files_free: stat.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOUNTINFO: &str = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n\
        28 27 254:0 /sub /bind rw - ext4 /dev/vda rw\n\
        29 27 0:50 / /far rw - nfs4 server:/x rw\n\
        30 27 0:51 / /mnt/with\\040blank\\134n rw - xfs /dev/vdb rw\n\
        31 27 0:52 / /home/x/.gvfs rw - fuse.sshfs host:/ rw\n\
        32 27 0:53 / /run/shm rw - tmpfs covered rw\n\
        33 32 0:54 / /run/shm rw - tmpfs covering rw\n\
        34 27 0:55 / /hidden rw - ext4 /dev/vdc rw\n\
        35 34 0:56 / /hidden rw - proc proc rw\n";

    #[test]
    fn local_file_systems_once_each() {
        let mounts = parse(MOUNTINFO).unwrap();
        let points: Vec<_> = mounts.iter().map(|mount| mount.mount_point.to_str().unwrap()).collect();
        assert_eq!(points, ["/", "/mnt/with blank\\n", "/run/shm"]);
        assert_eq!((mounts[0].device.as_str(), mounts[2].device.as_str()), ("/dev/vda", "covering"));
    }

    fn mounted_at(place: &str) -> Mount {
        Mount { device: "x".into(), mount_point: place.into(), fstype: "ext4".into(), read_only: false }
    }

    #[test]
    fn the_root_of_this_host_has_space() {
        let mount = mounted_at("/");
        let root = space(Path::new("/"), &mount).unwrap();
        assert!(root.size_bytes >= root.free_bytes && root.free_bytes >= root.available_bytes, "{root:?}");
        assert!(root.size_bytes > 1 << 20);
    }

    #[test]
    fn a_mount_point_that_is_gone_is_left_out() {
        assert_eq!(space(Path::new("/"), &mounted_at("/no/such/place")), None);
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(parse("22 27 0:21 / /proc rw\n"), Err(Bad::Line(1, "a line of mountinfo")));
        assert_eq!(parse(&format!("{MOUNTINFO}1 - ext4\n")), Err(Bad::Line(11, "a line of mountinfo")));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "[ 0-9/\\\\a-z:-]{0,40}( - )?[a-z \\\\0-7]{0,20}\n?") {
            let _ = parse(&text);
        }
    }
}
