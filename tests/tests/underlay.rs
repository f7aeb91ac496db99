//! What passes between the nodes of the miniature tailnet below the tunnel, and what is written down of it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tailgauge_testbed::link::{Conditions, Direction, Link, Reorder, SessionLedger};
use tailgauge_testbed::miniature::{MiniatureTailnet, Options, TailnetError, Via, WEB_V4, WEB_V6};
use tailgauge_testbed::needs;
use tailgauge_testbed::netns::Namespace;
use tailgauge_testbed::node::{Exit, Node};
use tailgauge_testbed::process::wait_until;
use tailgauge_testbed::traffic::{self, Ping, Udp, tcp_transfer, udp_echo};
use tailgauge_testbed::wireguard::{DiscoTruth, Path, Traffic, WAY_LABELS};

const PATIENCE: Duration = Duration::from_secs(5);
const BOTH: [Direction; 2] = [Direction::LeftToRight, Direction::RightToLeft];

fn up(test: &str) -> Option<MiniatureTailnet> {
    needs::root_and(test, &["ip", "nft"]).ok()?;
    Some(MiniatureTailnet::up(Options { seed: 7 }).unwrap())
}

/// All requests are answered.
fn ping(from: &Namespace, to: impl Into<IpAddr>) {
    let report = traffic::ping(from, to.into(), &Ping { count: 3, ..Ping::default() }).unwrap();
    assert_eq!(report.round_trips.len(), 3, "{report:?}");
}

/// Waits until `node` has measured so many round trips with `peer`.
fn round_trips(node: &Node, peer: &Node, count: usize) -> DiscoTruth {
    let measured = || node.disco(peer.id()).unwrap();
    let wait = wait_until("pongs", Duration::from_secs(15), || measured().round_trips.len() >= count);
    assert!(wait.is_ok(), "{:?}", measured());
    measured()
}

#[test]
fn active_peers_are_pinged_at_once_and_every_three_seconds() {
    let Some(tailnet) = up("active_peers_are_pinged_at_once_and_every_three_seconds") else { return };
    let (exit, c1, six) = (tailnet.exit(), tailnet.c1(), tailnet.six());
    for node in [c1, six] {
        tailnet.peer_link(node).set_both(Conditions::delayed(Duration::from_millis(20)));
    }
    let started = Instant::now();
    for node in [c1, six] {
        ping(node.namespace(), WEB_V4);
    }
    for node in [c1, six] {
        let first = round_trips(node, exit, 1);
        assert!(started.elapsed() < Duration::from_millis(2900), "at once: {:?}", started.elapsed());
        assert!(first.round_trips[0] >= Duration::from_millis(40), "{first:?}");
    }
    c1.set_reaction(Duration::from_millis(30));
    for (node, peer) in [(c1, exit), (exit, c1), (six, exit), (exit, six)] {
        let truth = round_trips(node, peer, 3);
        let elapsed = started.elapsed().as_secs_f64();
        assert!(truth.pings_sent as f64 <= 1.0 + elapsed / 3.0, "{truth:?} in {elapsed} s");
        assert!(truth.pongs_received as usize == truth.round_trips.len());
        assert!(truth.pings_received == truth.pongs_sent);
    }
    // A busy peer takes longer, and is not to blame the path for it.
    let slow = exit.disco(c1.id()).unwrap().round_trips;
    assert!(slow[1..].iter().all(|time| *time >= Duration::from_millis(70)), "{slow:?}");
    let busy = c1.disco(exit.id()).unwrap().reactions;
    assert!(busy.iter().filter(|time| **time >= Duration::from_millis(30)).count() >= 2, "{busy:?}");
    assert_eq!(exit.disco(tailnet.c2().id()).unwrap(), DiscoTruth::default(), "never active");
    // Over both address families, where there are two.
    for (node, families) in [(exit, 2), (six, 1)] {
        let asked = || node.stun().unwrap();
        wait_until("answers to STUN", PATIENCE, || asked().0 == asked().1 && asked().0 >= families).unwrap();
        assert_eq!(asked().0 % families, 0);
    }
}

