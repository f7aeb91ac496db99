//! Which slots are worth a look. Most peers are silent, and looking at all rows of ten thousand takes time: slots that
//! moved lately are looked at each time, of the others a thousand or an eighth, whichever is more.
//!
//! Two look, a reader and a sweep, and whatever either finds, both get to see.

use std::ops::Range;

/// Sweeps for which a slot that moved is looked at each time.
const WARM: u8 = 10;
/// Silent slots that are looked at each time.
const COLD: u32 = 1024;
/// The same as a part of all slots.
const COLD_PART: u32 = 8;

/// What is remembered of a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// What the reader saw.
    read: u64,
    /// What the sweep saw.
    swept: u64,
    /// Sweeps for which it is still looked at each time. The last one waits for the reader.
    warm: u8,
}

/// What is remembered of all slots.
#[derive(Debug, Default)]
pub(super) struct Attention {
    watched: Vec<Watched>,
    next_cold: u32,
}

impl Attention {
    /// Silent slots of `rows` whose turn it is.
    pub(super) fn turn(&mut self, rows: u32) -> Range<u32> {
        if self.watched.len() < rows as usize {
            self.watched.resize(rows as usize, Watched::default());
        }
        let count = (rows / COLD_PART).max(COLD);
        if rows <= count {
            return 0..rows;
        }
        let start = if self.next_cold < rows { self.next_cold } else { 0 };
        self.next_cold = start.saturating_add(count);
        start..self.next_cold.min(rows)
    }

    /// Whether a slot moved lately.
    pub(super) fn is_warm(&self, slot: u32) -> bool {
        self.watched.get(slot as usize).is_some_and(|watched| watched.warm > 0)
    }

    /// Has a slot looked at each time from now on, for a while.
    pub(super) fn warm(&mut self, slot: u32) {
        if let Some(watched) = self.watched.get_mut(slot as usize) {
            watched.warm = WARM;
        }
    }

    /// Whether `total`, a number that grows with whatever is counted, is news to the reader.
    pub(super) fn is_news_to_reader(&mut self, slot: u32, total: u64) -> bool {
        let Some(watched) = self.watched.get_mut(slot as usize) else { return true };
        let is_news = watched.read != total;
        watched.read = total;
        watched.warm = match watched.warm {
            _ if is_news => WARM,
            1 => 0,
            warm => warm,
        };
        is_news
    }

    /// Whether `total` is news to the sweep.
    pub(super) fn is_news_to_sweep(&mut self, slot: u32, total: u64) -> bool {
        let Some(watched) = self.watched.get_mut(slot as usize) else { return true };
        let is_news = watched.swept != total;
        watched.swept = total;
        watched.warm = match watched.warm {
            _ if is_news => WARM,
            // Whoever reads must have seen what moved last.
            warm @ 0..=1 => warm,
            warm => warm - 1,
        };
        is_news
    }

    /// Makes whatever is found of a slot next news to both.
    pub(super) fn forget(&mut self, slot: u32) {
        if let Some(watched) = self.watched.get_mut(slot as usize) {
            *watched = Watched { read: u64::MAX, swept: u64::MAX, warm: WARM };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The reader's or the sweep's look at all slots.
    fn look(attention: &mut Attention, totals: &[u64], reads: bool) -> Vec<u32> {
        let cold = attention.turn(totals.len() as u32);
        let mut news = Vec::new();
        for (slot, total) in (0..).zip(totals) {
            let is_news = if !attention.is_warm(slot) && !cold.contains(&slot) {
                false
            } else if reads {
                attention.is_news_to_reader(slot, *total)
            } else {
                attention.is_news_to_sweep(slot, *total)
            };
            news.extend(is_news.then_some(slot));
        }
        news
    }

    #[test]
    fn a_small_tailnet_is_looked_at_as_a_whole_each_time() {
        let mut attention = Attention::default();
        let mut totals = vec![0; 10];
        assert_eq!(look(&mut attention, &totals, true), Vec::<u32>::new());
        for round in 1..50 {
            totals[7] += u64::from(round % 20 == 0);
            let expected: &[u32] = if round % 20 == 0 { &[7] } else { &[] };
            assert_eq!(look(&mut attention, &totals, true), expected);
            assert_eq!(look(&mut attention, &totals, false), expected);
        }
        totals.resize(20, 1);
        assert_eq!(look(&mut attention, &totals, true), (10..20).collect::<Vec<_>>());
    }

    #[test]
    fn of_a_large_one_every_slot_has_its_turn() {
        for rows in [1025, 10_000, 65_535] {
            let mut attention = Attention::default();
            let mut seen = vec![false; rows as usize];
            for _ in 0..9 {
                attention.turn(rows).for_each(|slot| seen[slot as usize] = true);
            }
            assert!(seen.iter().all(|seen| *seen), "{rows}");
        }
    }

    #[test]
    fn what_the_sweep_found_waits_for_a_reader_that_is_late() {
        let mut attention = Attention::default();
        let mut totals = vec![0; 3000];
        totals[2900] = 1;
        let found = (0..3).flat_map(|_| look(&mut attention, &totals, false)).collect::<Vec<_>>();
        assert_eq!(found, [2900]);
        for _ in 0..100 {
            look(&mut attention, &totals, false);
        }
        totals[2900] = 2;
        assert_eq!(look(&mut attention, &totals, true), [2900]);
        totals[2900] = 3;
        assert_eq!(look(&mut attention, &totals, false), [2900], "found by the reader, so warm again");
    }

    #[test]
    fn a_slot_that_is_silent_is_left_alone_once_it_was_read() {
        let mut attention = Attention::default();
        look(&mut attention, &[0; 10], true);
        attention.warm(3);
        for _ in 0..=WARM {
            assert!(attention.is_warm(3));
            assert!(!attention.is_news_to_sweep(3, 0));
        }
        assert!(!attention.is_news_to_reader(3, 0));
        assert!(!attention.is_warm(3));
        attention.forget(3);
        assert!(attention.is_news_to_reader(3, 0) && attention.is_news_to_sweep(3, 0));
    }

    proptest! {
        /// Whoever looks when, what the reader saw last is what there is once every slot had its turn.
        #[test]
        fn the_reader_misses_nothing(
            steps in prop::collection::vec((0_usize..1100, prop::bool::ANY), 1..30),
        ) {
            let mut attention = Attention::default();
            let mut totals = vec![0_u64; 1100];
            let mut seen = totals.clone();
            for (slot, by_reader) in steps {
                totals[slot] += 1;
                for slot in look(&mut attention, &totals, by_reader) {
                    if by_reader {
                        seen[slot as usize] = totals[slot as usize];
                    }
                }
            }
            for _ in 0..4 {
                for slot in look(&mut attention, &totals, true) {
                    seen[slot as usize] = totals[slot as usize];
                }
            }
            prop_assert_eq!(seen, totals);
        }
    }
}
