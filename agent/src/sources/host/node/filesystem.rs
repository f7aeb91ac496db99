//! Collector `filesystem`: space of what is mounted, by statvfs(3).

use std::path::PathBuf;

use super::super::hanging::Hanging;
use super::super::mountinfo::MountTable;
use super::super::remote::Remote;
use super::super::{HostError, Paths};
use super::mounts;
use crate::model::node::{Mount, Rows};

/// Keeps the mount table open.
#[derive(Default)]
pub(super) struct Reader {
    table: MountTable,
    places: Vec<PathBuf>,
    hanging: Hanging,
    remote: Remote,
}

impl Reader {
    pub(super) fn read(&mut self, paths: &Paths, mounts: &mut Rows<Mount>) -> Result<(), HostError> {
        let (places, hanging) = (&mut self.places, &mut self.hanging);
        self.table.parse(paths, |text| {
            mounts.clear();
            places.clear();
            hanging.clear();
            mounts::parse(text, &paths.rootfs, mounts, places, hanging)
        })?;
        self.remote.begin();
        for (mount, place) in mounts.iter_mut().zip(&self.places) {
            match self.remote.space(place, self.hanging.is_on_the_way_to(place)) {
                Ok(space) => mount.space = Some(space),
                Err(error) => mount.error = error,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::super::super::remote::HANGS;
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
        // A thread may be late on a busy machine.
        let end = Instant::now() + Duration::from_secs(10);
        while mounts.get(1).is_none_or(|far| far.error == HANGS && Instant::now() < end) {
            reader.read(&paths, &mut mounts).unwrap();
        }
        assert!(
            mounts[0].space.is_some_and(|space| space.size >= space.free && space.free >= space.available)
        );
        assert_eq!((mounts[1].space, mounts[1].error.as_str()), (None, "no such file or directory"));
        write("1", "1 1 8:1 / /no/such/place rw - ext4 /dev/b rw\n");
        reader.read(&paths, &mut mounts).unwrap();
        assert_eq!((mounts.len(), mounts[0].device.as_str(), mounts[0].space), (1, "/dev/b", None));
    }
}
