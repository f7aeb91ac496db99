//! Collector `meminfo`: /proc/meminfo (Documentation/filesystems/proc.rst, 1.5).
//!
//! procfs' `Meminfo` is not used: it panics on a key that does not end in ASCII, takes 114 allocations, and
//! cannot say which line is wrong.

use super::proc_file::{Bad, ProcFile, number};
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, Memory};

/// Keeps /proc/meminfo open.
#[derive(Default)]
pub(super) struct MeminfoCollector(ProcFile);

impl Collector for MeminfoCollector {
    const NAME: &'static str = "meminfo";
    const HELP: &'static str = "memory and swap from /proc/meminfo";
    type Output = Memory;

    fn field(host: &mut Host) -> &mut Option<Memory> {
        &mut host.memory
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Memory>, HostError> {
        self.0.parse_whole(&paths.procfs, "meminfo", parse).map(Some)
    }
}

fn parse(text: &str) -> Result<Memory, Bad> {
    let mut memory = Memory::default();
    let mut total = None;
    for (index, line) in text.lines().enumerate() {
        let Some((key, value)) = line.split_once(':') else {
            return Err(Bad::Line(index + 1, "`name: count kB`"));
        };
        let mut optional = None;
        let place = match key {
            "MemTotal" => total.insert(0),
            "MemFree" => &mut memory.free,
            "MemAvailable" => memory.available.insert(0),
            "Cached" => &mut memory.cached,
            "AnonPages" => memory.anonymous.insert(0),
            "Slab" => &mut memory.slab,
            "SReclaimable" => memory.slab_reclaimable.insert(0),
            "Dirty" => &mut memory.dirty,
            "SwapTotal" => &mut memory.swap_total,
            "SwapFree" => &mut memory.swap_free,
            "Committed_AS" => &mut memory.committed,
            _ => optional.insert(0),
        };
        *place = bytes(value).ok_or(Bad::Line(index + 1, "`name: count kB`"))?;
    }
    memory.total = total.ok_or(Bad::Missing("MemTotal"))?;
    Ok(memory)
}

/// `  123 kB` in bytes; counts of pages (HugePages_…) have no unit and are not used.
fn bytes(value: &str) -> Option<u64> {
    let mut words = value.split_ascii_whitespace();
    let count: u64 = number(words.next())?;
    match words.next() {
        Some("kB") => count.checked_mul(1024),
        None => Some(count),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use procfs::{Current, Meminfo};

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kilobytes_become_bytes() {
        let memory = parse("MemTotal:  100 kB\nMemFree: 40 kB\nSlab: 7 kB\nHugePages_Total: 3\n").unwrap();
        assert_eq!((memory.total, memory.free, memory.slab), (102_400, 40_960, 7_168));
        assert_eq!(memory.available, None, "not said is not zero");
    }

    #[test]
    fn the_total_agrees_with_another_parser() {
        let memory = MeminfoCollector::default().collect(&Paths::default()).unwrap().unwrap();
        let oracle = Meminfo::current().unwrap();
        assert_eq!(memory.total, oracle.mem_total);
        assert_eq!(memory.swap_total, oracle.swap_total);
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(parse("MemTotal: 1 kB\nMemFree 2 kB\n"), Err(Bad::Line(2, "`name: count kB`")));
        assert_eq!(parse("MemTotal: 1 pages\n"), Err(Bad::Line(1, "`name: count kB`")));
        assert_eq!(parse("MemTotal: 18446744073709551615 kB\n"), Err(Bad::Line(1, "`name: count kB`")));
        assert_eq!(parse(""), Err(Bad::Missing("MemTotal")));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "(MemTotal|é|Slab)?:?[ 0-9kB\\PC\n]{0,60}") {
            let _ = parse(&text);
        }
    }
}
