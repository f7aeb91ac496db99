//! The agent on the miniature tailnet: handshake legs against injected delay, and every outcome of a connection.

use std::net::IpAddr;
use std::time::Duration;

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::link::Conditions;
use tailgauge_testbed::miniature::{MiniatureTailnet, Options, WEB_V4, WEB_V6};
use tailgauge_testbed::needs;
use tailgauge_testbed::proof::Outcome;
use tailgauge_testbed::proof::legs::{self, Case, Opener, Server};
use tailgauge_testbed::proof::outcomes;
use tailgauge_testbed::tailnet::Tailnet;
use tailgauge_testbed::traffic::{Ping, ping};
use tailgauge_testbed::wake::{Awake, be_precise};

/// A port of the server that swallows SYNs.
const BLACKHOLE: u16 = 7012;

/// A tailnet, an agent, servers at both ends, and what the tailnet calls the client.
fn with_agent(test: &str, prove: impl FnOnce(&MiniatureTailnet, &mut Agent<'_>, &str) -> Outcome) -> Outcome {
    let Ok(()) = needs::root_and(test, &["ip", "nft", "tcpdump"]) else { return Ok(()) };
    // Inherited by every thread and program from here on: else the legs would hold what else the machine does.
    be_precise();
    let _awake = Awake::keep()?;
    let tailnet = MiniatureTailnet::up(Options { seed: 11 })?;
    let exit = tailnet.exit();
    let mut agent = Agent::start(exit.namespace(), exit.socket(), &["--tcp.handshake-timeout", "1s"])?;
    agent.wait_ready()?;
    let _servers = [Server::start(tailnet.web())?, Server::start(tailnet.c1().namespace())?];
    let peer = tailnet.c1().id().to_string();
    // A WireGuard handshake is no part of any leg.
    ping(tailnet.c1().namespace(), WEB_V4.into(), &Ping::default())?;
    prove(&tailnet, &mut agent, &peer)
}

/// From the client to the internet.
fn outbound(tailnet: &MiniatureTailnet, to: impl Into<IpAddr>) -> Case<'_> {
    let from = tailnet.c1().namespace();
    Case { peer: "", opener: Opener::Peer, from, to: to.into(), legs: [Duration::ZERO; 2] }
}

/// From the exit node to the client.
fn inbound(tailnet: &MiniatureTailnet) -> Case<'_> {
    let to = tailnet.clients()[0].addresses[0];
    Case { peer: "", opener: Opener::Host, from: tailnet.exit().namespace(), to, legs: [Duration::ZERO; 2] }
}

/// Delays of one direction, in milliseconds.
fn set_delays(tailnet: &MiniatureTailnet, peer: u64, remote: u64) -> [Duration; 2] {
    let [peer, remote] = [peer, remote].map(Duration::from_millis);
    tailnet.peer_link(tailnet.c1()).set_both(Conditions::delayed(peer));
    tailnet.internet_link().set_both(Conditions::delayed(remote));
    [2 * peer, 2 * remote]
}

#[test]
fn legs_equal_the_injected_delay() -> Outcome {
    with_agent("legs_equal_the_injected_delay", |tailnet, agent, peer| {
        for (near, far) in [(0, 0), (7, 20), (20, 7), (0, 25), (30, 0), (45, 45)] {
            let delays = set_delays(tailnet, near, far);
            legs::legs(&Case { peer, legs: delays, ..outbound(tailnet, WEB_V4) }, agent)?;
        }
        let delays = set_delays(tailnet, 7, 20);
        legs::legs(&Case { peer, legs: delays, ..outbound(tailnet, WEB_V6) }, agent)?;
        // This host is the far side itself: there is no leg beyond it.
        for near in [0, 7, 45] {
            let [delay, _] = set_delays(tailnet, near, 20);
            legs::legs(&Case { peer, legs: [delay, Duration::ZERO], ..inbound(tailnet) }, agent)?;
        }
        Ok(())
    })
}

#[test]
fn every_outcome_of_a_connection_is_counted_once() -> Outcome {
    with_agent("every_outcome_of_a_connection_is_counted_once", |tailnet, agent, peer| {
        for server in [tailnet.web(), tailnet.c1().namespace()] {
            server.nft(&format!(
                "table inet swallow {{
                    chain input {{ type filter hook input priority filter; tcp dport {BLACKHOLE} drop; }}
                }}"
            ))?;
        }
        set_delays(tailnet, 2, 3);
        outcomes::outcomes(&Case { peer, ..outbound(tailnet, WEB_V4) }, agent, Some(BLACKHOLE))?;
        outcomes::outcomes(&Case { peer, ..outbound(tailnet, WEB_V6) }, agent, None)?;
        outcomes::outcomes(&Case { peer, ..inbound(tailnet) }, agent, Some(BLACKHOLE))
    })
}

#[test]
fn loss_makes_retransmissions_and_no_wrong_sample() -> Outcome {
    with_agent("loss_makes_retransmissions_and_no_wrong_sample", |tailnet, agent, peer| {
        let lossy = |delay| Conditions { loss: 0.25, ..Conditions::delayed(Duration::from_millis(delay)) };
        tailnet.peer_link(tailnet.c1()).set_both(lossy(5));
        outcomes::loss(&Case { peer, ..outbound(tailnet, WEB_V4) }, agent, 60)?;
        outcomes::loss(&Case { peer, ..inbound(tailnet) }, agent, 60)?;
        set_delays(tailnet, 5, 0);
        tailnet.internet_link().set_both(lossy(10));
        outcomes::loss(&Case { peer, ..outbound(tailnet, WEB_V4) }, agent, 60)
    })
}
