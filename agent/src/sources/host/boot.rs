//! Facts that do not change until the next boot, read once through sysinfo.

use std::time::Duration;

use sysinfo::System;

use crate::model::host::Boot;
use crate::sources::clean;

/// Reads the facts of this boot. What the system does not say is empty or zero.
#[must_use]
pub fn boot() -> Boot {
    let cpus = rustix::thread::sched_getaffinity(None).map_or(0, |set| set.count());
    Boot {
        hostname: clean::label(&System::host_name().unwrap_or_default(), ""),
        kernel_release: clean::text(&System::kernel_version().unwrap_or_default(), ""),
        cpus,
        boot_time: Duration::from_secs(System::boot_time().unwrap_or_default()),
    }
}
