//! Brings up the miniature tailnet to look around in, or to show the agent.

use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::http;
use tailgauge_testbed::link::Conditions;
use tailgauge_testbed::miniature::{EXIT_SUBNET_V4, LAN_V4, MiniatureTailnet, Options, WEB_V4, WEB_V6};
use tailgauge_testbed::needs;
use tailgauge_testbed::node::TUNNEL;
use tailgauge_testbed::process::Process;
use tailgauge_testbed::relay::Relay;
use tailgauge_testbed::signals::Termination;
use tailgauge_testbed::traffic::Mix;

/// Where the agent listens inside the exit node's namespace.
const AGENT_PORT: u16 = 10641;
/// The last thing to know.
const GOODBYE: &str = "\nCtrl-C removes everything.";
/// How long the agent has to answer for the first time.
const START_LIMIT: Duration = Duration::from_secs(20);
/// The handshakes inside the tunnel.
const HANDSHAKES: &str = "tailgauge_peer_tcp_handshake_seconds";
/// The way to the peer.
const ROUND_TRIPS: &str = "tailgauge_peer_disco_rtt_seconds";
/// How long traffic flows before the first look, and longest while a peer has nothing measured yet.
const WARM_UP: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];

/// A tailnet in network namespaces of this machine: an exit node, two clients, a subnet router with a host behind it,
/// a client whose underlay has IPv6 only, and an internet. Needs root, `ip` and `nft`. Ctrl-C leaves nothing behind.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring it up and stay until Ctrl-C.
    Up(Lab),
    /// Bring it up, run the agent on the exit node, show the first numbers, stay until Ctrl-C.
    Demo(Demo),
}

#[derive(Args)]
struct Lab {
    /// Round-trip time of every node's link to the underlay, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 4.0)]
    peer_rtt: f64,
    /// Round-trip time between the exit node and the internet, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 20.0)]
    internet_rtt: f64,
    /// Probability that a packet is lost on a node's link to the underlay, 0 to 1, each way.
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.0)]
    peer_loss: f64,
    /// Rate of every node's link to the underlay, in Mbit/s; without it as fast as the machine can.
    #[arg(long, value_name = "MBIT")]
    peer_rate: Option<u64>,
    /// Bring up the tailnet without traffic.
    #[arg(long)]
    no_traffic: bool,
}

