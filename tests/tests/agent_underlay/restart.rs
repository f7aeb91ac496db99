//! An agent that starts in the middle of a session follows it from there on, and claims nothing of what was before; a
//! tailscaled that starts anew is another session, and no loss.

use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::link::Conditions;
use tailgauge_testbed::node::Exit;

use crate::judged::Judged;
use crate::lab::{Lab, agent_at, count};

fn received(scrape: &Exposition, peer: u64) -> bool {
    count(scrape, "tailgauge_peer_wireguard_received_packets_total", peer) > 0
}

#[test]
fn a_session_whose_handshake_went_unseen_is_followed_from_its_middle() {
    let test = "a_session_whose_handshake_went_unseen_is_followed_from_its_middle";
    let Some(lab) = Lab::up(test) else { return };
    let (c1, exit) = (lab.c1(), lab.exit());
    let bad = Conditions { loss: 0.05, ..Conditions::default() };
    // A session that has lost much, of which nobody has seen anything.
    lab.ping();
    lab.link().set_both(bad);
    lab.flow(500);
    let mut agents = lab.unprepared_agents();
    for (agent, peer) in [(&agents.c1, exit), (&agents.exit, c1)] {
        assert_eq!(Judged::by_agent(&agent.scrape().unwrap(), peer.id()), Judged::default());
    }
    for round in 0..2 {
        // The first messages that they see, or some more.
        lab.link().set_both(Conditions::default());
        lab.ping();
        agents.c1.wait_scrape("a session", |scrape| received(scrape, exit.id())).unwrap();
        agents.exit.wait_scrape("a session", |scrape| received(scrape, c1.id())).unwrap();
        for (agent, peer) in [(&agents.c1, exit), (&agents.exit, c1)] {
            let judged = Judged::by_agent(&agent.scrape().unwrap(), peer.id());
            assert_eq!(judged, Judged { received: judged.received, ..Judged::default() }, "round {round}");
        }
        let ways = lab.ways(&agents);
        let sessions = ways.map(|way| way.link.wireguard(way.direction).len());
        let before = ways.map(|way| way.account());
        assert!(before.iter().all(|account| account.agent.received < account.link.received));
        lab.link().set_both(bad);
        lab.flow(1000);
        for (way, before) in ways.iter().zip(before) {
            let account = way.settled(before);
            println!("{account:?}");
            assert!(account.agent.lost > 0, "{account:?}");
        }
        assert_eq!(
            ways.map(|way| way.link.wireguard(way.direction).len()),
            sessions,
            "one session all the time"
        );
        // Both end and come back while the traffic goes on.
        lab.link().set_both(Conditions::default());
        lab.under_traffic(500, || {
            agents.c1.stop();
            agents.exit.stop();
            drop(std::mem::replace(&mut agents.c1, agent_at(c1)));
            drop(std::mem::replace(&mut agents.exit, agent_at(exit)));
        });
    }
}

#[test]
fn a_tailscaled_that_starts_anew_at_either_end_makes_no_loss() {
    let Some(lab) = Lab::up("a_tailscaled_that_starts_anew_at_either_end_makes_no_loss") else { return };
    let (c1, exit) = (lab.c1(), lab.exit());
    let agents = lab.agents();
    let ways = lab.ways(&agents);
    for node in [c1, exit] {
        let before = ways.map(|way| way.account());
        lab.under_traffic(500, || {
            lab.wait_traffic();
            node.restart(Exit::Killed).unwrap();
            lab.rekey(c1, exit);
            lab.wait_traffic();
        });
        for (way, before) in ways.iter().zip(before) {
            let account = way.settled(before);
            println!("{}: {account:?}", node.name());
            assert_eq!((account.dropped, account.agent.lost, account.agent.unjudged), (0, 0, 0));
            assert!(account.agent.received > 200, "{account:?}");
        }
    }
}
