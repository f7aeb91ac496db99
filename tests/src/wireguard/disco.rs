//! Disco pings and pongs with every active peer, and what they really took.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::paths::Way;
use super::peers::{Peer, PeerTable, lock};
use super::plane::Plane;
use super::receive::Arrival;
use crate::underlay::disco::{self, Disco, Kind, Transaction};
use crate::underlay::messages::GENEVE_DISCO;

/// The best path of an active peer is asked so often: `heartbeatInterval` (`wgengine/magicsock/endpoint.go`).
const HEARTBEAT: Duration = Duration::from_secs(3);
/// A ping without a pong is forgotten after this: `pingTimeoutDuration`.
const PATIENCE: Duration = Duration::from_secs(5);
/// The newest so many measurements are kept.
const KEPT: usize = 4096;

/// What the disco messages with one peer really were, as the data plane saw them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiscoTruth {
    /// Pings that left.
    pub pings_sent: u64,
    /// Pongs to them that came.
    pub pongs_received: u64,
    /// Pings that came.
    pub pings_received: u64,
    /// Pongs that left.
    pub pongs_sent: u64,
    /// From the sending of a ping until its pong was read, of the newest 4096.
    pub round_trips: Vec<Duration>,
    /// From the reading of a ping until its pong was sent, of the newest 4096.
    pub reactions: Vec<Duration>,
}

/// The exchange of pings and pongs with one peer.
#[derive(Debug, Default)]
pub(super) struct Exchange(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    truth: DiscoTruth,
    last_ping: Option<Instant>,
    outstanding: VecDeque<(Transaction, Instant)>,
}

impl Exchange {
    pub(super) fn truth(&self) -> DiscoTruth {
        lock(&self.0).truth.clone()
    }

    /// Pings by `send`, which says whether the message left, unless the last ping is younger than a heartbeat.
    fn ping_if_due(&self, send: impl FnOnce(Transaction) -> bool) {
        // Held while sending: the pong is not looked at before the ping is written down.
        let mut state = lock(&self.0);
        let now = Instant::now();
        if state.last_ping.is_some_and(|at| now - at < HEARTBEAT) {
            return;
        }
        state.last_ping = Some(now);
        state.outstanding.retain(|(_, sent)| now - *sent < PATIENCE);
        let transaction = rand::random();
        if send(transaction) {
            state.truth.pings_sent += 1;
            state.outstanding.push_back((transaction, now));
        }
    }

    fn ponged(&self, transaction: Transaction, at: Instant) {
        let mut state = lock(&self.0);
        let Some(found) = state.outstanding.iter().position(|(sent, _)| *sent == transaction) else { return };
        if let Some((_, sent)) = state.outstanding.remove(found) {
            state.truth.pongs_received += 1;
            keep(&mut state.truth.round_trips, at.saturating_duration_since(sent));
        }
    }

    /// Answers a ping, read at `since`, by `send`, which says whether the pong left.
    fn answer(&self, since: Instant, send: impl FnOnce() -> bool) {
        let reaction = since.elapsed();
        let sent = send();
        let mut state = lock(&self.0);
        state.truth.pings_received += 1;
        if sent {
            state.truth.pongs_sent += 1;
            keep(&mut state.truth.reactions, reaction);
        }
    }
}

fn keep(measurements: &mut Vec<Duration>, new: Duration) {
    if measurements.len() == KEPT {
        measurements.remove(0);
    }
    measurements.push(new);
}

impl Plane {
    /// Pings a peer that is active, if it is time.
    pub(super) fn heartbeat(&self, peer: &Peer) {
        // Who is reached through DERP is not pinged there all the time.
        let Some(way) = peer.way().filter(|way| *way != Way::Derp) else { return };
        let key = self.disco_key();
        peer.disco.ping_if_due(|transaction| self.send_disco(peer, way, &disco::ping(key, transaction)));
    }

    fn send_disco(&self, peer: &Peer, way: Way, message: &[u8]) -> bool {
        self.send_batch(peer, way, GENEVE_DISCO, message, message.len())
    }

    /// Takes a disco message; strangers are not answered.
    pub(super) fn receive_disco(&self, table: &PeerTable, message: Disco, arrival: Arrival) {
        let Some(peer) = table.by_disco(message.key) else { return };
        match message.kind {
            Kind::Pong => peer.disco.ponged(message.transaction, arrival.since),
            Kind::Ping => {
                let busy = Duration::from_nanos(self.reaction.load(Ordering::Relaxed));
                if !busy.is_zero() {
                    thread::sleep(busy);
                }
                let key = self.disco_key();
                let pong = disco::pong(key, message.transaction);
                peer.disco.answer(arrival.since, || self.send_disco(peer, arrival.way, &pong));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pong_counts_once_and_only_after_its_ping() {
        let exchange = Exchange::default();
        let mut asked = None;
        exchange.ping_if_due(|transaction| {
            asked = Some(transaction);
            true
        });
        exchange.ping_if_due(|_| unreachable!("a heartbeat is not over"));
        let later = Instant::now() + Duration::from_millis(20);
        exchange.ponged([0; 12], later);
        assert_eq!(exchange.truth().pongs_received, 0);
        for _ in 0..2 {
            exchange.ponged(asked.unwrap(), later);
        }
        let truth = exchange.truth();
        assert_eq!((truth.pings_sent, truth.pongs_received, truth.round_trips.len()), (1, 1, 1));
        assert!(truth.round_trips[0] >= Duration::from_millis(20));
    }

    #[test]
    fn measurements_are_bounded_and_the_newest_stay() {
        let mut kept = Vec::new();
        for index in 0..KEPT as u64 + 10 {
            keep(&mut kept, Duration::from_nanos(index));
        }
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0], Duration::from_nanos(10));
    }
}
