//! The agent under test, started inside a node's namespace.

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::exposition::{Exposition, Malformed};
use crate::http::{self, HttpError, Response};
use crate::leftovers;
use crate::netns::{Namespace, NamespaceError};
use crate::process::{self, CommandError, Process, Timeout};

/// Names the binary to test; without it the one that was built beside the tests is taken.
pub const BINARY: &str = "TAILGAUGE_AGENT";
/// Where it serves inside its namespace.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10641);
/// Long enough for a loaded machine, short enough to fail before one's patience does.
const PATIENCE: Duration = Duration::from_secs(20);

/// What can go wrong with the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No binary to run.
    #[error("no agent at {0}: build it with `cargo build --package tailgauge`, or name it in {BINARY}")]
    NoBinary(PathBuf),
    /// Its folder for logs could not be made.
    #[error("cannot create a temporary folder for the agent")]
    Folder(#[source] std::io::Error),
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] CommandError),
    /// The namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// It did not get ready.
    #[error("the agent is not ready: {timeout}; its log:\n{log}")]
    NotReady {
        /// What was waited for.
        #[source]
        timeout: Timeout,
        /// What it wrote.
        log: String,
    },
    /// It did not answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It answered something else than an exposition.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A running agent; stopped when dropped.
#[derive(Debug)]
pub struct Agent<'a> {
    namespace: &'a Namespace,
    process: Process,
    _folder: TempDir,
}

/// The binary to test.
///
/// # Errors
/// There is none.
pub fn binary() -> Result<PathBuf, AgentError> {
    if let Some(path) = env::var_os(BINARY) {
        return Ok(path.into());
    }
    // Tests are in target/PROFILE/deps, programs of the testbed in target/PROFILE.
    let own = env::current_exe().unwrap_or_default();
    let near = own.ancestors().skip(1).take(2).map(|folder| folder.join("tailgauge"));
    near.into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| AgentError::NoBinary(own.with_file_name("tailgauge")))
}

impl<'a> Agent<'a> {
    /// Starts it in `namespace` with further `flags` and waits until it answers.
    ///
    /// # Errors
    /// It cannot be started or does not answer in time; its log is part of the error.
    pub fn start(namespace: &'a Namespace, socket: &Path, flags: &[&str]) -> Result<Self, AgentError> {
        Self::start_program(&binary()?, namespace, socket, flags)
    }

    /// As [`Self::start`], another binary.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_program(
        program: &Path,
        namespace: &'a Namespace,
        socket: &Path,
        flags: &[&str],
    ) -> Result<Self, AgentError> {
        let folder = leftovers::folder().map_err(AgentError::Folder)?;
        let mut command = namespace.command(program);
        command
            .arg("--tailscale.socket")
            .arg(socket)
            .args(["--web.listen-address", &ADDRESS.to_string()])
            .args(flags);
        let process = Process::spawn(&mut command, folder.path().join("log"))?;
        let mut agent = Self { namespace, process, _folder: folder };
        agent.wait("an answer on /healthz", |agent| {
            agent.get("/healthz").is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(agent)
    }

    /// Waits until its hooks are attached and it knows the tailnet.
    ///
    /// # Errors
    /// It does not get there in time.
    pub fn wait_ready(&mut self) -> Result<(), AgentError> {
        let mut said = String::new();
        let outcome = self.wait("200 on /readyz", |agent| {
            let answer = agent.get("/readyz");
            said = answer.as_ref().map_or_else(ToString::to_string, Response::text);
            answer.is_ok_and(|answer| answer.status == 200)
        });
        match outcome {
            Err(AgentError::NotReady { mut timeout, log }) => {
                timeout.what = format!("{}, which says {:?}", timeout.what, said.trim());
                Err(AgentError::NotReady { timeout, log })
            }
            other => other,
        }
    }

    /// Waits until a scrape fulfils `condition`.
    ///
    /// # Errors
    /// It never does.
    pub fn wait_scrape(
        &mut self,
        what: &str,
        condition: impl Fn(&Exposition) -> bool,
    ) -> Result<Exposition, AgentError> {
        let mut last = None;
        self.wait(what, |agent| {
            last = agent.scrape().ok().filter(|scrape| condition(scrape));
            last.is_some()
        })?;
        last.map_or_else(|| self.scrape(), Ok)
    }

    fn wait(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) -> Result<(), AgentError> {
        let outcome = process::wait_until(what, PATIENCE, || !self.process.is_running() || condition(self));
        match outcome {
            Ok(()) if self.process.is_running() => Ok(()),
            Ok(()) => {
                let timeout = Timeout { what: format!("{what}: it ended"), waited: Duration::ZERO };
                Err(AgentError::NotReady { timeout, log: self.log() })
            }
            Err(timeout) => Err(AgentError::NotReady { timeout, log: self.log() }),
        }
    }

    /// GET `target`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn get(&self, target: &str) -> Result<Response, AgentError> {
        Ok(self.namespace.run(|| http::get(ADDRESS, target))??)
    }

    /// One scrape of /metrics.
    ///
    /// # Errors
    /// It does not answer, or with something else.
    pub fn scrape(&self) -> Result<Exposition, AgentError> {
        Ok(Exposition::parse(&self.get("/metrics")?.text())?)
    }

    /// Where it runs.
    #[must_use]
    pub fn namespace(&self) -> &'a Namespace {
        self.namespace
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it as systemd would and says how it ended.
    pub fn stop(&mut self) -> Option<std::process::ExitStatus> {
        self.process.stop()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }
}