#[derive(Args)]
struct Demo {
    /// The agent's binary.
    #[arg(long, value_name = "PATH")]
    agent: PathBuf,
    /// Port on the host's loopback under which the agent can be reached; a free one when it is taken.
    #[arg(long, value_name = "PORT", default_value_t = AGENT_PORT)]
    port: u16,
    #[command(flatten)]
    lab: Lab,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("miniature: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<(), Box<dyn Error>> {
    // Before any thread exists, so that all of them hold the signals back.
    let termination = Termination::hold_back()?;
    let lab = match command {
        Command::Up(lab) => lab,
        Command::Demo(demo) => &demo.lab,
    };
    if let Command::Demo(demo) = command
        && !demo.agent.is_file()
    {
        return Err(format!("--agent {}: there is no such file", demo.agent.display()).into());
    }
    if !rustix::process::geteuid().is_root() {
        return Err("needs root: it makes network namespaces and TUN devices".into());
    }
    if let Some(missing) = ["ip", "nft"].iter().find(|program| needs::find(program).is_none()) {
        return Err(format!("needs the program `{missing}` on PATH").into());
    }
    let start = Instant::now();
    let tailnet = bring_up(lab)?;
    let _traffic = if lab.no_traffic { None } else { Some(Mix::start(&tailnet)?) };
    let mut out = io::stdout();
    writeln!(out, "up in {:.1} s", start.elapsed().as_secs_f64())?;
    describe(&tailnet, &mut out)?;
    match command {
        Command::Up(_) => {
            writeln!(out, "{GOODBYE}")?;
            while !termination.wait(Duration::from_secs(3600)) {}
            Ok(())
        }
        Command::Demo(demo) => show(&tailnet, demo, &termination),
    }
}

fn bring_up(lab: &Lab) -> Result<MiniatureTailnet, Box<dyn Error>> {
    if !(0.0..=1.0).contains(&lab.peer_loss) {
        return Err(format!("--peer-loss {}: a probability is 0 to 1", lab.peer_loss).into());
    }
    let half = |name: &str, milliseconds: f64| {
        Duration::try_from_secs_f64(milliseconds / 2000.0)
            .map_err(|_| format!("{name} {milliseconds}: a time in milliseconds is a number from 0 up"))
    };
    let peer = Conditions {
        delay: half("--peer-rtt", lab.peer_rtt)?,
        loss: lab.peer_loss,
        rate: lab.peer_rate.map(|rate| rate.saturating_mul(1_000_000)),
        ..Conditions::default()
    };
    let internet = Conditions::delayed(half("--internet-rtt", lab.internet_rtt)?);
    let tailnet = MiniatureTailnet::up(Options::default())?;
    // The exit node's own link stays as it is: a leg between it and a peer crosses only the peer's.
    for node in &tailnet.nodes()[1..] {
        tailnet.peer_link(node).set_both(peer);
    }
    tailnet.internet_link().set_both(internet);
    Ok(tailnet)
}

/// Prints what is where.
fn describe(tailnet: &MiniatureTailnet, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{:<8} {:<22} {:<12} {:<22} LocalAPI", "node", "namespace", "IPv4", "IPv6")?;
    for node in tailnet.nodes() {
        let [v4, v6] = node.addresses();
        let (name, namespace) = (node.name(), node.namespace().name());
        writeln!(out, "{name:<8} {namespace:<22} {v4:<12} {v6:<22} {}", node.socket().display())?;
    }
    writeln!(
        out,
        "web      {:<22} {WEB_V4}, {WEB_V6}; {EXIT_SUBNET_V4} in exit's subnet",
        tailnet.web().name()
    )?;
    writeln!(out, "lan      {:<22} {LAN_V4} behind router", tailnet.lan().name())?;
    writeln!(out, "look around: ip netns exec {} ip -s link show {TUNNEL}", tailnet.exit().namespace().name())
}

/// Runs the agent and shows what it says.
fn show(tailnet: &MiniatureTailnet, demo: &Demo, termination: &Termination) -> Result<(), Box<dyn Error>> {
    let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, AGENT_PORT));
    let log = tailnet.folder().join("agent.log");
    let mut command = tailnet.exit().command(&demo.agent);
    command.arg("--tailscale.socket").arg(tailnet.exit().socket());
    command.arg("--web.listen-address").arg(inside.to_string());
    let mut process = Process::spawn(&mut command, &log)?;
    let relay = Relay::start(demo.port, tailnet.exit().namespace(), inside)?;
    wait_for_agent(&mut process, relay.address(), termination)?;
    let mut out = io::stdout();
    writeln!(out, "\nagent: http://{}/metrics", relay.address())?;
    writeln!(out, "agent's log: {}", log.display())?;
    let Some(scraped) = warm_up(relay.address(), demo, termination)? else { return Ok(()) };
    first_look(&scraped, &mut out)?;
    writeln!(out, "{GOODBYE}")?;
    while !termination.wait(Duration::from_millis(500)) {
        if !process.is_running() {
            return Err(format!("the agent ended by itself; {}", last_words(&process)).into());
        }
    }
    Ok(())
}

fn wait_for_agent(
    process: &mut Process,
    address: SocketAddr,
    termination: &Termination,
) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + START_LIMIT;
    while !http::get(address, "/metrics").is_ok_and(|answer| answer.status == 200) {
        if !process.is_running() {
            return Err(format!("the agent ended before its first answer; {}", last_words(process)).into());
        }
        if Instant::now() > deadline || termination.wait(Duration::from_millis(50)) {
            return Err(format!("no answer from the agent; {}", last_words(process)).into());
        }
    }
    Ok(())
}

