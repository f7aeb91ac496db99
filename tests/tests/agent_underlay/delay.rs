//! Injected delay: handshakes and disco take as long as the nodes themselves have measured, and the time that the own
//! tailscaled takes to answer is kept apart from that of the path.

use std::time::Duration;

use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::link::Conditions;
use tailgauge_testbed::node::Node;
use tailgauge_testbed::process::wait_every;
use tailgauge_testbed::wake::Awake;
use tailgauge_testbed::wireguard::DiscoTruth;

use crate::lab::{Lab, PAUSE};
use crate::times::{Times, mean, median};

/// Of one direction.
const DELAY: Duration = Duration::from_millis(20);
/// What a busy tailscaled takes to answer.
const BUSY: Duration = Duration::from_millis(30);
/// Handshakes that each end begins.
const HANDSHAKES: usize = 5;
/// Round trips of disco at each end; there is one in 3 s.
const ROUND_TRIPS: usize = 3;
/// Time for them.
const PATIENCE: Duration = Duration::from_secs(20);

/// As many samples as there were, and as long: their mean is within 1 ms or 2 % of what the node measured, and so is
/// their median as far as buckets tell. The node measures from outside: a thread of it that is woken late once makes
/// its mean longer and not its median.
#[track_caller]
fn assert_true(times: &Times, truth: &[Duration]) {
    println!("{times:?} for {truth:?}");
    assert_eq!(times.count, truth.len() as u64);
    let (mean, median) = (mean(truth), median(truth));
    let slack = (median / 50).max(Duration::from_millis(1));
    assert!(times.mean() <= mean && times.mean() + slack >= median.min(mean), "{times:?} for {truth:?}");
    let (low, high) = times.median();
    assert!(median + slack > low && median <= high + slack, "{low:?} to {high:?}, but {median:?}");
}

/// A node's record of disco with a peer, and the agent's scrape that holds exactly as much, once there are so many round
/// trips, and so many answers were given.
fn disco(
    scrape: impl Fn() -> Exposition,
    node: &Node,
    peer: &Node,
    count: usize,
) -> (DiscoTruth, Exposition) {
    let peer_id = peer.id().to_string();
    let read = || {
        let truth = node.disco(peer.id()).unwrap();
        let scrape = scrape();
        let rtt = Times::of(&scrape, RTT, &[("peer_id", &peer_id)]);
        let response = Times::of(&scrape, RESPONSE, &[]);
        let is_complete = rtt.count == truth.round_trips.len() as u64
            && response.count == truth.reactions.len() as u64
            && truth.round_trips.len().min(truth.reactions.len()) >= count;
        is_complete.then_some((truth, scrape))
    };
    wait_every(PAUSE, "round trips of disco", PATIENCE, read).unwrap()
}

const RTT: &str = "tailgauge_peer_disco_rtt_seconds";
const RESPONSE: &str = "tailgauge_tailscaled_disco_response_seconds";

#[test]
fn handshakes_and_disco_take_what_the_nodes_measured() {
    let Some(lab) = Lab::up("handshakes_and_disco_take_what_the_nodes_measured") else { return };
    let _awake = Awake::keep().unwrap();
    lab.link().set_both(Conditions::delayed(DELAY));
    let agents = lab.agents();
    let ends = [(&agents.c1, lab.c1(), lab.exit()), (&agents.exit, lab.exit(), lab.c1())];
    for _ in 0..HANDSHAKES {
        lab.rekey(lab.c1(), lab.exit());
        lab.rekey(lab.exit(), lab.c1());
    }
    for (agent, node, peer) in ends {
        let handshakes = node.handshakes(peer.id()).unwrap();
        let peer_id = peer.id().to_string();
        let scrape = agent.scrape().unwrap();
        let times =
            Times::of(&scrape, "tailgauge_peer_wireguard_handshake_seconds", &[("peer_id", &peer_id)]);
        let truth: Vec<_> = handshakes.initiated.iter().map(|one| one.answered.unwrap()).collect();
        assert!(truth.len() >= HANDSHAKES && truth.iter().all(|time| *time >= 2 * DELAY));
        assert_true(&times, &truth);
        // The answer to the peer's initiation waits for nobody.
        let answers = Times::of(&scrape, "tailgauge_tailscaled_wireguard_response_seconds", &[]);
        assert_eq!(answers.count, handshakes.received.len() as u64);
        assert!(answers.mean() < DELAY / 2, "{answers:?}");
    }

    for (agent, node, peer) in ends {
        let (truth, scrape) = disco(|| agent.scrape().unwrap(), node, peer, ROUND_TRIPS);
        let peer_id = peer.id().to_string();
        assert_true(&Times::of(&scrape, RTT, &[("peer_id", &peer_id)]), &truth.round_trips);
        assert!(truth.round_trips.iter().all(|time| *time >= 2 * DELAY));
        let response = Times::of(&scrape, RESPONSE, &[]);
        assert!(response.mean() < DELAY / 2, "{response:?}");
    }

    // Both at once, shortly after a round trip: the next one is some time away.
    let before = ends.map(|(agent, node, peer)| disco(|| agent.scrape().unwrap(), node, peer, ROUND_TRIPS));
    lab.c1().set_reaction(BUSY);
    let after = [0, 1].map(|end| {
        let (agent, node, peer) = ends[end];
        let (truth, scrape) = disco(
            || agent.scrape().unwrap(),
            node,
            peer,
            before[end].0.round_trips.len().max(before[end].0.reactions.len()) + ROUND_TRIPS,
        );
        let peer_id = peer.id().to_string();
        let since = |name, labels: &[(&str, &str)]| {
            Times::of(&scrape, name, labels).since(&Times::of(&before[end].1, name, labels))
        };
        let rtt = since(RTT, &[("peer_id", &peer_id)]);
        let response = since(RESPONSE, &[]);
        let new = |all: &[Duration], old: &[Duration]| all[old.len()..].to_vec();
        let round_trips = new(&truth.round_trips, &before[end].0.round_trips);
        let reactions = new(&truth.reactions, &before[end].0.reactions);
        (rtt, response, round_trips, reactions)
    });
    let [(near_rtt, near_response, _, near_reactions), (far_rtt, far_response, far_round_trips, _)] = after;
    // At the busy node: its own time, and a path that is as short as before.
    assert_eq!(near_response.count, near_reactions.len() as u64);
    let waited = near_response.mean();
    assert!(waited >= BUSY && waited < mean(&near_reactions) + DELAY / 2, "{near_response:?}");
    assert!(near_rtt.mean() >= 2 * DELAY && near_rtt.mean() < 2 * DELAY + BUSY / 3, "{near_rtt:?}");
    // For the other one it is part of the path.
    assert_true(&far_rtt, &far_round_trips);
    assert!(far_rtt.mean() >= 2 * DELAY + BUSY, "{far_rtt:?}");
    assert!(far_response.mean() < DELAY / 2, "{far_response:?}");
}
