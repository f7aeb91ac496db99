//! Finds the programs of a real tailnet. They are used when they are there; the project never builds or carries them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::needs::{self, Skip};

/// The environment variable with the folder that holds the three programs.
pub const PROGRAMS_FOLDER: &str = "TAILGAUGE_TAILNET_PROGRAMS";

/// Where the three programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The node's daemon.
    pub tailscaled: PathBuf,
    /// Its command line.
    pub tailscale: PathBuf,
    /// The control server, with DERP and STUN in it.
    pub headscale: PathBuf,
}

/// Some of the programs are neither on PATH nor in the folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the real tailnet needs {missing}: install tailscale (1.86 or newer, https://tailscale.com/download/linux) and \
     headscale (0.29 or newer, https://headscale.net), or name a folder that holds them by --programs or {PROGRAMS_FOLDER}"
)]
pub struct MissingPrograms {
    /// The programs, separated by commas.
    pub missing: String,
}

impl Programs {
    /// For tests: reports `test` as skipped unless this is root and everything that a real tailnet and its traffic need
    /// is there.
    pub fn or_skip(test: &str) -> Result<Self, Skip> {
        needs::root_and(test, &["ip", "nft", "iperf3"])?;
        Self::find(None).map_err(|error| needs::skip(test, &error.missing))
    }

    /// Looks in `folder`, else in the folder named by `TAILGAUGE_TAILNET_PROGRAMS`, else on PATH.
    pub fn find(folder: Option<&Path>) -> Result<Self, MissingPrograms> {
        let named: Option<OsString> = folder.map(Into::into).or_else(|| env::var_os(PROGRAMS_FOLDER));
        let places = named.or_else(|| env::var_os("PATH")).unwrap_or_default();
        let find = |name| needs::find_in(&places, name).ok_or(name);
        match (find("tailscaled"), find("tailscale"), find("headscale")) {
            (Ok(tailscaled), Ok(tailscale), Ok(headscale)) => Ok(Self { tailscaled, tailscale, headscale }),
            (tailscaled, tailscale, headscale) => {
                let missing = [tailscaled.err(), tailscale.err(), headscale.err()];
                let missing: Vec<&str> = missing.into_iter().flatten().collect();
                Err(MissingPrograms { missing: missing.join(", ") })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn missing_programs_are_named_and_found_ones_are_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let add = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            path
        };
        add("tailscale");
        let error = Programs::find(Some(folder.path())).unwrap_err();
        assert_eq!(error.missing, "tailscaled, headscale");
        add("tailscaled");
        let headscale = add("headscale");
        assert_eq!(Programs::find(Some(folder.path())).unwrap().headscale, headscale);
    }
}