#[test]
fn disco_keys_change_without_an_end_of_the_exchange() {
    let Some(tailnet) = up("disco_keys_change_without_an_end_of_the_exchange") else { return };
    let (exit, c1) = (tailnet.exit(), tailnet.c1());
    ping(c1.namespace(), WEB_V4);
    let before = round_trips(exit, c1, 1).round_trips.len();
    tailnet.rotate_disco_key("c1").unwrap();
    round_trips(exit, c1, before + 1);
}

#[test]
fn handshakes_are_made_on_demand_and_timed_at_both_ends() {
    let Some(tailnet) = up("handshakes_are_made_on_demand_and_timed_at_both_ends") else { return };
    let (exit, c1) = (tailnet.exit(), tailnet.c1());
    let link = tailnet.peer_link(c1);
    link.set_both(Conditions::delayed(Duration::from_millis(20)));
    ping(c1.namespace(), WEB_V4);
    for rekeys in 1..=3 {
        assert!(c1.rekey(exit.id()));
        let confirmed =
            || exit.handshakes(c1.id()).unwrap().received.iter().all(|one| one.confirmed.is_some());
        let made = || exit.handshakes(c1.id()).unwrap().received.len() == 1 + rekeys;
        let wait = wait_until("the handshake", Duration::from_secs(5), || made() && confirmed());
        assert!(wait.is_ok(), "{:?}", exit.handshakes(c1.id()));
        ping(c1.namespace(), WEB_V4);
    }
    let (near, far) = (c1.handshakes(exit.id()).unwrap(), exit.handshakes(c1.id()).unwrap());
    assert_eq!((near.initiated.len(), near.received.len(), far.initiated.len()), (4, 0, 0));
    for (near, far) in near.initiated.iter().zip(&far.received) {
        assert_eq!(near.initiator, far.initiator);
        let (took, answer) = (near.answered.unwrap(), far.answered.unwrap());
        assert!(took >= Duration::from_millis(40) && answer < took, "{near:?} {far:?}");
        // One more round trip, and nothing of the responder's own.
        assert!(far.confirmed.unwrap() >= Duration::from_millis(40), "{far:?}");
    }
    // A session for each handshake, all of it delivered.
    for way in [Direction::LeftToRight, Direction::RightToLeft] {
        let sessions = link.wireguard(way);
        assert!(sessions.len() >= 4, "{sessions:?}");
        assert!(sessions.iter().all(|one| one.delivered == one.offered && one.late == 0), "{sessions:?}");
    }
    assert!(!c1.rekey(99), "nobody");
}

/// WireGuard's UDP on a link, both ways: transport messages, and those of them behind the header of a relay.
fn on_link(link: &Link) -> (u64, u64) {
    let sessions = BOTH.into_iter().flat_map(|way| link.wireguard(way));
    sessions.fold((0, 0), |(all, relayed), session| (all + session.offered, relayed + session.relayed))
}

/// What two nodes have sent each other by each way: the first one's account, and the other's turned around.
fn by_way(one: &Node, other: &Node) -> [[Traffic; WAY_LABELS.len()]; 2] {
    let near = one.peer_stats(other.id()).unwrap().by_way;
    let far = other.peer_stats(one.id()).unwrap().by_way;
    let turned = far.map(|way| Traffic {
        rx_packets: way.tx_packets,
        rx_bytes: way.tx_bytes,
        tx_packets: way.rx_packets,
        tx_bytes: way.rx_bytes,
    });
    [near, turned]
}

/// Sets the path, and waits until what was sent on the one before has arrived.
fn move_to(tailnet: &MiniatureTailnet, node: &Node, via: Via) -> Path {
    let exit = tailnet.exit();
    let path = tailnet.set_path(exit, node.name(), via).unwrap();
    let mut last = None;
    wait_until("the old path to be empty", Duration::from_secs(5), || {
        let now = Some((by_way(exit, node), on_link(tailnet.peer_link(node))));
        std::mem::replace(&mut last, now) == now
    })
    .unwrap();
    path
}

