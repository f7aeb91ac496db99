//! Handshakes that nobody answered. The programs see packets; that none came is for the agent to notice.

use std::io;
use std::time::Duration;

use aya::Pod;
use tailgauge_ebpf::layout::{Connection, FlowKey, Handshake, maps};

use super::KernelError;
use super::lru::Lru;
use super::object::Object;
use crate::model::kernel::MapUse;

/// Late retransmissions are known for what they are until then: Linux sends the last SYN 127 s after the first.
const FORGET_AFTER: Duration = Duration::from_secs(150);

/// The tables of connections, and how full they were.
#[derive(Debug)]
pub(super) struct Flows {
    handshakes: Lru<FlowKey, Handshake>,
    connections: Lru<FlowKey, Connection>,
    timeout: Duration,
    pending: Vec<(FlowKey, Handshake, Due)>,
}

/// What is due for a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Count it as timed out, keep it.
    TimeOut,
    /// Remove it.
    Forget,
    /// Remove it; its acknowledgement never passed, so a sample is lost.
    Lose,
}

/// What is due for `handshake` at `now`, nanoseconds of CLOCK_MONOTONIC.
fn due(handshake: &Handshake, now: u64, timeout: Duration) -> Option<Due> {
    let age = Duration::from_nanos(now.saturating_sub(handshake.syn_at));
    let answered = handshake.syn_ack_at != 0;
    match handshake.timed_out != 0 {
        false if !answered && age >= timeout => Some(Due::TimeOut),
        false if age >= FORGET_AFTER => Some(Due::Lose),
        true if age >= FORGET_AFTER => Some(Due::Forget),
        _ => None,
    }
}

/// How a handshake that the programs know nothing more of is to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nobody answered the SYN of this opener.
    TimedOut(u8),
    /// It was answered, and its acknowledgement went unseen.
    Lost,
}

impl Flows {
    pub(super) fn open(object: &mut Object, timeout: Duration) -> Result<Self, KernelError> {
        let sizes = object.sizes();
        Ok(Self {
            handshakes: Lru::open(object, maps::HANDSHAKES, sizes.handshakes)?,
            connections: Lru::open(object, maps::CONNECTIONS, sizes.connections)?,
            timeout,
            pending: Vec::new(),
        })
    }

    /// Looks through the handshakes at `now`, nanoseconds of CLOCK_MONOTONIC; `count` gets slot and outcome
    /// of each that is over.
    pub(super) fn sweep(&mut self, now: u64, mut count: impl FnMut(u32, Outcome)) -> io::Result<()> {
        self.find(now)?;
        self.settle(&mut count);
        self.connections.count()
    }

    fn find(&mut self, now: u64) -> io::Result<()> {
        let Self { handshakes, pending, timeout, .. } = self;
        handshakes.read(|key, handshake| {
            if let Some(due) = due(handshake, now, *timeout) {
                pending.push((*key, *handshake, due));
            }
        })
    }

    fn settle(&mut self, count: &mut impl FnMut(u32, Outcome)) {
        let Self { handshakes, pending, .. } = self;
        for (key, mut handshake, due) in pending.drain(..) {
            // A packet of it may have come since it was read: it was answered, or is another one on the same ports.
            if handshakes.get(&key) != Some(handshake) {
                continue;
            }
            match due {
                Due::TimeOut => {
                    handshake.timed_out = 1;
                    // It may have completed or gone this moment; then it is not ours to count. The map has no way to
                    // tell that it was answered this moment.
                    if handshakes.replace(&key, &handshake).is_ok() {
                        count(handshake.slot, Outcome::TimedOut(handshake.opener));
                    }
                }
                Due::Lose => {
                    if handshakes.remove(&key).is_ok() {
                        count(handshake.slot, Outcome::Lost);
                    }
                }
                Due::Forget => {
                    let _ = handshakes.remove(&key);
                }
            }
        }
    }

    /// Gives the connections of `slots` to slot 0: what becomes of them is not that of the peers who get these slots.
    pub(super) fn disown(&mut self, slots: &[u32]) -> io::Result<()> {
        disown(&mut self.handshakes, slots, |handshake| &mut handshake.slot)?;
        disown(&mut self.connections, slots, |connection| &mut connection.slot)
    }

    /// Fill of both tables at the last count.
    pub(super) const fn fill(&self) -> [MapUse; 2] {
        [self.handshakes.fill(), self.connections.fill()]
    }
}

