//! Collector `pressure`: /proc/pressure/{cpu,memory,io,irq} (Documentation/accounting/psi.rst).
//!
//! procfs' parser is not used: it panics on the line `some`.

use super::proc_file::{Bad, ProcFile, number};
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, Pressure, Stall};

const TOTAL: &str = "`total=` and microseconds";

/// Keeps /proc/pressure/cpu open.
#[derive(Debug, Default)]
pub(in crate::sources) struct PressureReader(ProcFile);

impl PressureReader {
    /// Reads who waited for a CPU.
    pub(in crate::sources) fn cpu(&mut self, paths: &Paths) -> Result<Stall, HostError> {
        self.0.parse_whole(&paths.procfs, "pressure/cpu", parse)
    }

    /// How long somebody waited for a CPU, from the first line alone, in one system call.
    pub(in crate::sources) fn cpu_microseconds(&mut self, paths: &Paths) -> Result<u64, HostError> {
        self.0.parse_start(
            &paths.procfs,
            "pressure/cpu",
            |text| text.contains(&b'\n'),
            |text| {
                let line = text.lines().next().unwrap_or_default();
                let words = line.strip_prefix("some ").ok_or(Bad::Missing("some"))?;
                total(words.split_ascii_whitespace()).ok_or(Bad::Line(1, TOTAL))
            },
        )
    }
}

/// Keeps the files open.
#[derive(Default)]
pub(super) struct PressureCollector {
    cpu: PressureReader,
    memory: ProcFile,
    io: ProcFile,
    irq: ProcFile,
}

impl Collector for PressureCollector {
    const NAME: &'static str = "pressure";
    const HELP: &'static str = "time lost waiting for CPU, memory, disks and interrupts from /proc/pressure";
    type Output = Pressure;

    fn field(host: &mut Host) -> &mut Option<Pressure> {
        &mut host.pressure
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Pressure>, HostError> {
        Ok(Some(Pressure {
            cpu: Some(self.cpu.cpu(paths)?),
            memory: Some(self.memory.parse_whole(&paths.procfs, "pressure/memory", parse)?),
            io: Some(self.io.parse_whole(&paths.procfs, "pressure/io", parse)?),
            irq: match self.irq.parse_whole(&paths.procfs, "pressure/irq", parse_irq) {
                Ok(seconds) => Some(seconds),
                // Kernel 6.1 and later, with CONFIG_IRQ_TIME_ACCOUNTING.
                Err(HostError::Unavailable { .. }) => None,
                Err(error) => return Err(error),
            },
        }))
    }
}

/// Text of a file with the lines `some` and `full`.
pub(super) fn parse(text: &str) -> Result<Stall, Bad> {
    let (some, full) = totals(text)?;
    Ok(Stall { some_seconds: some.ok_or(Bad::Missing("some"))?, full_seconds: full })
}

/// Interrupts stop all tasks of a CPU, never only some.
pub(super) fn parse_irq(text: &str) -> Result<f64, Bad> {
    totals(text)?.1.ok_or(Bad::Missing("full"))
}

/// Seconds of the lines `some` and `full`.
fn totals(text: &str) -> Result<(Option<f64>, Option<f64>), Bad> {
    let mut some = None;
    let mut full = None;
    for (index, line) in text.lines().enumerate() {
        let mut words = line.split_ascii_whitespace();
        let place = match words.next() {
            Some("some") => &mut some,
            Some("full") => &mut full,
            _ => return Err(Bad::Line(index + 1, "`some` or `full`")),
        };
        let microseconds = total(words).ok_or(Bad::Line(index + 1, TOTAL))?;
        *place = Some(microseconds as f64 / 1e6);
    }
    Ok((some, full))
}

/// Microseconds of a line.
fn total<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<u64> {
    number(words.find_map(|word| word.strip_prefix("total=")))
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
    fn the_first_line_alone_says_the_same() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("pressure");
        std::fs::create_dir(&directory).unwrap();
        let paths = Paths { procfs: root.path().to_owned(), ..Paths::default() };
        let read = |text: &str| {
            std::fs::write(directory.join("cpu"), text).unwrap();
            PressureReader::default().cpu_microseconds(&paths).map_err(|error| error.to_string())
        };
        assert_eq!(read("some avg10=0.01 avg60=0.64 avg300=14.40 total=280833162\nfull"), Ok(280_833_162));
        assert!(read("full total=1\n").unwrap_err().contains("some"));
        assert!(read("some avg10=0\n").unwrap_err().contains(TOTAL));
        assert!(read("").is_err());
    }

    #[test]
    fn an_older_kernel_has_no_full_for_cpu() {
        assert_eq!(parse("some avg10=0 total=0\n").unwrap().full_seconds, None);
    }

    #[test]
    fn interrupts_stop_everybody() {
        assert_eq!(parse_irq("full avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n"), Ok(2.5));
        assert_eq!(parse_irq("some total=1\n"), Err(Bad::Missing("full")));
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(parse("some"), Err(Bad::Line(1, TOTAL)));
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
