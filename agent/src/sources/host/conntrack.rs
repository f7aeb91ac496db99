//! Collector `conntrack`: nf_conntrack_{count,max,buckets} below /proc/sys/net/netfilter, and
//! /proc/net/stat/nf_conntrack (`ct_cpu_seq_show` in net/netfilter/nf_conntrack_standalone.c), hexadecimal.

use super::proc_file::{Bad, ProcFile, count, present};
use super::{Collector, HostError, Paths};
use crate::model::host::{Conntrack, ConntrackStatistics, Host};

/// Keeps the files open.
#[derive(Default)]
pub(super) struct ConntrackCollector {
    count: ProcFile,
    max: ProcFile,
    buckets: ProcFile,
    statistics: ProcFile,
}

impl Collector for ConntrackCollector {
    const NAME: &'static str = "conntrack";
    const HELP: &'static str =
        "connection tracking: entries, their limit, and what was dropped for want of room";
    type Output = Conntrack;

    fn field(host: &mut Host) -> &mut Option<Conntrack> {
        &mut host.conntrack
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Conntrack>, HostError> {
        let netfilter = paths.procfs.join("sys/net/netfilter");
        let Some(entries) = present(self.count.parse_whole(&netfilter, "nf_conntrack_count", count))? else {
            // The module is not loaded: nothing is tracked, and nothing is wrong.
            return Ok(None);
        };
        Ok(Some(Conntrack {
            entries,
            limit: self.max.parse_whole(&netfilter, "nf_conntrack_max", count)?,
            buckets: present(self.buckets.parse_whole(&netfilter, "nf_conntrack_buckets", count))?,
            statistics: present(self.statistics.parse(&paths.procfs, "net/stat/nf_conntrack", statistics))?,
        }))
    }
}

/// Adds up the rows, one a CPU. Columns go by the names of the first line: 5.10 and later have `clashres` in
/// place of `searched`, and what is missing stays 0 in all rows alike.
fn statistics(text: &str) -> Result<ConntrackStatistics, Bad> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
    if !names.contains(&"drop") {
        return Err(Bad::Line(1, "names of columns, `drop` among them"));
    }
    let mut sum = ConntrackStatistics::default();
    for (index, line) in lines.enumerate() {
        let mut words = line.split_ascii_whitespace();
        for name in &names {
            let word = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
            let value = word.ok_or(Bad::Line(index + 2, "a hexadecimal count for each column"))?;
            let place = match *name {
                "found" => &mut sum.found,
                "invalid" => &mut sum.invalid,
                "ignore" => &mut sum.ignore,
                "insert" => &mut sum.insert,
                "insert_failed" => &mut sum.insert_failed,
                "drop" => &mut sum.drop,
                "early_drop" => &mut sum.early_drop,
                "search_restart" => &mut sum.search_restart,
                _ => continue,
            };
            *place = place.wrapping_add(value);
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATISTICS: &str = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart\n\
        00000042  00000001 00000002 00000000 0000000a 3 0 0 8 00000003 00000010 00000005 0  0 0 0 00000006\n\
        00000042  00000001 00000002 00000000 00000001 4 0 0 0 00000000 00000001 00000000 0  0 0 0 00000000\n";

    #[test]
    fn rows_of_all_cpus_are_added_up() {
        let expected = ConntrackStatistics {
            found: 4,
            invalid: 11,
            ignore: 7,
            insert: 8,
            insert_failed: 3,
            drop: 17,
            early_drop: 5,
            search_restart: 6,
        };
        assert_eq!(statistics(STATISTICS), Ok(expected));
    }

    #[test]
    fn without_the_module_there_is_nothing_and_no_failure() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { procfs: root.path().to_owned(), ..Paths::default() };
        assert_eq!(ConntrackCollector::default().collect(&paths).unwrap(), None);
        let netfilter = root.path().join("sys/net/netfilter");
        std::fs::create_dir_all(&netfilter).unwrap();
        std::fs::write(netfilter.join("nf_conntrack_count"), "7\n").unwrap();
        std::fs::write(netfilter.join("nf_conntrack_max"), "262144\n").unwrap();
        let found = ConntrackCollector::default().collect(&paths).unwrap().unwrap();
        assert_eq!(found, Conntrack { entries: 7, limit: 262_144, ..Conntrack::default() });
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(statistics("").unwrap_err(), Bad::Line(1, "names of columns, `drop` among them"));
        let cut = statistics("found drop\n1 2\n1\n").unwrap_err();
        assert_eq!(cut, Bad::Line(3, "a hexadecimal count for each column"));
        assert_eq!(count("-1\n"), Err(Bad::Line(1, "a count")));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "(found drop\n)?[ a-g0-9\\PC\n]{0,80}") {
            let _ = (statistics(&text), count(&text));
        }
    }
}
