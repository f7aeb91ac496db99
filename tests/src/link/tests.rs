use std::collections::HashSet;
use std::net::SocketAddr;

use super::*;
use crate::needs;
use crate::netns::unique_prefix;
use crate::process::wait_for;
use crate::underlay::messages::{session, transport};
use crate::wireguard::socket::{MAX_RECEIVE, UnderlaySocket};

const PORT: u16 = 41641;
const RECEIVER: u32 = 0x0a00_0001;
/// Messages sent, in super-packets of 50.
const MESSAGES: u64 = 5000;

/// What a receiver notes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    counters: Vec<u64>,
    /// Receives that brought more than one datagram.
    joined: u64,
}

/// Sends all messages over a new link and returns what came and what the link says.
fn carry(conditions: Conditions, seed: u64) -> (Seen, SessionLedger, LinkStats) {
    let prefix = unique_prefix();
    let [left, right] = ["left", "right"].map(|side| Namespace::create(format!("{prefix}-{side}")).unwrap());
    let link = Link::create((&left, "eth0"), (&right, "eth0"), seed).unwrap();
    link.set(Direction::LeftToRight, conditions);
    let [from, to] = [(&left, "198.18.0.1/30"), (&right, "198.18.0.2/30")].map(|(side, address)| {
        side.ip(&["address", "add", address, "dev", "eth0"]).unwrap();
        side.run(|| UnderlaySocket::bind(PORT, false)).unwrap().unwrap()
    });
    let target = SocketAddr::from(([198, 18, 0, 2], PORT));
    for batch in 0..MESSAGES / 50 {
        let messages: Vec<_> = (0..50).map(|index| transport(RECEIVER, batch * 50 + index, 64)).collect();
        from.send(target, &messages.concat(), messages[0].len()).unwrap();
    }
    let mut seen = Seen::default();
    let mut buffer = vec![0; MAX_RECEIVE];
    let ledger = wait_for("all messages to arrive or not", Duration::from_secs(10), || {
        while let Ok(received) = to.receive(&mut buffer) {
            seen.joined += u64::from(received.len > received.segment);
            for datagram in buffer[..received.len].chunks(received.segment) {
                seen.counters.push(session(datagram).unwrap().1);
            }
        }
        let [ledger] = link.wireguard(Direction::LeftToRight).try_into().ok()?;
        let SessionLedger { offered, dropped, delivered, duplicates, .. } = ledger;
        let settled = offered == MESSAGES && dropped + delivered == MESSAGES;
        (settled && seen.counters.len() as u64 == delivered + duplicates).then_some(ledger)
    })
    .unwrap();
    (seen, ledger, link.stats(Direction::LeftToRight))
}

/// What the receiver's own notes amount to.
fn account(seen: &Seen) -> SessionLedger {
    let mut known = HashSet::new();
    let (mut duplicates, mut late, mut highest) = (0, 0, None);
    for counter in &seen.counters {
        if !known.insert(*counter) {
            duplicates += 1;
        } else if Some(*counter) < highest {
            late += 1;
        } else {
            highest = Some(*counter);
        }
    }
    let missing =
        |until: Option<u64>| (0..until.unwrap_or(0)).filter(|at| !known.contains(at)).count() as u64;
    let (delivered, below) = (known.len() as u64, missing(highest));
    SessionLedger {
        receiver: RECEIVER,
        source: ([198, 18, 0, 1], PORT).into(),
        offered: MESSAGES,
        relayed: 0,
        dropped: MESSAGES - delivered,
        delivered,
        duplicates,
        late,
        first: seen.counters.first().copied(),
        highest,
        dropped_below_first: missing(seen.counters.first().copied()),
        dropped_below_highest: below,
        dropped_above_highest: MESSAGES - delivered - below,
    }
}

#[test]
fn what_is_injected_is_what_the_ledger_says_and_what_the_receiver_sees() {
    let Ok(()) = needs::root_and("what_is_injected_is_what_the_ledger_says", &["ip"]) else { return };
    // Long enough for every packet to be passed by others: all follows from the seed.
    let reorder = Reorder { probability: 0.05, packets: 4, time: Duration::from_millis(500) };
    let conditions = Conditions { loss: 0.1, duplicate: 0.05, reorder, ..Conditions::default() };
    for (seed, coalesce) in [(1, false), (1, true), (2, true)] {
        let (seen, ledger, stats) = carry(Conditions { coalesce, ..conditions }, seed);
        assert_eq!(account(&seen), ledger);
        assert_eq!((stats.lost, stats.duplicated), (ledger.dropped, ledger.duplicates));
        assert_eq!(seen.joined > 20, coalesce, "{} super-packets, {stats:?}", seen.joined);
        // Five standard deviations.
        for (found, probability) in [(stats.lost, 0.1), (stats.duplicated, 0.05), (stats.held_back, 0.05)] {
            let expected = MESSAGES as f64 * probability;
            assert!((found as f64 - expected).abs() < 5.0 * expected.sqrt(), "{stats:?}");
        }
        // Who was held back among the last ones, or was passed by nobody that arrived, is not late.
        assert!(ledger.late > stats.held_back / 2 && ledger.late <= stats.held_back, "{ledger:?} {stats:?}");
        if !coalesce {
            let (again, same, _) = carry(conditions, seed);
            assert_eq!((again.counters, same), (seen.counters, ledger), "the same seed");
        }
    }
}

#[test]
fn a_healthy_link_changes_nothing_and_coalescing_loses_nothing() {
    let Ok(()) = needs::root_and("a_healthy_link_changes_nothing", &["ip"]) else { return };
    for coalesce in [false, true] {
        let (seen, ledger, stats) = carry(Conditions { coalesce, ..Conditions::default() }, 1);
        assert!(seen.counters.is_sorted() && seen.counters.len() as u64 == MESSAGES);
        assert_eq!(account(&seen), ledger);
        assert!(seen.joined >= 75, "{}", seen.joined);
        assert!(stats.frames < stats.packets / 10, "{stats:?}");
    }
}

#[test]
fn a_packet_that_nobody_follows_is_held_back_for_a_time_only() {
    let Ok(()) = needs::root_and("a_packet_that_nobody_follows", &["ip"]) else { return };
    let reorder = Reorder { probability: 1.0, packets: 100, time: Duration::from_millis(20) };
    let (seen, ledger, stats) = carry(Conditions { reorder, ..Conditions::default() }, 1);
    assert_eq!((stats.held_back, ledger.delivered), (MESSAGES, MESSAGES));
    assert!(seen.counters.is_sorted(), "all waited alike");
}
