//! Handshakes that go wrong: copies of their messages, and initiations that nobody answers.

use std::time::Duration;

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::link::{Conditions, Direction};
use tailgauge_testbed::node::Node;
use tailgauge_testbed::process::{wait_every, wait_until};

use crate::judged::Judged;
use crate::lab::{Lab, PAUSE, count};

/// WireGuard asks again after 5 s and a little.
const ASKED_AGAIN: Duration = Duration::from_secs(20);
/// tailscaled's clock and the kernel's, at most; real handshakes are 5 s apart.
const CLOCKS_DIFFER: Duration = Duration::from_millis(1500);
/// tailscaled has its say before an initiation is called a failure: for 15 s at most.
const JUDGED: Duration = Duration::from_secs(30);

/// What an agent says of the handshakes with a peer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Handshakes {
    /// That it has timed.
    timed: u64,
    untimed: u64,
    retries: u64,
    failures: u64,
    /// As responder.
    answered: u64,
}

impl Handshakes {
    fn of(agent: &Agent<'_>, peer: &Node) -> Self {
        let scrape = agent.scrape().unwrap();
        let of = |what: &str| count(&scrape, &format!("tailgauge_peer_wireguard_handshake{what}"), peer.id());
        let responder = [("peer_id", &*peer.id().to_string()), ("role", "responder")];
        Self {
            timed: of("_seconds_count"),
            untimed: of("s_untimed_total"),
            retries: of("_retries_total"),
            failures: of("_failures_total"),
            answered: scrape.sum("tailgauge_peer_wireguard_handshakes_total", &responder) as u64,
        }
    }
}

#[test]
fn messages_that_arrive_twice_count_once() {
    let Some(lab) = Lab::up("messages_that_arrive_twice_count_once") else { return };
    let (c1, exit) = (lab.c1(), lab.exit());
    let agents = lab.agents();
    let before = lab.ways(&agents).map(|way| way.account());
    lab.link().set_both(Conditions { duplicate: 1.0, ..Conditions::default() });
    lab.under_traffic(300, || {
        for (from, to) in [(c1, exit), (exit, c1), (c1, exit), (exit, c1)] {
            lab.rekey(from, to);
        }
    });
    lab.link().set_both(Conditions::default());
    for (agent, node, peer) in [(&agents.c1, c1, exit), (&agents.exit, exit, c1)] {
        let truth = node.handshakes(peer.id()).unwrap();
        let expected = Handshakes {
            timed: truth.initiated.len() as u64,
            answered: truth.received.iter().filter(|one| one.confirmed.is_some()).count() as u64,
            ..Handshakes::default()
        };
        assert_eq!(Handshakes::of(agent, peer), expected);
        assert!(expected.timed >= 2 && expected.answered >= 2, "{expected:?}");
    }
    for (way, before) in lab.ways(&agents).iter().zip(before) {
        let judged: Judged = way.settled(before).agent;
        assert!(judged.duplicated == judged.received && judged.received > 100, "{judged:?}");
    }
}

#[test]
fn initiations_that_nobody_answers_are_failures_and_the_last_one_is_none() {
    let test = "initiations_that_nobody_answers_are_failures_and_the_last_one_is_none";
    let Some(lab) = Lab::up(test) else { return };
    let (c1, exit) = (lab.c1(), lab.exit());
    let agents = lab.agents();
    let truth = || c1.handshakes(exit.id()).unwrap().initiated;
    assert_eq!(truth().len(), 1);
    // By tailscaled's clock, which need not be exact, the handshake before is no answer to the next initiation.
    wait_until("the clock", ASKED_AGAIN, || truth()[0].started.elapsed() > CLOCKS_DIFFER).unwrap();
    lab.link().set(Direction::LeftToRight, Conditions { loss: 1.0, ..Conditions::default() });
    assert!(c1.rekey(exit.id()));
    wait_until("another attempt", ASKED_AGAIN, || truth().len() == 3).unwrap();
    lab.link().set_both(Conditions::default());
    wait_until("an answer", ASKED_AGAIN, || truth().last().is_some_and(|one| one.answered.is_some()))
        .unwrap();
    let asked = truth();
    let unanswered = asked.iter().filter(|one| one.answered.is_none()).count() as u64;
    assert_eq!((asked.len(), unanswered), (4, 2));
    let expected = Handshakes { timed: 2, retries: 2, failures: 2, ..Handshakes::default() };
    let judged = wait_every(PAUSE, "both to be judged", JUDGED, || {
        let handshakes = Handshakes::of(&agents.c1, exit);
        assert!(handshakes.failures <= expected.failures, "{handshakes:?}");
        (handshakes == expected).then_some(())
    });
    assert!(judged.is_ok(), "{:?} {asked:?}", Handshakes::of(&agents.c1, exit));
    let far = Handshakes { answered: 2, ..Handshakes::default() };
    assert_eq!(Handshakes::of(&agents.exit, c1), far, "it has seen none of them");
}
