//! Tests of [`super`].

use std::mem::offset_of;

use proptest::prelude::*;
use tailgauge_ebpf::layout::{
    ROLE_INITIATOR, ROLE_RESPONDER, ROLE_UNSEEN, SESSION_TAKEN, SESSION_WAYS, WINDOW_NANOSECONDS,
};
use tailgauge_ebpf::sequence::receive;

use super::*;

const SLOTS: u32 = 8;
const NOBODY: [u32; 0] = [];

const fn seconds(seconds: u64) -> u64 {
    seconds * 1_000_000_000
}

/// The memory of one set, and what the programs do with it.
struct Kernelside {
    keys: Vec<AtomicU64>,
    rows: Vec<AtomicU64>,
}

impl Kernelside {
    fn new() -> Self {
        let words = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { keys: words(SESSION_WAYS), rows: words(SESSION_WAYS * WORDS) }
    }

    fn table(&self) -> Table<'_> {
        Table { keys: &self.keys, rows: &self.rows }
    }

    fn row(&self, way: usize) -> Row<'_> {
        Row::new(&self.rows[way * WORDS..][..WORDS]).unwrap()
    }

    fn set(&self, way: usize, offset: usize, value: u64) {
        self.rows[way * WORDS + offset / 8].store(value, Ordering::Relaxed);
    }

    fn own(&self, way: usize, slot: u32, role: u32) {
        self.set(way, offset_of!(Session, slot), u64::from(slot) | u64::from(role) << 32);
    }

    fn begin(&self, way: usize, index: u64, role: u32, slot: u32, now: u64) {
        self.keys[way].store(SESSION_TAKEN | index, Ordering::Relaxed);
        self.set(way, offset_of!(Session, started_at), now);
        self.own(way, slot, role);
    }

    fn data(&self, way: usize, counters: impl IntoIterator<Item = u64>, now: u64) {
        for counter in counters {
            receive(&self.row(way), counter, true);
        }
        self.set(way, offset_of!(Session, data_window), now / WINDOW_NANOSECONDS);
    }

    fn is_taken(&self, way: usize) -> bool {
        self.keys[way].load(Ordering::Relaxed) != 0
    }
}

/// Sweeps at the full seconds of a range; returns slots of initiations without an answer.
fn sweep(ledger: &mut Ledger, side: &Kernelside, at: std::ops::RangeInclusive<u64>) -> Vec<u32> {
    let mut unanswered = Vec::new();
    for second in at {
        ledger.sweep(side.table(), seconds(second), &mut unanswered);
    }
    unanswered.iter().map(|initiation| initiation.slot).collect()
}

fn read(ledger: &mut Ledger, side: &Kernelside, kernel: &mut Kernel, at: u64) {
    ledger.sum_all(side.table(), seconds(at));
    let _ = ledger.copy(kernel, SLOTS).count();
}

fn received_and_lost(kernel: &Kernel, slot: usize) -> (u64, u64) {
    (kernel.sessions[slot].received, kernel.sessions[slot].lost)
}

#[test]
fn what_did_not_come_in_three_seconds_is_lost_and_a_scrape_shows_what_came_at_once() {
    let (side, mut ledger, mut kernel) = (Kernelside::new(), Ledger::new(SLOTS), Kernel::default());
    side.begin(3, 77, ROLE_UNSEEN, 2, seconds(100));
    side.data(3, [0, 1, 4], seconds(100));
    read(&mut ledger, &side, &mut kernel, 100);
    assert_eq!(received_and_lost(&kernel, 2), (3, 0));
    sweep(&mut ledger, &side, 101..=103);
    side.data(3, [2], seconds(103));
    read(&mut ledger, &side, &mut kernel, 103);
    assert_eq!((received_and_lost(&kernel, 2), kernel.sessions[2].reordered), ((4, 0), 1));
    sweep(&mut ledger, &side, 104..=104);
    read(&mut ledger, &side, &mut kernel, 104);
    assert_eq!(received_and_lost(&kernel, 2), (4, 1), "three seconds after it was first seen missing");
    side.data(3, [3], seconds(105));
    read(&mut ledger, &side, &mut kernel, 105);
    assert_eq!((received_and_lost(&kernel, 2), kernel.sessions[2].unjudged), ((4, 1), 1));
    assert_eq!(ledger.taken, 1);
}

#[test]
fn sweeps_close_together_or_far_apart_do_not_judge_early() {
    let (side, mut ledger, mut kernel) = (Kernelside::new(), Ledger::new(SLOTS), Kernel::default());
    side.begin(0, 1, ROLE_UNSEEN, 1, seconds(100));
    side.data(0, [0, 2], seconds(100));
    for millisecond in 0..2_900 {
        ledger.sweep(side.table(), seconds(100) + millisecond * 1_000_000, &mut Vec::new());
    }
    read(&mut ledger, &side, &mut kernel, 103);
    assert_eq!(received_and_lost(&kernel, 1), (2, 0));
    ledger.sweep(side.table(), seconds(110), &mut Vec::new());
    read(&mut ledger, &side, &mut kernel, 110);
    assert_eq!(received_and_lost(&kernel, 1), (2, 1));
}

