//! The agent on the miniature tailnet: totals against the interface, the senders, and what leaves the machine.

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::miniature::{MiniatureTailnet, Options};
use tailgauge_testbed::needs;
use tailgauge_testbed::proof::{Outcome, drops, totals, underlay};
use tailgauge_testbed::tailnet::Tailnet;

fn with_agent(
    name: &str,
    programs: &[&str],
    prove: impl FnOnce(&MiniatureTailnet, &mut Agent<'_>) -> Outcome,
) -> Outcome {
    let Ok(()) = needs::root_and(name, programs) else { return Ok(()) };
    let tailnet = MiniatureTailnet::up(Options::default())?;
    let exit = tailnet.exit_node();
    let mut agent = Agent::start(exit.namespace, exit.socket, &[])?;
    agent.wait_ready()?;
    prove(&tailnet, &mut agent)
}

#[test]
fn totals_equal_the_interface_after_gigabytes_of_mixed_traffic() -> Outcome {
    with_agent("totals", &["ip", "nft", "iperf3", "ping"], |tailnet, agent| {
        totals::mixed_traffic(tailnet, agent, 2.0)
    })
}

#[test]
fn wire_packets_equal_what_the_sender_counts() -> Outcome {
    with_agent("wire_packets", &["ip", "nft", "iperf3", "ethtool"], |tailnet, agent| {
        totals::wire_equals_sender(tailnet, agent)
    })
}

#[test]
fn what_leaves_the_machine_equals_what_came_out_of_the_tunnel() -> Outcome {
    with_agent("what_leaves", &["ip", "nft"], underlay::what_leaves)
}

#[test]
fn drops_of_a_full_ring_equal_those_of_the_device() -> Outcome {
    with_agent("full_ring", &["ip", "nft"], drops::full_ring)
}
