//! /proc/interrupts (`show_interrupts` in kernel/irq/proc.c).

use crate::sources::host::proc_file::{Bad, number};

/// The file: a column for each CPU that is online, a row for each interrupt.
#[derive(Debug)]
pub(super) struct Table<'a> {
    /// CPU numbers.
    pub(super) cpus: Vec<u32>,
    text: &'a str,
}

/// A device's interrupt. Those of the architecture (NMI, LOC and so on) have a name in place of the number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) number: u32,
    line: usize,
    rest: &'a str,
}

impl<'a> Table<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Bad> {
        let head = text.lines().next().unwrap_or_default();
        let cpus: Option<Vec<u32>> =
            head.split_ascii_whitespace().map(|word| number(word.strip_prefix("CPU"))).collect();
        let cpus = cpus.filter(|cpus| !cpus.is_empty()).ok_or(Bad::Line(1, "`CPU0` and so on"))?;
        Ok(Self { cpus, text })
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'a>> {
        self.text.lines().enumerate().skip(1).filter_map(|(index, line)| {
            let (name, rest) = line.split_once(':')?;
            Some(Row { number: number(Some(name.trim_start()))?, line: index + 1, rest })
        })
    }
}

impl<'a> Row<'a> {
    /// How often it came, by column.
    pub(super) fn counts(&self, columns: usize) -> Result<Vec<u64>, Bad> {
        let words = self.rest.split_ascii_whitespace().take(columns);
        let counts: Option<Vec<u64>> = words.map(|word| number(Some(word))).collect();
        counts
            .filter(|counts| counts.len() == columns)
            .ok_or(Bad::Line(self.line, "a number, a colon and a count for each CPU"))
    }

    /// Chip, kind and the names that drivers gave, after the counts.
    pub(super) fn names(&self, columns: usize) -> impl Iterator<Item = &'a str> {
        self.rest.split_ascii_whitespace().skip(columns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_with_numbers_and_what_stands_behind_their_counts() {
        let text = "           CPU0       CPU3       \n 24:          1          0  IO-APIC   5-edge      ACPI:Ged\nLOC:      \
                    79968      89468   Local timer interrupts\nERR:          0\n";
        let table = Table::parse(text).unwrap();
        assert_eq!(table.cpus, [0, 3]);
        let rows: Vec<_> = table.rows().collect();
        assert_eq!((rows.len(), rows[0].number), (1, 24));
        assert_eq!(rows[0].counts(2), Ok(vec![1, 0]));
        assert_eq!(rows[0].names(2).collect::<Vec<_>>(), ["IO-APIC", "5-edge", "ACPI:Ged"]);
        assert_eq!(rows[0].counts(4), Err(Bad::Line(2, "a number, a colon and a count for each CPU")));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "(CPU[0-9]{1,12} ?){0,3}\n?[ A-Z_0-9:\\PC\n]{0,80}") {
            if let Ok(table) = Table::parse(&text) {
                for row in table.rows() {
                    let _ = (row.counts(table.cpus.len()), row.names(table.cpus.len()).count());
                }
            }
        }
    }
}
