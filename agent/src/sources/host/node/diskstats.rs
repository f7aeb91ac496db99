//! Collector `diskstats`: /proc/diskstats (Documentation/admin-guide/iostats.rst), the devices that node_exporter
//! shows by default.

use super::super::proc_file::{Bad, ProcFile, number};
use super::super::{HostError, Paths};
use super::{sysfs, udev};
use crate::model::node::{BlockDevice, Rows};
use crate::sources::clean;

/// Columns that mean something: reads, writes, in flight and times; discards since kernel 4.18, flushes since 5.5.
const COLUMNS: usize = 17;
/// Those that every kernel has.
const REQUIRED: usize = 11;
/// Devices that are shown.
const MOST: usize = 1024;

/// Keeps /proc/diskstats open.
#[derive(Default)]
pub(super) struct Reader(ProcFile);

impl Reader {
    pub(super) fn read(&mut self, paths: &Paths, disks: &mut Rows<BlockDevice>) -> Result<(), HostError> {
        disks.clear();
        self.0.parse(&paths.procfs, "diskstats", |text| parse(text, paths, disks))
    }
}

fn parse(text: &str, paths: &Paths, disks: &mut Rows<BlockDevice>) -> Result<(), Bad> {
    for (index, line) in text.lines().enumerate() {
        let bad = || Bad::Line(index + 1, "two device numbers, a name and at least eleven counts");
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = (number(words.next()).ok_or_else(bad)?, number(words.next()).ok_or_else(bad)?);
        let name = words.next().ok_or_else(bad)?;
        if is_ignored(name) || disks.len() == MOST {
            continue;
        }
        let disk = disks.push();
        clean::refill(&mut disk.name, name);
        (disk.major, disk.minor) = (major, minor);
        for word in words.take(COLUMNS) {
            disk.counts.push(number(Some(word)).ok_or_else(bad)?);
        }
        if disk.counts.len() < REQUIRED {
            return Err(bad());
        }
        // The kernel writes ! for / in names of sysfs.
        let queue = paths.sysfs.join("block").join(name.replace('/', "!")).join("queue/rotational");
        disk.rotational = sysfs::number(&queue) == Some(1);
        disk.udev = udev::properties(paths, major, minor);
        let taken = disks.split_last().is_none_or(|(disk, others)| {
            disk.name.is_empty() || others.iter().any(|other| other.name == disk.name)
        });
        if taken {
            disks.pop();
        }
    }
    Ok(())
}

/// node_exporter's default: memory, floppy disks and partitions by the usual names.
fn is_ignored(name: &str) -> bool {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem == name {
        return false;
    }
    let scsi_like = |stem: &str| {
        let disk = ["xv", "h", "s", "v"].iter().find_map(|bus| stem.strip_prefix(bus)?.strip_prefix('d'));
        disk.is_some_and(|letter| matches!(letter.as_bytes(), [b'a'..=b'z']))
    };
    let nvme = |stem: &str| {
        let (controller, namespace) = stem.strip_prefix("nvme")?.strip_suffix('p')?.split_once('n')?;
        Some(is_number(controller) && is_number(namespace))
    };
    matches!(stem, "ram" | "zram" | "loop" | "fd") || scsi_like(stem) || nvme(stem) == Some(true)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn devices_are_shown_with_as_many_counts_as_there_are() {
        let root = tempfile::tempdir().unwrap();
        let queue = root.path().join("block/vda/queue");
        std::fs::create_dir_all(&queue).unwrap();
        std::fs::write(queue.join("rotational"), "1\n").unwrap();
        let paths =
            Paths { sysfs: root.path().to_owned(), rootfs: root.path().to_owned(), ..Paths::default() };
        let mut disks = Rows::default();
        let text = " 254 0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18\n 254 1 vda1 1\n \
                     8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n";
        parse(text, &paths, &mut disks).unwrap();
        let rows: Vec<_> =
            disks.iter().map(|disk| (disk.name.as_str(), disk.counts.len(), disk.rotational)).collect();
        assert_eq!(rows, [("vda", 17, true), ("sda", 11, false)]);
        assert_eq!((disks[1].major, disks[1].minor, disks[1].counts[10]), (8, 0, 11));
    }

    #[test]
    fn the_default_filter() {
        for name in ["ram0", "zram1", "loop12", "fd0", "sda1", "xvdb12", "hdc3", "vdz9", "nvme0n1p2"] {
            assert!(is_ignored(name), "{name}");
        }
        for name in ["sda", "sdaa1", "vda", "nvme0n1", "dm-0", "md127", "mmcblk0p1", "sr0", "nvmen1p1", "sd1"]
        {
            assert!(!is_ignored(name), "{name}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for text in ["1 2\n", "x 0 a 1\n", "8 0 sda 1 2 3\n", "8 0 sda 1 2 3 4 5 6 7 8 9 10 -1\n"] {
            let outcome = parse(text, &Paths::default(), &mut Rows::default());
            assert!(matches!(outcome, Err(Bad::Line(1, _))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "([0-9]{1,3} [0-9] (sda|\\PC{0,6})( [0-9]{0,21}){0,20}\n){0,3}") {
            let paths = Paths { sysfs: "/none".into(), rootfs: "/none".into(), ..Paths::default() };
            let _ = parse(&text, &paths, &mut Rows::default());
        }

        #[test]
        fn any_name_is_shown_or_not(name in "[a-z0-9]{0,12}|\\PC{0,8}") {
            let _ = is_ignored(&name);
        }
    }
}
