//! The paths of a peer over time, as a node's LocalAPI tells them and the agent counts them.

use std::time::{Duration, Instant};

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::miniature::{MiniatureTailnet, Options, Via};
use tailgauge_testbed::needs;
use tailgauge_testbed::node::Exit;
use tailgauge_testbed::process::wait_every;
use tailgauge_testbed::proof::Outcome;
use tailgauge_testbed::tailnet::Tailnet;
use tailgauge_testbed::traffic::{self, Ping};

/// Within this time the series follow a path, at one read of `/status` each 10 s.
const FOLLOWS: Duration = Duration::from_secs(30);
/// Samples are whole milliseconds, rounded down, one for each path that the peer had.
const ROUNDING: f64 = 0.004;
/// `peer_id` of c1.
const PEER: (&str, &str) = ("peer_id", "2");

/// What a scrape says of the peer's paths, and when it was asked and had answered.
struct Seen {
    scrape: Exposition,
    asked: Instant,
    answered: Instant,
}

impl Seen {
    fn look(agent: &Agent<'_>) -> Result<Self, Box<dyn std::error::Error>> {
        let asked = Instant::now();
        let scrape = agent.scrape()?;
        Ok(Self { scrape, asked, answered: Instant::now() })
    }

    /// Waits for a scrape that fulfils `condition`.
    fn wait(
        agent: &Agent<'_>,
        what: &str,
        condition: impl Fn(&Self) -> bool,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let pause = Duration::from_millis(100);
        let seen = wait_every(pause, what, FOLLOWS, || Self::look(agent).ok().filter(&condition));
        Ok(seen.map_err(|timeout| format!("{timeout}; the agent's log:\n{}", agent.log()))?)
    }

    fn is_on(&self, path: &str) -> bool {
        self.scrape.value("tailgauge_peer_path", &[PEER, ("path", path)]) == Some(1.0)
            && self.scrape.sum("tailgauge_peer_path", &[PEER]) == 1.0
    }

    fn seconds(&self, path: &str) -> f64 {
        self.scrape.sum("tailgauge_peer_path_seconds_total", &[PEER, ("path", path)])
    }

    fn all_seconds(&self) -> f64 {
        self.scrape.sum("tailgauge_peer_path_seconds_total", &[PEER])
    }

    fn changes(&self) -> Option<f64> {
        self.scrape.value("tailgauge_peer_path_changes_total", &[PEER])
    }

    fn has_session(&self, state: &str) -> bool {
        self.scrape.value("tailgauge_peer_wireguard_session", &[PEER, ("state", state)]) == Some(1.0)
    }

    fn is_up(&self) -> bool {
        self.scrape.value("tailgauge_tailscaled_up", &[]) == Some(1.0)
    }

    /// The seconds of all paths rose by the time that passed, no more and no less.
    fn assert_adds_up_since(&self, before: &Self) {
        let rose = self.all_seconds() - before.all_seconds();
        let least = (self.asked - before.answered).as_secs_f64();
        let most = (self.answered - before.asked).as_secs_f64();
        assert!(
            rose >= least - ROUNDING && rose <= most + ROUNDING,
            "{rose} s on all paths in {least} to {most} s"
        );
    }
}

/// One packet each way, so that the peer stays active.
fn ping(tailnet: &MiniatureTailnet) -> Outcome {
    let [address, _] = tailnet.c1().addresses();
    let report = traffic::ping(tailnet.exit().namespace(), address, &Ping::default())?;
    if report.round_trips.is_empty() { Err("c1 does not answer".into()) } else { Ok(()) }
}

#[test]
fn every_second_is_on_one_path_and_every_change_counts_once() -> Outcome {
    let name = "every_second_is_on_one_path_and_every_change_counts_once";
    let Ok(()) = needs::root_and(name, &["ip", "nft"]) else { return Ok(()) };
    let tailnet = MiniatureTailnet::up(Options::default())?;
    let exit = tailnet.exit_node();
    let mut agent = Agent::start(exit.namespace, exit.socket, &[])?;
    agent.wait_ready()?;
    ping(&tailnet)?;
    let first = Seen::wait(&agent, "a direct path", |seen| seen.is_on("direct_ipv4"))?;
    assert_eq!(first.changes(), Some(0.0), "idle before the first path is no change");
    assert!(first.has_session("established"));
    let region = [PEER, ("home_derp", "lab")];
    assert_eq!(first.scrape.value("tailgauge_peer_info", &region), Some(1.0));
    assert_eq!(first.scrape.value("tailgauge_tailscaled_home_derp_info", &[("region", "lab")]), Some(1.0));

    let mut before = first;
    for (changes, (via, path)) in
        [(Via::Derp, "derp"), (Via::PeerRelayV4, "peer_relay_ipv4"), (Via::Direct, "direct_ipv4")]
            .into_iter()
            .enumerate()
    {
        ping(&tailnet)?;
        tailnet.set_path(tailnet.exit(), "c1", via)?;
        let seen = Seen::wait(&agent, path, |seen| seen.is_on(path))?;
        seen.assert_adds_up_since(&before);
        assert_eq!(seen.changes(), Some(1.0 + changes as f64));
        assert!(seen.seconds(path) - before.seconds(path) <= (seen.answered - before.asked).as_secs_f64());
        before = seen;
    }

    tailnet.rename_peer("c1", "renamed")?;
    let renamed = [PEER, ("peer_name", "renamed")];
    let is_renamed = |seen: &Seen| seen.scrape.value("tailgauge_peer_info", &renamed) == Some(1.0);
    let seen = Seen::wait(&agent, "the new name", is_renamed)?;
    seen.assert_adds_up_since(&before);
    assert_eq!(seen.changes(), Some(3.0));

    stands_still_while_nobody_knows(&tailnet, &agent)
}

/// tailscaled ends and comes back: what nobody knows is not counted, and what was counted stays.
fn stands_still_while_nobody_knows(tailnet: &MiniatureTailnet, agent: &Agent<'_>) -> Outcome {
    tailnet.exit().stop(Exit::Terminated);
    let away = Seen::wait(agent, "tailscaled to be away", |seen| !seen.is_up())?;
    assert!(away.is_on("direct_ipv4"), "the last known path");
    assert_eq!(away.scrape.matching("tailgauge_peer_wireguard_session", &[PEER]).count(), 0);
    wait_every(Duration::from_millis(200), "a second to pass", FOLLOWS, || {
        let seen = Seen::look(agent).ok()?;
        assert_eq!(seen.all_seconds(), away.all_seconds());
        (seen.asked - away.answered > Duration::from_secs(1)).then_some(())
    })?;
    let started = Instant::now();
    tailnet.exit().start()?;
    ping(tailnet)?;
    let direct_again =
        |seen: &Seen| seen.is_up() && seen.is_on("direct_ipv4") && seen.has_session("established");
    let back = Seen::wait(agent, "the path again", direct_again)?;
    let rose = back.all_seconds() - away.all_seconds();
    let most = (back.answered - started).as_secs_f64();
    assert!(rose <= most + ROUNDING, "{rose} s on all paths, {most} s after tailscaled came back");
    assert_eq!(back.changes(), Some(3.0));
    let later = Seen::look(agent)?;
    later.assert_adds_up_since(&back);
    Ok(())
}