#[test]
fn what_comes_after_a_session_got_another_owner_is_the_new_owners() {
    let (side, mut ledger, mut kernel) = (Kernelside::new(), Ledger::new(SLOTS), Kernel::default());
    side.begin(0, 1, ROLE_UNSEEN, 0, seconds(100));
    side.data(0, 0..10, seconds(100));
    sweep(&mut ledger, &side, 101..=101);
    side.own(0, 5, ROLE_UNSEEN);
    side.data(0, 10..13, seconds(101));
    read(&mut ledger, &side, &mut kernel, 101);
    assert_eq!((received_and_lost(&kernel, 0), received_and_lost(&kernel, 5)), ((10, 0), (3, 0)));
    side.own(0, 1_000, ROLE_UNSEEN);
    side.data(0, 13..14, seconds(101));
    read(&mut ledger, &side, &mut kernel, 101);
    assert_eq!(received_and_lost(&kernel, 0), (11, 0), "a slot that does not exist");
}

#[test]
fn a_freed_row_is_counted_to_its_end_and_its_next_session_from_its_beginning() {
    let (side, mut ledger, mut kernel) = (Kernelside::new(), Ledger::new(SLOTS), Kernel::default());
    side.begin(0, 1, ROLE_UNSEEN, 1, seconds(100));
    side.data(0, [0, 1, 3], seconds(110));
    read(&mut ledger, &side, &mut kernel, 110);
    side.begin(1, 2, ROLE_RESPONDER, 1, seconds(111));
    side.data(1, [0], seconds(111));
    side.data(0, [5], seconds(112));
    ledger.sweep(side.table(), seconds(143), &mut Vec::new());
    assert!(!side.is_taken(0) && side.is_taken(1), "silent for 30 s, and followed");
    read(&mut ledger, &side, &mut kernel, 143);
    assert_eq!(received_and_lost(&kernel, 1), (5, 2));

    side.begin(0, 3, ROLE_UNSEEN, 1, seconds(144));
    side.data(0, [0, 1], seconds(144));
    read(&mut ledger, &side, &mut kernel, 144);
    assert_eq!(received_and_lost(&kernel, 1), (7, 2));
    sweep(&mut ledger, &side, 145..=150);
    read(&mut ledger, &side, &mut kernel, 150);
    assert_eq!(received_and_lost(&kernel, 1), (7, 2), "nothing of the session before");
    sweep(&mut ledger, &side, 400..=400);
    assert!(!side.is_taken(0) && !side.is_taken(1), "both were rejected long ago");
    assert!(ledger.known.is_empty());
    assert_eq!(ledger.taken, 0);
}

#[test]
fn an_initiation_without_an_answer_is_reported_once_and_its_row_freed() {
    let (side, mut ledger) = (Kernelside::new(), Ledger::new(SLOTS));
    side.begin(0, 1, ROLE_INITIATOR, 3, seconds(100));
    side.begin(1, 2, ROLE_INITIATOR, 4, seconds(100));
    assert_eq!(sweep(&mut ledger, &side, 100..=106), NOBODY);
    side.set(1, offset_of!(Session, answered), 1);
    assert_eq!(sweep(&mut ledger, &side, 107..=110), [3]);
    assert!(side.is_taken(0) && side.is_taken(1));
    assert_eq!(sweep(&mut ledger, &side, 111..=112), NOBODY);
    assert!(!side.is_taken(0) && side.is_taken(1));
    side.begin(0, 9, ROLE_INITIATOR, 3, seconds(112));
    assert_eq!(sweep(&mut ledger, &side, 113..=130), [3], "another one in the same row");
}

#[test]
fn an_initiation_without_an_answer_knows_of_the_next_one_to_the_same_peer() {
    let (side, mut ledger) = (Kernelside::new(), Ledger::new(SLOTS));
    for (row, slot, at) in [(0, 3, 100), (1, 3, 105), (2, 4, 104), (3, 3, 110)] {
        side.begin(row, row as u64 + 1, ROLE_INITIATOR, slot, seconds(at));
    }
    side.begin(4, 9, ROLE_RESPONDER, 3, seconds(102));
    side.set(3, offset_of!(Session, answered), 1);
    let mut unanswered = Vec::new();
    for second in 107..=116 {
        ledger.sweep(side.table(), seconds(second), &mut unanswered);
    }
    let found: Vec<_> = unanswered.iter().map(|one| (one.slot, one.started_at, one.followed_at)).collect();
    let first = (3, seconds(100), Some(seconds(105)));
    assert_eq!(found, [first, (4, seconds(104), None), (3, seconds(105), Some(seconds(110)))]);
}

