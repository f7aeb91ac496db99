//! `cargo xtask bench`: what the agent costs, beside a baseline measured in the same run.

use clap::Args;

use crate::run::{Error, cargo, check, is_root, root};

/// Flags of the command.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Passed on to the benchmark: `cargo xtask bench -- --help` has the flags
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds with optimisation and runs the benchmark program of the testbed.
///
/// # Errors
/// Not root, or the build or the benchmark failed.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    if !is_root() {
        return Err(Error::Refused("the benchmark loads BPF programs: run it as root".to_owned()));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    check(cargo().args(["build", "--release", "--package", "tailgauge", "--package", "tailgauge-testbed"]))?;
    let release = target.join("release");
    check(
        std::process::Command::new(release.join("bench"))
            .arg("--agent")
            .arg(release.join("tailgauge"))
            .args(&arguments.rest),
    )
}
