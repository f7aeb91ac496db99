//! Which process tailscaled is: the one that listens on its LocalAPI socket, else the oldest of its name.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::sources::host::proc_file::{Bad, ProcFile, number, read_once, unless_gone};
use crate::sources::host::{HostError, Paths};

/// Content of /proc/PID/comm.
const NAME: &str = "tailscaled";
const NANOSECONDS: u64 = 1_000_000_000;
/// While there is no such process, it is looked for only so often, since that is the dear part.
const SEARCH_INTERVAL: Duration = Duration::from_secs(10);

/// A process, told apart from a later one with the same id by its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sources) struct Process {
    pub(in crate::sources) pid: i32,
    /// Since boot (`USER_HZ`).
    pub(in crate::sources) started_ticks: u64,
}

impl Process {
    /// From boot to its start.
    pub(super) fn started(self) -> Duration {
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let (seconds, rest) = (self.started_ticks / per_second, self.started_ticks % per_second);
        Duration::from_secs(seconds) + Duration::from_nanos(rest * NANOSECONDS / per_second)
    }
}

/// Remembers which process it was.
#[derive(Debug, Default)]
pub(in crate::sources) struct Finder {
    /// With its open /proc/PID/stat, which stays that of this process when another one gets its id.
    known: Option<(Process, ProcFile)>,
    /// When it was looked for in vain.
    pub(super) missed: Option<Instant>,
}

impl Finder {
    /// tailscaled and its /proc/PID/stat, if it runs.
    pub(in crate::sources) fn find(&mut self, paths: &Paths) -> Result<Option<(Process, Stat)>, HostError> {
        if let Some((known, mut file)) = self.known.take()
            && let Some(stat) = read_stat(&mut file, &paths.procfs, known.pid)?
            && stat.started_ticks == known.started_ticks
        {
            self.known = Some((known, file));
            return Ok(Some((known, stat)));
        }
        if self.missed.is_some_and(|missed| missed.elapsed() < SEARCH_INTERVAL) {
            return Ok(None);
        }
        self.missed = None;
        let Some((pid, stat, file)) = search(paths)? else {
            self.missed = Some(Instant::now());
            return Ok(None);
        };
        let process = Process { pid, started_ticks: stat.started_ticks };
        self.known = Some((process, file));
        Ok(Some((process, stat)))
    }
}

fn search(paths: &Paths) -> Result<Option<(i32, Stat, ProcFile)>, HostError> {
    let mut file = ProcFile::default();
    if let Some(pid) = listener(&paths.localapi).filter(|_| shows_own_processes(&paths.procfs))
        && let Some(stat) = read_stat(&mut file, &paths.procfs, pid)?
    {
        return Ok(Some((pid, stat, file)));
    }
    by_name(&paths.procfs)
}

/// The process that listens on the socket, by the credentials that the kernel kept (unix(7), SO_PEERCRED); `None`
/// when nobody listens, or somebody in another PID namespace.
fn listener(socket: &Path) -> Option<i32> {
    let address = SocketAddrUnix::new(socket).ok()?;
    // A listener that takes nobody in must not keep the agent waiting.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connection: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    match connect(&connection, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(_) => return None,
    }
    peer(&connection)
}

/// rustix' `socket_peercred` is not used: 0, which stands for a process of another PID namespace, is no valid
/// value of its result.
#[expect(unsafe_code, reason = "getsockopt of a structure that no safe wrapper reads soundly")]
fn peer(connection: &OwnedFd) -> Option<i32> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both pointers are valid for writes, and `length` is the size of what the first one points to.
    let outcome = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    (outcome == 0 && credentials.pid > 0).then_some(credentials.pid)
}

/// Whether process ids mean the same there as in what the kernel tells this process.
fn shows_own_processes(procfs: &Path) -> bool {
    let own = fs::read_link(procfs.join("self")).ok();
    own.and_then(|link| number::<u32>(link.to_str())) == Some(std::process::id())
}

/// The oldest process named tailscaled: its children (SSH sessions) carry the name, too.
fn by_name(procfs: &Path) -> Result<Option<(i32, Stat, ProcFile)>, HostError> {
    let entries =
        fs::read_dir(procfs).map_err(|source| HostError::Read { path: procfs.to_owned(), source })?;
    let mut oldest: Option<(i32, Stat, ProcFile)> = None;
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| number::<i32>(Some(name))) else {
            continue;
        };
        let is_it =
            read_once(&entry.path().join("comm")).is_ok_and(|comm| comm.trim_ascii_end() == NAME.as_bytes());
        if !is_it {
            continue;
        }
        let mut file = ProcFile::default();
        if let Some(stat) = read_stat(&mut file, procfs, pid)?
            && oldest.as_ref().is_none_or(|(_, other, _)| stat.started_ticks < other.started_ticks)
        {
            oldest = Some((pid, stat, file));
        }
    }
    Ok(oldest)
}

/// What is used of /proc/PID/stat.
#[derive(Debug, PartialEq)]
pub(in crate::sources) struct Stat {
    pub(in crate::sources) user_seconds: f64,
    pub(in crate::sources) system_seconds: f64,
    pub(in crate::sources) threads: u64,
    pub(in crate::sources) started_ticks: u64,
    pub(in crate::sources) virtual_bytes: u64,
    pub(in crate::sources) resident_bytes: u64,
}

/// `None` when the process is gone.
fn read_stat(file: &mut ProcFile, procfs: &Path, pid: i32) -> Result<Option<Stat>, HostError> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as u64;
    unless_gone(file.parse_whole(&procfs.join(pid.to_string()), "stat", |text| {
        parse_stat(text, ticks, page).ok_or(Bad::Line(1, "at least 24 columns of proc_pid_stat(5)"))
    }))
}

/// Columns are counted after the name, which may hold blanks and parentheses.
pub(super) fn parse_stat(text: &str, ticks_per_second: f64, page_bytes: u64) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    // Column 3 (state) is the first here.
    let mut columns = (3..).zip(rest.split_ascii_whitespace());
    let mut column =
        |wanted: u8| number::<u64>(columns.find(|(column, _)| *column == wanted).map(|(_, word)| word));
    Some(Stat {
        user_seconds: column(14)? as f64 / ticks_per_second,
        system_seconds: column(15)? as f64 / ticks_per_second,
        threads: column(20)?,
        started_ticks: column(22)?,
        virtual_bytes: column(23)?,
        resident_bytes: column(24)?.saturating_mul(page_bytes),
    })
}
