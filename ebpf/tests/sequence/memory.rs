//! The memory of a session, as the kernel has it: words that anybody may change at any time.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tailgauge_ebpf::layout::{BLOCK, SESSION_BLOCKS, Session};
use tailgauge_ebpf::sequence::{Field, Memory, RING, open_block};

/// A row that is shared by threads.
#[derive(Debug)]
pub struct Row {
    words: [AtomicU64; size_of::<Session>() / 8],
    /// Without `bpf_loop`, the programs open no more than two blocks at a time.
    has_loop: bool,
}

/// Blocks that are opened at a time without `bpf_loop`.
pub const BLOCKS_WITHOUT_LOOP: u64 = 2;

/// What a session has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: u64,
    pub reordered: u64,
    pub duplicated: u64,
    pub unjudged: u64,
}

impl Row {
    pub fn new(has_loop: bool) -> Self {
        Self { words: std::array::from_fn(|_| AtomicU64::new(0)), has_loop }
    }

    fn word(&self, field: Field) -> &AtomicU64 {
        &self.words[field as usize]
    }

    fn ring(&self, block: u64) -> &AtomicU64 {
        &self.words[RING + block as usize % SESSION_BLOCKS]
    }

    pub fn next(&self) -> u64 {
        self.get(Field::Next)
    }

    pub fn lost(&self) -> u64 {
        self.get(Field::Lost)
    }

    pub fn counts(&self) -> Counts {
        Counts {
            received: self.get(Field::Received),
            reordered: self.get(Field::Reordered),
            duplicated: self.get(Field::Duplicated),
            unjudged: self.get(Field::Unjudged),
        }
    }

    /// Counters that the ring knows to be missing without having called them lost.
    pub fn pending(&self) -> u64 {
        let missing = |place| {
            let word = self.block(place);
            let Some(block) = (word >> 32).checked_sub(1) else { return 0 };
            let sent = self.next().saturating_sub(block * BLOCK).min(BLOCK);
            u64::from((!word & ((1 << sent) - 1)).count_ones())
        };
        (0..SESSION_BLOCKS as u64).map(missing).sum()
    }
}

impl Memory for Row {
    fn get(&self, field: Field) -> u64 {
        self.word(field).load(SeqCst)
    }

    fn set(&self, field: Field, value: u64) {
        self.word(field).store(value, SeqCst);
    }

    fn add(&self, field: Field, value: u64) {
        self.word(field).fetch_add(value, SeqCst);
    }

    fn exchange(&self, field: Field, old: u64, new: u64) -> u64 {
        self.word(field).compare_exchange(old, new, SeqCst, SeqCst).unwrap_or_else(|found| found)
    }

    fn block(&self, block: u64) -> u64 {
        self.ring(block).load(SeqCst)
    }

    fn exchange_block(&self, block: u64, old: u64, new: u64) -> u64 {
        self.ring(block).compare_exchange(old, new, SeqCst, SeqCst).unwrap_or_else(|found| found)
    }

    fn open_blocks(&self, first: u64, last: u64) -> bool {
        assert!(last - first < SESSION_BLOCKS as u64, "more blocks than the ring has");
        if !self.has_loop && last - first >= BLOCKS_WITHOUT_LOOP {
            return false;
        }
        (first..=last).for_each(|block| open_block(self, block));
        true
    }
}