#[test]
fn traffic_takes_the_path_that_was_set_and_no_other() {
    let Some(tailnet) = up("traffic_takes_the_path_that_was_set_and_no_other") else { return };
    let _server = tailnet.serve_web().unwrap();
    let exit = tailnet.exit();
    for (node, paths) in [
        (tailnet.c1(), [Via::Direct, Via::Derp, Via::PeerRelayV4, Via::PeerRelayV6, Via::Direct].as_slice()),
        (tailnet.six(), &[Via::Derp, Via::PeerRelayV6, Via::Direct]),
    ] {
        let link = tailnet.peer_link(node);
        for via in paths {
            let path = move_to(&tailnet, node, *via);
            let [before, _] = by_way(exit, node);
            let (messages, relayed) = on_link(link);
            let pings = node.disco(exit.id()).unwrap().pings_sent;
            ping(node.namespace(), WEB_V4);
            let report = tcp_transfer(node.namespace(), WEB_V6.into(), 300_000, 300_000).unwrap();
            assert_eq!(report.received, 300_000);
            // What DERP has room for, should nobody read for a while.
            let datagrams = if *via == Via::Derp { 30 } else { 50 };
            let few = Udp { datagrams, payload: 900, rate: Some(1000) };
            let echoed = udp_echo(node.namespace(), WEB_V4.into(), few, PATIENCE).unwrap();
            assert_eq!(echoed.received, u64::from(datagrams), "{via:?}");
            assert_eq!(exit.peer_stats(node.id()).unwrap().path, path);

            // DERP may lose messages, as the real one does.
            let agree = || {
                let [near, far] = by_way(exit, node);
                (1..WAY_LABELS.len()).all(|way| near[way] == far[way])
            };
            wait_until("both ends to agree", Duration::from_secs(5), agree).unwrap();
            let [after, _] = by_way(exit, node);
            let used: Vec<&str> = (0..WAY_LABELS.len())
                .filter(|way| after[*way] != before[*way])
                .map(|way| WAY_LABELS[way])
                .collect();
            let expected = match (path, node.name()) {
                (Path::Derp, _) => "derp",
                (Path::Direct, "six") => "direct_ipv6",
                (Path::Direct, _) => "direct_ipv4",
                (Path::PeerRelay(address, _), _) if address.is_ipv6() => "peer_relay_ipv6",
                (Path::PeerRelay(..), _) => "peer_relay_ipv4",
            };
            assert_eq!(used, [expected]);
            let (now, relayed_now) = on_link(link);
            let (messages, relayed) = (now - messages, relayed_now - relayed);
            let pings = node.disco(exit.id()).unwrap().pings_sent - pings;
            match via {
                Via::Direct => assert!(messages > 500 && relayed == 0, "{messages} {relayed}"),
                Via::Derp => assert_eq!((messages, relayed, pings), (0, 0, 0), "no UDP"),
                _ => assert!(messages > 500 && relayed == messages, "{messages} {relayed}"),
            }
        }
    }
    let refused = tailnet.set_path(exit, "six", Via::PeerRelayV4);
    assert!(matches!(refused, Err(TailnetError::NoAddress { .. })), "{refused:?}");
}

#[test]
fn disco_goes_through_the_relay_and_handshakes_through_everything() {
    let Some(tailnet) = up("disco_goes_through_the_relay_and_handshakes_through_everything") else { return };
    let (exit, c1) = (tailnet.exit(), tailnet.c1());
    tailnet.peer_link(c1).set_both(Conditions::delayed(Duration::from_millis(20)));
    for (earlier, via) in [Via::Derp, Via::PeerRelayV4, Via::PeerRelayV6].into_iter().enumerate() {
        tailnet.set_path(exit, "c1", via).unwrap();
        assert!(earlier == 0 || c1.rekey(exit.id()));
        ping(c1.namespace(), WEB_V4);
        let made = || {
            let handshakes = c1.handshakes(exit.id()).unwrap().initiated;
            handshakes.len() == earlier + 1
                && handshakes.iter().all(|one| one.answered >= Some(Duration::from_millis(40)))
        };
        wait_until("the handshake", Duration::from_secs(5), made).unwrap();
        let before = c1.disco(exit.id()).unwrap().round_trips.len();
        if via == Via::Derp {
            assert_eq!(before, 0);
        } else {
            let times = round_trips(c1, exit, before + 1).round_trips;
            assert!(times.iter().all(|time| *time >= Duration::from_millis(40)), "{times:?}");
        }
    }
}

