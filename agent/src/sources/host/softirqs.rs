//! Collector `softirqs`: /proc/softirqs (`show_softirqs` in fs/proc/softirqs.c).

use super::proc_file::{Bad, ProcFile, cpu_number, number};
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, SoftirqVector, Softirqs};
use crate::sources::clean;

/// Three times as many as there are (`NR_SOFTIRQS`).
const MOST: usize = 30;

/// Keeps /proc/softirqs open.
#[derive(Default)]
pub(super) struct SoftirqsCollector(ProcFile);

impl Collector for SoftirqsCollector {
    const NAME: &'static str = "softirqs";
    const HELP: &'static str = "soft interrupts per CPU and kind from /proc/softirqs";
    type Output = Softirqs;

    fn field(host: &mut Host) -> &mut Option<Softirqs> {
        &mut host.softirqs
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Softirqs>, HostError> {
        self.0.parse_whole(&paths.procfs, "softirqs", parse).map(Some)
    }
}

fn parse(text: &str) -> Result<Softirqs, Bad> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let cpus: Option<Vec<u32>> =
        head.split_ascii_whitespace().map(|word| cpu_number(word.strip_prefix("CPU"))).collect();
    let cpus = cpus.filter(|cpus| !cpus.is_empty() && cpus.is_sorted_by(|a, b| a < b));
    let cpus = cpus.ok_or(Bad::Line(1, "`CPU0` and so on"))?;
    let mut vectors: Vec<SoftirqVector> = Vec::new();
    for (index, line) in lines.enumerate() {
        let bad = |expected| Bad::Line(index + 2, expected);
        let vector = vector(line, cpus.len()).ok_or(bad("a name, a colon and a count for each CPU"))?;
        if vectors.len() == MOST || vectors.iter().any(|other| other.name == vector.name) {
            return Err(bad("each soft interrupt once"));
        }
        vectors.push(vector);
    }
    Ok(Softirqs { cpus, vectors })
}

fn vector(line: &str, cpus: usize) -> Option<SoftirqVector> {
    let (name, counts) = line.split_once(':')?;
    let runs: Option<Vec<u64>> = counts.split_ascii_whitespace().map(|word| number(Some(word))).collect();
    let runs = runs.filter(|runs| runs.len() == cpus)?;
    Some(SoftirqVector { name: clean::label(name.trim(), "unknown"), runs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_column_for_each_cpu_that_is_there() {
        let text = "                    CPU0       CPU2       \n          HI:          0          1\n      \
                    NET_RX:    1578428    1526563\n";
        let softirqs = parse(text).unwrap();
        assert_eq!(softirqs.cpus, [0, 2]);
        let receive = SoftirqVector { name: "NET_RX".to_owned(), runs: vec![1_578_428, 1_526_563] };
        assert_eq!(softirqs.vectors[1], receive);
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(parse("").unwrap_err(), Bad::Line(1, "`CPU0` and so on"));
        let expected = "a name, a colon and a count for each CPU";
        assert_eq!(parse("CPU0 CPU1\nHI: 1\n").unwrap_err(), Bad::Line(2, expected));
        assert_eq!(parse("CPU0 CPU0\nHI: 1 1\n").unwrap_err(), Bad::Line(1, "`CPU0` and so on"));
        assert_eq!(parse("CPU0\nHI: 1\nHI: 1\n").unwrap_err(), Bad::Line(3, "each soft interrupt once"));
        assert_eq!(parse("CPU0\nHI: 1\nRCU 2\n").unwrap_err(), Bad::Line(3, expected));
    }

    #[test]
    fn this_kernel_receives_packets() {
        let softirqs = SoftirqsCollector::default().collect(&Paths::default()).unwrap().unwrap();
        assert!(softirqs.vectors.iter().any(|vector| vector.name == "NET_RX"));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "(CPU[0-9]{1,12} ?){0,3}\n?[ A-Z_0-9:\\PC\n]{0,80}") {
            let _ = parse(&text);
        }
    }
}