/// Lets traffic flow until there is something to show; `None` when all is to end.
fn warm_up(
    address: SocketAddr,
    demo: &Demo,
    termination: &Termination,
) -> Result<Option<Exposition>, Box<dyn Error>> {
    let [shortest, longest] = WARM_UP;
    let deadline = Instant::now() + if demo.lab.no_traffic { shortest } else { longest };
    let mut pause = shortest;
    loop {
        if termination.wait(pause) {
            return Ok(None);
        }
        let scraped = Exposition::parse(&http::get(address, "/metrics")?.text())?;
        if is_measured(&scraped) || Instant::now() >= deadline {
            return Ok(Some(scraped));
        }
        pause = Duration::from_millis(200);
    }
}

/// Whether there are peers, and each has samples of everything that its line shows.
fn is_measured(scraped: &Exposition) -> bool {
    let mut peers = scraped.matching("tailgauge_peer_info", &[]).peekable();
    let has_samples =
        |histogram: &str, labels: &[(&str, &str)]| scraped.sum(&format!("{histogram}_count"), labels) > 0.0;
    peers.peek().is_some()
        && peers.all(|peer| {
            let own = ("peer_id", peer.label("peer_id").unwrap_or_default());
            has_samples(ROUND_TRIPS, &[own])
                && ["peer", "remote"].iter().all(|leg| has_samples(HANDSHAKES, &[own, ("leg", leg)]))
        })
}

/// What the agent logged, for an error message.
fn last_words(process: &Process) -> String {
    match process.log().trim_end() {
        "" => "it logged nothing".to_owned(),
        log => format!("its log:\n{log}"),
    }
}

/// One line for every peer.
fn first_look(scraped: &Exposition, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "\n{:<8} {:>10} {:>10} {:>16} {:>8} {:>20} {:>20}",
        "peer", "received", "sent", "round trip", "lost", "handshake peer leg", "remote leg"
    )?;
    for peer in scraped.matching("tailgauge_peer_info", &[]) {
        let own = [("peer_id", peer.label("peer_id").unwrap_or_default())];
        let bytes = |direction: &str| {
            let name = format!("tailgauge_peer_{direction}_bytes_total");
            readable_bytes(scraped.sum(&name, &own))
        };
        writeln!(
            out,
            "{:<8} {:>10} {:>10} {:>16} {:>8} {:>20} {:>20}",
            peer.label("peer_name").unwrap_or_default(),
            bytes("receive"),
            bytes("transmit"),
            mean(scraped, ROUND_TRIPS, &own),
            lost(scraped, &own),
            mean(scraped, HANDSHAKES, &[own[0], ("leg", "peer")]),
            mean(scraped, HANDSHAKES, &[own[0], ("leg", "remote")]),
        )?;
    }
    writeln!(
        out,
        "round trip: of the path to the peer, tailgauge_peer_disco_rtt_seconds; lost: on the way here, \
         tailgauge_peer_wireguard_lost_packets_total"
    )?;
    for sample in scraped.matching("tailgauge_tunnel_coverage_ratio", &[]) {
        let label = |name: &str| sample.label(name).unwrap_or("");
        writeln!(out, "coverage of {}, {}: {}", label("device"), label("direction"), sample.value)?;
    }
    Ok(())
}

/// Mean and number of the samples of a histogram.
fn mean(scraped: &Exposition, histogram: &str, labels: &[(&str, &str)]) -> String {
    let count = scraped.sum(&format!("{histogram}_count"), labels);
    if count == 0.0 {
        return "-".to_owned();
    }
    format!("{:.2} ms of {count}", scraped.sum(&format!("{histogram}_sum"), labels) / count * 1e3)
}

/// Part of the peer's messages that did not arrive.
fn lost(scraped: &Exposition, peer: &[(&str, &str)]) -> String {
    let packets = |what: &str| scraped.sum(&format!("tailgauge_peer_wireguard_{what}_packets_total"), peer);
    let (received, lost) = (packets("received"), packets("lost"));
    if received == 0.0 {
        return "-".to_owned();
    }
    format!("{:.2} %", lost / (received + lost) * 100.0)
}

fn readable_bytes(bytes: f64) -> String {
    match bytes {
        _ if bytes >= 1e9 => format!("{:.2} GB", bytes / 1e9),
        _ if bytes >= 1e6 => format!("{:.2} MB", bytes / 1e6),
        _ => format!("{:.1} kB", bytes / 1e3),
    }
}

/// An error and everything below it in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
