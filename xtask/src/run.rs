//! Child processes, and the errors that every command shares.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Why a command stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A program ended with a failure; it has already said why.
    #[error("{program} failed: {status}")]
    Failed {
        /// The program and its arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A file could not be read or written.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Something that the user has to change, in one sentence.
    #[error("{0}")]
    Refused(String),
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// `cargo` in the repository: the same one that runs this.
pub fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Program and arguments as one would type them.
pub fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs to the end; a failure is an error.
pub fn check(command: &mut Command) -> Result<(), Error> {
    let status = command.status().map_err(|source| Error::Start { program: describe(command), source })?;
    if status.success() { Ok(()) } else { Err(Error::Failed { program: describe(command), status }) }
}

/// Runs to the end and returns what it printed; a failure is an error. Its messages go where ours go.
pub fn output(command: &mut Command) -> Result<Vec<u8>, Error> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| Error::Start { program: describe(command), source })?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Error::Failed { program: describe(command), status: output.status })
    }
}

/// Becomes another program, so that Ctrl-C reaches that one alone and the shell waits for it to clean up.
pub fn become_program(command: &mut Command) -> Error {
    let source = command.exec();
    Error::Start { program: describe(command), source }
}

/// Whether a program is on PATH.
pub fn on_path(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
