//! Collector `softnet`: /proc/net/softnet_stat (`softnet_seq_show` in net/core/net-procfs.c), hexadecimal.

use super::proc_file::{Bad, MOST_CPUS, ProcFile};
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, Softnet};

/// Keeps /proc/net/softnet_stat open.
#[derive(Default)]
pub(super) struct SoftnetCollector(ProcFile);

impl Collector for SoftnetCollector {
    const NAME: &'static str = "softnet";
    const HELP: &'static str = "receive backlog per CPU from /proc/net/softnet_stat";
    type Output = Vec<Softnet>;

    fn field(host: &mut Host) -> &mut Option<Vec<Softnet>> {
        &mut host.softnet
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Vec<Softnet>>, HostError> {
        self.0.parse(&paths.procfs, "net/softnet_stat", parse).map(Some)
    }
}

fn parse(text: &str) -> Result<Vec<Softnet>, Bad> {
    let mut rows: Vec<Softnet> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let row = row(index, line).ok_or(Bad::Line(index + 1, "at least nine hexadecimal columns"))?;
        if rows.last().is_some_and(|last| last.cpu >= row.cpu) {
            return Err(Bad::Line(index + 1, "a CPU after those of lower numbers"));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Columns since kernel 5.14: 11 backlog, 12 CPU. Before, a row is a CPU that is online, in order.
fn row(index: usize, line: &str) -> Option<Softnet> {
    let mut columns = [None; 13];
    for (place, word) in columns.iter_mut().zip(line.split_ascii_whitespace()) {
        *place = Some(u64::from_str_radix(word, 16).ok()?);
    }
    let column = |place: usize| columns[place];
    Some(Softnet {
        cpu: u32::try_from(column(12).unwrap_or(index as u64)).ok().filter(|cpu| *cpu < MOST_CPUS)?,
        processed: column(0)?,
        dropped: column(1)?,
        squeezed: column(2)?,
        collisions: column(8)?,
        received_rps: column(9).unwrap_or(0),
        flow_limited: column(10).unwrap_or(0),
        backlog: column(11),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hexadecimal_columns_of_a_current_kernel() {
        let text = "0000000d 00000000 00000000 0 0 0 0 0 0 00000000 00000000 00000000 00000000 0 0\n\
                    00008bf0 00000002 0000000a 0 0 0 0 0 1 00000003 00000004 00000005 00000003 0 0\n";
        let rows = parse(text).unwrap();
        assert_eq!(rows[0].processed, 13);
        let second = Softnet {
            cpu: 3,
            processed: 0x8bf0,
            dropped: 2,
            squeezed: 10,
            collisions: 1,
            received_rps: 3,
            flow_limited: 4,
            backlog: Some(5),
        };
        assert_eq!(rows[1], second);
    }

    #[test]
    fn an_older_kernel_counts_rows() {
        let rows = parse("1 0 0 0 0 0 0 0 0 0 0\n2 0 0 0 0 0 0 0 0 0 0\n").unwrap();
        assert_eq!((rows[1].cpu, rows[1].processed, rows[1].backlog), (1, 2, None));
    }

    #[test]
    fn a_bad_line_is_named() {
        assert!(matches!(parse("1 0 0 0 0 0 0 0 0\n1 0\n"), Err(Bad::Line(2, _))));
        let row = "0 0 0 0 0 0 0 0 0 0 0 0 7\n";
        assert_eq!(parse(&row.repeat(2)).unwrap_err(), Bad::Line(2, "a CPU after those of lower numbers"));
        assert!(matches!(parse("g 0 0 0 0 0 0 0 0\n"), Err(Bad::Line(1, _))));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "[0-9a-g \n]{0,200}") {
            let _ = parse(&text);
        }
    }
}
