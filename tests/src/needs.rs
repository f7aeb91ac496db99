//! Tests that need more than the machine has are skipped aloud, never passed in silence.
//!
//! The convention: one line `SKIPPED <test>: needs <what>` to stderr (past the capture of the test harness), and the
//! same line appended to the file named by `TAILGAUGE_SKIPPED`, where the test runner counts them.
//!
//! ```no_run
//! # use tailgauge_testbed::needs;
//! let Ok(()) = needs::root_and("name_of_the_test", &["ip", "nft"]) else { return };
//! ```

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// The environment variable with the file in which skipped tests are counted.
pub const SKIPPED_FILE: &str = "TAILGAUGE_SKIPPED";

/// The test was reported as skipped and should return.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{test}: needs {what}")]
pub struct Skip {
    /// The test.
    pub test: String,
    /// What it lacks.
    pub what: String,
}

/// Root and programs on PATH.
pub fn root_and(test: &str, programs: &[&str]) -> Result<(), Skip> {
    let mut lacking = Vec::new();
    if !rustix::process::geteuid().is_root() {
        lacking.push("root".to_owned());
    }
    lacking.extend(programs.iter().filter(|name| find(name).is_none()).map(|name| format!("`{name}`")));
    if lacking.is_empty() { Ok(()) } else { Err(skip(test, &lacking.join(", "))) }
}

/// Reports `test` as skipped because it needs `what`.
pub fn skip(test: &str, what: &str) -> Skip {
    let skip = Skip { test: test.to_owned(), what: what.to_owned() };
    let line = format!("SKIPPED {skip}\n");
    // stderr itself and not eprintln!, which the test harness captures.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(path) = env::var_os(SKIPPED_FILE) {
        let append = || File::options().create(true).append(true).open(&path)?.write_all(line.as_bytes());
        if let Err(error) = append() {
            let _ = writeln!(io::stderr(), "cannot append to {}: {error}", path.to_string_lossy());
        }
    }
    skip
}

/// The first executable file of that name on PATH.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    find_in(&env::var_os("PATH")?, program)
}

/// The first executable file of that name in `folders`, written as PATH is.
#[must_use]
pub fn find_in(folders: &OsStr, program: &str) -> Option<PathBuf> {
    env::split_paths(folders).map(|folder| folder.join(program)).find(|path| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_is_named() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
    }
}
