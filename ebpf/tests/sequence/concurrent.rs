//! Arrivals on other CPUs at any moment: between two accesses to the row, and on threads of their own.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;
use tailgauge_ebpf::sequence::{Field, Memory, open_block, receive, settle};

use crate::memory::Row;

/// What a CPU does.
#[derive(Clone, Copy, Debug)]
enum Event {
    Receive(u64),
    /// The agent settles what is this far behind.
    Settle(u64),
}

/// A row whose every access may be preceded by whole events of other CPUs.
struct Interrupted<'a> {
    row: &'a Row,
    events: RefCell<VecDeque<Event>>,
    /// Whether the next access is interrupted; repeated.
    plan: &'a [bool],
    accesses: Cell<usize>,
    /// Events that interrupt one that is under way. As many CPUs at the same word exhaust the tries.
    room: Cell<u32>,
    /// The agent is at it. There is one agent, so nothing else settles meanwhile.
    settles: Cell<bool>,
}

impl Interrupted<'_> {
    fn run(&self) {
        while let Some(event) = self.pop() {
            self.room.set(3);
            self.handle(event);
        }
    }

    fn pop(&self) -> Option<Event> {
        let mut events = self.events.borrow_mut();
        let must_wait = self.settles.get() && matches!(events.front(), Some(Event::Settle(_)));
        if must_wait { None } else { events.pop_front() }
    }

    fn handle(&self, event: Event) {
        match event {
            Event::Receive(counter) => receive(self, counter, true),
            Event::Settle(behind) => {
                self.settles.set(true);
                settle(self, self.row.next().saturating_sub(behind));
                self.settles.set(false);
            }
        }
    }

    fn interrupt(&self) -> &Row {
        let access = self.accesses.get();
        self.accesses.set(access + 1);
        if self.room.get() > 0
            && self.plan[access % self.plan.len()]
            && let Some(event) = self.pop()
        {
            self.room.set(self.room.get() - 1);
            self.handle(event);
        }
        self.row
    }
}

impl Memory for Interrupted<'_> {
    fn get(&self, field: Field) -> u64 {
        self.interrupt().get(field)
    }

    fn set(&self, field: Field, value: u64) {
        self.interrupt().set(field, value);
    }

    fn add(&self, field: Field, value: u64) {
        self.interrupt().add(field, value);
    }

    fn exchange(&self, field: Field, old: u64, new: u64) -> u64 {
        self.interrupt().exchange(field, old, new)
    }

    fn block(&self, block: u64) -> u64 {
        self.interrupt().block(block)
    }

    fn exchange_block(&self, block: u64, old: u64, new: u64) -> u64 {
        self.interrupt().exchange_block(block, old, new)
    }

    fn open_blocks(&self, first: u64, last: u64) -> bool {
        (first..=last).for_each(|block| open_block(self, block));
        true
    }
}

/// Counters, each at most once, some lost, some late by up to `LATE` places; and settling behind them.
fn stream() -> impl Strategy<Value = (Vec<Event>, u64)> {
    let message = (prop::bool::weighted(0.1), prop_oneof![3 => Just(0usize), 1 => 0..LATE]);
    (prop::collection::vec(message, 1..3000), prop::collection::vec(any::<prop::sample::Index>(), 0..8))
        .prop_map(|(messages, settles)| {
            let mut order: Vec<(usize, u64)> = (0u64..)
                .zip(messages)
                .filter(|(_, (is_lost, _))| !is_lost)
                .map(|(counter, (_, late))| (counter as usize + late, counter))
                .collect();
            order.sort_unstable();
            // Whatever is behind the last one is not known to have been sent.
            let next = order.iter().map(|(_, counter)| counter + 1).max().unwrap_or(0);
            let lost = next - order.len() as u64;
            let mut events: Vec<_> = order.into_iter().map(|(_, counter)| Event::Receive(counter)).collect();
            for place in settles {
                events.insert(place.index(events.len() + 1), Event::Settle(SETTLED_BEHIND));
            }
            (events, lost)
        })
}

const LATE: usize = 1500;
/// Less than the latest, so that some come too late; but far from what is under way.
const SETTLED_BEHIND: u64 = 700;

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arrivals_that_interrupt_each_other_are_counted_once(
        (events, dropped) in stream(),
        plan in prop::collection::vec(prop::bool::weighted(0.3), 1..200),
    ) {
        let row = Row::new(true);
        let arrivals = events.iter().filter(|event| matches!(event, Event::Receive(_))).count() as u64;
        let cpus = Interrupted {
            row: &row,
            events: RefCell::new(events.into()),
            plan: &plan,
            accesses: Cell::new(0),
            room: Cell::new(0),
            settles: Cell::new(false),
        };
        cpus.run();
        settle(&row, row.next());
        let counts = row.counts();
        prop_assert_eq!(counts.received + counts.unjudged, arrivals);
        prop_assert_eq!(counts.duplicated, 0);
        prop_assert_eq!(row.pending(), 0);
        // What came too late to be judged may have been called lost before; nothing else.
        let lost = row.lost();
        prop_assert!((dropped..=dropped + counts.unjudged).contains(&lost), "{} of {}: {:?}", lost, dropped, counts);
    }
}

/// Messages that the threads are apart at most; less than the ring holds, as on CPUs that are not stopped.
const APART: u64 = 512;

#[test]
fn threads_that_share_a_session_receive_all_of_it() {
    const MESSAGES: u64 = APART * 400;
    for threads in [2, 3] {
        let (row, barrier) = (Row::new(true), Barrier::new(threads as usize));
        thread::scope(|scope| {
            for thread in 0..threads {
                let (row, barrier) = (&row, &barrier);
                scope.spawn(move || {
                    for stretch in (0..MESSAGES).step_by(APART as usize) {
                        barrier.wait();
                        (stretch..stretch + APART)
                            .filter(|counter| counter % threads == thread)
                            .for_each(|counter| receive(row, counter, true));
                    }
                });
            }
        });
        settle(&row, row.next());
        let (counts, lost) = (row.counts(), row.lost());
        assert_eq!((row.next(), counts.received + counts.unjudged), (MESSAGES, MESSAGES), "{counts:?}");
        assert_eq!(counts.duplicated, 0);
        assert!(lost <= counts.unjudged, "{lost} lost: {counts:?}");
    }
}
