//! `cargo xtask tailnet`: a real tailnet on this machine, for exploring.

use std::path::PathBuf;

use clap::Args;

use crate::run::{Error, become_program, cargo};

/// Flags of the command.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folder that holds tailscaled, tailscale and headscale [default: PATH]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Passed on to the testbed; see `-- --help`
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Becomes the testbed's program, so that Ctrl-C is its alone to handle.
///
/// # Errors
/// It could not be started.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "tailgauge-testbed", "--bin", "tailnet", "--"]);
    if let Some(folder) = &arguments.programs {
        // cargo runs in the repository, whatever the folder was relative to.
        command.arg("--programs").arg(std::path::absolute(folder).unwrap_or_else(|_| folder.clone()));
    }
    command.args(&arguments.rest);
    Err(become_program(&mut command))
}
