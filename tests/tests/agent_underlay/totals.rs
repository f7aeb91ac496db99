//! What the peers' packets under the tunnel add up to: all of tailscaled's UDP, and what the link carried.

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::link::{Direction, LinkStats};
use tailgauge_testbed::miniature::{MiniatureTailnet, Via, WEB_V4, WEB_V6};
use tailgauge_testbed::node::Node;
use tailgauge_testbed::process::wait_every;
use tailgauge_testbed::traffic::tcp_transfer;

use crate::lab::{Agents, Lab, PAUSE, SETTLES};

/// Packets, then bytes.
type Totals = [u64; 2];
const UNITS: [&str; 2] = ["packets", "bytes"];

fn sum(scrape: &Exposition, name: &str, labels: &[(&str, &str)]) -> Totals {
    UNITS.map(|unit| scrape.sum(&format!("tailgauge_{name}_{unit}_total"), labels) as u64)
}

fn minus(now: Totals, before: Totals) -> Totals {
    [now[0] - before[0], now[1] - before[1]]
}

/// One direction at a node, at one moment.
#[derive(Debug, Clone, Copy)]
struct Carried {
    /// By the interface, for tailscaled.
    all: Totals,
    /// To or from peers and nobody, over UDP.
    udp: Totals,
    /// By the link.
    link: Totals,
}

impl Carried {
    fn read(scrape: &Exposition, direction: &str, link: LinkStats) -> Self {
        let all = sum(scrape, &format!("underlay_{direction}"), &[("kind", "tailscaled")]);
        let peers = sum(scrape, &format!("peer_underlay_{direction}"), &[]);
        let nobody = sum(scrape, &format!("unattributed_underlay_{direction}"), &[]);
        let udp = [peers[0] + nobody[0], peers[1] + nobody[1]];
        Self { all, udp, link: [link.packets, link.bytes] }
    }

    fn since(self, before: Self) -> Self {
        let [all, udp, link] = [(self.all, before.all), (self.udp, before.udp), (self.link, before.link)]
            .map(|(now, old)| minus(now, old));
        Self { all, udp, link }
    }
}

/// What both agents and the exit node's link say of one moment.
struct Rest {
    exit: Exposition,
    c1: Exposition,
    /// At the exit node, receive first.
    carried: [Carried; 2],
}

/// A moment without traffic on the link of either node. Disco comes every few seconds: one scrape must not have what the
/// other has not.
fn at_rest(lab: &Lab, agents: &Agents<'_>) -> Rest {
    let exit = lab.tailnet.peer_link(lab.exit());
    let stats = || {
        [exit, lab.link()].map(|link| {
            [Direction::RightToLeft, Direction::LeftToRight].map(|direction| link.stats(direction))
        })
    };
    let (mut last, mut read) = (None, None);
    wait_every(PAUSE, "a moment without traffic", SETTLES, || {
        let before = stats();
        // What was under way to or from tailscaled has had time to arrive, before the scrapes as well as after them.
        if last.replace(before) != Some(before) {
            read = None;
            return None;
        }
        if read.is_none() {
            let scrapes = [&agents.exit, &agents.c1].map(Agent::scrape);
            read = Some(scrapes).filter(|_| stats() == before);
            return None;
        }
        let [exit, c1] = read.take()?.map(Result::unwrap);
        let [[receive, transmit], _] = before;
        let carried = [Carried::read(&exit, "receive", receive), Carried::read(&exit, "transmit", transmit)];
        Some(Rest { exit, c1, carried })
    })
    .unwrap()
}

/// Traffic of a node with the internet, both ways.
fn carry(node: &Node) {
    for to in [WEB_V4.into(), WEB_V6.into()] {
        tcp_transfer(node.namespace(), to, 1_000_000, 1_000_000).unwrap();
    }
}

/// `peer_id` of a node as label.
fn id(node: &Node) -> String {
    node.id().to_string()
}

