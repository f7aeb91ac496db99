//! Injected delay: handshakes and disco take as long as the nodes themselves have measured, and the time that the own
//! tailscaled takes to answer is kept apart from that of the path.

use std::time::Duration;

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::link::Conditions;
use tailgauge_testbed::node::Node;
use tailgauge_testbed::process::wait_every;
use tailgauge_testbed::wake::Awake;

use crate::lab::{Lab, PAUSE};
use crate::times::{Times, mean, median};

/// Of one direction.
const DELAY: Duration = Duration::from_millis(20);
/// What a busy tailscaled takes to answer.
const BUSY: Duration = Duration::from_millis(30);
/// Handshakes that each end begins in a round.
const HANDSHAKES: usize = 5;
/// Round trips of disco at each end in a round; there is one in 3 s.
const ROUND_TRIPS: usize = 3;
/// A busy machine may wake threads of the nodes late in one round, and a wrong agent is wrong in all.
const ROUNDS: usize = 3;
/// Time for round trips.
const PATIENCE: Duration = Duration::from_secs(30);

const RTT: &str = "tailgauge_peer_disco_rtt_seconds";
const RESPONSE: &str = "tailgauge_tailscaled_disco_response_seconds";
const HANDSHAKE: &str = "tailgauge_peer_wireguard_handshake_seconds";
const HANDSHAKE_RESPONSE: &str = "tailgauge_tailscaled_wireguard_response_seconds";

/// An agent, the node it runs on, and a peer of that.
type End<'a> = (&'a Agent<'a>, &'a Node, &'a Node);

/// What an agent says of exchanges with a peer, and what the node itself has measured.
#[derive(Debug, Default)]
struct Exchanges {
    /// Of those that this end began.
    times: Times,
    truth: Vec<Duration>,
    /// What it took to answer those that the peer began.
    response: Times,
    reactions: Vec<Duration>,
}

impl Exchanges {
    /// Handshakes up to now, none of which is under way.
    fn handshakes((agent, node, peer): End<'_>) -> Self {
        let handshakes = node.handshakes(peer.id()).unwrap();
        let scrape = agent.scrape().unwrap();
        Self {
            times: Times::of(&scrape, HANDSHAKE, &[("peer_id", &peer.id().to_string())]),
            truth: handshakes.initiated.iter().filter_map(|one| one.answered).collect(),
            response: Times::of(&scrape, HANDSHAKE_RESPONSE, &[]),
            reactions: handshakes.received.iter().filter_map(|one| one.answered).collect(),
        }
    }

    /// Pings of disco, once the agent has exactly as many as the node, and both so many that are answered either way.
    fn disco((agent, node, peer): End<'_>, count: usize) -> Self {
        let peer_id = peer.id().to_string();
        wait_every(PAUSE, "round trips of disco", PATIENCE, || {
            let truth = node.disco(peer.id()).unwrap();
            let scrape = agent.scrape().unwrap();
            let now = Self {
                times: Times::of(&scrape, RTT, &[("peer_id", &peer_id)]),
                truth: truth.round_trips,
                response: Times::of(&scrape, RESPONSE, &[]),
                reactions: truth.reactions,
            };
            let is_complete = now.times.count == now.truth.len() as u64
                && now.response.count == now.reactions.len() as u64
                && now.truth.len().min(now.reactions.len()) >= count;
            is_complete.then_some(now)
        })
        .unwrap()
    }

    /// The greater number, of either way.
    fn count(&self) -> usize {
        self.truth.len().max(self.reactions.len())
    }

    /// What was added since `before`; agent and node agree on how many these are.
    #[track_caller]
    fn since(&self, before: &Self) -> Self {
        let new = |all: &[Duration], old: &[Duration]| all[old.len()..].to_vec();
        let since = Self {
            times: self.times.since(&before.times),
            truth: new(&self.truth, &before.truth),
            response: self.response.since(&before.response),
            reactions: new(&self.reactions, &before.reactions),
        };
        println!("{since:?}");
        assert_eq!(since.times.count, since.truth.len() as u64);
        assert_eq!(since.response.count, since.reactions.len() as u64);
        since
    }

