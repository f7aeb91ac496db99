//! A real Prometheus scrapes the agent on the miniature tailnet.

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::miniature::{MiniatureTailnet, Options};
use tailgauge_testbed::needs;
use tailgauge_testbed::proof::{Outcome, scraped};
use tailgauge_testbed::tailnet::Tailnet;

#[test]
fn prometheus_agrees_with_the_agent() -> Outcome {
    let needed = ["ip", "nft", "iperf3", "prometheus", "promtool"];
    let Ok(()) = needs::root_and("prometheus_agrees_with_the_agent", &needed) else { return Ok(()) };
    let tailnet = MiniatureTailnet::up(Options::default())?;
    let exit = tailnet.exit_node();
    let mut agent = Agent::start(exit.namespace, exit.socket, &[])?;
    agent.wait_ready()?;
    scraped::by_prometheus(&tailnet, &agent, 5)
}