#[test]
fn a_retired_slot_leaves_its_totals_and_its_sessions_are_nobodys() {
    let (side, mut ledger, mut kernel) = (Kernelside::new(), Ledger::new(SLOTS), Kernel::default());
    side.begin(0, 1, ROLE_UNSEEN, 2, seconds(100));
    side.data(0, 0..10, seconds(100));
    read(&mut ledger, &side, &mut kernel, 100);
    side.data(0, 10..12, seconds(100));
    ledger.retire(side.table(), 2, seconds(101));
    assert_eq!(side.row(0).read().slot, UNATTRIBUTED);
    side.data(0, 12..13, seconds(101));
    read(&mut ledger, &side, &mut kernel, 101);
    assert_eq!((received_and_lost(&kernel, 2), kernel.retired_sessions.received), ((0, 0), 12));
    assert_eq!(received_and_lost(&kernel, 0), (1, 0));
}

#[test]
fn what_nobody_reads_takes_no_room() {
    let (side, mut ledger, mut kernel) = (Kernelside::new(), Ledger::new(SLOTS), Kernel::default());
    for slot in 0..4 {
        side.begin(slot, slot as u64 + 1, ROLE_UNSEEN, slot as u32, seconds(100));
    }
    for second in 100..150 {
        (0..4).for_each(|way| side.data(way, [second], seconds(second)));
        sweep(&mut ledger, &side, second..=second);
    }
    assert_eq!(ledger.changed.len(), 4);
    read(&mut ledger, &side, &mut kernel, 150);
    assert!(ledger.changed.is_empty());
    side.data(2, [150], seconds(150));
    read(&mut ledger, &side, &mut kernel, 150);
    assert_eq!(kernel.sessions[2].received, 51);
}

#[test]
fn a_model_of_another_size_gets_every_total() {
    let (side, mut ledger, mut kernel) = (Kernelside::new(), Ledger::new(SLOTS), Kernel::default());
    side.begin(0, 1, ROLE_UNSEEN, 2, seconds(100));
    side.data(0, 0..10, seconds(100));
    read(&mut ledger, &side, &mut kernel, 100);
    let _ = ledger.copy(&mut kernel, 2).count();
    assert_eq!(kernel.sessions.len(), 2, "what has no row is left out");
    let _ = ledger.copy(&mut kernel, SLOTS).count();
    assert_eq!(received_and_lost(&kernel, 2), (10, 0));
}

/// What the programs or time may do.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(usize, u32),
    Data(usize, u64),
    Own(usize, u32),
    Retire(u32),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..SESSION_WAYS, 0..4_u32).prop_map(|(way, slot)| Step::Begin(way, slot)),
        (0..SESSION_WAYS, 0..5_u64).prop_map(|(way, skip)| Step::Data(way, skip)),
        (0..SESSION_WAYS, 0..4_u32).prop_map(|(way, slot)| Step::Own(way, slot)),
        (1..4_u32).prop_map(Step::Retire),
        (0..60_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens: everything received is in the totals exactly once, and no total over all slots goes back.
    #[test]
    fn nothing_is_counted_twice_or_forgotten(steps in prop::collection::vec(step(), 0..80)) {
        let (side, mut ledger, mut kernel) = (Kernelside::new(), Ledger::new(SLOTS), Kernel::default());
        let (mut now, mut index, mut sent) = (100, 0, 0);
        let mut next = [0; SESSION_WAYS];
        let mut before = (0, 0);
        for step in steps {
            match step {
                Step::Begin(way, slot) if !side.is_taken(way) => {
                    index += 1;
                    next[way] = 0;
                    side.begin(way, index, ROLE_UNSEEN, slot, seconds(now));
                }
                Step::Data(way, skip) if side.is_taken(way) => {
                    side.data(way, [next[way] + skip], seconds(now));
                    next[way] += skip + 1;
                    sent += 1;
                }
                Step::Own(way, slot) if side.is_taken(way) => side.own(way, slot, ROLE_UNSEEN),
                Step::Retire(slot) => ledger.retire(side.table(), slot, seconds(now)),
                Step::Pass(pause) => {
                    now += pause;
                    ledger.sweep(side.table(), seconds(now), &mut Vec::new());
                }
                _ => {}
            }
            read(&mut ledger, &side, &mut kernel, now);
            let mut all = kernel.retired_sessions;
            kernel.sessions.iter().for_each(|totals| add(&mut all, totals));
            prop_assert_eq!(all.received, sent);
            prop_assert!(all.received >= before.0 && all.lost >= before.1);
            before = (all.received, all.lost);
        }
    }
}
