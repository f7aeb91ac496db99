//! The agent with 100 peers that all carry traffic: start, memory, CPU. Beside it node_exporter, if it is installed.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tailgauge_testbed::client::LOCALAPI_HOST;
use tailgauge_testbed::control::Machine;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::miniature::{MiniatureTailnet, Options};
use tailgauge_testbed::netns::Namespace;
use tailgauge_testbed::process::{Process, wait_every};
use tailgauge_testbed::standin::StandIn;
use tailgauge_testbed::{http, needs};

use crate::device::Device;
use crate::host;
use crate::process::{Memory, cpu_time};
use crate::table::{Row, Spread, digits};
use crate::{Outcome, Plan};

const PEERS: u64 = 100;
/// Threads of a tailscaled on 2 to 4 CPUs, beside those that serve its LocalAPI.
const WORKERS: usize = 10;
/// Debian's name of node_exporter.
const BASELINE: &str = "prometheus-node-exporter";
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a start is looked at.
const POLL: Duration = Duration::from_millis(1);
/// MiB.
const RESIDENT: f64 = 15.0;
/// Milliseconds.
const START: f64 = 200.0;

pub fn measure(plan: &Plan) -> Outcome {
    let crowd = Crowd::ask()?;
    let device = Device::create("agent", crowd.own)?;
    let bed = Bed { tailscaled: crowd.tailscaled(device.namespace())?, device, peers: crowd.peers };

    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let agent = Subject {
        program: plan.agent.clone(),
        flags: vec![
            "--tailscale.socket".to_owned(),
            bed.tailscaled.socket().display().to_string(),
            "--web.listen-address".to_owned(),
            address(10641).to_string(),
        ],
        address: address(10641),
        name: "agent",
    };
    let exporter = needs::find(BASELINE).map(|program| Subject {
        program,
        flags: vec!["--web.listen-address".to_owned(), address(9100).to_string()],
        address: address(9100),
        name: "node_exporter",
    });
    let mut agent = Measured::new(&bed, &agent);
    let mut exporter = exporter.as_ref().map(|subject| Measured::new(&bed, subject));
    for _ in 0..plan.rounds(9, 3) {
        agent.start()?;
        exporter.as_mut().map_or(Ok(()), Measured::start)?;
    }
    agent.scrape(plan.rounds(200, 50))?;
    exporter.as_mut().map_or(Ok(()), |exporter| exporter.scrape(plan.rounds(200, 50)))?;
    let mut both: Vec<_> = std::iter::once(&mut agent).chain(exporter.as_mut()).collect();
    idle(&bed, &mut both, plan.rounds(10, 3))?;
    rows(&agent, exporter.as_ref())
}

/// What the exit node of a miniature tailnet says with [`PEERS`] peers.
pub struct Crowd {
    status: Vec<u8>,
    pub own: Ipv4Addr,
    pub peers: Vec<Ipv4Addr>,
}

impl Crowd {
    /// The tailnet is gone when this returns: it has several nodes in this process, with threads that come and go with
    /// each request, as no tailscaled has.
    pub fn ask() -> Result<Self, Box<dyn Error>> {
        let tailnet = MiniatureTailnet::up(Options::default())?;
        // Machines that exist in LocalAPIs only.
        let known = tailnet.nodes().len() as u64;
        tailnet.add_peers((known + 1..=PEERS + 1).map(|id| Machine::new(id, format!("peer-{id}"))))?;
        let status = http::get_unix(tailnet.exit().socket(), LOCALAPI_HOST, "/localapi/v0/status")?;
        let control = tailnet.control();
        let addresses = |id| control.machines.get(&id).map(|machine: &Machine| machine.addresses.0);
        let own = addresses(tailnet.exit().id()).ok_or("the exit node has no address")?;
        let peers = control.peers_of(tailnet.exit().id()).map(|peer| peer.addresses.0).collect();
        Ok(Self { status: status.body, own, peers })
    }

