//! iperf3 through the exit node of the miniature tailnet, with the agent and without in turn; what agent and programs
//! use meanwhile.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use tailgauge_testbed::agent::{Agent, AgentError};
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::miniature::{MiniatureTailnet, Options};
use tailgauge_testbed::node::{DeviceCounters, TUNNEL};
use tailgauge_testbed::process::{Process, wait_until};
use tailgauge_testbed::proof::iperf::Server;
use tailgauge_testbed::proof::totals::Counted;
use tailgauge_testbed::tailnet::{Node, Tailnet};

use crate::process::cpu_time;
use crate::table::{Row, Spread, digits};
use crate::{Outcome, Plan};

/// With ÷ without.
const TARGET: f64 = 0.99;
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes after which a stream runs as fast as it can, and how long that may take.
const RUNNING: u64 = 100_000_000;
const PATIENCE: Duration = Duration::from_secs(20);
/// For the stream to forget that an agent was started or stopped beside it.
const SETTLE: Duration = Duration::from_millis(1500);
const DIRECTIONS: [Direction; 2] = [
    Direction { name: "from the peer", flags: &[], received: |exit, _| exit },
    Direction { name: "to the peer", flags: &["--reverse"], received: |_, client| client },
];

#[derive(Clone, Copy)]
struct Direction {
    name: &'static str,
    /// Of the iperf3 client on the peer.
    flags: &'static [&'static str],
    /// Where it arrives, of exit node and client.
    received: for<'a> fn(&'a Node<'a>, &'a Node<'a>) -> &'a Node<'a>,
}

pub fn measure(plan: &Plan) -> Outcome {
    let tailnet = MiniatureTailnet::up(Options::default())?;
    let exit = tailnet.exit_node();
    let clients = tailnet.clients();
    let client = clients.first().ok_or("the tailnet has no client")?;
    let server = Server::start(tailnet.server(), tailnet.server_addresses().internet_v4, tailnet.folder())?;
    let mut rows = Vec::new();
    let mut use_of_agent = Usage::default();
    for direction in DIRECTIONS {
        let log = tailnet.folder().join(format!("iperf3 {}", direction.name));
        let bed = Bed {
            stream: server.stream(client, direction.flags, log)?,
            receiver: (direction.received)(&exit, client),
            exit: &exit,
            plan,
        };
        bed.wait_running()?;
        let mut rates = Rates::default();
        for pair in 0..plan.rounds(25, 3) {
            // ABBA: a machine that slows down slowly does neither good.
            let with_agent_first = pair % 2 == 1;
            for with_agent in [with_agent_first, !with_agent_first] {
                if with_agent {
                    let agent = bed.agent()?;
                    rates.with.push(bed.watched(&agent, &mut use_of_agent)?);
                } else {
                    rates.without.push(bed.window(None)?);
                }
            }
        }
        let (with, without, ratio) = rates.compare(|run| run.rate);
        rows.push(
            Row::new(
                format!("iperf3 TCP {} with the agent; ratio of neighbours", direction.name),
                with.show("Gbit/s"),
            )
            .against(format!("without {}", without.show("Gbit/s")), ratio.median)
            .give_or_take(ratio.error)
            .target(format!("≥ {TARGET}×"), ratio.median >= TARGET),
        );
        let (with, without, ratio) = rates.compare(|run| run.cost);
        rows.push(
            Row::new("CPU of WireGuard and TUN for that, with the agent", with.show("s/GB"))
                .against(format!("without {}", without.show("s/GB")), ratio.median)
                .give_or_take(ratio.error),
        );
        rows.push(bed.program_times(direction)?);
    }
    let share = |seconds: f64| format!("{} %", digits(seconds / use_of_agent.wall * 100.0));
    rows.push(
        Row::new("CPU share of the agent meanwhile, a scrape a second", share(use_of_agent.agent)).against(
            format!("WireGuard of all nodes {}", share(use_of_agent.own)),
            use_of_agent.agent / use_of_agent.own,
        ),
    );
    Ok(rows)
}

/// A while of a stream.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Gbit/s that arrived.
    rate: f64,
    /// CPU seconds of this process for each GB that arrived. Packets are handed to the hooks in its context.
    cost: f64,
}

#[derive(Default)]
struct Rates {
    with: Vec<Run>,
    without: Vec<Run>,
}

impl Rates {
    /// A figure with the agent, without, and the ratio of runs that are neighbours in time: the machine's mood is in both.
    fn compare(&self, figure: impl Fn(&Run) -> f64) -> (Spread, Spread, Spread) {
        let all = |runs: &[Run]| Spread::of(runs.iter().map(&figure).collect());
        let ratios =
            self.with.iter().zip(&self.without).map(|(with, without)| figure(with) / figure(without));
        (all(&self.with), all(&self.without), Spread::of(ratios.collect()))
    }
}

