//! Loss, reordering and duplicates that were injected, over rekeys: each agent counts exactly those of the direction
//! that it receives.

use tailgauge_testbed::link::{Conditions, Reorder};
use tailgauge_testbed::miniature::{Via, WEB_V4, WEB_V6};
use tailgauge_testbed::traffic::{Udp, tcp_transfer, udp_echo};

use crate::judged::Account;
use crate::lab::{Agents, ECHOED, Lab};

/// Carries traffic both ways over the link under `conditions` while its session is followed by three others. Returns
/// what became of each direction.
fn carry(lab: &Lab, agents: &Agents<'_>, conditions: Conditions, datagrams: u32) -> [Account; 2] {
    let (c1, exit) = (lab.c1(), lab.exit());
    // No gap at the beginning of a session that nobody could know of.
    lab.ping();
    let ways = lab.ways(agents);
    let before = ways.map(|way| way.account());
    let sessions = ways.map(|way| way.link.wireguard(way.direction).len());
    lab.link().set_both(conditions);
    lab.under_traffic(1000, || {
        let what = Udp { datagrams, payload: 300, rate: Some(4000) };
        for (from, to) in [(c1, exit), (exit, c1), (c1, exit)] {
            udp_echo(c1.namespace(), WEB_V6.into(), what, ECHOED).unwrap();
            if conditions.loss < 0.05 {
                tcp_transfer(c1.namespace(), WEB_V4.into(), 300_000, 300_000).unwrap();
            }
            lab.rekey(from, to);
        }
    });
    lab.link().set_both(Conditions::default());
    for (way, before) in ways.iter().zip(sessions) {
        assert!(way.link.wireguard(way.direction).len() >= before + 3);
    }
    [0, 1].map(|way| ways[way].settled(before[way]))
}

#[test]
fn what_is_lost_is_counted_exactly_over_rekeys() {
    let Some(lab) = Lab::up("what_is_lost_is_counted_exactly_over_rekeys") else { return };
    let agents = lab.agents();
    for (loss, datagrams) in [(0.001, 3000), (0.01, 1000), (0.1, 500)] {
        let conditions = Conditions { loss, ..Conditions::default() };
        for account in carry(&lab, &agents, conditions, datagrams) {
            println!("{loss}: {account:?}");
            assert!(account.agent.lost > 0 && account.dropped >= account.agent.lost, "{account:?}");
            assert_eq!((account.agent.reordered, account.agent.duplicated), (0, 0));
            let part = account.dropped as f64 / account.offered as f64;
            assert!(part > loss / 4.0 && part < loss * 4.0, "{part} of {account:?}");
        }
    }
}

#[test]
fn reordered_duplicated_and_joined_messages_are_counted_exactly_over_rekeys() {
    let test = "reordered_duplicated_and_joined_messages_are_counted_exactly_over_rekeys";
    let Some(lab) = Lab::up(test) else { return };
    let agents = lab.agents();
    let reorder = Reorder { probability: 0.02, packets: 5, ..Reorder::default() };
    let conditions =
        Conditions { loss: 0.02, duplicate: 0.02, reorder, coalesce: true, ..Conditions::default() };
    for via in [Via::Direct, Via::PeerRelayV6] {
        lab.tailnet.set_path(lab.exit(), "c1", via).unwrap();
        for account in carry(&lab, &agents, conditions, 1000) {
            println!("{via:?}: {account:?}");
            let judged = account.agent;
            assert!(judged.lost > 0 && judged.reordered > 0 && judged.duplicated > 0, "{judged:?}");
        }
    }
    // What was lost stays lost, and nothing is added to it.
    for account in carry(&lab, &agents, Conditions::default(), 500) {
        assert_eq!((account.dropped, account.agent.reordered, account.agent.duplicated), (0, 0, 0));
    }
}
