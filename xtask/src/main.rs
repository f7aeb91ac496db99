//! Developer commands: `cargo xtask --help`.

mod bench;
mod demo;
mod ebpf;
mod run;
mod setup;
mod tailnet;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, demonstrates, tests and measures tailgauge.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds the kernel objects from source, or checks the committed ones
    Ebpf(ebpf::Arguments),
    /// Runs the agent on a miniature tailnet with steady traffic and prints where to look
    Demo(demo::Arguments),
    /// Runs every check and test; without root it runs what it may and says what it left out
    Test(test::Arguments),
    /// Prints what the agent costs, as ratios to a baseline of the same run
    Bench(bench::Arguments),
    /// Brings up a real tailnet (tailscaled and headscale from PATH) in network namespaces, until Ctrl-C
    Tailnet(tailnet::Arguments),
    /// Boots Debian's kernels 6.1 and 6.12 in qemu and tests the agent and its programs there
    Vm(vm::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Ebpf(arguments) => ebpf::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Tailnet(arguments) => tailnet::run(&arguments),
        Command::Vm(arguments) => vm::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
