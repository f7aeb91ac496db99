//! Collector `pressure`: /proc/pressure/{cpu,memory,io} (Documentation/accounting/psi.rst).
//!
//! procfs' parser is not used: it panics on the line `some`.

use super::proc_file::{Bad, ProcFile, number};
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, Pressure, Stall};

/// Keeps the three files open.
#[derive(Default)]
pub(super) struct PressureCollector {
    cpu: ProcFile,
    memory: ProcFile,
    io: ProcFile,
}

impl Collector for PressureCollector {
    const NAME: &'static str = "pressure";
    const HELP: &'static str = "time lost waiting for CPU, memory and disks from /proc/pressure";
    type Output = Pressure;

    fn field(host: &mut Host) -> &mut Option<Pressure> {
        &mut host.pressure
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Pressure>, HostError> {
        Ok(Some(Pressure {
            cpu: Some(self.cpu.parse(&paths.procfs, "pressure/cpu", parse)?),
            memory: Some(self.memory.parse(&paths.procfs, "pressure/memory", parse)?),
            io: Some(self.io.parse(&paths.procfs, "pressure/io", parse)?),
        }))
    }
}

fn parse(text: &str) -> Result<Stall, Bad> {
    let mut some = None;
    let mut full = None;
    for (index, line) in text.lines().enumerate() {
        let mut words = line.split_ascii_whitespace();
        let place = match words.next() {
            Some("some") => &mut some,
            Some("full") => &mut full,
            _ => return Err(Bad::Line(index + 1, "`some` or `full`")),
        };
        let total = words.find_map(|word| word.strip_prefix("total="));
        let microseconds: u64 = number(total).ok_or(Bad::Line(index + 1, "`total=` and microseconds"))?;
        *place = Some(microseconds as f64 / 1e6);
    }
    Ok(Stall { some_seconds: some.ok_or(Bad::Missing("some"))?, full_seconds: full })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn microseconds_become_seconds() {
        let text = "some avg10=0.01 avg60=0.64 avg300=14.40 total=280833162\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n";
        let stall = parse(text).unwrap();
        assert_eq!(stall, Stall { some_seconds: 280.833_162, full_seconds: Some(1.5) });
    }

    #[test]
    fn an_older_kernel_has_no_full_for_cpu() {
        assert_eq!(parse("some avg10=0 total=0\n").unwrap().full_seconds, None);
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(parse("some"), Err(Bad::Line(1, "`total=` and microseconds")));
        assert_eq!(parse("some total=1\nhalf total=1"), Err(Bad::Line(2, "`some` or `full`")));
        assert_eq!(parse("full total=1"), Err(Bad::Missing("some")));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "(some|full)?[ a-z=0-9\\PC\n]{0,60}") {
            let _ = parse(&text);
        }
    }
}
