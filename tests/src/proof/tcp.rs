//! The agent's TCP families of one peer.

use crate::agent::{Agent, AgentError};
use crate::exposition::Exposition;

/// TCP counters of one peer, as far as the proofs use them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tcp {
    /// Samples by leg: peer, remote.
    pub samples: [f64; 2],
    /// Their sum in seconds, by leg.
    pub seconds: [f64; 2],
    /// Samples up to each `le`, by leg.
    pub buckets: [Vec<(f64, f64)>; 2],
    /// Opened by opener: peer, host. So are the next four.
    pub opened: [f64; 2],
    /// Answered by RST.
    pub refused: [f64; 2],
    /// Not answered.
    pub timeout: [f64; 2],
    /// SYNs seen again.
    pub syn_retransmits: [f64; 2],
    /// SYN-ACKs seen again.
    pub syn_ack_retransmits: [f64; 2],
    /// Ended by FIN.
    pub fin: f64,
    /// Ended by RST.
    pub reset: f64,
    /// Samples not taken because of a retransmission.
    pub ambiguous: f64,
    /// Samples lost.
    pub lost: f64,
}

impl Tcp {
    /// Reads the families of `peer`.
    #[must_use]
    pub fn read(scrape: &Exposition, peer: &str) -> Self {
        let sum = |name: &str, label: &str, value: &str| {
            scrape.sum(&format!("tailgauge_peer_tcp_{name}"), &[("peer_id", peer), (label, value)])
        };
        let openers = |name: &str| ["peer", "host"].map(|opener| sum(name, "opener", opener));
        let failed = |reason: &str| {
            ["peer", "host"].map(|opener| {
                let labels = [("peer_id", peer), ("opener", opener), ("reason", reason)];
                scrape.sum("tailgauge_peer_tcp_connections_failed_total", &labels)
            })
        };
        let legs = |suffix: &str| {
            ["peer", "remote"].map(|leg| sum(&format!("handshake_seconds_{suffix}"), "leg", leg))
        };
        let buckets = |leg: &str| {
            let labels = [("peer_id", peer), ("leg", leg)];
            let buckets = scrape.matching("tailgauge_peer_tcp_handshake_seconds_bucket", &labels);
            let bound = |text: &str| text.parse().ok();
            buckets.filter_map(|bucket| Some((bucket.label("le").and_then(bound)?, bucket.value))).collect()
        };
        Self {
            samples: legs("count"),
            seconds: legs("sum"),
            buckets: [buckets("peer"), buckets("remote")],
            opened: openers("connections_opened_total"),
            refused: failed("refused"),
            timeout: failed("timeout"),
            syn_retransmits: openers("syn_retransmits_total"),
            syn_ack_retransmits: openers("syn_ack_retransmits_total"),
            fin: sum("connections_closed_total", "reason", "fin"),
            reset: sum("connections_closed_total", "reason", "reset"),
            ambiguous: sum("handshake_samples_dropped_total", "reason", "ambiguous"),
            lost: sum("handshake_samples_dropped_total", "reason", "lost"),
        }
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let pair = |now: [f64; 2], then: [f64; 2]| [now[0] - then[0], now[1] - then[1]];
        let buckets = |leg: usize| {
            let before = |le: f64| {
                earlier.buckets[leg].iter().find(|(bound, _)| *bound == le).map_or(0.0, |(_, count)| *count)
            };
            self.buckets[leg].iter().map(|(le, count)| (*le, count - before(*le))).collect()
        };
        Self {
            samples: pair(self.samples, earlier.samples),
            seconds: pair(self.seconds, earlier.seconds),
            buckets: [buckets(0), buckets(1)],
            opened: pair(self.opened, earlier.opened),
            refused: pair(self.refused, earlier.refused),
            timeout: pair(self.timeout, earlier.timeout),
            syn_retransmits: pair(self.syn_retransmits, earlier.syn_retransmits),
            syn_ack_retransmits: pair(self.syn_ack_retransmits, earlier.syn_ack_retransmits),
            fin: self.fin - earlier.fin,
            reset: self.reset - earlier.reset,
            ambiguous: self.ambiguous - earlier.ambiguous,
            lost: self.lost - earlier.lost,
        }
    }

    /// Mean of a leg's samples in seconds.
    #[must_use]
    pub fn mean(&self, leg: usize) -> f64 {
        self.seconds[leg] / self.samples[leg]
    }

    /// Samples of a leg above `bound` seconds, which should be a bound of the histogram or far from any sample.
    #[must_use]
    pub fn above(&self, leg: usize, bound: f64) -> f64 {
        let below = self.buckets[leg].iter().rfind(|(le, _)| *le <= bound).map_or(0.0, |(_, count)| *count);
        self.samples[leg] - below
    }
}

/// The agent's counters of `peer` once they fulfil `condition`: an ACK or FIN may still be under way.
///
/// # Errors
/// They never do.
pub fn settled(
    agent: &mut Agent<'_>,
    peer: &str,
    what: &str,
    condition: impl Fn(&Tcp) -> bool,
) -> Result<Tcp, AgentError> {
    let scrape = agent.wait_scrape(what, |scrape| condition(&Tcp::read(scrape, peer)));
    match scrape {
        Ok(scrape) => Ok(Tcp::read(&scrape, peer)),
        Err(AgentError::NotReady { mut timeout, log }) => {
            timeout.what = format!("{what}, last {:?}", Tcp::read(&agent.scrape()?, peer));
            Err(AgentError::NotReady { timeout, log })
        }
        Err(error) => Err(error),
    }
}
