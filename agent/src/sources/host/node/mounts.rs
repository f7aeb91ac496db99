//! The mount table as node_exporter reads it: which mounts, under which labels.

use std::path::{Path, PathBuf};

use super::super::filesystem::PSEUDO_OF_NODE_EXPORTER;
use super::super::hanging::Hanging;
use super::super::mountinfo::Line;
use super::super::proc_file::Bad;
use crate::model::node::{Mount, Rows};
use crate::sources::clean;

/// Mounts that are shown.
const MOST: usize = 1024;

/// Fills `mounts`, `places` with where each can be asked for its space, and `hanging` with what may hang.
pub(super) fn parse(
    text: &str,
    rootfs: &Path,
    mounts: &mut Rows<Mount>,
    places: &mut Vec<PathBuf>,
    hanging: &mut Hanging,
) -> Result<(), Bad> {
    for (index, line) in text.lines().enumerate() {
        let line = Line::parse(line).ok_or(Bad::Line(index + 1, "a line of mountinfo"))?;
        hanging.add(&line, rootfs);
        let point = line.below(rootfs).unwrap_or(line.mount_point);
        if mounts.len() == MOST || PSEUDO_OF_NODE_EXPORTER.contains(&line.fstype) || is_ignored(point) {
            continue;
        }
        let mount = mounts.push();
        clean::refill(&mut mount.device, line.device);
        // Other escapes stay as they are, in node_exporter too.
        match point.contains('\\') {
            true => {
                clean::refill(&mut mount.mount_point, &point.replace("\\040", " ").replace("\\011", "\t"));
            }
            false => clean::refill(&mut mount.mount_point, point),
        }
        clean::refill(&mut mount.fstype, line.fstype);
        (mount.major, mount.minor) = line.number;
        mount.read_only = line.is_read_only();
        // The same labels twice would be the same series twice.
        let seen = mounts.split_last().is_none_or(|(mount, others)| {
            others.iter().any(|other| {
                other.device == mount.device
                    && other.mount_point == mount.mount_point
                    && other.fstype == mount.fstype
            })
        });
        if seen {
            mounts.pop();
        } else {
            places.push(line.place(rootfs));
        }
    }
    Ok(())
}

/// node_exporter's default: what the system and containers mount for themselves.
fn is_ignored(point: &str) -> bool {
    let Some(point) = point.strip_prefix('/') else { return false };
    let first = point.split('/').next().unwrap_or_default();
    let inside = ["run/credentials/", "var/lib/docker/", "var/lib/containers/storage/"];
    matches!(first, "dev" | "proc" | "sys")
        || inside.iter().any(|folder| point.len() > folder.len() && point.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOUNTINFO: &str = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n\
        28 27 254:0 /sub /bind ro - ext4 /dev/vda rw\n\
        29 27 0:50 / /far rw - nfs4 server:/x ro\n\
        30 27 0:51 / /mnt/with\\040blank\\134n rw - xfs /dev/vdb rw,emergency_ro\n\
        31 27 0:52 / /run/credentials/x rw - tmpfs none rw\n\
        32 27 0:53 / /run/shm rw - tmpfs none rw\n\
        33 32 0:54 / /run/shm rw - tmpfs none rw\n\
        34 27 0:55 / /var/lib/docker/overlay2/x rw - ext4 /dev/vdc rw\n";

    fn fill(text: &str, rootfs: &str) -> Result<(Rows<Mount>, Vec<PathBuf>), Bad> {
        let (mut mounts, mut places) = (Rows::default(), Vec::new());
        parse(text, Path::new(rootfs), &mut mounts, &mut places, &mut Hanging::default())?;
        Ok((mounts, places))
    }

    fn read(text: &str, rootfs: &str) -> Vec<(String, bool, PathBuf)> {
        let (mounts, places) = fill(text, rootfs).unwrap();
        assert_eq!(mounts.len(), places.len());
        let row = |(mount, place): (&Mount, PathBuf)| (mount.mount_point.clone(), mount.read_only, place);
        mounts.iter().zip(places).map(row).collect()
    }

    #[test]
    fn mounts_that_are_shown_and_where_they_are_asked() {
        let row = |label: &str, read_only, place: &str| (label.to_owned(), read_only, PathBuf::from(place));
        let expected = [
            row("/", false, "/"),
            row("/bind", true, "/bind"),
            row("/far", true, "/far"),
            row("/mnt/with blank\\134n", true, "/mnt/with blank\\n"),
            row("/run/shm", false, "/run/shm"),
        ];
        assert_eq!(read(MOUNTINFO, "/"), expected);
    }

    #[test]
    fn the_root_is_taken_off_and_put_before() {
        let text = "1 1 8:1 / /host rw - ext4 a rw\n2 1 8:2 / /host/home rw - ext4 b rw\n\
                    3 1 8:3 / /hostile rw - ext4 c rw\n4 1 8:4 / /host/proc rw - ext4 d rw\n";
        for root in ["/host", "/host/"] {
            let rows = read(text, root);
            let labels: Vec<_> = rows.iter().map(|(label, ..)| label.as_str()).collect();
            assert_eq!(labels, ["/", "/home", "/hostile"]);
            assert_eq!(rows[1].2, PathBuf::from("/host/home"));
            assert_eq!(rows[2].2, PathBuf::from("/host/hostile"));
        }
    }

    #[test]
    fn the_default_filter_of_mount_points() {
        for point in ["/dev", "/dev/shm", "/proc/x", "/sys", "/run/credentials/a", "/var/lib/docker/a/b"] {
            assert!(is_ignored(point), "{point}");
        }
        for point in ["/", "/device", "/run", "/run/credentials", "/var/lib/docker", "/home/dev", "/mnt/proc"]
        {
            assert!(!is_ignored(point), "{point}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for text in ["22 27 0:21 / /proc rw\n", "1 - ext4\n", "22 27 x / /a rw - ext4 b rw\n"] {
            let outcome = fill(text, "/").map(|_| ());
            assert_eq!(outcome, Err(Bad::Line(1, "a line of mountinfo")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(
            text in "([0-9] [0-9] [0-9]:[0-9] / /[a-z\\\\/]{0,8} [a-z]{0,3} - [a-z]{0,4} [^ ]{0,4} r?o?\n){0,3}|\\PC{0,40}",
            rootfs in "/[a-z/]{0,4}",
        ) {
            let _ = fill(&text, &rootfs);
        }
    }
}
