//! Brings up a real tailnet on this machine to look at, until Ctrl-C.

use std::error::Error;
use std::iter;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tailgauge_testbed::real::{PROGRAMS_FOLDER, Path, Programs, RealTailnet, Role};
use tailgauge_testbed::tailnet::{ServerAddresses, Tailnet as _};

/// A real tailnet in network namespaces: headscale, an exit node, two clients, a peer relay and a server behind the exit
/// node. It stays up until Ctrl-C and leaves nothing behind. While it is up, a line on stdin (`direct`, `derp` or
/// `peer-relay`) moves the path between c1 and the exit node.
#[derive(Debug, Parser)]
#[command(name = "tailnet")]
struct Arguments {
    /// Folder that holds tailscaled, tailscale and headscale [default: PATH]
    #[arg(long, value_name = "DIR", env = PROGRAMS_FOLDER)]
    programs: Option<PathBuf>,
    /// How c1 and the exit node reach each other: direct, derp or peer-relay
    #[arg(long, default_value_t = Path::Direct)]
    path: Path,
}

fn main() -> ExitCode {
    match serve(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tailnet: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let programs = Programs::find(arguments.programs.as_deref())?;
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces need root: run it with sudo -E".into());
    }
    eprintln!("bringing the tailnet up, about ten seconds");
    let tailnet = RealTailnet::up(&programs)?;
    tailnet.path(arguments.path)?;
    print!("{}", describe(&tailnet, &programs));
    println!("path between c1 and exit: {} (type direct, derp or peer-relay to change it)", arguments.path);
    for line in std::io::stdin().lines() {
        let line = line?;
        match line.trim().parse::<Path>() {
            Ok(path) => match tailnet.path(path) {
                Ok(()) => println!("path between c1 and exit: {path}"),
                Err(error) => eprintln!("{}", with_causes(&error)),
            },
            Err(error) => eprintln!("{error}"),
        }
    }
    // Without a terminal there is nothing to read. The interrupt's own thread cleans up and ends the process.
    loop {
        std::thread::park();
    }
}

/// An error and what it came from, in one line.
fn with_causes(error: &dyn Error) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// How to reach everything from another terminal.
fn describe(tailnet: &RealTailnet, programs: &Programs) -> String {
    let mut text = String::new();
    for role in Role::ALL {
        let node = tailnet.node(role);
        let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
        text.push_str(&format!(
            "{:6} {}\n       ip netns exec {} COMMAND\n       {} --socket={} status\n",
            node.name,
            addresses.join(" "),
            node.namespace.name(),
            programs.tailscale.display(),
            node.socket.display(),
        ));
    }
    let server = tailnet.server();
    let ServerAddresses { internet_v4, internet_v6, subnet_v4 } = tailnet.server_addresses();
    text.push_str(&format!(
        "web    {internet_v4} and {internet_v6} behind the exit node, {subnet_v4} behind its subnet route\n       \
         ip netns exec {} COMMAND\nlogs   {}\n",
        server.name(),
        tailnet.folder().display(),
    ));
    text
}
