//! Reading a file of procfs: opened once, read anew from its beginning each time.

use std::cell::Cell;
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

/// A file of procfs that stays open.
#[derive(Debug, Default)]
pub(in crate::sources::host) struct ProcFile {
    open: Option<(PathBuf, File)>,
}

thread_local! {
    /// What files are read into, one after the other: it is in the caches then, and a buffer for each would not be. It
    /// begins with what was read; what is behind stays, as zeroing it anew would cost more than some files.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl ProcFile {
    /// Reads `directory`/`name` and hands its text to `parse`.
    pub(in crate::sources::host) fn parse<T>(
        &mut self,
        directory: &Path,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Bad>,
    ) -> Result<T, HostError> {
        self.parse_until(directory, name, |_, _| false, parse)
    }

    /// As [`Self::parse`], for a file that the kernel writes in one piece (`single_open`, `proc_create_single`, sysctl,
    /// sysfs) and not by lines: what did not fill the buffer is all of it, and needs not be asked for its end.
    pub(in crate::sources::host) fn parse_whole<T>(
        &mut self,
        directory: &Path,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Bad>,
    ) -> Result<T, HostError> {
        self.parse_until(directory, name, |_, is_short| is_short, parse)
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
        self.parse_until(directory, name, |text, _| is_enough(text), parse)
    }

    fn parse_until<T>(
        &mut self,
        directory: &Path,
        name: &str,
        is_enough: impl Fn(&[u8], bool) -> bool,
        parse: impl FnOnce(&str) -> Result<T, Bad>,
    ) -> Result<T, HostError> {
        let mut buffer = BUFFER.take();
        let path = directory.join(name);
        let outcome = self.fill(&path, &mut buffer, is_enough).and_then(|filled| {
            let text = String::from_utf8_lossy(&buffer[..filled]);
            parse(&text).map_err(|bad| match bad {
                Bad::Missing(expected) => HostError::Missing { path, expected },
                Bad::Line(line, expected) => {
                    let found = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
                    let found = found.chars().take(EXCERPT).collect();
                    HostError::Malformed { path, line, expected, found }
                }
            })
        });
        BUFFER.set(buffer);
        if outcome.is_err() {
            // Another file may be there by now.
            self.open = None;
        }
        outcome
    }

    /// Says how many bytes of the buffer are those of the file.
    fn fill(
        &mut self,
        path: &Path,
        buffer: &mut Vec<u8>,
        is_enough: impl Fn(&[u8], bool) -> bool,
    ) -> Result<usize, HostError> {
        let failed = |source: io::Error| match source.kind() {
            // Pressure that is compiled in but off at boot answers "not supported".
            io::ErrorKind::NotFound | io::ErrorKind::Unsupported => {
                HostError::Unavailable { path: path.to_owned() }
            }
            _ => HostError::Read { path: path.to_owned(), source },
        };
        let (opened, file) = match self.open.take() {
            Some(known) if known.0 == path => known,
            _ => (path.to_owned(), open(path).map_err(failed)?),
        };
        if buffer.is_empty() {
            buffer.resize(FIRST, 0);
        }
        let filled = read_until(&file, buffer, is_enough).map_err(failed)?;
        self.open = Some((opened, file));
        filled.ok_or_else(|| HostError::TooLong { path: path.to_owned(), limit: LIMIT })
    }
}

/// Opens a file to be read. A pipe in its place must not keep the agent waiting for somebody who writes.
pub(in crate::sources::host) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Reads a small file once that the kernel writes in one piece (see [`ProcFile::parse_whole`]), or that is none of the
/// kernel's. More than any file has is an error, as is a pipe.
pub(in crate::sources) fn read_once(path: &Path) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; SMALL];
    let filled = read_until(&open(path)?, &mut buffer, |_, is_short| is_short)?;
    buffer.truncate(filled.ok_or(io::ErrorKind::FileTooLarge)?);
    Ok(buffer)
}

/// Reads the file into `buffer`, which is not empty, to its end or until there `is_enough`, and says how many bytes these
/// are; `None` when it has more than [`LIMIT`]. `is_enough` also gets whether the last read left room in the buffer.
fn read_until(
    file: &File,
    buffer: &mut Vec<u8>,
    is_enough: impl Fn(&[u8], bool) -> bool,
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
        let room = free.len();
        match file.read_at(free, filled as u64) {
            Ok(0) => return Ok(Some(filled)),
            Ok(count) => {
                filled += count;
                if is_enough(&buffer[..filled], count < room) {
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

/// Whether a process or thread ended, or a control group went (ENODEV), between being listed and being read.
pub(in crate::sources::host) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENODEV))
}

/// Number of a CPU; `None` for more than any kernel supports.
pub(in crate::sources::host) fn cpu_number(word: Option<&str>) -> Option<u32> {
    number(word).filter(|cpu| *cpu < MOST_CPUS)
}

/// Next word as a number.
pub(in crate::sources::host) fn number<T: std::str::FromStr>(word: Option<&str>) -> Option<T> {
    word?.parse().ok()
}

/// `None` for a file of a process or control group that is gone, or that this kernel does not offer.
pub(in crate::sources::host) fn unless_gone<T>(
    outcome: Result<T, HostError>,
) -> Result<Option<T>, HostError> {
    match outcome {
        Err(HostError::Read { source, .. }) if is_gone(&source) => Ok(None),
        outcome => present(outcome),
    }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn length(file: &mut ProcFile, directory: &Path) -> usize {
        file.parse_whole(directory, "file", |text| Ok(text.len())).unwrap()
    }

    #[test]
    fn a_file_is_read_to_its_end_however_large_and_nothing_stays_of_what_it_was() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let mut file = ProcFile::default();
        for size in [3, 0, FIRST - 1, FIRST, FIRST + 1, 5 * FIRST, 7] {
            fs::write(&path, "x".repeat(size)).unwrap();
            assert_eq!(length(&mut file, root.path()), size);
            assert_eq!(file.parse(root.path(), "file", |text| Ok(text.len())).unwrap(), size);
        }
        fs::write(&path, "x".repeat(LIMIT + 1)).unwrap();
        let error = file.parse_whole(root.path(), "file", |_| Ok(())).unwrap_err();
        assert!(matches!(error, HostError::TooLong { limit: LIMIT, .. }), "{error}");
    }

    #[test]
    fn one_file_may_be_read_while_another_one_is() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "inner").unwrap();
        fs::write(root.path().join("outer"), "outer").unwrap();
        let (mut inner, mut outer) = (ProcFile::default(), ProcFile::default());
        let both =
            outer.parse(root.path(), "outer", |text| Ok((length(&mut inner, root.path()), text.to_owned())));
        assert_eq!(both.unwrap(), (5, "outer".to_owned()));
    }

    #[test]
    fn a_file_of_a_process_that_is_gone_is_no_error() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let directory = Path::new("/proc").join(child.id().to_string());
        let mut file = ProcFile::default();
        let mut read = || unless_gone(file.parse_whole(&directory, "stat", |text| Ok(text.len())));
        assert!(read().unwrap().is_some_and(|length| length > 10));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(read().unwrap(), None, "the file that is open");
        assert_eq!(read().unwrap(), None, "there is none to be opened");
    }
}
