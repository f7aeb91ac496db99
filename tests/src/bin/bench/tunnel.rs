//! iperf3 through the exit node of the miniature tailnet, with the agent and without in turn; what agent and programs
//! use meanwhile.

use std::error::Error;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tailgauge_testbed::agent::{Agent, AgentError};
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::miniature::{MiniatureTailnet, Options};
use tailgauge_testbed::proof::iperf::Server;
use tailgauge_testbed::proof::totals::Counted;
use tailgauge_testbed::tailnet::{Node, Tailnet};

use crate::process::cpu_time;
use crate::table::{Row, Spread, digits};
use crate::{Outcome, Plan};

/// With ÷ without.
const TARGET: f64 = 0.99;
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
const DIRECTIONS: [Direction; 2] = [
    Direction { name: "from the peer", flags: &[] },
    Direction { name: "to the peer", flags: &["--reverse"] },
];

#[derive(Clone, Copy)]
struct Direction {
    name: &'static str,
    /// Of the iperf3 client on the peer.
    flags: &'static [&'static str],
}

pub fn measure(plan: &Plan) -> Outcome {
    let tailnet = MiniatureTailnet::up(Options::default())?;
    let exit = tailnet.exit_node();
    let clients = tailnet.clients();
    let client = clients.first().ok_or("the tailnet has no client")?;
    let bed = Bed {
        server: Server::start(tailnet.server(), tailnet.server_addresses().internet_v4, tailnet.folder())?,
        client,
        exit: &exit,
        plan,
        seconds: plan.rounds(2, 1).to_string(),
    };
    // Sessions and caches.
    bed.traffic(DIRECTIONS[0])?;
    let mut rows = Vec::new();
    let mut use_of_agent = Usage::default();
    let mut rates = DIRECTIONS.map(|_| Rates::default());
    for pair in 0..plan.rounds(13, 3) {
        // ABBA: a machine that slows down slowly does neither good.
        let with_agent_first = pair % 2 == 1;
        for with_agent in [with_agent_first, !with_agent_first] {
            let agent = with_agent.then(|| bed.agent()).transpose()?;
            for (direction, rates) in DIRECTIONS.into_iter().zip(&mut rates) {
                match &agent {
                    Some(agent) => rates.with.push(bed.watched(agent, direction, &mut use_of_agent)?),
                    None => rates.without.push(bed.traffic(direction)?),
                }
            }
        }
    }
    for (direction, rates) in DIRECTIONS.into_iter().zip(&rates) {
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
    }
    let share = |seconds: f64| format!("{} %", digits(seconds / use_of_agent.wall * 100.0));
    rows.push(
        Row::new("CPU share of the agent meanwhile, a scrape a second", share(use_of_agent.agent)).against(
            format!("WireGuard of all nodes {}", share(use_of_agent.own)),
            use_of_agent.agent / use_of_agent.own,
        ),
    );
    rows.extend(program_times(&bed)?);
    Ok(rows)
}

/// One run of iperf3.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Gbit/s at the receiver.
    rate: f64,
    /// CPU seconds of this process for each GB that the receiver got. Packets are handed to the hooks in its context.
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

struct Bed<'a> {
    server: Server,
    client: &'a Node<'a>,
    exit: &'a Node<'a>,
    plan: &'a Plan,
    /// Length of a run.
    seconds: String,
}

impl<'a> Bed<'a> {
    fn agent(&self) -> Result<Agent<'a>, AgentError> {
        let Node { namespace, socket, .. } = self.exit;
        let mut agent = Agent::start_program(&self.plan.agent, namespace, socket, &[])?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// One run; a second one where a crowded machine kept the first from moving anything.
    fn traffic(&self, direction: Direction) -> Result<Run, Box<dyn Error>> {
        self.once(direction).or_else(|error| {
            eprintln!("repeated: {error}");
            self.once(direction)
        })
    }

    fn once(&self, direction: Direction) -> Result<Run, Box<dyn Error>> {
        let flags = [&["--time", &self.seconds], direction.flags].concat();
        let before = cpu_time(std::process::id())?;
        let run = self.server.run(self.client, &flags)?;
        if run.received_bytes == 0 {
            return Err(format!("iperf3 moved nothing {}", direction.name).into());
        }
        let cpu = cpu_time(std::process::id())?.saturating_sub(before).as_secs_f64();
        Ok(Run { rate: run.bits_per_second / 1e9, cost: cpu / run.received_bytes as f64 * 1e9 })
    }

    /// As [`Self::traffic`], while the agent is scraped once a second; adds what was used.
    fn watched(
        &self,
        agent: &Agent<'_>,
        direction: Direction,
        usage: &mut Usage,
    ) -> Result<Run, Box<dyn Error>> {
        let (stop, stopped) = channel::<()>();
        let (cpu, own, started) = (cpu_time(agent.id())?, cpu_time(std::process::id())?, Instant::now());
        let run = thread::scope(|scope| {
            let scraper = scope.spawn(move || {
                while stopped.recv_timeout(SCRAPE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    agent.scrape()?;
                }
                Ok::<(), AgentError>(())
            });
            let run = self.traffic(direction);
            drop::<Sender<()>>(stop);
            match scraper.join() {
                Ok(outcome) => outcome?,
                Err(_) => return Err("the thread that scrapes ended".into()),
            }
            run
        })?;
        usage.wall += started.elapsed().as_secs_f64();
        usage.agent += cpu_time(agent.id())?.saturating_sub(cpu).as_secs_f64();
        usage.own += cpu_time(std::process::id())?.saturating_sub(own).as_secs_f64();
        Ok(run)
    }
}

/// What the kernel's own clock says about the programs on this traffic. The statistics cost more than what they
/// measure, so that these runs are not among those above.
fn program_times(bed: &Bed<'_>) -> Outcome {
    let agent = bed.agent()?;
    let look = || -> Result<_, Box<dyn Error>> {
        let answer = agent.get("/metrics?program_stats=1")?;
        Ok(Times::read(&Exposition::parse(&answer.text())?))
    };
    // The first look switches the statistics on.
    look()?;
    let mut rows = Vec::new();
    for direction in DIRECTIONS {
        let (before, own) = (look()?, cpu_time(std::process::id())?);
        bed.traffic(direction)?;
        let own = cpu_time(std::process::id())?.saturating_sub(own).as_nanos() as f64;
        let Times { nanoseconds, runs, packets } = look()?.since(before);
        if runs == 0.0 || packets == 0.0 {
            return Err("the programs did not run, or their time is not taken".into());
        }
        let per_run = nanoseconds / runs;
        rows.push(
            Row::new(
                format!("programs on iperf3 {}, both hooks", direction.name),
                format!("{} ns a run, {} ns a wire packet", digits(per_run), digits(nanoseconds / packets)),
            )
            .against(
                format!("WireGuard of both nodes {} ns a wire packet", digits(own / packets)),
                nanoseconds / own,
            ),
        );
    }
    Ok(rows)
}

/// Of both programs.
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
