//! A stand-in for tailscaled in a process of its own, for what the kernel says about a process: its CPU time, how long
//! it waited, its control group. The program is `src/bin/standin.rs`.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::leftovers;
use crate::netns::Namespace;

/// The running process; dropped, it ends.
#[derive(Debug)]
pub struct StandIn {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    folder: TempDir,
}

impl StandIn {
    /// Starts `program` in the namespace and waits until its LocalAPI answers.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Path, namespace: &Namespace) -> io::Result<Self> {
        Self::start_with(program, namespace, None)
    }

    /// As [`Self::start`], with this document on `/status`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(program: &Path, namespace: &Namespace, status: Option<&[u8]>) -> io::Result<Self> {
        let folder = leftovers::folder()?;
        let mut command = namespace.command(program);
        command.arg(folder.path().join("tailscaled.sock"));
        if let Some(status) = status {
            let file = folder.path().join("status");
            std::fs::write(&file, status)?;
            command.arg(file);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (requests, answers) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        let mut started = Self { child, requests, answers: BufReader::new(answers), folder };
        started.answered("serving")?;
        Ok(started)
    }

    /// Where its LocalAPI is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("tailscaled.sock")
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Keeps so many of its threads busy for so long, and returns when that is over.
    ///
    /// # Errors
    /// It is gone.
    pub fn burn(&mut self, threads: usize, time: Duration) -> io::Result<()> {
        self.ask(&format!("burn {threads} {}", time.as_micros()))
    }

    /// Makes it take memory, and keep it to its end.
    ///
    /// # Errors
    /// It is gone.
    pub fn hold(&mut self, bytes: usize) -> io::Result<()> {
        self.ask(&format!("hold {bytes}"))
    }

    fn ask(&mut self, request: &str) -> io::Result<()> {
        writeln!(self.requests, "{request}")?;
        self.answered("done")
    }

    fn answered(&mut self, expected: &str) -> io::Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line.trim() == expected {
            true => Ok(()),
            false => Err(io::Error::other(format!("expected {expected}, the stand-in says {line:?}"))),
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
