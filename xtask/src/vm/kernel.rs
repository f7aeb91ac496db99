//! Debian's kernels: fetched and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Error, check, output};

/// An unpacked kernel package.
pub struct Kernel {
    /// As `uname -r` says, for example `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// The compressed kernel.
    pub image: PathBuf,
    /// `lib/modules/RELEASE`.
    pub modules: PathBuf,
}

/// Fetches the newest package of a line such as 6.1 that apt knows, unless it is in `folder` already.
///
/// # Errors
/// apt knows none, or cannot fetch it.
pub fn fetch(version: &str, folder: &Path) -> Result<Kernel, Error> {
    let pattern = format!("^linux-image-{}[.].*-cloud-amd64-unsigned$", version.replace('.', "[.]"));
    let listed = output(Command::new("apt-cache").args(["search", "--names-only", &pattern]))?;
    let listed = String::from_utf8_lossy(&listed);
    let package = newest(&listed).ok_or_else(|| {
        Error::Refused(format!(
            "apt knows no package linux-image-{version}.*-cloud-amd64-unsigned: run apt-get update, or add Debian \
             bookworm with bookworm-security to apt's sources"
        ))
    })?;
    let unpacked = folder.join(package);
    if !unpacked.exists() {
        fs::create_dir_all(folder).map_err(|source| failed("create", folder, source))?;
        let fresh =
            tempfile::tempdir_in(folder).map_err(|source| failed("create a folder in", folder, source))?;
        // As root, apt would download as a user of its own, who may not write here.
        let mut download = Command::new("apt-get");
        check(download.current_dir(fresh.path()).args([
            "-qq",
            "-o",
            "APT::Sandbox::User=root",
            "download",
            package,
        ]))?;
        let archive = only_entry(fresh.path(), package)?;
        let tree = fresh.path().join("tree");
        check(Command::new("dpkg").arg("-x").arg(archive).arg(&tree))?;
        fs::rename(&tree, &unpacked).map_err(|source| failed("create", &unpacked, source))?;
    }
    let image = only_entry(&unpacked.join("boot"), "vmlinuz-")?;
    let modules = only_entry(&unpacked.join("lib/modules"), version)?;
    let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Kernel { release, image, modules })
}

/// The package of the highest version in the output of `apt-cache search`.
fn newest(listed: &str) -> Option<&str> {
    let numbers = |name: &str| {
        name.split(|character: char| !character.is_ascii_digit())
            .filter_map(|number| number.parse::<u64>().ok())
            .collect::<Vec<_>>()
    };
    listed.lines().filter_map(|line| line.split(' ').next()).max_by_key(|name| numbers(name))
}

/// The entry of `folder` whose name begins so.
fn only_entry(folder: &Path, prefix: &str) -> Result<PathBuf, Error> {
    let entries = fs::read_dir(folder).map_err(|source| failed("read", folder, source))?;
    entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .ok_or_else(|| {
            Error::Refused(format!("{} has no {prefix}*: remove target/vm and start again", folder.display()))
        })
}

fn failed(operation: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { operation, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let listed = "linux-image-6.1.0-9-cloud-amd64-unsigned - Linux 6.1 for x86-64 cloud\n\
                      linux-image-6.1.0-56-cloud-amd64-unsigned - Linux 6.1 for x86-64 cloud\n\
                      linux-image-6.1.0-47-cloud-amd64-unsigned - Linux 6.1 for x86-64 cloud\n";
        assert_eq!(newest(listed), Some("linux-image-6.1.0-56-cloud-amd64-unsigned"));
        assert_eq!(newest(""), None);
    }
}
