//! Collector `filesystem`: space by statvfs of what is mounted.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hanging::{Hanging, is_remote};
use super::mountinfo::{Line, MountTable, unescape};
use super::proc_file::Bad;
use super::remote::Remote;
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
/// Space fills up slowly, and every file system is a call of its own.
const INTERVAL: Duration = Duration::from_secs(5);

/// Keeps the mount table open.
#[derive(Default)]
pub(super) struct FilesystemCollector {
    table: MountTable,
    remote: Remote,
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
        let mounts = self.table.parse(paths, |text| parse(text, &paths.rootfs))?;
        self.remote.begin();
        let mut filesystems: Vec<_> =
            mounts.iter().filter_map(|mount| space(&mut self.remote, mount)).collect();
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
    /// As the host itself sees it.
    mount_point: PathBuf,
    /// Where it is asked.
    place: PathBuf,
    may_hang: bool,
    fstype: String,
    read_only: bool,
}

/// The first mount of each local file system that holds data, in order; of several on one mount point the last,
/// which covers the others.
fn parse(text: &str, rootfs: &Path) -> Result<Vec<Mount>, Bad> {
    let mut mounts: Vec<((u32, u32), Mount)> = Vec::new();
    let mut places: HashMap<PathBuf, usize> = HashMap::new();
    let mut hanging = Hanging::default();
    for (index, line) in text.lines().enumerate() {
        let line = Line::parse(line).ok_or(Bad::Line(index + 1, "a line of mountinfo"))?;
        hanging.add(&line, rootfs);
        let mount = mount(&line, rootfs);
        let place = *places.entry(mount.mount_point.clone()).or_insert(mounts.len());
        match mounts.get_mut(place) {
            Some(covered) => *covered = (line.number, mount),
            None => mounts.push((line.number, mount)),
        }
    }
    let mut seen = HashSet::new();
    mounts.retain(|(number, mount)| holds_data(&mount.fstype) && seen.insert(*number));
    let mark = |(_, mount): (_, Mount)| Mount { may_hang: hanging.is_on_the_way_to(&mount.place), ..mount };
    Ok(mounts.into_iter().map(mark).collect())
}

fn mount(line: &Line<'_>, rootfs: &Path) -> Mount {
    Mount {
        device: unescape(line.device).to_string_lossy().into_owned(),
        mount_point: line.point(),
        place: line.place(rootfs),
        may_hang: false,
        fstype: line.fstype.to_owned(),
        read_only: line.is_read_only(),
    }
}

fn holds_data(fstype: &str) -> bool {
    !PSEUDO_OF_NODE_EXPORTER.contains(&fstype) && !PSEUDO_BESIDES.contains(&fstype) && !is_remote(fstype)
}

/// `None` when the file system cannot be asked (gone, hangs, no permission) or has no size.
fn space(remote: &mut Remote, mount: &Mount) -> Option<Filesystem> {
    let space = remote.space(&mount.place, mount.may_hang).ok()?;
    (space.size > 0).then(|| Filesystem {
        device: clean::text(&mount.device, "none"),
        mount_point: clean::text(&mount.mount_point.to_string_lossy(), "/"),
        fstype: clean::label(&mount.fstype, "unknown"),
        read_only: mount.read_only,
        size_bytes: space.size,
        free_bytes: space.free,
        available_bytes: space.available,
        files: space.files,
        files_free: space.files_free,
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
        let mounts = parse(MOUNTINFO, Path::new("/")).unwrap();
        let points: Vec<_> = mounts.iter().map(|mount| mount.mount_point.to_str().unwrap()).collect();
        assert_eq!(points, ["/", "/mnt/with blank\\n", "/run/shm"]);
        assert_eq!((mounts[0].device.as_str(), mounts[2].device.as_str()), ("/dev/vda", "covering"));
    }

    /// Whether each file system that is asked may hang.
    fn may_hang(text: &str) -> Vec<(String, bool)> {
        let mounts = parse(text, Path::new("/")).unwrap();
        let row = |mount: Mount| (mount.mount_point.to_str().unwrap().to_owned(), mount.may_hang);
        mounts.into_iter().map(row).collect()
    }

    #[test]
    fn a_local_file_system_under_or_in_one_that_may_hang_is_asked_as_one_that_may() {
        let row = |point: &str, may_hang| (point.to_owned(), may_hang);
        let local = "27 1 254:0 / / rw - ext4 /dev/vda rw\n28 27 254:1 / /data/local rw - xfs /dev/vdb rw\n";
        assert_eq!(may_hang(local), [row("/", false), row("/data/local", false)]);
        let far = "29 27 0:50 / /data rw - nfs4 server:/x rw\n";
        for text in [format!("{local}{far}"), format!("{far}{local}")] {
            assert_eq!(may_hang(&text), [row("/", false), row("/data/local", true)]);
        }
        let disk = "30 27 254:2 / /usb rw - fuseblk /dev/sda1 rw\n";
        assert_eq!(may_hang(disk), [row("/usb", true)], "local, and a program stands before it");
    }

    fn mounted_at(place: &str) -> Mount {
        Mount {
            device: "x".into(),
            mount_point: place.into(),
            place: place.into(),
            may_hang: false,
            fstype: "ext4".into(),
            read_only: false,
        }
    }

    #[test]
    fn the_root_of_this_host_has_space() {
        let mount = mounted_at("/");
        let root = space(&mut Remote::default(), &mount).unwrap();
        assert!(root.size_bytes >= root.free_bytes && root.free_bytes >= root.available_bytes, "{root:?}");
        assert!(root.size_bytes > 1 << 20);
    }

    #[test]
    fn a_mount_point_that_is_gone_is_left_out() {
        assert_eq!(space(&mut Remote::default(), &mounted_at("/no/such/place")), None);
    }

    #[test]
    fn a_bad_line_is_named() {
        let parse = |text: &str| parse(text, Path::new("/"));
        assert_eq!(parse("22 27 0:21 / /proc rw\n"), Err(Bad::Line(1, "a line of mountinfo")));
        assert_eq!(parse(&format!("{MOUNTINFO}1 - ext4\n")), Err(Bad::Line(11, "a line of mountinfo")));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "[ 0-9/\\\\a-z:-]{0,40}( - )?[a-z \\\\0-7]{0,20}\n?") {
            let _ = parse(&text, Path::new("/"));
        }
    }
}