    /// A process that says the same, and is tailscaled to the agent: with as many threads, which stay.
    pub fn tailscaled(&self, namespace: &Namespace) -> Result<StandIn, Box<dyn Error>> {
        let program = std::env::current_exe()?.with_file_name("standin");
        let mut tailscaled = StandIn::start_with(&program, namespace, Some(&self.status))?;
        tailscaled.burn(WORKERS, Duration::from_millis(1))?;
        Ok(tailscaled)
    }
}

/// Where both run.
struct Bed {
    tailscaled: StandIn,
    device: Device,
    peers: Vec<Ipv4Addr>,
}

/// A program that answers on /metrics.
struct Subject {
    program: std::path::PathBuf,
    flags: Vec<String>,
    address: SocketAddr,
    name: &'static str,
}

struct Measured<'a> {
    bed: &'a Bed,
    subject: &'a Subject,
    process: Option<Process>,
    /// Milliseconds from exec to the first answered scrape.
    starts: Vec<f64>,
    /// Milliseconds of CPU until then.
    start_cpu: Vec<f64>,
    memory: Memory,
    /// Milliseconds of CPU.
    per_scrape: f64,
    body: String,
    /// Of one CPU, with a scrape a second.
    idle_share: f64,
    /// What it answered then.
    idle_bodies: Vec<String>,
}

impl<'a> Measured<'a> {
    fn new(bed: &'a Bed, subject: &'a Subject) -> Self {
        Self {
            bed,
            subject,
            process: None,
            starts: Vec::new(),
            start_cpu: Vec::new(),
            memory: Memory::default(),
            per_scrape: 0.0,
            body: String::new(),
            idle_share: 0.0,
            idle_bodies: Vec::new(),
        }
    }

    fn failed(&self, what: &str) -> Box<dyn Error> {
        let log = self.process.as_ref().map(Process::log).unwrap_or_default();
        format!("{}: {what}; its log:\n{log}", self.subject.name).into()
    }

    fn pid(&self) -> Result<u32, Box<dyn Error>> {
        self.process.as_ref().map(Process::id).ok_or_else(|| self.failed("not running"))
    }

    fn get(&self) -> Option<String> {
        let answer = http::get(self.subject.address, "/metrics").ok()?;
        (answer.status == 200).then(|| answer.text())
    }

    /// Ends the one that runs and starts another, until it answers a scrape.
    fn start(&mut self) -> Result<(), Box<dyn Error>> {
        self.process = None;
        let log = self.bed.tailscaled.socket().with_file_name(self.subject.name);
        let namespace = self.bed.device.namespace();
        // From a thread in the namespace, so that it is the program itself that is started, not `ip`.
        let (process, elapsed) = namespace.run(|| {
            let mut command = Command::new(&self.subject.program);
            command.args(&self.subject.flags);
            let started = Instant::now();
            let process = Process::spawn(&mut command, Path::new(&log))?;
            let answered = wait_every(POLL, "a scrape", PATIENCE, || self.get());
            Ok::<_, tailgauge_testbed::process::CommandError>((process, answered.map(|_| started.elapsed())))
        })??;
        self.process = Some(process);
        let elapsed = elapsed.map_err(|timeout| self.failed(&timeout.to_string()))?;
        self.starts.push(elapsed.as_secs_f64() * 1e3);
        self.start_cpu.push(cpu_time(self.pid()?)?.as_secs_f64() * 1e3);
        Ok(())
    }

    /// Scrapes so many times, with a packet of every peer in between.
    fn scrape(&mut self, times: usize) -> Result<(), Box<dyn Error>> {
        let pid = self.pid()?;
        let bed = self.bed;
        let before = cpu_time(pid)?;
        let body = bed.device.namespace().run(|| {
            let mut body = None;
            for _ in 0..times {
                bed.device.knock(bed.peers.iter().copied()).ok()?;
                body = Some(self.get()?);
            }
            body
        })?;
        self.body = body.ok_or_else(|| self.failed("a scrape was not answered"))?;
        self.per_scrape = (cpu_time(pid)?.saturating_sub(before)).as_secs_f64() * 1e3 / times as f64;
        self.memory = Memory::read(pid)?;
        Ok(())
    }
}

