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
}

/// `0,2-3` (`bitmap_print_to_pagebuf`), rising, as the kernel writes it.
fn parse_list(text: &str, cpus: &mut Vec<u32>) -> Option<()> {
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (number(Some(first))?, number(Some(last))?);
        let rising = cpus.last().is_none_or(|before| *before < first);
        if !rising || first > last || last >= MOST_CPUS {
            return None;
        }
        cpus.extend(first..=last);
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

    proptest! {
        #[test]
        fn any_list_is_an_answer_or_none(text in "[0-9,-]{0,20}|\\PC{0,20}") {
            let mut cpus = Vec::new();
            let _ = parse_list(&text, &mut cpus);
            prop_assert!(cpus.len() <= MOST_CPUS as usize);
        }
    }
}
