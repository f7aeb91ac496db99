//! The `tailgauge` command.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tailgauge::check::{self, CheckOptions};
use tailgauge::cli::{Cli, Command};
use tailgauge::listeners::Listeners;
use tailgauge::outputs::own::SelfMetrics;
use tailgauge::{agent, logging};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Some(Command::Check) => check(&cli),
        None => serve(&cli),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("tailgauge: {}", with_causes(error.as_ref()));
        ExitCode::FAILURE
    })
}

fn serve(cli: &Cli) -> Result<ExitCode, Box<dyn Error>> {
    let own = SelfMetrics::new()?;
    logging::init(cli.options.log_level, cli.options.log_format, own.log_lines_suppressed.clone());
    agent::serve(&cli.options, own)?;
    Ok(ExitCode::SUCCESS)
}

fn check(cli: &Cli) -> Result<ExitCode, Box<dyn Error>> {
    let options = &cli.options;
    let report = check::run(&CheckOptions {
        interface: options.interface.clone(),
        max_peers: options.max_peers,
        tailscale_socket: options.tailscale_socket.clone(),
        listen_addresses: Listeners::new(&options.web_listen_address).wanted(),
    });
    match write!(std::io::stdout(), "{report}") {
        // Whoever reads the first lines only has what they want.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        outcome => outcome?,
    }
    Ok(ExitCode::from(report.exit_code()))
}

/// The error and what caused it, in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors repeat their cause in their own text.
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}