/// A scrape a second of each, for so many seconds.
fn idle(bed: &Bed, all: &mut [&mut Measured<'_>], seconds: usize) -> Result<(), Box<dyn Error>> {
    let cpu = |all: &[&mut Measured<'_>]| -> Result<Vec<Duration>, Box<dyn Error>> {
        all.iter().map(|measured| Ok(cpu_time(measured.pid()?)?)).collect()
    };
    let (before, started) = (cpu(all)?, Instant::now());
    for second in 1..=seconds as u64 {
        for measured in all.iter_mut() {
            let body = bed.device.namespace().run(|| measured.get())?;
            measured.idle_bodies.push(body.ok_or_else(|| measured.failed("a scrape was not answered"))?);
        }
        std::thread::sleep(Duration::from_secs(second).saturating_sub(started.elapsed()));
    }
    let (after, elapsed) = (cpu(all)?, started.elapsed().as_secs_f64());
    for ((measured, before), after) in all.iter_mut().zip(before).zip(after) {
        measured.idle_share = after.saturating_sub(before).as_secs_f64() / elapsed;
    }
    Ok(())
}

fn rows(agent: &Measured<'_>, exporter: Option<&Measured<'_>>) -> Outcome {
    let scrape = Exposition::parse(&agent.body)?;
    let known = scrape.matching("tailgauge_peer_info", &[]).count();
    if known != PEERS as usize {
        return Err(agent.failed(&format!("it exports {known} peers, not {PEERS}")));
    }
    // A figure of the agent, and the same of node_exporter.
    let row = |what: String, value: f64, shown: String, other: &dyn Fn(&Measured<'_>) -> (f64, String)| {
        let row = Row::new(what, shown);
        match exporter.map(other) {
            Some((base, shown)) => row.against(format!("node_exporter {shown}"), value / base),
            None => row.beside(format!("{BASELINE} is not installed")),
        }
    };
    let start = Spread::of(agent.starts.clone());
    let start_cpu = Spread::of(agent.start_cpu.clone());
    let resident = |memory: Memory| {
        let Memory { resident, anonymous, peak } = memory;
        format!("{} MiB (peak {}, heap and stack {})", digits(resident), digits(peak), digits(anonymous))
    };
    let cpu = |milliseconds: f64| format!("{} ms", digits(milliseconds));
    let share = |share: f64| format!("{} %", digits(share * 100.0));
    let mut rows = vec![
        row(
            format!("agent, {PEERS} peers: start to first answered scrape"),
            start.median,
            start.show("ms"),
            &|other| {
                let start = Spread::of(other.starts.clone());
                (start.median, start.show("ms"))
            },
        )
        .target(format!("≤ {START} ms"), start.median <= START),
        row("CPU of a start".to_owned(), start_cpu.median, start_cpu.show("ms"), &|other| {
            let start = Spread::of(other.start_cpu.clone());
            (start.median, start.show("ms"))
        }),
        row("resident memory".to_owned(), agent.memory.resident, resident(agent.memory), &|other| {
            (other.memory.resident, resident(other.memory))
        })
        .target(format!("≤ {RESIDENT} MiB"), agent.memory.resident <= RESIDENT),
        row(
            format!("CPU per scrape, {} series", scrape.samples.len()),
            agent.per_scrape,
            cpu(agent.per_scrape),
            &|other| (other.per_scrape, cpu(other.per_scrape)),
        ),
        row(
            "CPU share, idle, a scrape a second".to_owned(),
            agent.idle_share,
            share(agent.idle_share),
            &|other| (other.idle_share, share(other.idle_share)),
        ),
    ];
    rows.extend(host::rows(&agent.idle_bodies)?);
    Ok(rows)
}
