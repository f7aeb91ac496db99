//! Removes what guards could not: after Ctrl-C, and in the next run after a SIGKILL.
//!
//! Everything that outlives a process bears its pid: network namespaces, their private /etc, control groups and folders
//! for state are named `tg<pid>x<counter>-…`. What is named after this process goes when SIGINT, SIGTERM or SIGHUP
//! arrives; what is named after a process that no longer exists goes when the first namespace is made.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{IntoRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use crate::cgroup;
use crate::netns::{self, NAMED, PRIVATE_ETC};

/// Signals that ask a test process to end.
const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// A prefix that no other process and no other call in this process uses: `tg<pid>x<counter>`, at most 14 characters
/// for the first hundred.
#[must_use]
pub fn unique_prefix() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("tg{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// A folder for sockets, state and logs that goes with its guard, or with the process.
pub fn folder() -> io::Result<tempfile::TempDir> {
    guard();
    tempfile::Builder::new().prefix(&format!("{}-", unique_prefix())).tempdir()
}

/// Once per process: removes what dead processes left, and arranges for this one's own to go when it is interrupted.
pub(crate) fn guard() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        remove_where(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if let Err(error) = clean_up_on_interrupt() {
            eprintln!("an interrupt will leave namespaces until the next run: {error}");
        }
    });
}

/// Network namespaces, their private /etc and folders that bear the name of process `pid`.
#[must_use]
pub fn left_by(pid: u32) -> Vec<PathBuf> {
    let places = [PathBuf::from(NAMED), PathBuf::from(PRIVATE_ETC), std::env::temp_dir()];
    let left = |place: PathBuf| {
        let names = names_in(&place, |owner| owner == pid);
        names.into_iter().map(move |name| place.join(name))
    };
    places.into_iter().flat_map(left).collect()
}

/// What is in a folder and has an owner whose pid satisfies `chosen`.
fn names_in(folder: &Path, chosen: impl Fn(u32) -> bool) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| owner(name).is_some_and(&chosen))
        .collect()
}

/// Removes everything whose owner's pid satisfies `chosen`.
fn remove_where(chosen: impl Fn(u32) -> bool) {
    let mut namespaces = names_in(Path::new(NAMED), &chosen);
    namespaces.append(&mut names_in(Path::new(PRIVATE_ETC), &chosen));
    for name in namespaces {
        netns::remove(&name);
    }
    cgroup::remove_where(|name| owner(name).is_some_and(&chosen));
    let temporary = std::env::temp_dir();
    for name in names_in(&temporary, &chosen) {
        // Gone already when the owner's guard was faster.
        let _ = fs::remove_dir_all(temporary.join(name));
    }
}

/// The pid in a name of the form `tg<pid>x<counter>-<rest>`.
fn owner(name: &str) -> Option<u32> {
    let (prefix, _rest) = name.split_once('-')?;
    let (pid, counter) = prefix.strip_prefix("tg")?.split_once('x')?;
    counter.parse::<u32>().ok()?;
    pid.parse().ok()
}

/// Write end of the pipe that takes the numbers of signals from the handler to the thread that cleans up.
static SIGNALS: AtomicI32 = AtomicI32::new(-1);

extern "C" fn forward(signal: libc::c_int) {
    let fd: RawFd = SIGNALS.load(Ordering::Relaxed);
    let byte = u8::try_from(signal).unwrap_or_default();
    // SAFETY: write is async-signal-safe; the pointer is to one live byte and the descriptor is never closed.
    unsafe { libc::write(fd, (&raw const byte).cast(), 1) };
}

/// On a signal of [`ENDING`]: removes what this process owns, then ends it with the shell's code for the signal.
fn clean_up_on_interrupt() -> io::Result<()> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    SIGNALS.store(write.into_raw_fd(), Ordering::Relaxed);
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        let mut signal = [0];
        if File::from(read).read_exact(&mut signal).is_ok() {
            remove_where(|pid| pid == std::process::id());
            std::process::exit(128 + i32::from(signal[0]));
        }
    })?;
    for signal in ENDING {
        let handler: extern "C" fn(libc::c_int) = forward;
        // SAFETY: an all-zero sigaction is valid: no flags, empty mask, default handler.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        let mut before = action;
        // SAFETY: both actions are initialised; the handler does nothing but write to a pipe.
        if unsafe { libc::sigaction(signal, &raw const action, &raw mut before) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // Under nohup, or in the background of a script, the process is not meant to hear it.
        if before.sa_sigaction == libc::SIG_IGN {
            // SAFETY: `before` was filled in by the call above.
            unsafe { libc::sigaction(signal, &raw const before, std::ptr::null_mut()) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use rustix::process::Signal;

    use super::*;
    use crate::needs;
    use crate::netns::Namespace;
    use crate::process::{Process, wait_for, wait_until};

    /// Makes this test binary's child keep a namespace and a folder until it is told to end.
    const CHILD: &str = "TAILGAUGE_TEST_LEFTOVERS_CHILD";

    #[test]
    fn only_names_of_this_form_have_an_owner() {
        assert_eq!(owner("tg123x0-exit"), Some(123));
        assert_eq!(owner(&format!("{}-c1", unique_prefix())), Some(std::process::id()));
        for name in ["tg-exit", "tg123-exit", "tg123x-exit", "tgx1-exit", "xtg1x1-exit", "tg1x1"] {
            assert_eq!(owner(name), None, "{name}");
        }
    }

    /// Starts this very test in a process of its own and returns it with what it keeps.
    fn keeper(log: PathBuf) -> (Process, Vec<PathBuf>) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["interrupted_and_killed", "--nocapture"]).env(CHILD, "1");
        let process = Process::spawn(&mut command, log).unwrap();
        let kept = wait_for("the keeper", Duration::from_secs(10), || {
            let log = process.log();
            let line = log.lines().find_map(|line| line.split_once("keeps "))?.1;
            Some(line.split_whitespace().map(PathBuf::from).collect::<Vec<_>>())
        });
        (process, kept.unwrap())
    }

    #[test]
    fn interrupted_and_killed_processes_leave_nothing_for_long() {
        let Ok(()) = needs::root_and("interrupted_and_killed_processes_leave_nothing_for_long", &["ip"])
        else {
            return;
        };
        if std::env::var_os(CHILD).is_some() {
            let namespace = Namespace::create(format!("{}-keep", unique_prefix())).unwrap();
            let folder = folder().unwrap();
            println!("keeps {} {}", namespace.path().display(), folder.path().display());
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        let logs = tempfile::tempdir().unwrap();
        let (mut killed, left) = keeper(logs.path().join("killed"));
        killed.signal(Signal::KILL);
        killed.wait(Duration::from_secs(5)).unwrap();
        // Another process's first namespace may sweep it before this one looks, so only its end is sure.
        let (mut interrupted, own) = keeper(logs.path().join("interrupted"));
        assert!(left.iter().all(|path| !path.exists()), "{left:?}");
        assert!(own.len() == 2 && own.iter().all(|path| path.exists()), "{own:?}");
        // Not SIGINT: what runs in the background may have been told to ignore that.
        interrupted.signal(Signal::TERM);
        assert_eq!(interrupted.wait(Duration::from_secs(10)).unwrap().code(), Some(143));
        wait_until("removal", Duration::from_secs(5), || own.iter().all(|path| !path.exists())).unwrap();
    }
}
