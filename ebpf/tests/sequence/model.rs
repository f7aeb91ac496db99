//! A session by the definitions: a set of what came, and the stretches that nobody can judge.

use std::collections::HashSet;
use std::ops::Range;

use tailgauge_ebpf::layout::{BLOCK, SESSION_BLOCKS};

use crate::memory::{BLOCKS_WITHOUT_LOOP, Counts};

/// A counter like this is none of a session, which lives for three minutes.
pub const ABSURD: u64 = 1 << 32;
/// So many messages do not get lost between two that come within 3 s.
const TOO_MANY: u64 = 1 << 25;

/// What was received, counter by counter.
#[derive(Debug)]
pub struct Model {
    pub next: u64,
    pub counts: Counts,
    /// Counters that were expected and have not come.
    pub missing: u64,
    came: HashSet<u64>,
    void: Vec<Range<u64>>,
    settled: u64,
    has_loop: bool,
}

impl Model {
    pub fn new(has_loop: bool) -> Self {
        Self {
            next: 0,
            counts: Counts::default(),
            missing: 0,
            came: HashSet::new(),
            void: Vec::new(),
            settled: 0,
            has_loop,
        }
    }

    pub fn receive(&mut self, counter: u64, continuous: bool) {
        if counter >= ABSURD {
            self.counts.unjudged += 1;
        } else if counter < self.next {
            self.late(counter);
        } else {
            let blocks = counter / BLOCK - self.next / BLOCK + 1;
            let few = counter - self.next < TOO_MANY;
            if continuous && few && (self.has_loop || blocks <= BLOCKS_WITHOUT_LOOP) {
                self.missing += counter - self.next;
            } else if counter > self.next {
                self.void.push(self.next..counter);
            }
            self.counts.received += 1;
            self.came.insert(counter);
            self.next = counter + 1;
        }
    }

    fn late(&mut self, counter: u64) {
        let last_void = self.void.last().map_or(0, |void| void.end);
        if counter < self.remembered() || counter < self.settled || self.is_void(counter) {
            self.counts.unjudged += 1;
        } else if self.came.insert(counter) {
            self.counts.received += 1;
            self.counts.reordered += 1;
            self.missing -= 1;
        } else if counter >= last_void {
            self.counts.duplicated += 1;
        } else {
            self.counts.unjudged += 1;
        }
    }

    pub const fn settle(&mut self, up_to: u64) {
        self.settled = up_to;
    }

    /// Counters that belong to no stretch that may have come another way.
    pub fn judged(&self) -> u64 {
        self.next - self.void.iter().map(|void| void.end - void.start).sum::<u64>()
    }

    pub fn has_void(&self) -> bool {
        !self.void.is_empty()
    }

    /// Counters that may still come and be received.
    pub fn open(&self) -> u64 {
        let open = self.remembered().max(self.settled)..self.next;
        open.filter(|counter| !self.came.contains(counter) && !self.is_void(*counter)).count() as u64
    }

    /// The first counter that is not too late.
    fn remembered(&self) -> u64 {
        (self.next.saturating_sub(1) / BLOCK + 1).saturating_sub(SESSION_BLOCKS as u64) * BLOCK
    }

    fn is_void(&self, counter: u64) -> bool {
        self.void.iter().any(|void| void.contains(&counter))
    }
}
