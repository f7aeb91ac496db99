//! Lists of CPUs, such as those below /sys/devices/system/cpu.

use std::path::Path;

use super::HostError;
use super::proc_file::{Bad, MOST_CPUS, ProcFile, number};

/// A list in a file.
#[derive(Debug, Default)]
pub(in crate::sources) struct CpuList {
    file: ProcFile,
    cpus: Vec<u32>,
}

impl CpuList {
    /// Reads it; without such a file it is empty.
    pub(in crate::sources) fn read(&mut self, folder: &Path, name: &str) -> Result<(), HostError> {
        self.cpus.clear();
        let Self { file, cpus } = self;
        let outcome = file.parse(folder, name, |text| {
            parse_list(text.trim(), cpus).ok_or(Bad::Line(1, "CPU numbers and ranges, such as 0,2-3"))
        });
        match outcome {
            Ok(()) | Err(HostError::Unavailable { .. }) => Ok(()),
            Err(error) => {
                cpus.clear();
                Err(error)
            }
        }
    }

    /// What was read last, rising.
    pub(in crate::sources) fn cpus(&self) -> &[u32] {
        &self.cpus
    }

    /// How many of them are in another list, too; `None` when it is not one.
    pub(in crate::sources) fn count_in(&self, other: &str) -> Option<u32> {
        let below = |end: u32| self.cpus.partition_point(|cpu| *cpu < end);
        let mut sum = 0;
        ranges(other, |first, last| sum += below(last + 1) - below(first))?;
        u32::try_from(sum).ok()
    }
}

fn parse_list(text: &str, cpus: &mut Vec<u32>) -> Option<()> {
    ranges(text, |first, last| cpus.extend(first..=last))
}

/// Hands every range of `0,2-3` (`bitmap_print_to_pagebuf`) to `each`; they rise, as the kernel writes them.
fn ranges(text: &str, mut each: impl FnMut(u32, u32)) -> Option<()> {
    let mut end = 0;
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (number(Some(first))?, number(Some(last))?);
        if first < end || first > last || last >= MOST_CPUS {
            return None;
        }
        each(first, last);
        end = last + 1;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_of_cpus() {
        let read = |text| {
            let mut cpus = Vec::new();
            parse_list(text, &mut cpus).map(|()| cpus)
        };
        assert_eq!(read("0,2-4"), Some(vec![0, 2, 3, 4]));
        assert_eq!(read(""), Some(vec![]));
        for bad in ["3-1", "0-9999999", "1,1", "x", "1-"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_two_lists_have_in_common() {
        let online = CpuList { cpus: vec![0, 2, 3], ..CpuList::default() };
        for (other, expected) in [
            ("0-127", Some(3)),
            ("1-2", Some(1)),
            ("3", Some(1)),
            ("0,2", Some(2)),
            ("1,4-8191", Some(0)),
            ("", Some(0)),
            ("0-1,0-1", None),
            ("0-4294967295", None),
        ] {
            assert_eq!(online.count_in(other), expected, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_list_is_an_answer_or_none(text in "[0-9,-]{0,20}|\\PC{0,20}") {
            let mut cpus = Vec::new();
            let outcome = parse_list(&text, &mut cpus);
            prop_assert!(cpus.len() <= MOST_CPUS as usize);
            let all = CpuList { cpus: (0..MOST_CPUS).collect(), ..CpuList::default() };
            prop_assert_eq!(all.count_in(&text), outcome.map(|()| cpus.len() as u32));
        }
    }
}
