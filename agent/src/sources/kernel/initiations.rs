//! Handshakes that this node asked for in vain. Nothing tells that an answer did not come, and it may have come by
//! DERP, which only tailscaled knows: it has its say before an initiation counts as a failure.

use std::time::{Duration, Instant, SystemTime};

use super::session::UNANSWERED_AFTER;
use crate::model::slots::SlotTable;
use crate::model::tailnet::{Peer, WireGuardState};

/// tailscaled is asked every 10 s; if it can tell of an answer, it has by now. Nanoseconds from the initiation.
const PATIENCE: u64 = 15_000_000_000;
/// How far tailscaled's wall clock may be off the programs' clock.
const TOLERANCE: Duration = Duration::from_secs(1);

/// An initiation that was not answered over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Initiation {
    /// Slot of the peer.
    pub(super) slot: u32,
    /// When it was sent, nanoseconds of CLOCK_MONOTONIC.
    pub(super) started_at: u64,
    /// When the next one was sent, if there was any until now: only that one can be answered since.
    pub(super) followed_at: Option<u64>,
}

/// What became of an initiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It may still turn out that it was answered.
    Wait,
    /// There was a handshake since, and before the next initiation.
    Completed,
    /// There was none.
    Failed,
}

/// Judges an initiation at `now`, given when tailscaled last completed a handshake with the peer as far as it said when
/// it was asked at `asked_at`. All in nanoseconds of CLOCK_MONOTONIC.
fn judge(initiation: Initiation, completed_at: Option<u64>, asked_at: u64, now: u64) -> Verdict {
    let Initiation { started_at, followed_at, .. } = initiation;
    let tolerance = TOLERANCE.as_nanos() as u64;
    let is_its_own = |completed: u64| {
        completed.saturating_add(tolerance) >= started_at && followed_at.is_none_or(|next| completed < next)
    };
    if completed_at.is_some_and(is_its_own) {
        Verdict::Completed
    } else if asked_at.saturating_sub(started_at) > UNANSWERED_AFTER
        || now.saturating_sub(started_at) >= PATIENCE
    {
        Verdict::Failed
    } else {
        Verdict::Wait
    }
}

/// `moment` on the clock that shows `monotonic` nanoseconds when the wall clock shows `wall`; `None` for one in the
/// future, and for one before the other clock began.
fn on_monotonic_clock(moment: SystemTime, wall: SystemTime, monotonic: u64) -> Option<u64> {
    match wall.duration_since(moment) {
        Ok(age) => monotonic.checked_sub(u64::try_from(age.as_nanos()).ok()?),
        Err(ahead) if ahead.duration() <= TOLERANCE => Some(monotonic),
        Err(_) => None,
    }
}

/// When tailscaled last completed a handshake with a peer, as far as it said.
fn last_completed(peer: &Peer) -> Option<SystemTime> {
    let session = peer.wireguard.filter(|session| session.state == WireGuardState::Established);
    peer.last_handshake.max(session.and_then(|session| session.since))
}

/// Initiations whose fate is open, and what tailscaled said.
#[derive(Debug, Default)]
pub(super) struct Initiations {
    open: Vec<Initiation>,
    /// By slot.
    completed: Vec<Option<SystemTime>>,
    /// When it was asked, nanoseconds of CLOCK_MONOTONIC; 0 before it was.
    asked_at: u64,
}

impl Initiations {
    /// Takes tailscaled's word, for which it was asked at `asked`. `now` is the present, in nanoseconds of
    /// CLOCK_MONOTONIC.
    pub(super) fn hear(&mut self, slots: &SlotTable, asked: Option<Instant>, now: u64) {
        let age = asked.and_then(|asked| u64::try_from(asked.elapsed().as_nanos()).ok());
        self.asked_at = age.map_or(0, |age| now.saturating_sub(age));
        self.completed.clear();
        self.completed.resize(slots.rows() as usize, None);
        for (slot, entry) in slots.iter() {
            if let Some(completed) = self.completed.get_mut(slot as usize) {
                *completed = last_completed(&entry.peer);
            }
        }
    }

    /// Where initiations without an answer go.
    pub(super) const fn open(&mut self) -> &mut Vec<Initiation> {
        &mut self.open
    }

    /// `fail` gets the slot of each initiation that has failed, once. `wall` and `now` are the same moment.
    pub(super) fn settle(&mut self, wall: SystemTime, now: u64, mut fail: impl FnMut(u32)) {
        let Self { open, completed, asked_at } = self;
        open.retain(|initiation| {
            let completed = completed.get(initiation.slot as usize).copied().flatten();
            let completed = completed.and_then(|moment| on_monotonic_clock(moment, wall, now));
            match judge(*initiation, completed, *asked_at, now) {
                Verdict::Wait => true,
                Verdict::Completed => false,
                Verdict::Failed => {
                    fail(initiation.slot);
                    false
                }
            }
        });
    }