fn disown<V: Pod + Default>(
    table: &mut Lru<FlowKey, V>,
    slots: &[u32],
    slot: fn(&mut V) -> &mut u32,
) -> io::Result<()> {
    let is_theirs = |value: &mut V| slots.contains(slot(value));
    let mut theirs = Vec::new();
    table.read(|key, value| {
        if is_theirs(&mut value.clone()) {
            theirs.push(*key);
        }
    })?;
    for key in theirs {
        // As it is by now: packets come all the time.
        if let Some(mut value) = table.get(&key).filter(|value| is_theirs(&mut value.clone())) {
            *slot(&mut value) = 0;
            // Gone this moment, it is nobody's any more.
            let _ = table.replace(&key, &value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::sources::kernel::probe::missing_capabilities;
    use crate::sources::kernel::types::KernelTypes;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn at(seconds: u64, handshake: Handshake) -> Option<Due> {
        due(&handshake, handshake.syn_at + seconds * 1_000_000_000, TIMEOUT)
    }

    #[test]
    fn an_unanswered_syn_is_counted_once_and_kept_until_its_last_retransmission() {
        let mut handshake = Handshake { syn_at: 5, ..Handshake::default() };
        assert_eq!(at(29, handshake), None);
        assert_eq!(at(30, handshake), Some(Due::TimeOut));
        assert_eq!(at(1000, handshake), Some(Due::TimeOut), "even if the sweep came late");
        handshake.timed_out = 1;
        assert_eq!(at(149, handshake), None);
        assert_eq!(at(150, handshake), Some(Due::Forget));
    }

    #[test]
    fn an_answered_handshake_is_not_timed_out_but_lost_unless_it_was_counted_before() {
        let mut handshake = Handshake { syn_at: 5, syn_ack_at: 6, ..Handshake::default() };
        assert_eq!(at(31, handshake), None);
        assert_eq!(at(150, handshake), Some(Due::Lose));
        handshake.timed_out = 1;
        assert_eq!(at(150, handshake), Some(Due::Forget));
    }

    #[test]
    fn what_a_packet_changed_meanwhile_is_left_alone() {
        if !missing_capabilities().is_empty() {
            return eprintln!("skipped: needs root");
        }
        let mut object = Object::load(1, &KernelTypes::default()).unwrap();
        let mut flows = Flows::open(&mut object, TIMEOUT).unwrap();
        let key = |port| FlowKey { peer_port: [0, port], ..FlowKey::default() };
        let unanswered = Handshake { syn_at: 5, slot: 1, ..Handshake::default() };
        let answered = Handshake { syn_ack_at: 6, ..unanswered };
        for (port, handshake) in [(1, unanswered), (2, unanswered), (3, answered), (4, answered)] {
            flows.handshakes.insert(&key(port), &handshake);
        }
        flows.find(200_000_000_000).unwrap();
        let anew = Handshake { syn_at: 7, ..unanswered };
        flows.handshakes.insert(&key(1), &answered);
        flows.handshakes.insert(&key(3), &anew);
        let mut outcomes = Vec::new();
        flows.settle(&mut |slot, outcome| outcomes.push((slot, outcome)));
        outcomes.sort_unstable_by_key(|(_, outcome)| *outcome == Outcome::Lost);
        assert_eq!(outcomes, [(1, Outcome::TimedOut(0)), (1, Outcome::Lost)]);
        let timed_out = Handshake { timed_out: 1, ..unanswered };
        let left = [1, 2, 3, 4].map(|port| flows.handshakes.get(&key(port)));
        assert_eq!(left, [Some(answered), Some(timed_out), Some(anew), None]);
    }

    #[test]
    fn connections_of_a_peer_that_left_are_nobodys() {
        if !missing_capabilities().is_empty() {
            return eprintln!("skipped: needs root");
        }
        let mut object = Object::load(1, &KernelTypes::default()).unwrap();
        let mut flows = Flows::open(&mut object, TIMEOUT).unwrap();
        let key = |port| FlowKey { peer_port: [0, port], ..FlowKey::default() };
        for (port, slot) in [(1, 1), (2, 2), (3, 3)] {
            flows.handshakes.insert(&key(port), &Handshake { syn_at: 5, slot, ..Handshake::default() });
            flows.connections.insert(&key(port), &Connection { opener: 1, slot, ..Connection::default() });
        }
        flows.disown(&[1, 3]).unwrap();
        for (port, slot) in [(1, 0), (2, 2), (3, 0)] {
            let handshake = Handshake { syn_at: 5, slot, ..Handshake::default() };
            assert_eq!(flows.handshakes.get(&key(port)), Some(handshake));
            let connection = Connection { opener: 1, slot, ..Connection::default() };
            assert_eq!(flows.connections.get(&key(port)), Some(connection));
        }
    }

    #[test]
    fn a_syn_from_after_the_clock_was_read_has_no_age() {
        let handshake = Handshake { syn_at: 1_000_000, ..Handshake::default() };
        assert_eq!(due(&handshake, 0, TIMEOUT), None);
    }
}
