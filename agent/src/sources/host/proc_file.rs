//! Reading a file of procfs: opened once, read anew from its beginning each time.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::HostError;

/// More than any file read here ever has (netstat: 6 KiB; diskstats of 1,000 disks: 150 KiB).
const LIMIT: usize = 4 << 20;
/// First size of the buffer; most files fit, so that one read and one for the end do.
const FIRST: usize = 8 << 10;
/// The same for files that are read once: settings, and those below /proc/PID.
const SMALL: usize = 2 << 10;
/// `CONFIG_NR_CPUS` at most.
pub(in crate::sources::host) const MOST_CPUS: u32 = 8192;
/// How much of a bad line an error shows.
const EXCERPT: usize = 80;

/// A line that is not as expected, before the file's name is known.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sources::host) enum Bad {
    /// Line number from 1, and what would be right.
    Line(usize, &'static str),
    /// A line that begins so is missing.
    Missing(&'static str),
}

/// A file of procfs that stays open, with the buffer that it is read into.
#[derive(Debug, Default)]
pub(in crate::sources::host) struct ProcFile {
    open: Option<(PathBuf, File)>,
    /// Begins with what was read; what is behind stays, as zeroing it anew would cost more than some files.
    buffer: Vec<u8>,
    filled: usize,
}

impl ProcFile {
    /// Reads `directory`/`name` and hands its text to `parse`.
    pub(in crate::sources::host) fn parse<T>(
        &mut self,
        directory: &Path,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Bad>,
    ) -> Result<T, HostError> {
        self.parse_start(directory, name, |_| false, parse)
    }

    /// As [`Self::parse`], but reads no further once what was read `is_enough`: no line of it need be the last one, nor
    /// whole.
    pub(in crate::sources::host) fn parse_start<T>(
        &mut self,
        directory: &Path,
        name: &str,
        is_enough: impl Fn(&[u8]) -> bool,
        parse: impl FnOnce(&str) -> Result<T, Bad>,
    ) -> Result<T, HostError> {
        let path = directory.join(name);
        let text = self.read(&path, is_enough)?;
        let outcome = parse(&text).map_err(|bad| match bad {
            Bad::Missing(expected) => HostError::Missing { path, expected },
            Bad::Line(line, expected) => {
                let found = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
                let found = found.chars().take(EXCERPT).collect();
                HostError::Malformed { path, line, expected, found }
            }
        });
        if outcome.is_err() {
            // Another file may be there by now.
            self.open = None;
        }
        outcome
    }

    fn read(&mut self, path: &Path, is_enough: impl Fn(&[u8]) -> bool) -> Result<Cow<'_, str>, HostError> {
        let outcome = self.fill(path, is_enough);
        if let Err(error) = outcome {
            self.open = None;
            return Err(error);
        }
        Ok(String::from_utf8_lossy(&self.buffer[..self.filled]))
    }

    fn fill(&mut self, path: &Path, is_enough: impl Fn(&[u8]) -> bool) -> Result<(), HostError> {
        let failed = |source: io::Error| match source.kind() {
            // Pressure that is compiled in but off at boot answers "not supported".
            io::ErrorKind::NotFound | io::ErrorKind::Unsupported => {
                HostError::Unavailable { path: path.to_owned() }
            }
            _ => HostError::Read { path: path.to_owned(), source },
        };
        if self.open.as_ref().is_none_or(|(opened, _)| opened != path) {
            self.open = Some((path.to_owned(), open(path).map_err(failed)?));
        }
        let Some((_, file)) = &self.open else { return Ok(()) };
        if self.buffer.is_empty() {
            self.buffer.resize(FIRST, 0);
        }
        let filled = read_until(file, &mut self.buffer, is_enough).map_err(failed)?;
        self.filled = filled.ok_or_else(|| HostError::TooLong { path: path.to_owned(), limit: LIMIT })?;
        Ok(())
    }
}

/// Opens a file to be read. A pipe in its place must not keep the agent waiting for somebody who writes.
pub(in crate::sources::host) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Reads a small file once. More than any file has is an error, as is a pipe.
pub(in crate::sources) fn read_once(path: &Path) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; SMALL];
    let filled = read_until(&open(path)?, &mut buffer, |_| false)?;
    buffer.truncate(filled.ok_or(io::ErrorKind::FileTooLarge)?);
    Ok(buffer)
}

/// Reads the file into `buffer`, which is not empty, to its end or until there `is_enough`, and says how many bytes these
/// are; `None` when it has more than [`LIMIT`].
fn read_until(
    file: &File,
    buffer: &mut Vec<u8>,
    is_enough: impl Fn(&[u8]) -> bool,
) -> io::Result<Option<usize>> {
    let mut filled = 0;
    loop {
        let Some(free) = buffer.get_mut(filled..).filter(|free| !free.is_empty()) else {
            if filled >= LIMIT {
                return Ok(None);
            }
            buffer.resize(filled * 2, 0);
            continue;
        };
        match file.read_at(free, filled as u64) {
            Ok(0) => return Ok(Some(filled)),
            Ok(count) => {
                filled += count;
                if is_enough(&buffer[..filled]) {
                    return Ok(Some(filled));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads a small file once. `None` when that fails in a way that `is_absent` knows.
pub(in crate::sources::host) fn read_small(
    path: &Path,
    is_absent: impl FnOnce(&io::Error) -> bool,
) -> Result<Option<String>, HostError> {
    match read_once(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(HostError::Read { path: path.to_owned(), source }),
    }
}

/// Reads a small file below /proc/PID once. `None` when the process is gone.
pub(in crate::sources::host) fn read_of_process(path: &Path) -> Result<Option<String>, HostError> {
    read_small(path, is_gone)
}

/// Whether a process or thread ended between being listed and being read.
pub(in crate::sources::host) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Number of a CPU; `None` for more than any kernel supports.
pub(in crate::sources::host) fn cpu_number(word: Option<&str>) -> Option<u32> {
    number(word).filter(|cpu| *cpu < MOST_CPUS)
}

/// Next word as a number.
pub(in crate::sources::host) fn number<T: std::str::FromStr>(word: Option<&str>) -> Option<T> {
    word?.parse().ok()
}

/// `None` for a file that this kernel does not offer.
pub(in crate::sources::host) fn present<T>(outcome: Result<T, HostError>) -> Result<Option<T>, HostError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(HostError::Unavailable { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file that holds a number and nothing else.
pub(in crate::sources::host) fn count(text: &str) -> Result<u64, Bad> {
    number(Some(text.trim())).ok_or(Bad::Line(1, "a count"))
}
