//! The handshakes with a peer, and what they really took.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::peers::lock;
use crate::underlay::messages::{INITIATION_LEN, RESPONSE_LEN};

/// The newest so many of each kind are kept.
const KEPT: usize = 1024;

/// One initiation and what followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// The index that the initiator chose.
    pub initiator: u32,
    /// The initiation was sent, or read by the responder.
    pub started: Instant,
    /// From then until the response was read, or sent by the responder; `None` without one.
    pub answered: Option<Duration>,
    /// For the responder, from `started` until the first message under the new keys was read.
    pub confirmed: Option<Duration>,
}

/// The handshakes with one peer since it is known, as the data plane saw them: the newest 1024 each way, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandshakeTruth {
    /// Those that this node began; every retransmission is one of its own.
    pub initiated: Vec<Handshake>,
    /// Those that the peer began.
    pub received: Vec<Handshake>,
}

/// The record of handshakes with one peer.
#[derive(Debug, Default)]
pub(super) struct Record(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    truth: HandshakeTruth,
    /// The index that this node chose in its newest response.
    own: u32,
}

impl Record {
    pub(super) fn truth(&self) -> HandshakeTruth {
        lock(&self.0).truth.clone()
    }

    /// A message is about to leave.
    pub(super) fn sending(&self, message: &[u8]) {
        let now = Instant::now();
        match (message.len(), message.first()) {
            (INITIATION_LEN, Some(1)) => {
                begin(&mut lock(&self.0).truth.initiated, index(message, 4), now);
            }
            (RESPONSE_LEN, Some(2)) => {
                let mut state = lock(&self.0);
                state.own = index(message, 4);
                answer(&mut state.truth.received, index(message, 8), now);
            }
            _ => {}
        }
    }

    /// The message that was about to leave did not.
    pub(super) fn not_sent(&self, message: &[u8]) {
        if (message.len(), message.first()) == (INITIATION_LEN, Some(&1)) {
            let initiator = index(message, 4);
            lock(&self.0).truth.initiated.retain(|handshake| handshake.initiator != initiator);
        }
    }

    /// An authentic message was read. True when it completes a handshake: for the initiator the response does, for the
    /// responder the first message under the new keys.
    pub(super) fn read(&self, message: &[u8], at: Instant) -> bool {
        match message.first() {
            Some(1) if message.len() == INITIATION_LEN => {
                begin(&mut lock(&self.0).truth.received, index(message, 4), at);
                false
            }
            Some(2) if message.len() == RESPONSE_LEN => {
                answer(&mut lock(&self.0).truth.initiated, index(message, 8), at);
                true
            }
            Some(4) if message.len() >= 16 => {
                let mut state = lock(&self.0);
                if state.own != index(message, 4) {
                    return false;
                }
                match state.truth.received.last_mut() {
                    Some(last) if last.answered.is_some() && last.confirmed.is_none() => {
                        last.confirmed = Some(at.saturating_duration_since(last.started));
                        true
                    }
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

fn begin(handshakes: &mut Vec<Handshake>, initiator: u32, started: Instant) {
    if handshakes.len() == KEPT {
        handshakes.remove(0);
    }
    handshakes.push(Handshake { initiator, started, answered: None, confirmed: None });
}

fn answer(handshakes: &mut [Handshake], initiator: u32, at: Instant) {
    // Indices come again after 256 handshakes: the newest is meant.
    if let Some(found) = handshakes.iter_mut().rfind(|handshake| handshake.initiator == initiator) {
        found.answered.get_or_insert(at.saturating_duration_since(found.started));
    }
}

fn index(message: &[u8], at: usize) -> u32 {
    message[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::underlay::messages::{cookie, initiation, keepalive, response};

    #[test]
    fn initiator_and_responder_time_their_own_parts() {
        let (initiator, responder) = (Record::default(), Record::default());
        initiator.sending(&initiation(1));
        initiator.sending(&initiation(2));
        let now = Instant::now();
        assert!(!responder.read(&initiation(2), now));
        responder.sending(&response(77, 2));
        assert!(initiator.read(&response(77, 2), now + Duration::from_millis(30)));
        let initiated = initiator.truth().initiated;
        assert_eq!((initiated[0].answered, initiated.len()), (None, 2));
        assert!(initiated[1].answered >= Some(Duration::from_millis(30)));

        assert!(!responder.read(&keepalive(76, 5), now), "of an older session");
        assert!(responder.read(&keepalive(77, 0), now + Duration::from_millis(50)));
        assert!(!responder.read(&keepalive(77, 1), now + Duration::from_millis(60)), "once");
        let received = responder.truth().received;
        assert_eq!(received[0].confirmed, Some(Duration::from_millis(50)));
        assert!(received[0].answered < Some(Duration::from_millis(30)));
    }

    #[test]
    fn what_did_not_leave_or_is_no_answer_is_not_timed() {
        let record = Record::default();
        record.sending(&initiation(1));
        record.not_sent(&initiation(1));
        record.sending(&initiation(2));
        assert!(!record.read(&cookie(2), Instant::now()));
        record.read(&response(9, 1), Instant::now());
        let initiated = record.truth().initiated;
        assert_eq!(
            initiated.iter().map(|one| (one.initiator, one.answered)).collect::<Vec<_>>(),
            [(2, None)]
        );
    }
}