#[test]
fn a_node_that_restarts_is_on_derp_again() {
    let Some(tailnet) = up("a_node_that_restarts_is_on_derp_again") else { return };
    let (exit, c1) = (tailnet.exit(), tailnet.c1());
    tailnet.set_path(exit, "c1", Via::Derp).unwrap();
    ping(c1.namespace(), WEB_V4);
    exit.restart(Exit::Killed).unwrap();
    // Sessions start anew: the first packets may be for keys that nobody has any more.
    let answers = || {
        let how = Ping { timeout: Duration::from_millis(500), ..Ping::default() };
        c1.rekey(exit.id());
        traffic::ping(c1.namespace(), WEB_V4.into(), &how).is_ok_and(|report| report.round_trips.len() == 1)
    };
    wait_until("an answer", Duration::from_secs(10), answers).unwrap();
    assert_eq!(on_link(tailnet.peer_link(c1)), (0, 0), "no UDP at any time");
}

#[test]
fn the_ledger_agrees_with_both_ends_through_loss_reordering_and_rekeys() {
    let Some(tailnet) = up("the_ledger_agrees_with_both_ends") else { return };
    let (exit, c1) = (tailnet.exit(), tailnet.c1());
    let _server = tailnet.serve_web().unwrap();
    let link = tailnet.peer_link(c1);
    let reorder = Reorder { probability: 0.02, packets: 5, ..Reorder::default() };
    let bad = Conditions { loss: 0.01, duplicate: 0.01, reorder, coalesce: true, ..Conditions::default() };
    for rekeys in 0..4 {
        link.set_both(Conditions::default());
        // The first packet is answered under the new keys.
        assert!(rekeys == 0 || c1.rekey(exit.id()));
        ping(c1.namespace(), WEB_V4);
        link.set_both(bad);
        tcp_transfer(c1.namespace(), WEB_V4.into(), 500_000, 500_000).unwrap();
    }
    link.set_both(Conditions::default());
    ping(c1.namespace(), WEB_V4);
    let ends = [(exit, c1), (c1, exit)];
    // Direct over IPv4; handshake messages are none of the ledger's.
    let handshakes = |node: &Node, peer: &Node| {
        let made = node.handshakes(peer.id()).unwrap();
        let answers = made.received.iter().filter(|one| one.answered.is_some()).count();
        (made.initiated.len() + answers) as u64
    };
    let agree = || {
        ends.iter().zip([Direction::RightToLeft, Direction::LeftToRight]).all(|((from, to), way)| {
            let sessions = link.wireguard(way);
            let sum = |pick: fn(&SessionLedger) -> u64| sessions.iter().map(pick).sum::<u64>();
            let sent = from.peer_stats(to.id()).unwrap().by_way[1].tx_packets;
            let received = to.peer_stats(from.id()).unwrap().by_way[1].rx_packets;
            let answered = to.handshakes(from.id()).unwrap();
            let came = answered.received.len()
                + answered.initiated.iter().filter(|one| one.answered.is_some()).count();
            sum(|one| one.offered) == sent - handshakes(from, to)
                && sum(|one| one.delivered) == received - came as u64
                && sum(|one| one.offered) == sum(|one| one.delivered) + sum(|one| one.dropped)
        })
    };
    let settled = wait_until("the ledger to agree", Duration::from_secs(5), agree);
    for way in BOTH {
        let sessions = link.wireguard(way);
        assert!(settled.is_ok() && sessions.len() > 1, "{sessions:#?}");
        let sum = |pick: fn(&SessionLedger) -> u64| sessions.iter().map(pick).sum::<u64>();
        let stats = link.stats(way);
        // Other packets than these are lost and repeated too: pings, handshakes.
        assert!(sum(|one| one.dropped) > 0 && sum(|one| one.dropped) <= stats.lost, "{sessions:#?}");
        assert!(sum(|one| one.late) > 0 && sum(|one| one.late) <= stats.held_back, "{sessions:#?}");
        assert!(sum(|one| one.duplicates) > 0 && sum(|one| one.duplicates) <= stats.duplicated);
        assert!(stats.frames < stats.packets, "{stats:?}");
    }
}
