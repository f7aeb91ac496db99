//! `/compat/node` against node_exporter with the same collectors, scraped in turn.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::process::{Process, wait_for};
use tailgauge_testbed::stage::Stage;
use tailgauge_testbed::{compat, http};

use crate::process::cpu_time;
use crate::table::{Row, Spread, digits};
use crate::{Outcome, Plan};

/// Debian's name of node_exporter.
pub const BASELINE: &str = "prometheus-node-exporter";
const PATIENCE: Duration = Duration::from_secs(20);
/// Scrapes whose CPU time is one sample: the scheduler's accounting is exact, but what surrounds a scrape varies.
const BATCH: usize = 10;
/// Of node_exporter's CPU.
const TARGET: f64 = 0.2;

pub fn measure(plan: &Plan) -> Outcome {
    let stage = Stage::set()?;
    // A node's devices: a tunnel, the loopback, a NIC and a bridge with a container.
    stage.namespace.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "far"])?;
    stage.namespace.ip(&["link", "add", "bridge", "type", "bridge"])?;
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut agent = Command::new(&plan.agent);
    agent.arg("--tailscale.socket").arg(stage.socket());
    agent.args(["--web.listen-address", "127.0.0.1:10641"]);
    // What runs between scrapes is no scrape's.
    agent.args(["--sampler.interval", "0s"]);
    let mut exporter = Command::new(BASELINE);
    exporter.args(["--web.listen-address", "127.0.0.1:9100", "--collector.disable-defaults"]);
    exporter.args(compat::BY_DEFAULT.map(|name| format!("--collector.{name}")));
    exporter.args(["--web.disable-exporter-metrics", "--collector.netdev.device-exclude="]);
    let mut agent = Subject::start(&stage, agent, "agent", address(10641), "/compat/node")?;
    let mut exporter = Subject::start(&stage, exporter, "node_exporter", address(9100), "/metrics")?;
    for _ in 0..plan.rounds(30, 5) {
        agent.scrape(&stage)?;
        exporter.scrape(&stage)?;
    }
    let series = agent.series()?;
    let (cost, base) = (Spread::of(agent.samples), Spread::of(exporter.samples));
    let ratio = cost.median / base.median;
    let row = Row::new(format!("/compat/node, {series} series: CPU per scrape"), cost.show("ms"))
        .against(format!("node_exporter with the same collectors {}", base.show("ms")), ratio)
        .target(format!("≤ {}×", digits(TARGET)), ratio <= TARGET);
    Ok(vec![row])
}

/// A program that is scraped.
struct Subject {
    process: Process,
    address: SocketAddr,
    target: &'static str,
    name: &'static str,
    body: String,
    /// Milliseconds of CPU per scrape.
    samples: Vec<f64>,
}

impl Subject {
    fn start(
        stage: &Stage,
        mut command: Command,
        name: &'static str,
        address: SocketAddr,
        target: &'static str,
    ) -> Result<Self, Box<dyn Error>> {
        let log = stage.folder().join(name);
        // From a thread in the namespace, so that it is the program itself that is started, not `ip`.
        let process = stage.namespace.run(|| Process::spawn(&mut command, log))??;
        let mut subject = Self { process, address, target, name, body: String::new(), samples: Vec::new() };
        let answered = wait_for("a scrape", PATIENCE, || subject.get(stage).ok());
        subject.body = answered.map_err(|timeout| subject.failed(&timeout.to_string()))?;
        Ok(subject)
    }

    fn failed(&self, what: &str) -> Box<dyn Error> {
        format!("{}: {what}; its log:\n{}", self.name, self.process.log()).into()
    }

    fn get(&self, stage: &Stage) -> Result<String, Box<dyn Error>> {
        let answer = stage.namespace.run(|| http::get(self.address, self.target))??;
        if answer.status == 200 { Ok(answer.text()) } else { Err(self.failed(&answer.text())) }
    }

    fn scrape(&mut self, stage: &Stage) -> Result<(), Box<dyn Error>> {
        let before = cpu_time(self.process.id())?;
        for _ in 0..BATCH {
            self.body = self.get(stage)?;
        }
        let used = cpu_time(self.process.id())?.saturating_sub(before);
        self.samples.push(used.as_secs_f64() * 1e3 / BATCH as f64);
        Ok(())
    }

    /// How many it answers with, once nothing that both run has failed.
    fn series(&self) -> Result<usize, Box<dyn Error>> {
        let scrape = Exposition::parse(&self.body)?;
        let succeeded = scrape.sum("node_scrape_collector_success", &[]);
        let wanted = compat::BY_DEFAULT.len();
        if succeeded < wanted as f64 {
            return Err(self.failed(&format!("only {succeeded} of {wanted} collectors succeeded")));
        }
        Ok(scrape.samples.len())
    }
}
