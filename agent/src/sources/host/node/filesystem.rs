//! Collector `filesystem`: space of what is mounted, by statvfs(3).
//!
//! Blocks are counted in `f_frsize`, as statvfs(3) says; node_exporter takes `f_bsize`, which is another size on some
//! file systems in user space.

use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use rustix::io::Errno;

use super::super::filesystem::may_hang;
use super::super::mountinfo::MountTable;
use super::super::{HostError, Paths};
use super::mounts;
use super::remote::{Remote, reason};
use crate::model::node::{Mount, Rows, Space};

/// Keeps the mount table open.
#[derive(Default)]
pub(super) struct Reader {
    table: MountTable,
    places: Vec<PathBuf>,
    remote: Remote,
}

impl Reader {
    pub(super) fn read(&mut self, paths: &Paths, mounts: &mut Rows<Mount>) -> Result<(), HostError> {
        let places = &mut self.places;
        self.table.parse(paths, |text| {
            mounts.clear();
            places.clear();
            mounts::parse(text, &paths.rootfs, mounts, places)
        })?;
        self.remote.begin();
        for (mount, place) in mounts.iter_mut().zip(&self.places) {
            let outcome = match may_hang(&mount.fstype) {
                true => self.remote.ask(place, space),
                false => space(place).map_err(reason),
            };
            match outcome {
                Ok(space) => mount.space = Some(space),
                Err(error) => mount.error = error,
            }
        }
        Ok(())
    }
}

fn space(place: &Path) -> Result<Space, Errno> {
    let stat = statvfs(place)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Space {
        size: bytes(stat.f_blocks),
        free: bytes(stat.f_bfree),
        available: bytes(stat.f_bavail),
        files: stat.f_files,
        files_free: stat.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_mounts_of_process_1_else_our_own_with_space_or_the_reason_why_not() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { procfs: root.path().to_owned(), ..Paths::default() };
        let write = |process: &str, text: &str| {
            fs::create_dir_all(root.path().join(process)).unwrap();
            fs::write(root.path().join(process).join("mountinfo"), text).unwrap();
        };
        let (mut reader, mut mounts) = (Reader::default(), Rows::default());
        assert!(matches!(reader.read(&paths, &mut mounts), Err(HostError::Unavailable { .. })));
        write("self", "1 1 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /no/such/place rw - nfs4 far:/ rw\n");
        reader.read(&paths, &mut mounts).unwrap();
        assert!(
            mounts[0].space.is_some_and(|space| space.size >= space.free && space.free >= space.available)
        );
        assert_eq!((mounts[1].space, mounts[1].error.as_str()), (None, "no such file or directory"));
        write("1", "1 1 8:1 / /no/such/place rw - ext4 /dev/b rw\n");
        reader.read(&paths, &mut mounts).unwrap();
        assert_eq!((mounts.len(), mounts[0].device.as_str(), mounts[0].space), (1, "/dev/b", None));
    }
}
