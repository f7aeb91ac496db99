//! Collector `time`: the clock, its zone, and what the kernel counts time with.

use std::ffi::CStr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::Paths;
use super::sysfs;
use crate::model::node::{Clock, ClockSource};
use crate::sources::clean;

/// There is one; the kernel's names allow for more.
const MOST_SOURCES: usize = 16;

/// Cannot fail: what sysfs does not say is absent.
pub(super) fn read(paths: &Paths, clock: &mut Clock) {
    clock.now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (clock.zone_offset, clock.zone) = zone(clock.now.as_secs() as libc::time_t);
    let folder = paths.sysfs.join("devices/system/clocksource");
    clock.sources.clear();
    for number in 0..MOST_SOURCES {
        let folder = folder.join(format!("clocksource{number}"));
        let read = |name| sysfs::text(&folder.join(name));
        let (Some(available), Some(current)) = (read("available_clocksource"), read("current_clocksource"))
        else {
            break;
        };
        let mut available: Vec<_> =
            available.split_ascii_whitespace().map(|name| clean::text(name, "unknown")).collect();
        available.sort_unstable();
        available.dedup();
        clock.sources.push(ClockSource { available, current: clean::text(&current, "unknown") });
    }
}

/// Seconds east of Greenwich at `moment`, and the zone's abbreviation, by TZ or /etc/localtime.
fn zone(moment: libc::time_t) -> (i64, String) {
    // SAFETY: all zeroes is a valid tm: integers, and a null pointer that is checked below.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values. It reads the environment, which the agent never writes.
    let known = unsafe { !libc::localtime_r(&raw const moment, &raw mut local).is_null() };
    if !known || local.tm_zone.is_null() {
        return (0, "UTC".to_owned());
    }
    // SAFETY: the C library's own string, which stands until TZ changes and is copied at once.
    let name = unsafe { CStr::from_ptr(local.tm_zone) };
    (local.tm_gmtoff, clean::text(&clean::lossy(name.to_bytes()), "UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_and_its_sources() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("devices/system/clocksource/clocksource0");
        let paths = Paths { sysfs: root.path().to_owned(), ..Paths::default() };
        let mut clock = Clock::default();
        read(&paths, &mut clock);
        assert!(clock.now.as_secs() > 1_700_000_000 && clock.sources.is_empty());
        assert!(clock.zone_offset.abs() <= 16 * 3600 && !clock.zone.is_empty());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("available_clocksource"), "tsc kvm-clock \n").unwrap();
        std::fs::write(folder.join("current_clocksource"), "tsc\n").unwrap();
        read(&paths, &mut clock);
        let available = vec!["kvm-clock".to_owned(), "tsc".to_owned()];
        assert_eq!(clock.sources, [ClockSource { available, current: "tsc".to_owned() }]);
    }
}
