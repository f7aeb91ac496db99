//! The mount table (proc_pid_mountinfo(5)).
//!
//! procfs' `MountInfo` is not used: it leaves `\040` for a blank in paths.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::proc_file::{Bad, ProcFile, number};
use super::{HostError, Paths};

/// Keeps the tables open.
#[derive(Debug, Default)]
pub(super) struct MountTable {
    first: ProcFile,
    own: ProcFile,
}

impl MountTable {
    /// Reads the table of process 1, which is the host's: a sandbox may show its own process everything read-only. Where
    /// process 1 is hidden (`hidepid`), one's own.
    pub(super) fn parse<T>(
        &mut self,
        paths: &Paths,
        mut parse: impl FnMut(&str) -> Result<T, Bad>,
    ) -> Result<T, HostError> {
        match self.first.parse(&paths.procfs, "1/mountinfo", &mut parse) {
            Err(error) if is_hidden(&error) => self.own.parse(&paths.procfs, "self/mountinfo", parse),
            outcome => outcome,
        }
    }
}

fn is_hidden(error: &HostError) -> bool {
    match error {
        HostError::Unavailable { .. } => true,
        HostError::Read { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
        _ => false,
    }
}

/// `36 35 98:0 /root /mount options fields… - type device super-options`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// Number of the mount, and of the one that it is mounted on.
    pub(super) id: u32,
    pub(super) parent: u32,
    /// Major and minor number of the device.
    pub(super) number: (u32, u32),
    /// Escaped, as is the device.
    pub(super) mount_point: &'a str,
    options: &'a str,
    pub(super) fstype: &'a str,
    pub(super) device: &'a str,
    super_options: &'a str,
}

impl<'a> Line<'a> {
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let (id, parent) = (number(left.next())?, number(left.next())?);
        let (major, minor) = left.next()?.split_once(':')?;
        let number = (number(Some(major))?, number(Some(minor))?);
        let (mount_point, options) = (left.nth(1)?, left.next()?);
        let mut right = right.split(' ');
        let (fstype, device) = (right.next()?, right.next()?);
        let super_options = right.next().unwrap_or_default();
        Some(Self { id, parent, number, mount_point, options, fstype, device, super_options })
    }

    /// The mount point.
    pub(super) fn point(&self) -> PathBuf {
        unescape(self.mount_point)
    }

    /// The mount point, escaped, without `rootfs` before it; `None` when it is not there.
    pub(super) fn below(&self, rootfs: &Path) -> Option<&'a str> {
        let prefix = rootfs.to_str().unwrap_or_default().trim_end_matches('/');
        match self.mount_point.strip_prefix(prefix)? {
            "" => Some("/"),
            rest => rest.starts_with('/').then_some(rest),
        }
    }

    /// Where it can be asked.
    pub(super) fn place(&self, rootfs: &Path) -> PathBuf {
        let point = unescape(self.below(rootfs).unwrap_or(self.mount_point));
        rootfs.join(point.strip_prefix("/").unwrap_or(&point))
    }

    /// Mounted so, or made so after an error.
    pub(super) fn is_read_only(&self) -> bool {
        let has = |options: &str, word| options.split(',').any(|option| option == word);
        has(self.options, "ro") || has(self.super_options, "ro") || has(self.super_options, "emergency_ro")
    }
}

/// Blank, tab, newline and backslash come as three octal digits (`mangle` in fs/seq_file.c).
pub(super) fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        let octal = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        plain.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn first_line(table: &mut MountTable, paths: &Paths) -> String {
        table.parse(paths, |text| Ok(text.to_owned())).unwrap()
    }

    #[test]
    fn the_table_of_process_1_else_ones_own() {
        let procfs = tempfile::tempdir().unwrap();
        let paths = Paths { procfs: procfs.path().to_owned(), ..Paths::default() };
        for (process, text) in [("self", "own"), ("1", "host")] {
            fs::create_dir(procfs.path().join(process)).unwrap();
            fs::write(procfs.path().join(process).join("mountinfo"), text).unwrap();
            assert_eq!(first_line(&mut MountTable::default(), &paths), text);
        }
    }

    #[test]
    fn read_only_by_the_mount_the_file_system_or_an_error() {
        for (options, super_options, expected) in [
            ("rw,relatime", "rw", false),
            ("ro,relatime", "rw", true),
            ("rw", "ro,data=ordered", true),
            ("rw", "rw,emergency_ro", true),
            ("rw,errors=remount-ro", "rw", false),
        ] {
            let line = format!("27 1 254:0 / / {options} shared:1 - ext4 /dev/vda {super_options}");
            assert_eq!(Line::parse(&line).unwrap().is_read_only(), expected, "{line}");
        }
    }
}
