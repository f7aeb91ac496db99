//! A peer that is somewhere else all of a sudden: its session or its disco key say who it is.

use std::time::Duration;

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::netns::Namespace;
use tailgauge_testbed::process::{wait_every, wait_until};

use crate::judged::{Account, Way};
use crate::lab::{Agents, Lab, PAUSE, count};

/// Between pings of disco there are 3 s.
const PINGED: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(10);

/// From now on, `core` shows c1 to the exit node at these ports instead of its own; the first is the one in use.
fn show_at(core: &Namespace, ports: &[u16]) {
    let back: String = ports
        .iter()
        .map(|port| format!("ip daddr 10.99.0.11 udp dport {port} udp dport set 41641\n"))
        .collect();
    let [port, ..] = ports else { return };
    core.nft(&format!(
        "table ip roam {{}}
         delete table ip roam
         table ip roam {{
             chain pass {{
                 type filter hook forward priority 0;
                 ip saddr 10.99.0.11 udp sport 41641 udp sport set {port}
                 {back}
             }}
         }}"
    ))
    .unwrap();
}

/// Packets from and to nobody that is known, but for STUN.
fn of_nobody(agent: &Agent<'_>) -> [u64; 2] {
    let scrape = agent.scrape().unwrap();
    ["receive", "transmit"].map(|direction| {
        let all = scrape.sum(&format!("tailgauge_unattributed_underlay_{direction}_packets_total"), &[]);
        let stun = format!("tailgauge_underlay_messages_{direction}_total");
        (all - scrape.sum(&stun, &[("kind", "stun")])) as u64
    })
}

/// Where the exit node sends to now, by port.
fn port(lab: &Lab) -> u16 {
    lab.exit().peer_stats(lab.c1().id()).unwrap().endpoint.unwrap().port()
}

fn assert_nothing_lost(ways: [Way<'_>; 2], before: [Account; 2]) {
    for (way, before) in ways.iter().zip(before) {
        let account = way.settled(before);
        println!("{account:?}");
        assert_eq!((account.dropped, account.agent.lost, account.agent.unjudged), (0, 0, 0));
        assert!(account.agent.received > 100);
    }
}

fn pings(scrape: &Exposition, peer: u64) -> u64 {
    count(scrape, "tailgauge_peer_disco_pings_receive_total", peer)
}

/// What is the same after c1 has moved.
struct Before {
    accounts: [Account; 2],
    nobody: [[u64; 2]; 2],
}

fn look(lab: &Lab, agents: &Agents<'_>) -> Before {
    Before {
        accounts: lab.ways(agents).map(|way| way.account()),
        nobody: [of_nobody(&agents.c1), of_nobody(&agents.exit)],
    }
}

#[test]
fn a_peer_behind_a_nat_that_changes_its_port_stays_the_same_peer() {
    let Some(lab) = Lab::up("a_peer_behind_a_nat_that_changes_its_port_stays_the_same_peer") else { return };
    let agents = lab.agents();
    let before = look(&lab, &agents);
    // Of its session.
    lab.under_traffic(500, || {
        lab.wait_traffic();
        for port_now in [50_001, 50_002] {
            show_at(lab.tailnet.core(), &[port_now, 50_001]);
            wait_until("the exit node to notice", PATIENCE, || port(&lab) == port_now).unwrap();
            lab.wait_traffic();
        }
    });
    assert_nothing_lost(lab.ways(&agents), before.accounts);
    assert_eq!([of_nobody(&agents.c1), of_nobody(&agents.exit)], before.nobody);

    // Of its disco key, with no data meanwhile: then of both.
    let c1 = lab.c1().id();
    show_at(lab.tailnet.core(), &[50_003, 50_002]);
    let pinged = pings(&agents.exit.scrape().unwrap(), c1);
    wait_every(PAUSE, "a ping from the new port", PINGED, || {
        (pings(&agents.exit.scrape().ok()?, c1) >= pinged + 2).then_some(())
    })
    .unwrap();
    // The first ping from there is counted before its key is looked at.
    let [received, sent] = before.nobody[1];
    assert_eq!(of_nobody(&agents.exit), [received + 1, sent]);
    let before = look(&lab, &agents);
    lab.flow(200);
    assert_nothing_lost(lab.ways(&agents), before.accounts);
    assert_eq!([of_nobody(&agents.c1), of_nobody(&agents.exit)], before.nobody);
}

#[test]
fn a_node_that_gets_another_address_is_followed_at_both_ends() {
    let Some(lab) = Lab::up("a_node_that_gets_another_address_is_followed_at_both_ends") else { return };
    let agents = lab.agents();
    let before = look(&lab, &agents);
    lab.under_traffic(500, || {
        lab.wait_traffic();
        lab.tailnet.core().ip(&["route", "add", "10.99.0.21/32", "dev", "v-c1"]).unwrap();
        // The old one stays for what is under way.
        let c1 = lab.c1().namespace();
        c1.ip(&["address", "add", "10.99.0.21/24", "dev", "eth0"]).unwrap();
        for route in ["10.99.0.0/24 dev eth0", "0.0.0.0/0 via 10.99.0.1 metric 4096"] {
            let arguments = ["route", "replace"].into_iter().chain(route.split(' '));
            let arguments: Vec<_> = arguments.chain(["src", "10.99.0.21"]).collect();
            c1.ip(&arguments).unwrap();
        }
        let at = || lab.exit().peer_stats(lab.c1().id()).unwrap().endpoint.unwrap().ip().to_string();
        wait_until("the exit node to notice", PATIENCE, || at() == "10.99.0.21").unwrap();
        lab.wait_traffic();
    });
    assert_nothing_lost(lab.ways(&agents), before.accounts);
    assert_eq!([of_nobody(&agents.c1), of_nobody(&agents.exit)], before.nobody);
}
