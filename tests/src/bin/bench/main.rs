//! What tailgauge costs, each figure beside a baseline measured in the same run. Started by `cargo xtask bench`.

mod allocations;
mod device;
mod encode;
mod footprint;
mod host;
mod idle;
mod node;
mod process;
mod programs;
mod read;
mod sampling;
mod stolen;
mod table;
mod tunnel;

use std::error::Error;
use std::iter;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use table::{Row, Table};
use tailgauge_testbed::needs;

/// Measures what tailgauge costs and prints a table: the figure, a baseline of the same run and the ratio to it,
/// the target and whether it is met. A missed target is no failure; a measurement that cannot be made is.
///
/// Needs root, and four minutes for everything. Figures are medians, with the smallest and the largest in brackets.
/// Reading and encoding are CPU time; a start is time on the clock, which other load on the machine lengthens.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// The agent to measure [default: the one beside this program]
    #[arg(long, value_name = "PATH", env = tailgauge_testbed::agent::BINARY)]
    agent: Option<PathBuf>,
    /// Another agent, beside which `idle` measures this one
    #[arg(long, value_name = "PATH")]
    other_agent: Option<PathBuf>,
    /// Fewer and shorter rounds: a look, not a result
    #[arg(long)]
    quick: bool,
    /// Another object file, a program of which `programs` measures on the same packets
    #[arg(long, value_name = "FILE", requires = "program")]
    object: Option<PathBuf>,
    /// The classifier in it
    #[arg(long, value_name = "NAME", requires = "object")]
    program: Option<String>,
    /// What to measure [default: everything]
    #[arg(value_name = "NAME")]
    names: Vec<Measurement>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// What the kernel programs cost a packet, by BPF_PROG_TEST_RUN
    Programs,
    /// Copying the counters of 10,000 peers out of the kernel
    Read,
    /// Writing 200,000 series as text
    Encode,
    /// The agent with 100 peers: memory, start, CPU per scrape
    Agent,
    /// The same at rest, by part
    Idle,
    /// Ten samples a second beside a stand-in for tailscaled
    Sampling,
    /// A scrape of /compat/node against node_exporter with the same collectors
    Node,
    /// iperf3 through a tunnel with and without the agent, and what the agent and its programs use meanwhile
    Tunnel,
}

impl Measurement {
    /// Programs on PATH without which there is nothing to measure.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Programs | Self::Encode => &[],
            Self::Read | Self::Sampling => &["ip"],
            Self::Agent | Self::Idle => &["ip", "nft"],
            Self::Node => &["ip", node::BASELINE],
            Self::Tunnel => &["ip", "nft", "iperf3"],
        }
    }
}

/// Rows of the table, or the first thing that went wrong.
type Outcome = Result<Vec<Row>, Box<dyn Error>>;

/// How thoroughly to measure, and what.
#[derive(Debug)]
struct Plan {
    agent: PathBuf,
    other_agent: Option<PathBuf>,
    quick: bool,
    /// Object file and program of somebody else.
    foreign: Option<(PathBuf, String)>,
}

impl Plan {
    /// A number of rounds, or as many as a quick look takes.
    fn rounds(&self, thorough: usize, quick: usize) -> usize {
        if self.quick { quick } else { thorough }
    }

    fn run(&self, measurement: Measurement) -> Outcome {
        match measurement {
            Measurement::Programs => programs::measure(self),
            Measurement::Read => read::measure(self),
            Measurement::Encode => encode::measure(self),
            Measurement::Agent => footprint::measure(self),
            Measurement::Idle => idle::measure(self),
            Measurement::Sampling => sampling::measure(self),
            Measurement::Node => node::measure(self),
            Measurement::Tunnel => tunnel::measure(self),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root to load BPF programs and make network namespaces: run it with sudo".into());
    }
    let agent = arguments.agent.clone().map_or_else(tailgauge_testbed::agent::binary, Ok)?;
    let foreign = arguments.object.clone().zip(arguments.program.clone());
    let plan = Plan { agent, other_agent: arguments.other_agent.clone(), quick: arguments.quick, foreign };
    let wanted =
        if arguments.names.is_empty() { Measurement::value_variants() } else { arguments.names.as_slice() };
    let started = Instant::now();
    let mut table = Table::default();
    let mut notes = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for &measurement in wanted {
        let name =
            measurement.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let missing: Vec<_> =
            measurement.needs().iter().copied().filter(|program| needs::find(program).is_none()).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            notes.push(format!(
                "left out: {name}, which needs {missing}; `cargo xtask test --install` installs it"
            ));
            continue;
        }
        eprintln!("measuring: {name}");
        match plan.run(measurement) {
            Ok(rows) => table.extend(rows),
            Err(error) => {
                notes.push(format!("failed: {name}: {}", with_causes(error.as_ref())));
                code = ExitCode::FAILURE;
            }
        }
    }
    println!("{table}");
    for note in notes {
        println!("{note}");
    }
    println!("{}", conditions(started, plan.quick));
    Ok(code)
}

/// What a reader must know to judge the figures.
fn conditions(started: Instant, quick: bool) -> String {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    let quick = if quick { ", a quick look" } else { "" };
    format!(
        "Linux {release}, {cpus} CPUs, load average at the end {load}, {:.0} s{quick}",
        started.elapsed().as_secs_f64()
    )
}

/// An error and what it came from, in one line.
fn with_causes(error: &dyn Error) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
