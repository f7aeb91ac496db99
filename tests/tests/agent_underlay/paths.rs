//! Paths that change while traffic flows: the series follow, and nobody calls lost what went by DERP.

use std::time::{Duration, Instant};

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::link::Conditions;
use tailgauge_testbed::miniature::Via;
use tailgauge_testbed::process::{wait_every, wait_until};

use crate::judged::{Account, Way};
use crate::lab::{Agents, Lab, PAUSE, SETTLES};

/// tailscaled is asked each 10 s for what the underlay does not show.
const TOLD: Duration = Duration::from_secs(30);
/// The underlay is looked at each second; well below the time between two questions to tailscaled.
const SHOWN: Duration = Duration::from_secs(5);
/// A handshake that is not answered is begun anew after 5 s.
const ANSWERED: Duration = Duration::from_secs(4);
/// Samples are whole milliseconds, rounded down, one for each path that the peer had.
const ROUNDING: f64 = 0.006;
/// Datagrams a second each way; more than DERP has room for would be lost there.
const RATE: u32 = 100;

/// Messages that are sent by a new path before one comes by it: those of a second in which the machine stands still.
const MOST_UNKNOWN: u64 = 500;

/// What an agent says of its peer's path, and when it was asked and had answered.
struct Seen {
    scrape: Exposition,
    peer: String,
    asked: Instant,
    answered: Instant,
}

impl Seen {
    fn look((agent, peer): (&Agent<'_>, u64)) -> Self {
        let asked = Instant::now();
        let scrape = agent.scrape().unwrap();
        Self { scrape, peer: peer.to_string(), asked, answered: Instant::now() }
    }

    fn is_on(&self, path: &str) -> bool {
        let peer = ("peer_id", self.peer.as_str());
        self.scrape.value("tailgauge_peer_path", &[peer, ("path", path)]) == Some(1.0)
            && self.scrape.sum("tailgauge_peer_path", &[peer]) == 1.0
    }

    fn seconds(&self) -> f64 {
        self.scrape.sum("tailgauge_peer_path_seconds_total", &[("peer_id", &self.peer)])
    }

    fn count(&self, name: &str) -> u64 {
        self.scrape.sum(name, &[("peer_id", &self.peer)]) as u64
    }

    fn handshakes(&self) -> [u64; 2] {
        [
            self.count("tailgauge_peer_wireguard_handshake_seconds_count"),
            self.count("tailgauge_peer_wireguard_handshakes_untimed_total"),
        ]
    }

    /// The seconds of all paths rose by the time that passed, no more and no less.
    fn assert_adds_up_since(&self, before: &Self) {
        let rose = self.seconds() - before.seconds();
        let least = (self.asked - before.answered).as_secs_f64();
        let most = (self.answered - before.asked).as_secs_f64();
        assert!(rose >= least - ROUNDING && rose <= most + ROUNDING, "{rose} s in {least} to {most} s");
    }
}

/// Each agent and the peer at the other end.
fn ends<'a>(lab: &Lab, agents: &'a Agents<'a>) -> [(&'a Agent<'a>, u64); 2] {
    [(&agents.c1, lab.exit().id()), (&agents.exit, lab.c1().id())]
}

/// Moves both nodes to another path and waits until both agents say so.
fn move_to(lab: &Lab, agents: &Agents<'_>, via: Via, path: &str, within: Duration) {
    let started = Instant::now();
    lab.tailnet.set_path(lab.exit(), "c1", via).unwrap();
    for end in ends(lab, agents) {
        let left = within.saturating_sub(started.elapsed());
        let on_path = wait_every(PAUSE, path, left, || Some(()).filter(|()| Seen::look(end).is_on(path)));
        on_path.unwrap();
    }
    println!("{path} after {:?}", started.elapsed());
}

/// Packets sent over UDP to nobody that is known, requests of STUN left out.
fn sent_to_nobody(scrape: &Exposition) -> u64 {
    let stun = scrape.sum("tailgauge_underlay_messages_transmit_total", &[("kind", "stun")]);
    (scrape.sum("tailgauge_unattributed_underlay_transmit_packets_total", &[]) - stun) as u64
}