    /// Whether times are as long as the node says: their mean is within 1 ms or 2 % of it, and so is their median as far
    /// as buckets tell. The node measures from outside, so none is longer, and a thread of it that is woken late once
    /// makes its mean longer and not its median.
    #[track_caller]
    fn are_true(&self) -> bool {
        let (mean, median) = (mean(&self.truth), median(&self.truth));
        assert!(self.times.mean() <= mean, "{self:?}");
        assert!(self.truth.iter().all(|time| *time >= 2 * DELAY), "{self:?}");
        let slack = (median / 50).max(Duration::from_millis(1));
        let (low, high) = self.times.median();
        self.times.mean() + slack >= median.min(mean) && median + slack > low && median <= high + slack
    }

    /// Whether answers to the peer wait for nobody.
    fn are_answered_soon(&self) -> bool {
        self.response.median().1 < DELAY / 2
    }
}

/// Looks at what each round adds at both ends until each of them was right once.
#[track_caller]
fn assert_right_at_both_ends(what: &str, mut round: impl FnMut(&[Exchanges; 2]) -> [Exchanges; 2]) {
    let mut before = [Exchanges::default(), Exchanges::default()];
    let mut right = [false; 2];
    for _ in 0..ROUNDS {
        let now = round(&before);
        for end in [0, 1] {
            let new = now[end].since(&before[end]);
            right[end] |= new.are_true() && new.are_answered_soon();
        }
        if right == [true; 2] {
            return;
        }
        before = now;
    }
    panic!("{what} take what the node says at the ends {right:?}, in one of {ROUNDS} rounds");
}

#[test]
fn handshakes_and_disco_take_what_the_nodes_measured() {
    let Some(lab) = Lab::up("handshakes_and_disco_take_what_the_nodes_measured") else { return };
    let _awake = Awake::keep().unwrap();
    lab.link().set_both(Conditions::delayed(DELAY));
    let agents = lab.agents();
    let ends = [(&agents.c1, lab.c1(), lab.exit()), (&agents.exit, lab.exit(), lab.c1())];
    assert_right_at_both_ends("handshakes", |before| {
        for _ in 0..HANDSHAKES {
            lab.rekey(lab.c1(), lab.exit());
            lab.rekey(lab.exit(), lab.c1());
        }
        let now = ends.map(Exchanges::handshakes);
        assert!([0, 1].iter().all(|end| now[*end].truth.len() >= before[*end].truth.len() + HANDSHAKES));
        now
    });
    assert_right_at_both_ends("round trips of disco", |before| {
        [0, 1].map(|end| Exchanges::disco(ends[end], before[end].count() + ROUND_TRIPS))
    });

    // Both at once, shortly after a round trip: the next one is some time away.
    let known = ends.map(|(_, node, peer)| {
        let truth = node.disco(peer.id()).unwrap();
        truth.round_trips.len().max(truth.reactions.len())
    });
    let mut before = [0, 1].map(|end| Exchanges::disco(ends[end], known[end] + 1));
    lab.c1().set_reaction(BUSY);
    for round in 1.. {
        let now = [0, 1].map(|end| Exchanges::disco(ends[end], before[end].count() + ROUND_TRIPS));
        let [near, far] = [0, 1].map(|end| now[end].since(&before[end]));
        // At the busy node: its own time, and a path that is as short as before.
        let (response, path) = (near.response.mean(), near.times.mean());
        assert!(response >= BUSY && path >= 2 * DELAY, "{near:?}");
        let near_is_right = response < mean(&near.reactions) + DELAY / 2 && path < 2 * DELAY + BUSY / 3;
        // For the other one it is part of the path.
        assert!(far.times.mean() >= 2 * DELAY + BUSY, "{far:?}");
        if near_is_right && far.are_true() && far.are_answered_soon() {
            break;
        }
        assert!(round < ROUNDS, "{near:?} {far:?}");
        before = now;
    }
}
