//! What the files of a group say, in both versions.

use std::path::Path;

use super::files::Files;
use crate::model::host::Cgroup;
use crate::sources::host::proc_file::number;
use crate::sources::host::{HostError, malformed};

/// Which files a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

impl Version {
    /// Takes over what a level does to the time on CPUs.
    pub(super) fn cpu(self, level: &Path, files: &mut Files, found: &mut Cgroup) -> Result<(), HostError> {
        let (quota, period, time_unit) = match self {
            Self::One => {
                let quota = files.value(level, "cpu.cfs_quota_us")?;
                // -1 without a quota.
                (quota.filter(|quota| *quota > 0.0), files.value(level, "cpu.cfs_period_us")?, 1e9)
            }
            Self::Two => {
                // The real root has no such file but does have `cpu.stat`, as do groups where the controller is off.
                let Some((quota, period)) = cpu_max(level, files)? else { return Ok(()) };
                (quota, Some(period), 1e6)
            }
        };
        if let (Some(quota), Some(period)) = (quota, period.filter(|period| *period > 0.0)) {
            let cpus = quota / period;
            found.cpu_quota = Some(found.cpu_quota.map_or(cpus, |other| other.min(cpus)));
        }
        let Some(text) = files.read(level, "cpu.stat")? else { return Ok(()) };
        for line in text.lines() {
            let Some((key, value)) = line.split_once(' ') else { continue };
            if !matches!(key, "nr_periods" | "nr_throttled" | "throttled_time" | "throttled_usec") {
                continue;
            }
            let count: u64 = number(Some(value))
                .ok_or_else(|| malformed(level.join("cpu.stat"), "a name and a count", line))?;
            let sum = found.throttling.get_or_insert_default();
            match key {
                "nr_periods" => sum.periods = sum.periods.saturating_add(count),
                "nr_throttled" => sum.throttled_periods = sum.throttled_periods.saturating_add(count),
                _ => sum.throttled_seconds += count as f64 / time_unit,
            }
        }
        Ok(())
    }

    /// Takes over what a level does to memory. The `own` one is not an ancestor.
    pub(super) fn memory(
        self,
        level: &Path,
        files: &mut Files,
        own: bool,
        found: &mut Cgroup,
    ) -> Result<(), HostError> {
        let (used, limit, events) = match self {
            Self::One => ("memory.usage_in_bytes", "memory.limit_in_bytes", "memory.oom_control"),
            Self::Two => ("memory.current", "memory.max", "memory.events"),
        };
        if own {
            found.memory_bytes = files.value(level, used)?.map(|bytes| bytes as u64);
            let text = files.read(level, events)?.unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            found.oom_kills = number(line);
        }
        // Version 1 says 2^63 rounded down to a page where there is no limit, version 2 says `max`.
        let limit = files.value(level, limit)?.filter(|bytes| *bytes < (1u64 << 62) as f64);
        if let Some(bytes) = limit.map(|bytes| bytes as u64) {
            found.memory_limit_bytes = Some(found.memory_limit_bytes.map_or(bytes, |other| other.min(bytes)));
        }
        Ok(())
    }
}

/// `cpu.max` of version 2: quota and period in microseconds; the quota is `max` where there is none. `None` when the
/// level has no such file.
fn cpu_max(level: &Path, files: &mut Files) -> Result<Option<(Option<f64>, f64)>, HostError> {
    let Some(text) = files.read(level, "cpu.max")? else { return Ok(None) };
    let mut words = text.split_ascii_whitespace();
    let (quota, period) = (words.next(), number::<u32>(words.next()));
    match (quota, period) {
        (Some("max"), Some(period)) => Ok(Some((None, period.into()))),
        (quota, Some(period)) if number::<u64>(quota).is_some() => {
            Ok(Some((number::<u64>(quota).map(|quota| quota as f64), period.into())))
        }
        _ => Err(malformed(level.join("cpu.max"), "a quota or `max`, and a period", &text)),
    }
}