    /// Forgets the initiations of a slot whose peer is gone.
    pub(super) fn retire(&mut self, slot: u32) {
        self.open.retain(|initiation| initiation.slot != slot);
        if let Some(completed) = self.completed.get_mut(slot as usize) {
            *completed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::model::tailnet::WireGuardSession;

    const NOBODY: [u32; 0] = [];

    const fn seconds(seconds: u64) -> u64 {
        seconds * 1_000_000_000
    }

    fn wall(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    #[test]
    fn an_initiation_fails_when_tailscaled_had_its_say_and_knows_of_no_handshake_since() {
        let sent = Initiation { slot: 1, started_at: seconds(100), followed_at: None };
        let at = |completed: Option<u64>, now| judge(sent, completed.map(seconds), 0, seconds(now));
        assert_eq!(at(None, 107), Verdict::Wait);
        assert_eq!(at(Some(98), 114), Verdict::Wait);
        assert_eq!(at(None, 115), Verdict::Failed);
        assert_eq!(at(Some(98), 115), Verdict::Failed, "the handshake before");
        assert_eq!(at(Some(99), 107), Verdict::Completed, "clocks are not that exact");
        assert_eq!(at(Some(101), 115), Verdict::Completed);
        assert_eq!(at(None, 50), Verdict::Wait, "a clock read before it was sent");
        let asked_at = |asked| judge(sent, Some(seconds(98)), seconds(asked), seconds(108));
        assert_eq!(asked_at(106), Verdict::Wait, "it might still have been answered");
        assert_eq!(asked_at(107), Verdict::Failed);
        let again = Initiation { followed_at: Some(seconds(105)), ..sent };
        let at = |completed| judge(again, Some(seconds(completed)), seconds(107), seconds(108));
        assert_eq!(at(104), Verdict::Completed);
        assert_eq!(at(105), Verdict::Failed, "the next one was answered");
    }

    #[test]
    fn moments_of_the_wall_clock_are_those_of_the_other() {
        let at = |moment| on_monotonic_clock(wall(moment), wall(1000), seconds(50));
        assert_eq!(at(990), Some(seconds(40)));
        assert_eq!(at(1001), Some(seconds(50)), "a moment ago, by a clock that is slewed");
        assert_eq!(at(1002), None, "the clock was set back");
        assert_eq!(at(900), None, "before this machine started");
    }

    #[test]
    fn only_an_established_session_is_a_handshake() {
        let session = |state| Some(WireGuardSession { state, since: Some(wall(9)) });
        let peer = Peer { last_handshake: Some(wall(5)), ..Peer::default() };
        let with = |state| last_completed(&Peer { wireguard: session(state), ..peer.clone() });
        assert_eq!(last_completed(&peer), Some(wall(5)));
        assert_eq!(with(WireGuardState::Established), Some(wall(9)));
        assert_eq!(with(WireGuardState::Handshake), Some(wall(5)));
        assert_eq!(last_completed(&Peer::default()), None);
    }

    #[test]
    fn each_initiation_fails_once_and_a_word_from_tailscaled_saves_it() {
        let peer =
            |handshake| Arc::new(Peer { id: "a".to_owned(), last_handshake: handshake, ..Peer::default() });
        let mut slots = SlotTable::new(8);
        slots.update(&[peer(Some(wall(900)))], Instant::now());
        let mut initiations = Initiations::default();
        initiations.hear(&slots, None, seconds(0));
        for (slot, started_at) in [(1, 100), (1, 106), (0, 100), (5, 100)] {
            let started_at = seconds(started_at);
            initiations.open().push(Initiation { slot, started_at, followed_at: None });
        }
        let failed_at = |initiations: &mut Initiations, now| {
            let mut failed = Vec::new();
            initiations.settle(wall(900 + now), seconds(now), |slot| failed.push(slot));
            failed
        };
        assert_eq!(failed_at(&mut initiations, 108), NOBODY);
        initiations.retire(5);
        assert_eq!(failed_at(&mut initiations, 115), [1, 0]);
        slots.update(&[peer(Some(wall(900 + 107)))], Instant::now());
        initiations.hear(&slots, None, seconds(0));
        assert_eq!(failed_at(&mut initiations, 130), NOBODY, "the second was answered by DERP");
        assert!(initiations.open().is_empty());
    }
}
