//! Collector `time`: whether the clock is right, and what the kernel counts it by.

mod timex;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::proc_file::{Bad, ProcFile, present};
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, Time};
use crate::sources::clean;

/// Clock sources that are listed: the kernel knows a handful.
const MOST_SOURCES: usize = 16;

/// Keeps the files open.
#[derive(Default)]
pub(super) struct TimeCollector {
    available: ProcFile,
    current: ProcFile,
}

impl Collector for TimeCollector {
    const NAME: &'static str = "time";
    const HELP: &'static str =
        "wall clock and its synchronisation by adjtimex(2), uptime, and the kernel's clock source";
    type Output = Time;

    fn field(host: &mut Host) -> &mut Option<Time> {
        &mut host.time
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Time>, HostError> {
        let directory = paths.sysfs.join("devices/system/clocksource/clocksource0");
        let sources = names(&mut self.available, &directory, "available_clocksource")?;
        let mut current = names(&mut self.current, &directory, "current_clocksource")?;
        let uptime = clock_gettime(ClockId::Boottime);
        Ok(Some(Time {
            now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            uptime: Duration::new(uptime.tv_sec.cast_unsigned(), uptime.tv_nsec as u32),
            discipline: timex::read()?,
            sources,
            source: current.pop().unwrap_or_default(),
        }))
    }
}

/// Words of a file (kernel/time/clocksource.c); none where the kernel does not offer it.
fn names(file: &mut ProcFile, directory: &Path, name: &str) -> Result<Vec<String>, HostError> {
    Ok(present(file.parse_whole(directory, name, words))?.unwrap_or_default())
}

fn words(text: &str) -> Result<Vec<String>, Bad> {
    let mut found = Vec::new();
    for word in text.split_ascii_whitespace().take(MOST_SOURCES) {
        let name = clean::label(word, "unknown");
        // Names can be the same once they are cleaned, and two series must not.
        if !found.contains(&name) {
            found.push(name);
        }
    }
    if found.is_empty() { Err(Bad::Line(1, "the name of a clock source")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use procfs::Current;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_host_s_clocks() {
        let time = TimeCollector::default().collect(&Paths::default()).unwrap().unwrap();
        let uptime = procfs::Uptime::current().unwrap().uptime;
        assert!((time.uptime.as_secs_f64() - uptime).abs() < 5.0, "{time:?}, {uptime}");
        assert!(time.sources.contains(&time.source), "{time:?}");
        let boot_time = (time.now - time.uptime).as_secs();
        assert!(boot_time.abs_diff(procfs::boot_time_secs().unwrap()) <= 1, "{time:?}");
    }

    #[test]
    fn without_sysfs_no_source_is_named() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { sysfs: root.path().to_owned(), ..Paths::default() };
        let time = TimeCollector::default().collect(&paths).unwrap().unwrap();
        assert!(time.sources.is_empty() && time.source.is_empty());
    }

    #[test]
    fn names_are_cleaned_bounded_and_told_apart() {
        assert_eq!(words("tsc kvm-clock tsc \n").unwrap(), ["tsc", "kvm-clock"]);
        assert_eq!(words("\n"), Err(Bad::Line(1, "the name of a clock source")));
        assert_eq!(
            words(&(0..99).map(|number| format!("c{number} ")).collect::<String>()).unwrap().len(),
            MOST_SOURCES
        );
    }

    proptest! {
        #[test]
        fn any_text_is_names_or_an_error(text in "[a-z\u{200b}\\PC \n]{0,80}") {
            let _ = words(&text);
        }
    }
}
