//! Collector `filesystem`: space by statvfs of what is mounted.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hanging::{Hanging, is_remote};
use super::mount_tree::MountTree;
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
/// File systems that are shown.
const MOST: usize = 1024;
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

/// The first mount of each local file system that holds data, in order, of those that can be seen.
fn parse(text: &str, rootfs: &Path) -> Result<Vec<Mount>, Bad> {
    let line = |(index, line)| Line::parse(line).ok_or(Bad::Line(index + 1, "a line of mountinfo"));
    let lines = text.lines().enumerate().map(line).collect::<Result<Vec<_>, _>>()?;
    let mut tree = MountTree::new(&lines);
    let mut hanging = Hanging::default();
    lines.iter().for_each(|line| hanging.add(line, rootfs));
    // The table of a container that has its host below `rootfs` lists mounts of its own beside it; the host's own table
    // knows nothing of `rootfs`.
    let is_beside = lines.iter().any(|line| line.below(rootfs) == Some("/"));
    let mut seen = HashSet::new();
    let mounts = lines.iter().filter_map(|line| {
        let point = match line.below(rootfs) {
            None if is_beside => return None,
            below => below.unwrap_or(line.mount_point),
        };
        let is_one = holds_data(line.fstype) && tree.is_seen(line) && seen.insert(line.number);
        is_one.then(|| mount(line, point, rootfs, &hanging))
    });
    Ok(mounts.take(MOST).collect())
}

fn mount(line: &Line<'_>, point: &str, rootfs: &Path, hanging: &Hanging) -> Mount {
    let place = line.place(rootfs);
    Mount {
        device: unescape(line.device).to_string_lossy().into_owned(),
        mount_point: unescape(point),
        may_hang: hanging.is_on_the_way_to(&place),
        place,
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
        available_bytes: space.available,
        files: space.files,
        files_free: space.files_free,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

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
        35 34 0:56 / /hidden rw - proc proc rw\n\
        36 27 0:57 / /above/below rw - ext4 /dev/vdd rw\n\
        37 27 0:58 / /above rw - proc proc rw\n";

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
    fn a_local_file_system_in_one_that_may_hang_is_asked_as_one_that_may() {
        let row = |point: &str, may_hang| (point.to_owned(), may_hang);
        let local = "27 1 254:0 / / rw - ext4 /dev/vda rw\n28 27 254:1 / /data/local rw - xfs /dev/vdb rw\n";
        assert_eq!(may_hang(local), [row("/", false), row("/data/local", false)]);
        let far = "29 27 0:50 / /data rw - nfs4 server:/x rw\n";
        assert_eq!(may_hang(&format!("{local}{far}")), [row("/", false)], "hidden");
        let inside = local.replace("28 27", "28 29");
        assert_eq!(may_hang(&format!("{far}{inside}")), [row("/", false), row("/data/local", true)]);
        let disk = "30 27 254:2 / /usb rw - fuseblk /dev/sda1 rw\n";
        assert_eq!(may_hang(disk), [row("/usb", true)], "local, and a program stands before it");
    }

    /// Where each file system is said to be mounted, and where it is asked.
    fn below(rootfs: &str, text: &str) -> Vec<(String, String)> {
        let mounts = parse(text, Path::new(rootfs)).unwrap();
        let text = |path: PathBuf| path.into_os_string().into_string().unwrap();
        mounts.into_iter().map(|mount| (text(mount.mount_point), text(mount.place))).collect()
    }

    #[test]
    fn another_root_is_taken_off_and_what_is_beside_it_is_not_the_hosts() {
        let row = |point: &str, place: &str| (point.to_owned(), place.to_owned());
        // The same disk three times, and a volume of the container alone.
        let container = "1 0 0:9 / / rw - overlay overlay rw\n\
            2 1 254:0 /hosts /etc/hosts rw - ext4 /dev/vda rw\n3 1 254:7 / /volume rw - xfs /dev/vdh rw\n\
            4 1 254:0 / /host ro - ext4 /dev/vda rw\n5 4 254:1 / /host/boot rw - ext4 /dev/vdb rw\n\
            6 1 254:0 / /hostile rw - ext4 /dev/vda rw\n";
        let expected = [row("/", "/host/"), row("/boot", "/host/boot")];
        assert_eq!(below("/host", container), expected);
        assert_eq!(below("/host/", container), expected);
        let host = "1 0 254:0 / / rw - ext4 /dev/vda rw\n5 1 254:1 / /boot rw - ext4 /dev/vdb rw\n";
        assert_eq!(below("/host", host), expected, "the table of process 1, which is the host's");
        assert_eq!(below("/", host), [row("/", "/"), row("/boot", "/boot")]);
    }

    #[test]
    fn of_thousands_of_mounts_the_first_are_taken_each_once_and_in_no_time() {
        let line = |id: usize| format!("{id} 1 8:{} / /{} rw - ext4 disk rw\n", id / 2, id % 5000);
        let text: String = (2..20_000).map(line).collect();
        let started = Instant::now();
        let mounts = parse(&text, Path::new("/")).unwrap();
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let places: HashSet<_> = mounts.iter().map(|mount| &mount.mount_point).collect();
        assert_eq!((mounts.len(), places.len()), (MOST, MOST));
    }

    #[test]
    fn names_that_become_one_when_they_are_cleaned_are_one_file_system() {
        let root = tempfile::tempdir().unwrap();
        let paths =
            Paths { procfs: root.path().to_owned(), rootfs: root.path().to_owned(), ..Paths::default() };
        fs::create_dir(root.path().join("1")).unwrap();
        // A control character and another one.
        let mut text = String::new();
        for (number, name) in ["a\u{1}b", "a\u{2}b", "c"].into_iter().enumerate() {
            fs::create_dir(root.path().join(name)).unwrap();
            text += &format!("{number} 9 8:{number} / /{name} rw - ext4 disk rw\n");
        }
        fs::write(root.path().join("1/mountinfo"), text).unwrap();
        let found = FilesystemCollector::default().collect(&paths).unwrap().unwrap();
        let points: Vec<_> = found.iter().map(|filesystem| filesystem.mount_point.as_str()).collect();
        assert_eq!((points.len(), points.last()), (2, Some(&"/c")), "{points:?}");
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
        assert!(root.size_bytes >= root.available_bytes, "{root:?}");
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
        assert_eq!(parse(&format!("{MOUNTINFO}1 - ext4\n")), Err(Bad::Line(13, "a line of mountinfo")));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "[ 0-9/\\\\a-z:-]{0,40}( - )?[a-z \\\\0-7]{0,20}\n?") {
            let _ = parse(&text, Path::new("/"));
        }
    }
}
