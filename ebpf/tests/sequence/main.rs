//! The account of a session against the definitions, and under arrivals that interrupt each other.

mod concurrent;
mod memory;
mod model;

use memory::Row;
use model::{ABSURD, Model};
use proptest::prelude::*;
use tailgauge_ebpf::sequence::{receive, settle};

/// What happens to the messages of a session.
#[derive(Clone, Debug)]
enum Step {
    /// As many arrive, in order.
    Run(u64),
    /// As many are lost, then one arrives.
    Lose(u64),
    /// As many may have gone another way, then one arrives.
    Void(u64),
    /// One is overtaken by as many others.
    Overtake(u64),
    /// The counter that is so far behind the highest comes, perhaps once more, perhaps after all.
    Late(u64),
    /// A counter that has nothing to do with what came before.
    Any(u64, bool),
    /// All but so many of the last are settled.
    Settle(u64),
}

/// Mostly few, sometimes about as many as the ring holds, or more.
fn distance() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..4, 4 => 0u64..100, 2 => 1900u64..2200, 1 => 0u64..10_001]
}

/// Absurd ones too.
fn counter() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..100_000,
        0..ABSURD,
        ABSURD - 5000..ABSURD + 5000,
        (1u64 << 37) - 5000..(1 << 37) + 5000,
        u64::MAX - 5000..=u64::MAX,
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => distance().prop_map(Step::Run),
        4 => distance().prop_map(Step::Lose),
        1 => distance().prop_map(Step::Void),
        3 => distance().prop_map(Step::Overtake),
        6 => distance().prop_map(Step::Late),
        2 => distance().prop_map(Step::Settle),
    ];
    let absurd =
        || (counter(), any::<bool>()).prop_map(|(counter, continuous)| Step::Any(counter, continuous));
    // Where a session begins is of no importance, or of all.
    let start = prop_oneof![Just(Step::Run(0)), distance().prop_map(Step::Lose), absurd()];
    let rest = prop::collection::vec(prop_oneof![60 => step, 1 => absurd()], 1..40);
    (start, rest).prop_map(|(start, rest)| [vec![start], rest].concat())
}

/// A session and its model, which see the same.
struct Both {
    row: Row,
    model: Model,
    arrivals: u64,
    settled: u64,
    lost: u64,
}

impl Both {
    fn new(has_loop: bool) -> Self {
        Self { row: Row::new(has_loop), model: Model::new(has_loop), arrivals: 0, settled: 0, lost: 0 }
    }

    fn receive(&mut self, counter: u64, continuous: bool) -> Result<(), TestCaseError> {
        receive(&self.row, counter, continuous);
        self.model.receive(counter, continuous);
        self.arrivals += 1;
        prop_assert_eq!(self.row.counts(), self.model.counts, "counter {}", counter);
        Ok(())
    }

    fn settle(&mut self, up_to: u64) {
        self.settled = self.settled.max(up_to);
        settle(&self.row, self.settled);
        self.model.settle(self.settled);
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let next = self.row.next();
        match *step {
            Step::Run(count) => (0..count).try_for_each(|ahead| self.receive(next + ahead, true))?,
            Step::Lose(count) => self.receive(next + count, true)?,
            Step::Void(count) => self.receive(next + count, false)?,
            Step::Overtake(count) => {
                (1..=count).try_for_each(|ahead| self.receive(next + ahead, true))?;
                self.receive(next, true)?;
            }
            Step::Late(behind) => self.receive(next.saturating_sub(1 + behind), true)?,
            Step::Any(counter, continuous) => self.receive(counter, continuous)?,
            Step::Settle(but) => self.settle(next.saturating_sub(but)),
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let (row, model) = (&self.row, &self.model);
        let (counts, lost, pending) = (row.counts(), row.lost(), row.pending());
        prop_assert_eq!(row.next(), model.next);
        prop_assert_eq!(counts.received + counts.duplicated + counts.unjudged, self.arrivals);
        prop_assert!(counts.reordered <= counts.received);
        prop_assert_eq!(counts.received + lost + pending, model.judged());
        prop_assert_eq!(lost + pending, model.missing);
        prop_assert!(lost >= self.lost, "what was lost has come: {} after {}", lost, self.lost);
        let certain = model.missing - model.open();
        prop_assert!(lost <= certain, "{} lost, which is certain of {}", lost, certain);
        if !model.has_void() {
            prop_assert_eq!(lost, certain);
        }
        self.lost = lost;
        Ok(())
    }
}

fn agree(has_loop: bool, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut both = Both::new(has_loop);
    steps.iter().try_for_each(|step| both.take(step))?;
    both.settle(both.row.next());
    both.check()?;
    prop_assert_eq!((both.row.pending(), both.row.lost()), (0, both.model.missing));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_session_counts_as_the_definitions_say(steps in steps()) {
        agree(true, &steps)?;
    }

    #[test]
    fn without_loops_a_longer_gap_is_not_judged(steps in steps()) {
        agree(false, &steps)?;
    }
}

/// Counts and losses of these arrivals, all without a break.
fn of(counters: impl IntoIterator<Item = u64>) -> (memory::Counts, u64) {
    let row = Row::new(true);
    counters.into_iter().for_each(|counter| receive(&row, counter, true));
    settle(&row, row.next());
    (row.counts(), row.lost())
}

#[test]
fn a_session_in_order_loses_nothing() {
    let (counts, lost) = of(0..100_000);
    assert_eq!((counts.received, counts.reordered, counts.duplicated, counts.unjudged), (100_000, 0, 0, 0));
    assert_eq!(lost, 0);
}

#[test]
fn one_of_a_thousand_is_lost_and_ten_thousand_at_once_too() {
    assert_eq!(of((0..100_000).filter(|counter| counter % 1000 != 7)).1, 100);
    assert_eq!(of((0..100_000).filter(|counter| !(33..10_033).contains(counter))).1, 10_000);
}

#[test]
fn the_last_of_a_session_is_not_missed_and_the_first_is() {
    assert_eq!(of(3..10).1, 3);
}

#[test]
fn counters_that_no_session_reaches_change_nothing_else() {
    let honest = of(0..100);
    let absurd = [ABSURD, 1 << 37, 1 << 63, u64::MAX - 1, u64::MAX];
    let (counts, lost) = of((0..50).chain(absurd).chain(50..100));
    assert_eq!((counts.received, lost), (honest.0.received, 0));
    assert_eq!(counts.unjudged, absurd.len() as u64);
}
