//! Collector `meminfo`: every line of /proc/meminfo (`meminfo_proc_show` in fs/proc/meminfo.c).
//!
//! `Active(anon)` becomes `Active_anon`; what has the unit kB becomes bytes and says so in its name. Current
//! node_exporter knows a fixed list of lines, older ones show all as here.

use super::super::proc_file::{Bad, ProcFile, number};
use super::super::{HostError, Paths};
use crate::model::node::Named;

/// Keeps /proc/meminfo open.
#[derive(Default)]
pub(super) struct Reader(ProcFile);

impl Reader {
    pub(super) fn read(&mut self, paths: &Paths, memory: &mut Named) -> Result<(), HostError> {
        memory.clear();
        self.0.parse_whole(&paths.procfs, "meminfo", |text| parse(text, memory))
    }
}

fn parse(text: &str, memory: &mut Named) -> Result<(), Bad> {
    for (index, line) in text.lines().enumerate() {
        let bad = Bad::Line(index + 1, "`name: count` or `name: count kB`");
        let Some((name, value)) = line.split_once(':') else { return Err(bad) };
        let mut words = value.split_ascii_whitespace();
        let count: Option<u64> = number(words.next());
        let (name, inner) = name.split_once('(').unwrap_or((name, ""));
        let inner = inner.trim_end_matches(')');
        let between = if inner.is_empty() { "" } else { "_" };
        match (count, words.next()) {
            (Some(count), None) => memory.push(&[name, between, inner], count),
            (Some(count), Some("kB")) => match count.checked_mul(1024) {
                Some(bytes) => memory.push(&[name, between, inner, "_bytes"], bytes),
                None => return Err(bad),
            },
            _ => return Err(bad),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_become_names_and_bytes() {
        let mut memory = Named::default();
        parse("MemTotal:  100 kB\nActive(anon): 2 kB\nHugePages_Total: 3\n", &mut memory).unwrap();
        let expected = [("MemTotal_bytes", 102_400), ("Active_anon_bytes", 2048), ("HugePages_Total", 3)];
        assert_eq!(memory.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_bad_line_is_named() {
        let bad = |line| Err(Bad::Line(line, "`name: count` or `name: count kB`"));
        for (text, line) in [
            ("MemTotal 1 kB\n", 1),
            ("A: 1 kB\nB: 1 MB\n", 2),
            ("A:\n", 1),
            ("A: 18446744073709551615 kB", 1),
            ("A: -1\n", 1),
        ] {
            assert_eq!(parse(text, &mut Named::default()), bad(line), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "(MemTotal|é|A\\()?:?[ 0-9kB\\PC\n]{0,60}") {
            let _ = parse(&text, &mut Named::default());
        }
    }
}