/// All that came over UDP is accounted for, once, and none of it was lost; what went by DERP is in neither account.
/// `unknown` says that a path was taken of which nobody knew that it leads to the peer before something came from there.
fn assert_nothing_lost(ways: [Way<'_>; 2], before: [Account; 2], unknown: bool) {
    for (way, before) in ways.iter().zip(before) {
        let mut last = None;
        let complete = wait_every(PAUSE, "all messages to be counted", SETTLES, || {
            let since = way.account().since(before);
            last = Some(since);
            let counted = since.agent.received + since.agent.unjudged;
            let to_nobody = sent_to_nobody(&way.sender.0.scrape().ok()?);
            let missing = since.offered - since.sent;
            let all_sent = missing == 0 || unknown && missing <= to_nobody && missing < MOST_UNKNOWN;
            (counted == since.link.received && all_sent).then_some(since)
        });
        let since = complete.unwrap_or_else(|timeout| panic!("{timeout}: {last:#?}"));
        println!("{since:?}");
        assert_eq!((since.agent.lost, since.agent.duplicated, since.dropped), (0, 0, 0));
        // Only what was under way by the old path when the new one was taken.
        assert!(since.agent.unjudged + since.agent.reordered < since.agent.received / 20, "{since:?}");
    }
}

#[test]
fn what_goes_by_derp_is_followed_and_neither_timed_nor_lost() {
    let Some(lab) = Lab::up("what_goes_by_derp_is_followed_and_neither_timed_nor_lost") else { return };
    let (c1, exit) = (lab.c1(), lab.exit());
    // Both are connected to DERP, as a real tailscaled always is.
    lab.tailnet.set_path(exit, "c1", Via::Derp).unwrap();
    lab.tailnet.set_path(exit, "c1", Via::Direct).unwrap();
    let agents = lab.agents();
    lab.link().set_both(Conditions::delayed(Duration::from_millis(150)));
    let ways = lab.ways(&agents);
    let before = ways.map(|way| way.account());
    let seen = ends(&lab, &agents).map(Seen::look);

    // Asked over UDP, answered by DERP.
    let by_derp = || exit.peer_stats(c1.id()).unwrap().by_way[0].tx_packets;
    assert_eq!(by_derp(), 0);
    assert!(c1.rekey(exit.id()));
    lab.tailnet.set_path(exit, "c1", Via::Derp).unwrap();
    let answered = || c1.handshakes(exit.id()).unwrap().initiated.last().unwrap().answered.is_some();
    wait_until("an answer by DERP", ANSWERED, answered).unwrap();
    assert!(by_derp() > 0);

    lab.under_traffic(RATE, || {
        move_to(&lab, &agents, Via::Derp, "derp", TOLD);
        let on_derp = ends(&lab, &agents).map(Seen::look);
        for (from, to) in [(c1, exit), (exit, c1), (c1, exit)] {
            lab.rekey(from, to);
        }
        for (end, on_derp) in ends(&lab, &agents).into_iter().zip(&on_derp) {
            assert_eq!(Seen::look(end).handshakes(), on_derp.handshakes(), "by DERP all the time");
        }
        // Asked by DERP, answered over UDP.
        assert!(c1.rekey(exit.id()));
        let untimed = |seen: &Seen| seen.handshakes()[1];
        let [near, _] = ends(&lab, &agents);
        move_to(&lab, &agents, Via::Direct, "direct_ipv4", SHOWN);
        wait_every(PAUSE, "the answer", SHOWN, || {
            (untimed(&Seen::look(near)) == untimed(&on_derp[0]) + 1).then_some(())
        })
        .unwrap();
        assert_eq!(Seen::look(near).handshakes()[0], seen[0].handshakes()[0], "nothing to time");
        lab.rekey(c1, exit);
        lab.rekey(exit, c1);
    });
    assert_nothing_lost(ways, before, false);
    for (end, before) in ends(&lab, &agents).into_iter().zip(&seen) {
        let after = Seen::look(end);
        after.assert_adds_up_since(before);
        let changes = "tailgauge_peer_path_changes_total";
        assert_eq!(after.count(changes) - before.count(changes), 2);
        assert_eq!(after.handshakes()[0] - before.handshakes()[0], 1, "the last one that it began");
        // The first one was answered, only not there.
        assert_eq!(after.count("tailgauge_peer_wireguard_handshake_failures_total"), 0);
    }
}

#[test]
fn peer_relays_of_both_families_are_followed_and_nothing_is_lost() {
    let test = "peer_relays_of_both_families_are_followed_and_nothing_is_lost";
    let Some(lab) = Lab::up(test) else { return };
    let agents = lab.agents();
    let ways = lab.ways(&agents);
    let before = ways.map(|way| way.account());
    let seen = ends(&lab, &agents).map(Seen::look);
    lab.under_traffic(RATE * 5, || {
        move_to(&lab, &agents, Via::Direct, "direct_ipv4", SHOWN);
        for (via, path) in [
            (Via::PeerRelayV4, "peer_relay_ipv4"),
            (Via::PeerRelayV6, "peer_relay_ipv6"),
            (Via::Direct, "direct_ipv4"),
        ] {
            move_to(&lab, &agents, via, path, SHOWN);
            let handshakes = ends(&lab, &agents).map(|end| Seen::look(end).handshakes());
            lab.rekey(lab.c1(), lab.exit());
            lab.rekey(lab.exit(), lab.c1());
            for (end, [timed, untimed]) in ends(&lab, &agents).into_iter().zip(handshakes) {
                assert_eq!(Seen::look(end).handshakes(), [timed + 1, untimed], "{path}");
            }
        }
    });
    assert_nothing_lost(ways, before, true);
    for (end, before) in ends(&lab, &agents).into_iter().zip(&seen) {
        let after = Seen::look(end);
        after.assert_adds_up_since(before);
        let changes = "tailgauge_peer_path_changes_total";
        assert_eq!(after.count(changes) - before.count(changes), 3);
    }
    for way in ways {
        let relayed: u64 = way.link.wireguard(way.direction).iter().map(|one| one.relayed).sum();
        assert!(relayed > u64::from(RATE), "{relayed}");
    }
}
