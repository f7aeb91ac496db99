//! Collector `vmstat`: /proc/vmstat, the lines that node_exporter takes by default.

use super::super::proc_file::{Bad, ProcFile, number};
use super::super::{HostError, Paths};
use crate::model::node::Named;

/// Keeps /proc/vmstat open.
#[derive(Default)]
pub(super) struct Reader(ProcFile);

impl Reader {
    pub(super) fn read(&mut self, paths: &Paths, counts: &mut Named) -> Result<(), HostError> {
        counts.clear();
        self.0.parse(&paths.procfs, "vmstat", |text| parse(text, counts))
    }
}

fn parse(text: &str, counts: &mut Named) -> Result<(), Bad> {
    for (index, line) in text.lines().enumerate() {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        if is_kept(name) {
            counts.push(&[name], number(Some(value)).ok_or(Bad::Line(index + 1, "`name count`"))?);
        }
    }
    Ok(())
}

/// node_exporter's default: out of memory, paging, swapping and page faults.
fn is_kept(name: &str) -> bool {
    ["oom_kill", "pgpg", "pswp"].iter().any(|begin| name.starts_with(begin))
        || name.strip_prefix("pg").is_some_and(|rest| rest.contains("fault"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_lines_are_picked_out() {
        let mut counts = Named::default();
        let text = "nr_free_pages 5\npgpgin 1\npswpout 2\npgmajfault 3\npgfault 4\noom_kill 6\npgsteal 7\n";
        parse(text, &mut counts).unwrap();
        let expected = [("pgpgin", 1), ("pswpout", 2), ("pgmajfault", 3), ("pgfault", 4), ("oom_kill", 6)];
        assert_eq!(counts.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_bad_line_is_named() {
        let mut counts = Named::default();
        assert_eq!(parse("a 1\noom_kill\n", &mut counts), Err(Bad::Line(2, "`name count`")));
        assert_eq!(parse("pgpgin -1\n", &mut counts), Err(Bad::Line(1, "`name count`")));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "(pgpg|oom_kill)?[ 0-9\\PC\n]{0,60}") {
            let _ = parse(&text, &mut Named::default());
        }
    }
}
