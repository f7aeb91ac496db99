//! Child processes that end with their guard, one-shot commands, and waiting for a condition instead of sleeping.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(10);
/// How long a child has to end after SIGTERM before SIGKILL follows.
const TERM_GRACE: Duration = Duration::from_secs(5);

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program could not be started.
    #[error("cannot start `{command}`")]
    Start {
        /// Program and arguments.
        command: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The program's input, output or end could not be followed.
    #[error("lost touch with `{command}`")]
    Follow {
        /// Program and arguments.
        command: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The program said no.
    #[error("`{command}` failed, {status}: {said}")]
    Failed {
        /// Program and arguments.
        command: String,
        /// Exit code or signal.
        status: ExitStatus,
        /// What it printed to stderr, or to stdout when that is empty.
        said: String,
    },
    /// The file that should take the program's output could not be made.
    #[error("cannot create {path} for the output of `{command}`")]
    Log {
        /// Program and arguments.
        command: String,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

/// A condition did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {waited:?} in vain for {what}")]
pub struct Timeout {
    /// What was waited for.
    pub what: String,
    /// For how long.
    pub waited: Duration,
}

/// Looks at `condition` every 10 ms until it holds.
pub fn wait_until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) -> Result<(), Timeout> {
    wait_for(what, within, || condition().then_some(()))
}

/// Calls `attempt` every 10 ms until it gives a value. The last call is made after the deadline.
pub fn wait_for<T>(what: &str, within: Duration, attempt: impl FnMut() -> Option<T>) -> Result<T, Timeout> {
    wait_every(POLL, what, within, attempt)
}

/// As [`wait_for`], with a pause of `interval` between attempts, for those that cost something.
pub fn wait_every<T>(
    interval: Duration,
    what: &str,
    within: Duration,
    mut attempt: impl FnMut() -> Option<T>,
) -> Result<T, Timeout> {
    let start = Instant::now();
    loop {
        let late = start.elapsed() >= within;
        if let Some(value) = attempt() {
            return Ok(value);
        }
        if late {
            return Err(Timeout { what: what.to_owned(), waited: start.elapsed() });
        }
        std::thread::sleep(interval);
    }
}

/// Runs a command to its end and returns what it printed to stdout.
pub fn run(command: &mut Command) -> Result<String, CommandError> {
    run_with_input(command, &[])
}

/// Runs a command to its end with `input` on stdin and returns what it printed to stdout.
///
/// The input must fit a pipe (64 KiB) unless the program reads it before it prints as much.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<String, CommandError> {
    let described = describe(command);
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| CommandError::Start { command: described.clone(), source })?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input) {
            // A program that does not read to the end says why by its status.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(CommandError::Follow { command: described, source: error });
            }
            _ => {}
        }
    }
    let output = child
        .wait_with_output()
        .map_err(|source| CommandError::Follow { command: described.clone(), source })?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = if stderr.trim().is_empty() { stdout.trim().to_owned() } else { stderr.trim().to_owned() };
    Err(CommandError::Failed { command: described, status: output.status, said })
}

/// A program in the background. Dropped, it gets SIGTERM, five seconds, and then SIGKILL.
#[derive(Debug)]
pub struct Process {
    command: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts the program with stdout and stderr appended to the file `log`.
    pub fn spawn(command: &mut Command, log: impl Into<PathBuf>) -> Result<Self, CommandError> {
        let (described, log) = (describe(command), log.into());
        let open = || -> io::Result<(File, File)> {
            let file = File::options().create(true).append(true).open(&log)?;
            Ok((file.try_clone()?, file))
        };
        let (stdout, stderr) = open().map_err(|source| CommandError::Log {
            command: described.clone(),
            path: log.clone(),
            source,
        })?;
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(|source| CommandError::Start { command: described.clone(), source })?;
        Ok(Self { command: described, child, log })
    }

    /// The program's pid; valid until the guard is dropped, since nobody else reaps it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that takes its output.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Everything it has printed so far; empty when the file cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal; one that already ended is left alone.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            // Not reaped, so the pid is still this child's; ending in between is not an error.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus, Timeout> {
        let what = format!("`{}` to end", self.command);
        wait_for(&what, within, || self.child.try_wait().ok().flatten())
    }

    /// SIGTERM, and SIGKILL when that did not help in time. Returns how it ended, if that can be known.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        for signal in [Signal::TERM, Signal::KILL] {
            self.signal(signal);
            if let Ok(status) = self.wait(TERM_GRACE) {
                return Some(status);
            }
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.stop().is_none() {
            eprintln!("`{}` (pid {}) does not end", self.command, self.child.id());
        }
    }
}

/// Program and arguments as one would type them.
fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_command_carries_its_words() {
        let error = run(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err();
        assert!(
            matches!(&error, CommandError::Failed { said, status, .. }
                if said == "no such thing" && status.code() == Some(3)),
            "{error:?}"
        );
    }

    #[test]
    fn input_reaches_the_command() {
        assert_eq!(run_with_input(&mut Command::new("cat"), b"hello").unwrap(), "hello");
    }

    #[test]
    fn guard_ends_a_program_that_ignores_sigterm_only_by_sigkill() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]);
        let mut process = Process::spawn(&mut shell, folder.path().join("log")).unwrap();
        wait_until("the shell", Duration::from_secs(5), || process.log() == "ready\n").unwrap();
        process.signal(Signal::TERM);
        assert!(process.wait(Duration::from_millis(100)).is_err());
        process.signal(Signal::KILL);
        assert!(!process.wait(Duration::from_secs(5)).unwrap().success());
        assert!(!process.is_running());
    }

    #[test]
    fn vain_wait_says_what_for() {
        let timeout = wait_until("rain", Duration::from_millis(20), || false).unwrap_err();
        assert!(timeout.to_string().contains("in vain for rain"), "{timeout}");
    }
}
