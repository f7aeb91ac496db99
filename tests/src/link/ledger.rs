//! The exact account of the WireGuard transport messages that a direction of a link carried, by session.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use crate::offload::VnetHeader;
use crate::offload::ip::{Layout, UDP, be16, endpoints};
use crate::offload::vnet::{GSO_UDP_L4, VNET_HEADER_LEN};
use crate::underlay::messages::{GENEVE_WIREGUARD, session, unwrap_geneve};

/// Transport messages (type 4) of one session in one direction, naked or on their way to or from a peer relay.
///
/// A session is what has one receiver index; the testbed's nodes never use one twice before they have used 255 others
/// with the same peer. What is neither dropped nor delivered is still on the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLedger {
    /// The index that the receiver chose.
    pub receiver: u32,
    /// Where the first message came from.
    pub source: SocketAddr,
    /// Messages that entered.
    pub offered: u64,
    /// Of those, the ones behind the header of a peer relay.
    pub relayed: u64,
    /// Messages that no copy was delivered of.
    pub dropped: u64,
    /// Messages delivered, each once.
    pub delivered: u64,
    /// Deliveries of messages that had been delivered before.
    pub duplicates: u64,
    /// Messages delivered first when a higher counter had been delivered already: reordered by RFC 4737.
    pub late: u64,
    /// The counter of the first message delivered.
    pub first: Option<u64>,
    /// The highest counter delivered.
    pub highest: Option<u64>,
    /// Of the dropped ones, those below the first: whoever did not see the session begin cannot know of them.
    pub dropped_below_first: u64,
    /// Of the dropped ones, those below the highest: the receiver can know that they are missing.
    pub dropped_below_highest: u64,
    /// Of the dropped ones, those above the highest: the receiver cannot know that they exist.
    pub dropped_above_highest: u64,
}

/// All sessions of a direction.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<u32, Session>);

#[derive(Debug)]
struct Session {
    source: SocketAddr,
    offered: u64,
    relayed: u64,
    delivered: u64,
    duplicates: u64,
    late: u64,
    first: Option<u64>,
    highest: Option<u64>,
    /// Counters delivered: 64 to an entry, a bit each.
    seen: HashMap<u64, u64>,
    dropped: HashSet<u64>,
}

impl Ledger {
    /// A frame, vnet header included, entered the link.
    pub(super) fn offer(&mut self, frame: &[u8]) {
        each_message(frame, |found| {
            let session = self.0.entry(found.receiver).or_insert_with(|| Session::new(found.source));
            session.offered += 1;
            session.relayed += u64::from(found.relayed);
        });
    }

    /// A frame, or a copy of one, did not make it.
    pub(super) fn lose(&mut self, frame: &[u8]) {
        each_message(frame, |found| {
            if let Some(session) = self.0.get_mut(&found.receiver)
                && !session.has_seen(found.counter)
            {
                session.dropped.insert(found.counter);
            }
        });
    }

    /// A frame, or a copy of one, arrived.
    pub(super) fn deliver(&mut self, frame: &[u8]) {
        each_message(frame, |found| {
            if let Some(session) = self.0.get_mut(&found.receiver) {
                session.deliver(found.counter);
            }
        });
    }

    pub(super) fn sessions(&self) -> Vec<SessionLedger> {
        self.0.iter().map(|(receiver, session)| session.account(*receiver)).collect()
    }
}

impl Session {
    fn new(source: SocketAddr) -> Self {
        Self {
            source,
            offered: 0,
            relayed: 0,
            delivered: 0,
            duplicates: 0,
            late: 0,
            first: None,
            highest: None,
            seen: HashMap::new(),
            dropped: HashSet::new(),
        }
    }

    fn has_seen(&self, counter: u64) -> bool {
        self.seen.get(&(counter / 64)).is_some_and(|bits| bits & (1 << (counter % 64)) != 0)
    }

