//! `cargo xtask vm`: the agent and its kernel programs on Debian's kernels, in virtual machines.

mod console;
mod initramfs;
mod kernel;
mod machine;

use std::time::Instant;

use clap::Args;

use crate::run::{Error, root};
use crate::setup;
use console::Console;
use initramfs::Binaries;

/// Flags of the command.
#[derive(Debug, Args)]
#[command(
    after_help = "Boots each kernel in qemu, in software emulation, and runs there: tailgauge check, the tests \
    of the kernel programs, and the tests that attach them to TUN devices. Takes some minutes per kernel, which is \
    why cargo xtask test leaves it out. Needs x86-64 and Debian; no root but for --install. Packages and console \
    logs stay in target/vm."
)]
pub struct Arguments {
    /// Install what is missing from Debian's packages first (root)
    #[arg(long)]
    install: bool,
    /// Only this kernel; may be repeated
    #[arg(long = "kernel", value_name = "VERSION", value_parser = ["6.1", "6.12"])]
    kernels: Vec<String>,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// A Debian kernel line, and the hooks that the agent has to choose there.
struct Line {
    version: &'static str,
    hooks: &'static str,
}

/// One on either side of Linux 6.6, which brought tcx.
const LINES: [Line; 2] = [Line { version: "6.1", hooks: "clsact" }, Line { version: "6.12", hooks: "tcx" }];

/// Runs the tests on each kernel.
///
/// # Errors
/// Something is missing, a machine could not be run, or one of the kernels failed.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Error::Refused(
            "the virtual machines are x86-64 only: run this on such a machine".to_owned(),
        ));
    }
    let needs = [setup::VIRTUAL_MACHINE];
    if arguments.install {
        setup::install(&needs)?;
    }
    if let Some(line) = setup::missing(&needs) {
        return Err(Error::Refused(line));
    }
    let folder = root().join("target/vm");
    let binaries = Binaries::build()?;
    let asked = |line: &&Line| {
        arguments.kernels.is_empty() || arguments.kernels.iter().any(|version| version == line.version)
    };
    let mut summary = Vec::new();
    let mut failed = false;
    for line in LINES.iter().filter(asked) {
        let started = Instant::now();
        let kernel = kernel::fetch(line.version, &folder)?;
        let initramfs = initramfs::make(&kernel, &binaries, arguments.filter.as_deref(), &folder)?;
        let mut console = Console::default();
        machine::boot(&kernel, initramfs.path(), &folder, &mut console)?;
        let verdict = console.verdict(line.hooks);
        failed |= verdict.is_err();
        let (Ok(text) | Err(text)) = verdict;
        summary.push(format!("{}: {text}, {} s", kernel.release, started.elapsed().as_secs()));
    }
    for line in &summary {
        println!("{line}");
    }
    if failed {
        Err(Error::Refused("a kernel failed; see above and target/vm/*.log".to_owned()))
    } else {
        Ok(())
    }
}
