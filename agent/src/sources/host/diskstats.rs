//! Collector `diskstats`: /proc/diskstats (Documentation/admin-guide/iostats.rst).

use std::collections::HashSet;

use procfs::DiskStat;

use super::proc_file::{Bad, ProcFile};
use super::{Collector, HostError, Paths};
use crate::model::host::{Disk, Host};
use crate::sources::clean;

/// A sector of this file, whatever the device's own is.
const SECTOR_BYTES: u64 = 512;

/// Disks that are shown.
const MOST: usize = 1024;

/// Keeps /proc/diskstats open.
#[derive(Default)]
pub(super) struct DiskstatsCollector(ProcFile);

impl Collector for DiskstatsCollector {
    const NAME: &'static str = "diskstats";
    const HELP: &'static str = "disk operations, bytes and times from /proc/diskstats";
    type Output = Vec<Disk>;

    fn field(host: &mut Host) -> &mut Option<Vec<Disk>> {
        &mut host.disks
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Vec<Disk>>, HostError> {
        self.0.parse(&paths.procfs, "diskstats", parse).map(Some)
    }
}

fn parse(text: &str) -> Result<Vec<Disk>, Bad> {
    let mut disks: Vec<Disk> = Vec::new();
    let mut names = HashSet::new();
    for (index, line) in text.lines().enumerate() {
        let name = line.split_ascii_whitespace().nth(2).unwrap_or_default();
        // A partition follows its disk and is counted there already.
        if is_memory(name) || disks.last().is_some_and(|disk| is_partition(name, &disk.name)) {
            continue;
        }
        if disks.len() == MOST {
            break;
        }
        let stat = DiskStat::from_line(line)
            .map_err(|_| Bad::Line(index + 1, "two device numbers, a name and at least eleven counts"))?;
        let disk = disk(&stat);
        if !names.insert(disk.name.clone()) {
            return Err(Bad::Line(index + 1, "each disk once"));
        }
        disks.push(disk);
    }
    Ok(disks)
}

/// RAM disks and loop devices: no disk of their own.
fn is_memory(name: &str) -> bool {
    ["ram", "zram", "loop"].iter().any(|kind| name.strip_prefix(kind).is_some_and(is_number))
}

/// `vda1` of `vda`, `nvme0n1p2` of `nvme0n1`.
fn is_partition(name: &str, disk: &str) -> bool {
    let Some(rest) = name.strip_prefix(disk) else { return false };
    match disk.ends_with(|last: char| last.is_ascii_digit()) {
        true => rest.strip_prefix('p').is_some_and(is_number),
        false => is_number(rest),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn disk(stat: &DiskStat) -> Disk {
    let seconds = |milliseconds: u64| milliseconds as f64 / 1e3;
    Disk {
        name: clean::label(&stat.name, "unknown"),
        reads: stat.reads,
        read_bytes: stat.sectors_read.saturating_mul(SECTOR_BYTES),
        read_seconds: seconds(stat.time_reading),
        writes: stat.writes,
        written_bytes: stat.sectors_written.saturating_mul(SECTOR_BYTES),
        write_seconds: seconds(stat.time_writing),
        io_now: stat.in_progress,
        io_seconds: seconds(stat.time_in_progress),
        io_weighted_seconds: seconds(stat.weighted_time_in_progress),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISKSTATS: &str = "\
   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0
 254       0 vda 143931 29782 7776354 47279 37887 127991 33469184 187373 2 28644 241913 11169 99 43 5 2 1
 254       1 vda1 1 1 1 1 1 1 1 1 0 1 1
 259       0 nvme0n1 9 0 16 1 2 0 8 3 0 4 5
 259       1 nvme0n1p1 9 0 16 1 2 0 8 3 0 4 5
 259       2 nvme0n10 1 0 2 1 0 0 0 0 0 4 5
 253       0 zram0 0 0 0 0 0 0 0 0 0 0 0
";

    #[test]
    fn whole_disks_in_bytes_and_seconds() {
        let disks = parse(DISKSTATS).unwrap();
        let names: Vec<_> = disks.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["vda", "nvme0n1", "nvme0n10"]);
        let vda = &disks[0];
        assert_eq!((vda.read_bytes, vda.written_bytes), (7_776_354 * 512, 33_469_184 * 512));
        assert_eq!((vda.read_seconds, vda.write_seconds), (47.279, 187.373));
        assert_eq!((vda.io_now, vda.io_seconds, vda.io_weighted_seconds), (2, 28.644, 241.913));
    }

    #[test]
    fn of_thousands_of_disks_the_first_are_taken() {
        let line = |number: usize| format!("8 0 d{number}x 1 1 1 1 1 1 1 1 1 1 1\n");
        let disks = parse(&(1..3000).map(line).collect::<String>()).unwrap();
        assert_eq!((disks.len(), disks[MOST - 1].name.as_str()), (MOST, "d1024x"));
    }

    #[test]
    fn a_bad_line_is_named() {
        let text = DISKSTATS.replace("259       0 nvme0n1 9", "259       0 nvme0n1 nine");
        assert!(matches!(parse(&text), Err(Bad::Line(4, _))));
        assert!(matches!(parse("1 2"), Err(Bad::Line(1, _))));
        let twice = "254 0 vda 1 1 1 1 1 1 1 1 1 1 1\n".repeat(2);
        assert_eq!(parse(&twice).unwrap_err(), Bad::Line(2, "each disk once"));
    }
}