    fn deliver(&mut self, counter: u64) {
        let (bits, bit) = (self.seen.entry(counter / 64).or_default(), 1 << (counter % 64));
        if *bits & bit != 0 {
            self.duplicates += 1;
            return;
        }
        *bits |= bit;
        // Another copy made it.
        self.dropped.remove(&counter);
        self.delivered += 1;
        self.first.get_or_insert(counter);
        match self.highest {
            Some(highest) if counter < highest => self.late += 1,
            _ => self.highest = Some(counter),
        }
    }

    fn account(&self, receiver: u32) -> SessionLedger {
        let dropped = self.dropped.len() as u64;
        let below = |bound: Option<u64>| {
            bound.map_or(0, |bound| self.dropped.iter().filter(|counter| **counter < bound).count() as u64)
        };
        let below_highest = below(self.highest);
        SessionLedger {
            receiver,
            source: self.source,
            offered: self.offered,
            relayed: self.relayed,
            dropped,
            delivered: self.delivered,
            duplicates: self.duplicates,
            late: self.late,
            first: self.first,
            highest: self.highest,
            dropped_below_first: below(self.first),
            dropped_below_highest: below_highest,
            dropped_above_highest: dropped - below_highest,
        }
    }
}

/// A transport message in a frame.
#[derive(Debug, Clone, Copy)]
struct Found {
    receiver: u32,
    counter: u64,
    source: SocketAddr,
    relayed: bool,
}

