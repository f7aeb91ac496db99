//! What became of the messages of one direction: as the agent that receives them judges, and as the link knows.

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::link::{Direction, Link, SessionLedger};
use tailgauge_testbed::process::wait_every;

use crate::lab::{PAUSE, SETTLES, count};

/// Messages of all sessions in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Judged {
    /// Each once.
    pub received: u64,
    /// Missing below the highest of their session.
    pub lost: u64,
    /// Of those received, behind a higher one.
    pub reordered: u64,
    /// Received before.
    pub duplicated: u64,
    /// Received, and none of the above.
    pub unjudged: u64,
}

impl Judged {
    /// By the agent at the receiving end.
    pub fn by_agent(scrape: &Exposition, peer: u64) -> Self {
        let of = |what| count(scrape, &format!("tailgauge_peer_wireguard_{what}_packets_total"), peer);
        Self {
            received: of("received"),
            lost: of("lost"),
            reordered: of("reordered"),
            duplicated: of("duplicated"),
            unjudged: of("unjudged"),
        }
    }

    /// As the ledger of the link has it.
    pub fn by_link(link: &Link, direction: Direction) -> Self {
        let sessions = link.wireguard(direction);
        let sum = |pick: fn(&SessionLedger) -> u64| sessions.iter().map(pick).sum();
        Self {
            received: sum(|one| one.delivered),
            lost: sum(|one| one.dropped_below_highest),
            reordered: sum(|one| one.late),
            duplicated: sum(|one| one.duplicates),
            unjudged: 0,
        }
    }

    /// What was added since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            received: self.received - before.received,
            lost: self.lost - before.lost,
            reordered: self.reordered - before.reordered,
            duplicated: self.duplicated - before.duplicated,
            unjudged: self.unjudged - before.unjudged,
        }
    }
}

/// One direction of a link, the agent that receives by it and the one that sends.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// The link that all messages pass.
    pub link: &'a Link,
    /// Which way.
    pub direction: Direction,
    /// The agent at the receiving end, and the peer that it receives from.
    pub receiver: (&'a Agent<'a>, u64),
    /// The agent at the sending end, and the peer that it sends to.
    pub sender: (&'a Agent<'a>, u64),
}

/// Both accounts of a direction, while nothing is on its way.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// The receiver's.
    pub agent: Judged,
    /// The link's.
    pub link: Judged,
    /// By the sender's agent.
    pub sent: u64,
    /// Entered the link.
    pub offered: u64,
    /// Of those, the ones of which no copy came.
    pub dropped: u64,
}

impl Account {
    /// What was added since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            agent: self.agent.since(before.agent),
            link: self.link.since(before.link),
            sent: self.sent - before.sent,
            offered: self.offered - before.offered,
            dropped: self.dropped - before.dropped,
        }
    }

    /// The agents say what the link knows.
    pub fn agrees(&self) -> bool {
        self.agent == self.link
            && self.sent == self.offered
            && self.sent - self.agent.received == self.dropped
            && self.agent.received + self.dropped == self.offered
    }
}

impl Way<'_> {
    /// Both accounts at one moment: no message moved between the reading of the first and of the last.
    pub fn account(&self) -> Account {
        let read = || {
            let before = self.link.wireguard(self.direction);
            let agent = Judged::by_agent(&self.receiver.0.scrape().ok()?, self.receiver.1);
            let sent = self.sender.0.scrape().ok()?;
            let sent = count(&sent, "tailgauge_peer_wireguard_sent_packets_total", self.sender.1);
            let sum = |pick: fn(&SessionLedger) -> u64| before.iter().map(pick).sum::<u64>();
            let account = Account {
                agent,
                link: Judged::by_link(self.link, self.direction),
                sent,
                offered: sum(|one| one.offered),
                dropped: sum(|one| one.dropped),
            };
            let is_at_rest = sum(|one| one.delivered) + account.dropped == account.offered;
            (is_at_rest && self.link.wireguard(self.direction) == before).then_some(account)
        };
        wait_every(PAUSE, "a moment without traffic", SETTLES, read).unwrap()
    }

    /// Waits until the agents agree with the link on all that came since `before`, and returns it.
    pub fn settled(&self, before: Account) -> Account {
        let mut last = None;
        let agree = wait_every(PAUSE, "the agents and the link to agree", SETTLES, || {
            let since = self.account().since(before);
            last = Some(since);
            since.agrees().then_some(since)
        });
        agree.unwrap_or_else(|timeout| {
            panic!("{timeout}: {last:#?}\n{:#?}", self.link.wireguard(self.direction));
        })
    }
}
