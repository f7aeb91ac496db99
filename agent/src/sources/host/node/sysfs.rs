//! Attributes of sysfs: small files, one value each.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, pread};
use rustix::path::Arg;

/// No attribute that is read here is longer; the kernel allows a page.
const LIMIT: usize = 512;

/// Room for an attribute.
pub(super) type Buffer = [u8; LIMIT];

/// Reads the begin of the file `name` of the directory `folder`.
pub(super) fn begin(folder: impl AsFd, name: impl Arg, buffer: &mut Buffer) -> Result<&[u8], Errno> {
    // A pipe must not keep the agent waiting for somebody who writes.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::empty())?;
    let length = pread(&file, &mut *buffer, 0)?;
    Ok(buffer.get(..length).unwrap_or_default())
}

/// Reads the attribute `name` of the directory `folder` and hands it over without the blanks around it. `None` when
/// there is no such attribute, or the device does not tell it in its present state.
pub(super) fn attribute(
    folder: impl AsFd,
    name: impl Arg,
    buffer: &mut Buffer,
) -> Result<Option<&str>, Errno> {
    match begin(folder, name, buffer) {
        Ok(bytes) => Ok(std::str::from_utf8(bytes).ok().map(str::trim)),
        Err(Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The text of an attribute; `None` when it cannot be read, whatever the reason.
pub(super) fn text(path: &Path) -> Option<String> {
    let mut buffer = [0; LIMIT];
    attribute(CWD, path, &mut buffer).ok()?.map(str::to_owned)
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
