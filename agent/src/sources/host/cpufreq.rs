//! Collector `cpufreq`: frequency of each CPU (Documentation/admin-guide/pm/cpufreq.rst) and how often heat slowed it
//! down (arch/x86/kernel/cpu/mce/therm_throt.c, Intel only). Virtual machines have neither.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::proc_file::{number, read_small};
use super::rest::Rest;
use super::{Collector, HostError, Paths, malformed};
use crate::model::host::{CpuFrequency, Host};

/// CPUs that get series.
const MOST: usize = 256;
/// Heat is slow, and the files are many.
const INTERVAL: Duration = Duration::from_secs(10);
/// Before kernel 5.18, x86 waited 10 ms for each CPU to say how fast it is: too long for a number.
const PATIENCE: Duration = Duration::from_millis(5);
/// One answer may be late because this thread was: so many in a row are the kernel's way.
const LATE_ANSWERS: u32 = 3;

/// Reads every [`INTERVAL`].
#[derive(Default)]
pub(super) struct CpufreqCollector {
    rest: Rest,
    /// How many answers in a row came late.
    late: u32,
}

impl Collector for CpufreqCollector {
    const NAME: &'static str = "cpufreq";
    const HELP: &'static str = "frequency and thermal throttling of CPUs from /sys, read every 10 s";
    type Output = Vec<CpuFrequency>;

    fn field(host: &mut Host) -> &mut Option<Vec<CpuFrequency>> {
        &mut host.cpu_frequencies
    }

    fn rests(&self) -> bool {
        self.rest.is_on()
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Vec<CpuFrequency>>, HostError> {
        let found = self.cpus(&paths.sysfs.join("devices/system/cpu"))?;
        self.rest.begin(INTERVAL);
        Ok(Some(found))
    }
}

impl CpufreqCollector {
    /// CPUs by number; those that say nothing are left out.
    fn cpus(&mut self, directory: &Path) -> Result<Vec<CpuFrequency>, HostError> {
        let entries = fs::read_dir(directory).map_err(|source| {
            let path = directory.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound => HostError::Unavailable { path },
                _ => HostError::Read { path, source },
            }
        })?;
        let number_of = |name: &str| number(name.strip_prefix("cpu"));
        let mut cpus: Vec<u32> =
            entries.flatten().filter_map(|entry| number_of(entry.file_name().to_str()?)).collect();
        cpus.sort_unstable();
        cpus.truncate(MOST);
        let mut found = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            let directory = directory.join(format!("cpu{cpu}"));
            let row = CpuFrequency {
                cpu,
                hertz: self.current(&directory)?,
                limit_hertz: kilohertz(&directory.join("cpufreq/cpuinfo_max_freq"))?,
                core_throttles: count(&directory.join("thermal_throttle/core_throttle_count"))?,
                package_throttles: count(&directory.join("thermal_throttle/package_throttle_count"))?,
            };
            if row != (CpuFrequency { cpu, ..CpuFrequency::default() }) {
                found.push(row);
            }
        }
        Ok(found)
    }

    fn current(&mut self, directory: &Path) -> Result<Option<u64>, HostError> {
        if self.late >= LATE_ANSWERS {
            return Ok(None);
        }
        let started = Instant::now();
        let hertz = kilohertz(&directory.join("cpufreq/scaling_cur_freq"))?;
        self.late = if started.elapsed() > PATIENCE { self.late + 1 } else { 0 };
        Ok(hertz)
    }
}

/// A frequency in Hz; `None` where the file is missing, or a driver that does not know it writes `<unknown>` or 0.
fn kilohertz(path: &Path) -> Result<Option<u64>, HostError> {
    match content(path)? {
        Some(text) if text.trim() == "<unknown>" => Ok(None),
        Some(text) => Ok(whole(path, &text)?.checked_mul(1000).filter(|hertz| *hertz > 0)),
        None => Ok(None),
    }
}

fn count(path: &Path) -> Result<Option<u64>, HostError> {
    content(path)?.map(|text| whole(path, &text)).transpose()
}

fn whole(path: &Path, text: &str) -> Result<u64, HostError> {
    number(Some(text.trim())).ok_or_else(|| malformed(path.to_owned(), "a number", text))
}

/// `None` for a file that is not there, and for that of a CPU that is switched off or went meanwhile.
fn content(path: &Path) -> Result<Option<String>, HostError> {
    let absent = [libc::ENOENT, libc::ENODEV, libc::EBUSY, libc::EINVAL, libc::EIO];
    read_small(path, |error| error.raw_os_error().is_some_and(|number| absent.contains(&number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join("devices/system/cpu").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn collect(root: &tempfile::TempDir) -> Result<Option<Vec<CpuFrequency>>, HostError> {
        let paths = Paths { sysfs: root.path().to_owned(), ..Paths::default() };
        CpufreqCollector::default().collect(&paths)
    }

    #[test]
    fn cpus_are_in_order_and_one_that_says_nothing_is_left_out() {
        let root = tree(&[
            ("cpu10/cpufreq/scaling_cur_freq", "1200000\n"),
            ("cpu10/cpufreq/cpuinfo_max_freq", "3400000\n"),
            ("cpu2/cpufreq/scaling_cur_freq", "<unknown>\n"),
            ("cpu2/thermal_throttle/core_throttle_count", "5\n"),
            ("cpu2/thermal_throttle/package_throttle_count", "7\n"),
            ("cpu0/online", "1\n"),
            ("cpufreq/policy0/scaling_cur_freq", "1\n"),
            ("cpuidle/current_driver", "none\n"),
        ]);
        let found = collect(&root).unwrap().unwrap();
        let throttled = CpuFrequency {
            cpu: 2,
            core_throttles: Some(5),
            package_throttles: Some(7),
            ..CpuFrequency::default()
        };
        let running = CpuFrequency {
            cpu: 10,
            hertz: Some(1_200_000_000),
            limit_hertz: Some(3_400_000_000),
            ..CpuFrequency::default()
        };
        assert_eq!(found, [throttled, running]);
    }

    #[test]
    fn a_bad_file_is_named_and_an_unknown_frequency_is_none() {
        let root = tree(&[("cpu0/cpufreq/scaling_cur_freq", "fast\n")]);
        let error = collect(&root).unwrap_err().to_string();
        assert!(error.contains("cpu0/cpufreq/scaling_cur_freq") && error.contains("a number"), "{error}");
        for unknown in ["18446744073709551615", "0", "<unknown>"] {
            let root = tree(&[("cpu0/cpufreq/scaling_cur_freq", &format!("{unknown}\n"))]);
            assert_eq!(collect(&root).unwrap().unwrap(), [], "{unknown}");
        }
    }

    #[test]
    fn a_frequency_that_always_takes_long_is_not_asked_for_again() {
        let root = tree(&[("cpu0/cpufreq/scaling_cur_freq", "1200000\n")]);
        let mut collector = CpufreqCollector { late: LATE_ANSWERS, ..CpufreqCollector::default() };
        let directory = root.path().join("devices/system/cpu");
        assert_eq!(collector.cpus(&directory).unwrap(), []);
        let mut collector = CpufreqCollector { late: LATE_ANSWERS - 1, ..CpufreqCollector::default() };
        assert_eq!(collector.cpus(&directory).unwrap().len(), 1, "one late answer is chance");
    }
}