/// Calls `handle` with every transport message in a frame.
fn each_message(frame: &[u8], mut handle: impl FnMut(Found)) {
    let Some(header) = VnetHeader::parse(frame) else { return };
    let packet = &frame[VNET_HEADER_LEN..];
    let Some(layout) = Layout::parse(packet).filter(|layout| layout.protocol == UDP && !layout.fragment)
    else {
        return;
    };
    let Some(payload) = packet.get(layout.l4 + 8..layout.len) else { return };
    let segment = match header.kind() {
        GSO_UDP_L4 if header.gso_size > 0 => usize::from(header.gso_size),
        _ => payload.len().max(1),
    };
    let source = || {
        let ip = endpoints(packet).map_or(IpAddr::V4([0; 4].into()), |(source, _)| source);
        SocketAddr::new(ip, be16(packet, layout.l4))
    };
    for datagram in payload.chunks(segment) {
        let (relayed, message) = match unwrap_geneve(datagram) {
            Some((GENEVE_WIREGUARD, _, message)) => (true, message),
            _ => (false, datagram),
        };
        if let Some((receiver, counter)) = session(message) {
            handle(Found { receiver, counter, source: source(), relayed });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::underlay::messages::{geneve, initiation, keepalive, transport};
    use crate::underlay::packets::{frame, super_packet, udp_packet};

    const A: u32 = 0x0102_0304;
    const B: u32 = 7;

    fn flow() -> (SocketAddr, SocketAddr) {
        ("10.99.0.2:41641".parse().unwrap(), "10.99.0.11:41641".parse().unwrap())
    }

    fn single(receiver: u32, counter: u64) -> Vec<u8> {
        let (from, to) = flow();
        frame(&udp_packet(from, to, &transport(receiver, counter, 100)))
    }

    /// A frame with all of these counters.
    fn joined(receiver: u32, counters: &[u64]) -> Vec<u8> {
        let (from, to) = flow();
        let payloads: Vec<_> = counters.iter().map(|counter| transport(receiver, *counter, 100)).collect();
        super_packet(from, to, &payloads).unwrap().frame()
    }

    fn only(ledger: &Ledger) -> SessionLedger {
        let [session] = ledger.sessions().try_into().unwrap();
        session
    }

    #[test]
    fn everything_in_order_is_delivered_and_nothing_else() {
        let mut ledger = Ledger::default();
        for counters in [&[0, 1, 2][..], &[3], &[4, 5]] {
            ledger.offer(&joined(A, counters));
            ledger.deliver(&joined(A, counters));
        }
        let expected = SessionLedger {
            receiver: A,
            source: flow().0,
            offered: 6,
            relayed: 0,
            dropped: 0,
            delivered: 6,
            duplicates: 0,
            late: 0,
            first: Some(0),
            highest: Some(5),
            dropped_below_first: 0,
            dropped_below_highest: 0,
            dropped_above_highest: 0,
        };
        assert_eq!(only(&ledger), expected);
    }

    #[test]
    fn drops_are_told_apart_by_what_the_receiver_can_know() {
        let mut ledger = Ledger::default();
        ledger.offer(&joined(A, &[0, 1, 2, 3, 4, 5, 6]));
        for lost in [0, 1, 3, 5, 6] {
            ledger.lose(&single(A, lost));
        }
        assert_eq!((only(&ledger).dropped_above_highest, only(&ledger).highest), (5, None), "nothing came");
        for counter in [2, 4] {
            ledger.deliver(&single(A, counter));
        }
        let session = only(&ledger);
        assert_eq!((session.offered, session.dropped, session.delivered), (7, 5, 2));
        assert_eq!((session.first, session.highest), (Some(2), Some(4)));
        assert_eq!(session.dropped_below_first, 2);
        assert_eq!((session.dropped_below_highest, session.dropped_above_highest), (3, 2));
    }

    #[test]
    fn late_is_what_comes_first_after_a_higher_one_and_copies_are_counted_apart() {
        let mut ledger = Ledger::default();
        ledger.offer(&joined(A, &[0, 1, 2, 3]));
        for counter in [0, 0, 3, 1, 1, 2, 3, 0] {
            ledger.deliver(&single(A, counter));
        }
        let session = only(&ledger);
        assert_eq!((session.delivered, session.duplicates, session.late), (4, 4, 2));
    }

    #[test]
    fn one_copy_that_arrives_is_enough() {
        let mut ledger = Ledger::default();
        ledger.offer(&single(A, 0));
        ledger.offer(&single(A, 1));
        ledger.deliver(&single(A, 0));
        ledger.lose(&single(A, 0));
        ledger.lose(&single(A, 1));
        ledger.deliver(&single(A, 1));
        let session = only(&ledger);
        assert_eq!((session.dropped, session.delivered, session.duplicates), (0, 2, 0));
    }

    #[test]
    fn sessions_are_apart_and_counters_may_be_anything() {
        let mut ledger = Ledger::default();
        let counters = [0, 63, 64, u64::from(u32::MAX) + 1, u64::MAX];
        for (receiver, counter) in counters.map(|counter| (A, counter)).into_iter().chain([(B, 0)]) {
            ledger.offer(&single(receiver, counter));
            ledger.deliver(&single(receiver, counter));
        }
        let [b, a] = ledger.sessions().try_into().unwrap();
        assert_eq!((b.receiver, b.delivered), (B, 1));
        assert_eq!((a.receiver, a.delivered, a.late, a.highest), (A, 5, 0, Some(u64::MAX)));
    }

    #[test]
    fn messages_count_behind_the_header_of_a_relay_and_over_ipv6_and_nothing_else_does() {
        let mut ledger = Ledger::default();
        let from = "[2001:db8::2]:41641".parse().unwrap();
        let to = "[2001:db8::11]:40000".parse().unwrap();
        let message = keepalive(A, 9);
        let wrapped = geneve(GENEVE_WIREGUARD, 5, &message);
        ledger.offer(&frame(&udp_packet(from, to, &wrapped)));
        let first = only(&ledger);
        assert_eq!((first.offered, first.relayed, first.source), (1, 1, from));
        let mut tcp = frame(&udp_packet(from, to, &message));
        tcp[VNET_HEADER_LEN + 6] = 6;
        let cut = frame(&udp_packet(from, to, &message)[..60]);
        for other in [
            frame(&udp_packet(from, to, &initiation(A))),
            frame(&udp_packet(from, to, &geneve(0x7a11, 5, &message))),
            frame(&udp_packet(from, to, &[])),
            tcp,
            cut,
            vec![4; 9],
        ] {
            ledger.offer(&other);
        }
        // A tail of another kind in a super-packet.
        let data = transport(A, 10, 200);
        ledger.offer(&super_packet(from, to, &[data.clone(), data, initiation(1)]).unwrap().frame());
        assert_eq!((only(&ledger).offered, only(&ledger).relayed), (3, 1));
    }
}
