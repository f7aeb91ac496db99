//! Attributes of sysfs: small files, one value each.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, pread};
use rustix::path::Arg;

/// No attribute that is read here is longer; the kernel allows a page.
const LIMIT: usize = 512;

/// Room for an attribute.
pub(super) type Buffer = [u8; LIMIT];

/// Opens the file `name` of the directory `folder`.
pub(super) fn open(folder: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    // A pipe must not keep the agent waiting for somebody who writes.
    openat(folder, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// Reads the begin of an open file anew.
pub(super) fn begin(file: impl AsFd, buffer: &mut Buffer) -> Result<&[u8], Errno> {
    let length = pread(file, &mut *buffer, 0)?;
    Ok(buffer.get(..length).unwrap_or_default())
}

/// Reads an open attribute anew and hands it over without the blanks around it. `None` when the device does not tell
/// it in its present state.
pub(super) fn attribute(file: impl AsFd, buffer: &mut Buffer) -> Result<Option<&str>, Errno> {
    unless_silent(begin(file, buffer).map(|bytes| std::str::from_utf8(bytes).ok().map(str::trim)))
        .map(Option::flatten)
}

/// `None` when there is no such attribute, or the device does not tell it.
pub(super) fn unless_silent<T>(outcome: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The text of an attribute; `None` when it cannot be read, whatever the reason.
pub(super) fn text(path: &Path) -> Option<String> {
    attribute(open(CWD, path).ok()?, &mut [0; LIMIT]).ok()?.map(str::to_owned)
}

/// The number in an attribute; `None` when it cannot be read or is none.
pub(super) fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_without_the_line_s_end_and_what_is_missing_is_none() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            std::fs::write(root.path().join(name), bytes).unwrap();
            root.path().join(name)
        };
        assert_eq!(text(&file("a", b"unknown\n")).as_deref(), Some("unknown"));
        assert_eq!(number(&file("b", b"42\n")), Some(42));
        assert_eq!((number(&file("c", b"-1\n")), number(&file("d", b"\xff\n"))), (None, None));
        assert_eq!(text(&root.path().join("none")), None);
        let long = text(&file("e", &[b'x'; 4096])).unwrap();
        assert_eq!(long.len(), LIMIT);
    }
}
