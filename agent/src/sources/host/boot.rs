//! Facts that do not change until the next boot, read once through sysinfo.

use sysinfo::System;

use crate::model::host::Boot;
use crate::sources::clean;

/// Reads the facts of this boot. What the system does not say is empty.
#[must_use]
pub fn boot() -> Boot {
    Boot {
        hostname: clean::label(&System::host_name().unwrap_or_default(), ""),
        kernel_release: clean::text(&System::kernel_version().unwrap_or_default(), ""),
    }
}
