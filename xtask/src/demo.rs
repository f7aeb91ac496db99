//! `cargo xtask demo`: the agent on a miniature tailnet of real packets.

use clap::Args;

use crate::run::{Error, become_program, cargo, check, is_root, root};
use crate::setup;

/// Flags of the command.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Install what is missing from Debian's packages first (root)
    #[arg(long)]
    install: bool,
    /// Passed on to the testbed; see `-- --help`
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds the agent and the testbed, then hands over to the testbed until Ctrl-C.
///
/// # Errors
/// Not root, something is missing, or the build or the demo failed.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    if !is_root() {
        return Err(Error::Refused(
            "the demo makes network namespaces and loads BPF programs: run it as root, for example with sudo -E"
                .to_owned(),
        ));
    }
    if arguments.install {
        setup::install(&[setup::TESTBED])?;
    } else if let Some(line) = setup::missing(&[setup::TESTBED]) {
        return Err(Error::Refused(line));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    check(cargo().args(["build", "--release", "--package", "tailgauge", "--package", "tailgauge-testbed"]))?;
    let release = target.join("release");
    let mut demo = std::process::Command::new(release.join("miniature"));
    demo.arg("demo").arg("--agent").arg(release.join("tailgauge")).args(&arguments.rest);
    Err(become_program(&mut demo))
}
