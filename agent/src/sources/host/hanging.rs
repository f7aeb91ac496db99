//! Which mounts may make whoever asks for their space wait for ever.
//!
//! statvfs walks to a path and answers for whatever it finds there. So not the mount's own type decides: another file
//! system may have been mounted over it, over a directory above it, or hold the directory that it is mounted on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::mountinfo::Line;

/// Types that a server elsewhere answers for.
const REMOTE: [&str; 13] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "glusterfs",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "orangefs",
    "pvfs2",
    "smb3",
];
/// Types of local data that some other program, the host of a virtual machine or a cluster's lock stands before.
const SERVED: [&str; 6] = ["autofs", "fuseblk", "gfs2", "ocfs2", "vboxsf", "virtiofs"];

/// Whether the data is elsewhere. Fuse may be anything, unless it says that a block device is behind it.
pub(super) fn is_remote(fstype: &str) -> bool {
    REMOTE.contains(&fstype) || fstype == "fuse" || fstype.starts_with("fuse.")
}

/// Where file systems are mounted that may hang.
#[derive(Debug, Default)]
pub(super) struct Hanging(HashSet<PathBuf>);

impl Hanging {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes note of a mount if its type may hang. Without knowing whose table it stands in, it is both where that says
    /// and below `rootfs`.
    pub(super) fn add(&mut self, line: &Line<'_>, rootfs: &Path) {
        if is_remote(line.fstype) || SERVED.contains(&line.fstype) {
            self.0.insert(line.point());
            self.0.insert(line.place(rootfs));
        }
    }

    /// Whether the way to `place` leads over a file system that may hang.
    pub(super) fn is_on_the_way_to(&self, place: &Path) -> bool {
        !self.0.is_empty() && place.ancestors().any(|above| self.0.contains(above))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_hang(table: &[(&str, &str)], rootfs: &str, place: &str) -> bool {
        let mut hanging = Hanging::default();
        for (point, fstype) in table {
            let line = format!("1 1 0:1 / {point} rw - {fstype} device rw");
            hanging.add(&Line::parse(&line).unwrap(), Path::new(rootfs));
        }
        hanging.is_on_the_way_to(Path::new(place))
    }

    #[test]
    fn types_that_ask_somebody_else() {
        for fstype in [
            "nfs4",
            "fuse",
            "fuse.sshfs",
            "fuseblk",
            "virtiofs",
            "beegfs",
            "gpfs",
            "pvfs2",
            "ocfs2",
            "gfs2",
            "vboxsf",
        ] {
            assert!(may_hang(&[("/a", fstype)], "/", "/a"), "{fstype}");
        }
        for fstype in ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "vfat", "nfsd", "fusectl"] {
            assert!(!may_hang(&[("/a", fstype)], "/", "/a"), "{fstype}");
        }
    }

    #[test]
    fn whatever_is_at_or_below_one_that_may_hang_may_hang_in_whatever_order_they_were_mounted() {
        for table in [
            [("/a/b", "ext4"), ("/a", "nfs4")],
            [("/a", "nfs4"), ("/a/b", "ext4")],
            [("/a/b", "nfs4"), ("/a/b", "ext4")],
            [("/a/b", "ext4"), ("/a/b", "fuse.sshfs")],
        ] {
            assert!(may_hang(&table, "/", "/a/b"), "{table:?}");
            assert!(may_hang(&table, "/", "/a/b/c"), "{table:?}");
        }
        for place in ["/", "/a", "/ab", "/a/bc", "/b"] {
            assert!(!may_hang(&[("/a/b", "nfs4")], "/", place), "{place}");
        }
        assert!(may_hang(&[("/", "nfs4")], "/", "/a"), "a host without a disk");
        assert!(may_hang(&[("/with\\040blank", "nfs")], "/", "/with blank/b"));
    }

    #[test]
    fn below_another_root_whosever_table_it_is() {
        for point in ["/host/a", "/a", "/"] {
            assert!(may_hang(&[(point, "nfs4")], "/host", "/host/a/b"), "{point}");
        }
        assert!(!may_hang(&[("/host/b", "nfs4"), ("/b", "nfs4")], "/host", "/host/a/b"));
    }
}
