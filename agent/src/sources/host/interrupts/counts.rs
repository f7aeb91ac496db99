//! Counts of single interrupts (`per_cpu_count_show` in kernel/irq/irqdesc.c): those of a usual network device are read
//! in a tenth of the time that the table of all interrupts takes.

use std::path::Path;

use crate::sources::host::proc_file::{Bad, MOST_CPUS, ProcFile, number};

/// Of more than so many, each a file, the table is cheaper.
const MOST: usize = 16;

/// Files of some interrupts.
#[derive(Debug)]
pub(super) struct Counts {
    /// Those that are online.
    cpus: Vec<u32>,
    /// CPUs that could be: the files have a count of each.
    possible: usize,
    files: Vec<(u32, ProcFile)>,
}

impl Counts {
    /// `None` where the table is to be read: for many interrupts, when CPUs are numbered with gaps, or where there are no
    /// such files.
    pub(super) fn new(sysfs: &Path, cpus: &[u32], numbers: impl Iterator<Item = u32>) -> Option<Self> {
        let files: Vec<_> = numbers.take(MOST + 1).map(|number| (number, ProcFile::default())).collect();
        let online = ProcFile::default().parse_whole(&sysfs.join("devices/system/cpu"), "possible", |text| {
            possible(text).ok_or(Bad::Line(1, "`0-` and the number of the last CPU"))
        });
        let possible = online.ok()?;
        let fits = files.len() <= MOST && cpus.iter().all(|cpu| (*cpu as usize) < possible);
        let counts = fits.then(|| Self { cpus: cpus.to_vec(), possible, files });
        counts.and_then(|mut counts| counts.read(sysfs, |_, _| ()).then_some(counts))
    }

    /// CPUs that were online when this was made.
    pub(super) fn cpus(&self) -> &[u32] {
        &self.cpus
    }

    /// Hands each interrupt to `each` with its counts by CPU; false when one of them is gone.
    pub(super) fn read(&mut self, sysfs: &Path, mut each: impl FnMut(u32, &[(u32, u64)])) -> bool {
        let Self { cpus, possible, files } = self;
        let mut by_cpu = Vec::with_capacity(cpus.len());
        files.iter_mut().all(|(number, file)| {
            let directory = sysfs.join("kernel/irq").join(itoa::Buffer::new().format(*number));
            let outcome = file.parse_whole(&directory, "per_cpu_count", |text| {
                let counts = counts(text, *possible).ok_or(Bad::Line(1, "a count for each CPU"))?;
                by_cpu.clear();
                by_cpu.extend(cpus.iter().filter_map(|cpu| Some((*cpu, *counts.get(*cpu as usize)?))));
                Ok(())
            });
            if outcome.is_ok() {
                each(*number, &by_cpu);
            }
            outcome.is_ok()
        })
    }
}

/// How many CPUs there are in a list without gaps, `0` or `0-7`.
fn possible(text: &str) -> Option<usize> {
    let text = text.trim();
    let last = text.strip_prefix("0-").unwrap_or(text);
    let last: u32 = number(Some(last)).filter(|last| *last < MOST_CPUS)?;
    (text.starts_with("0-") || last == 0).then_some(last as usize + 1)
}

fn counts(text: &str, possible: usize) -> Option<Vec<u64>> {
    let counts: Option<Vec<u64>> = text.trim_end().split(',').map(|word| number(Some(word))).collect();
    counts.filter(|counts| counts.len() == possible)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_with_gaps_and_counts_of_other_cpus_are_none() {
        assert_eq!((possible("0-7\n"), possible("0\n")), (Some(8), Some(1)));
        for text in ["", "1", "1-3", "0-3,8-9", "0-", "0-x", "0-99999999999"] {
            assert_eq!(possible(text), None, "{text:?}");
        }
        assert_eq!(counts("3,0,7\n", 3), Some(vec![3, 0, 7]));
        for text in ["", "3,0", "3,0,7,1", "3,,7", "3,-1,7", "3,0,"] {
            assert_eq!(counts(text, 3), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_counts_or_nothing(text in "[0-9,\\PC\n-]{0,40}", cpus in 0..5usize) {
            let _ = (possible(&text), counts(&text, cpus));
        }
    }
}