/// What each end of a path says of the other, by path, is the same.
fn assert_both_ends_agree(near: (&Exposition, &Node), far: (&Exposition, &Node), path: &str) {
    for (from, to) in [(near, far), (far, near)] {
        let [receiver, sender] = [id(to.1), id(from.1)];
        let sent = sum(from.0, "peer_underlay_transmit", &[("peer_id", &receiver), ("path", path)]);
        let received = sum(to.0, "peer_underlay_receive", &[("peer_id", &sender), ("path", path)]);
        assert_eq!(sent, received, "{path} to {}", to.1.name());
        assert!(sent[1] > 2_000_000, "{path}: {sent:?}");
    }
}

#[test]
fn packets_of_peers_add_up_to_what_tailscaled_and_the_link_carried() {
    let test = "packets_of_peers_add_up_to_what_tailscaled_and_the_link_carried";
    let Some(lab) = Lab::up(test) else { return };
    let tailnet: &MiniatureTailnet = &lab.tailnet;
    let agents = lab.agents();
    let start = at_rest(&lab, &agents);
    tailnet.set_path(lab.exit(), "c2", Via::PeerRelayV4).unwrap();
    for node in [lab.c1(), tailnet.c2(), tailnet.six()] {
        carry(node);
    }
    let Rest { exit, c1, carried } = at_rest(&lab, &agents);
    for (now, before) in carried.into_iter().zip(start.carried) {
        let since = now.since(before);
        println!("{since:?}");
        assert_eq!(now.udp, now.all);
        assert_eq!(since.all, since.link);
        assert!(since.link[1] > 6_000_000, "{since:?}");
    }
    assert_both_ends_agree((&c1, lab.c1()), (&exit, lab.exit()), "direct_ipv4");
    for (node, path) in
        [(lab.c1(), "direct_ipv4"), (tailnet.c2(), "peer_relay_ipv4"), (tailnet.six(), "direct_ipv6")]
    {
        let peer = id(node);
        let on_path = sum(&exit, "peer_underlay_receive", &[("peer_id", &peer), ("path", path)]);
        assert!(on_path[1] > 2_000_000, "{path}: {on_path:?}");
    }

    // What the tunnel costs with packets of full length and their acknowledgements.
    let c1_id = id(lab.c1());
    for direction in ["transmit", "receive"] {
        let of = |name: &str| {
            let name = format!("{name}_{direction}");
            let of = |scrape| sum(scrape, &name, &[("peer_id", &c1_id)]);
            minus(of(&exit), of(&start.exit))
        };
        let (under, inside) = (of("peer_underlay"), of("peer"));
        let overhead = under[1] as f64 / inside[1] as f64;
        println!("{direction}: {under:?} under {inside:?}, {overhead}");
        assert!(overhead > 1.0 && overhead < 1.3, "{overhead}");
        assert!(under[0] >= inside[0], "keepalives, handshakes and disco are more: {under:?} {inside:?}");
    }

    // DERP is none of the peers' packets, and all that is sent by it is tailscaled's.
    tailnet.set_path(lab.exit(), "c2", Via::Derp).unwrap();
    let before = at_rest(&lab, &agents).carried;
    carry(tailnet.c2());
    let after = at_rest(&lab, &agents);
    let [receive, transmit] = [0, 1].map(|way| after.carried[way].since(before[way]));
    println!("{receive:?} {transmit:?}");
    assert_eq!(receive.udp, receive.all);
    assert!(receive.link[1] > 2_000_000 && receive.all[1] < 100_000, "{receive:?}");
    assert_eq!(transmit.all, transmit.link);
    assert!(transmit.all[1] - transmit.udp[1] > 2_000_000, "{transmit:?}");
    let peer = id(tailnet.c2());
    let relayed = |scrape: &Exposition| sum(scrape, "peer_underlay_receive", &[("peer_id", &peer)]);
    assert_eq!(relayed(&after.exit), relayed(&exit), "not a packet more");
}