/// Seconds.
#[derive(Debug, Default)]
struct Usage {
    /// CPU of the agent.
    agent: f64,
    /// CPU of this process, which is every node's tailscaled.
    own: f64,
    wall: f64,
}

/// A stream of iperf3 that goes on while agents come and go: one that begins anew each time says more of TCP's start
/// than of them.
struct Bed<'a> {
    stream: Process,
    receiver: &'a Node<'a>,
    exit: &'a Node<'a>,
    plan: &'a Plan,
}

impl<'a> Bed<'a> {
    /// Bytes that have arrived.
    fn arrived(&self) -> Result<u64, Box<dyn Error>> {
        let counters = self.receiver.namespace.run(|| DeviceCounters::read(TUNNEL))?;
        Ok(counters.ok_or("the receiver has no tunnel")?.rx_bytes)
    }

    fn wait_running(&self) -> Result<(), Box<dyn Error>> {
        let before = self.arrived()?;
        let is_running = || self.arrived().is_ok_and(|now| now > before + RUNNING);
        wait_until("iperf3 to run", PATIENCE, is_running)
            .map_err(|error| format!("{error}; it says: {}", self.stream.log()).into())
    }

    fn agent(&self) -> Result<Agent<'a>, AgentError> {
        let Node { namespace, socket, .. } = self.exit;
        let mut agent = Agent::start_program(&self.plan.agent, namespace, socket, &[])?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Looks at the stream for a second, or several, at the end of each of which the agent is scraped.
    fn window(&self, agent: Option<&Agent<'_>>) -> Result<Run, Box<dyn Error>> {
        thread::sleep(SETTLE);
        let (bytes, cpu, started) = (self.arrived()?, cpu_time(std::process::id())?, Instant::now());
        for _ in 0..self.plan.rounds(2, 1) {
            thread::sleep(SCRAPE_INTERVAL);
            agent.map(Agent::scrape).transpose()?;
        }
        let bytes = (self.arrived()? - bytes) as f64;
        if bytes == 0.0 {
            return Err(format!("nothing arrives any more: {}", self.stream.log()).into());
        }
        let cpu = cpu_time(std::process::id())?.saturating_sub(cpu).as_secs_f64();
        Ok(Run { rate: bytes * 8e-9 / started.elapsed().as_secs_f64(), cost: cpu / bytes * 1e9 })
    }

    /// As [`Self::window`], with the agent; adds what was used.
    fn watched(&self, agent: &Agent<'_>, usage: &mut Usage) -> Result<Run, Box<dyn Error>> {
        let (cpu, own, started) = (cpu_time(agent.id())?, cpu_time(std::process::id())?, Instant::now());
        let run = self.window(Some(agent))?;
        usage.wall += started.elapsed().as_secs_f64();
        usage.agent += cpu_time(agent.id())?.saturating_sub(cpu).as_secs_f64();
        usage.own += cpu_time(std::process::id())?.saturating_sub(own).as_secs_f64();
        Ok(run)
    }

    /// What the kernel's own clock says about the programs on this traffic. The statistics cost more than what they
    /// measure, so that this is none of the runs above.
    fn program_times(&self, direction: Direction) -> Result<Row, Box<dyn Error>> {
        let agent = self.agent()?;
        let look = || -> Result<_, Box<dyn Error>> {
            let answer = agent.get("/metrics?program_stats=1")?;
            Ok(Times::read(&Exposition::parse(&answer.text())?))
        };
        // The first look switches the statistics on.
        look()?;
        let (before, own) = (look()?, cpu_time(std::process::id())?);
        self.window(None)?;
        let own = cpu_time(std::process::id())?.saturating_sub(own).as_nanos() as f64;
        let Times { nanoseconds, runs, packets } = look()?.since(before);
        if runs == 0.0 || packets == 0.0 {
            return Err("the programs did not run, or their time is not taken".into());
        }
        let per_run = nanoseconds / runs;
        Ok(Row::new(
            format!("programs on iperf3 {}, all hooks", direction.name),
            format!("{} ns a run, {} ns a wire packet", digits(per_run), digits(nanoseconds / packets)),
        )
        .against(
            format!("WireGuard of both nodes {} ns a wire packet", digits(own / packets)),
            nanoseconds / own,
        ))
    }
}

/// Of all programs.
#[derive(Clone, Copy, Debug)]
struct Times {
    nanoseconds: f64,
    runs: f64,
    packets: f64,
}

impl Times {
    fn read(scrape: &Exposition) -> Self {
        Self {
            nanoseconds: scrape.sum("tailgauge_program_run_seconds_total", &[]) * 1e9,
            runs: scrape.sum("tailgauge_program_run_count_total", &[]),
            packets: Counted::read(scrape).packets.iter().sum(),
        }
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            nanoseconds: self.nanoseconds - earlier.nanoseconds,
            runs: self.runs - earlier.runs,
            packets: self.packets - earlier.packets,
        }
    }
}
