//! Closes idle windows. A window is closed by the next packet, so after a burst the last one would stay open
//! until traffic returns; the agent closes it as the programs do, so that both may try at once.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};

use tailgauge_ebpf::histogram::{Histogram, index};
use tailgauge_ebpf::layout::{PEAK_SECONDS, WINDOW_NANOSECONDS, Window, Windows};

/// Windows in a second.
const PER_SECOND: u64 = 1_000_000_000 / WINDOW_NANOSECONDS;

const WORD: usize = size_of::<u64>();
const ID: usize = offset_of!(Window, id) / WORD;
const BYTES: usize = offset_of!(Window, bytes) / WORD;
const PEAKS: usize = offset_of!(Window, peaks) / WORD;
const HISTOGRAM: usize = offset_of!(Window, histogram) / WORD;
const BUCKETS: usize = HISTOGRAM + offset_of!(Histogram, buckets) / WORD;
const COUNT: usize = HISTOGRAM + offset_of!(Histogram, count) / WORD;
const SUM: usize = HISTOGRAM + offset_of!(Histogram, sum) / WORD;
const WINDOW: usize = size_of::<Window>() / WORD;

/// Words of a row of [`Windows`] of which at least one changes whenever anything does, and last.
pub(super) const SIGNATURE: [usize; 2 * SIGNS] = {
    let mut words = [0; 2 * SIGNS];
    let mut index = 0;
    while index < 2 * SIGNS {
        words[index] = (index / SIGNS) * WINDOW
            + match index % SIGNS {
                0 => ID,
                1 => BYTES,
                2 => COUNT,
                3 => SUM,
                peak => PEAKS + peak - 4,
            };
        index += 1;
    }
    words
};
const SIGNS: usize = 4 + PEAK_SECONDS;

/// Number of the window that holds `monotonic`, nanoseconds of CLOCK_MONOTONIC.
pub(super) const fn number(monotonic: u64) -> u64 {
    monotonic / WINDOW_NANOSECONDS
}

/// Closes windows of a row of [`Windows`] that ended before window `now`. True when one that carries bytes
/// stays open, because it is `now`'s.
pub(super) fn close_idle(row: &[AtomicU64], now: u64) -> bool {
    debug_assert_eq!(row.len() * WORD, size_of::<Windows>());
    row.chunks_exact(WINDOW).filter(|window| close(window, now)).count() > 0
}

fn close(window: &[AtomicU64], now: u64) -> bool {
    if window[BYTES].load(Ordering::Relaxed) == 0 {
        return false;
    }
    let id = window[ID].load(Ordering::Relaxed);
    if id >= now {
        return true;
    }
    // Whoever wins the exchange takes the bytes over; an add that comes late lands in the new window.
    if window[ID].compare_exchange(id, now, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return true;
    }
    let bytes = window[BYTES].swap(0, Ordering::AcqRel);
    if bytes > 0 {
        window[BUCKETS + index(bytes)].fetch_add(1, Ordering::Relaxed);
        window[COUNT].fetch_add(1, Ordering::Relaxed);
        window[SUM].fetch_add(bytes, Ordering::Relaxed);
        let second = id / PER_SECOND;
        let peak = second << 32 | bytes.min(u64::from(u32::MAX));
        // The second is in the upper half, so that newer and larger are one comparison.
        window[PEAKS + second as usize % PEAK_SECONDS].fetch_max(peak, Ordering::Relaxed);
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn row() -> Vec<AtomicU64> {
        (0..2 * WINDOW).map(|_| AtomicU64::new(0)).collect()
    }

    fn get(row: &[AtomicU64], word: usize) -> u64 {
        row[word].load(Ordering::Relaxed)
    }

    #[test]
    fn an_ended_window_goes_into_the_histogram_and_the_ring_of_its_second() {
        let row = row();
        let id = 1234 * PER_SECOND + 5;
        row[ID].store(id, Ordering::Relaxed);
        row[BYTES].store(70_000, Ordering::Relaxed);
        assert!(!close_idle(&row, id + 1));
        assert_eq!(get(&row, ID), id + 1);
        assert_eq!(get(&row, BYTES), 0);
        assert_eq!(get(&row, BUCKETS + index(70_000)), 1);
        assert_eq!((get(&row, COUNT), get(&row, SUM)), (1, 70_000));
        assert_eq!(get(&row, PEAKS + 1234 % PEAK_SECONDS), 1234 << 32 | 70_000);
        assert!(!close_idle(&row, id + 2), "nothing is closed twice");
        assert_eq!(get(&row, COUNT), 1);
    }

    #[test]
    fn the_window_of_now_stays_open_and_an_empty_one_is_left_alone() {
        let row = row();
        row[WINDOW + ID].store(100, Ordering::Relaxed);
        row[WINDOW + BYTES].store(1, Ordering::Relaxed);
        assert!(close_idle(&row, 100));
        assert_eq!(get(&row, WINDOW + COUNT), 0);
        assert!(!close_idle(&row, 101));
        assert_eq!(get(&row, WINDOW + COUNT), 1);
        assert_eq!(get(&row, ID), 0);
    }

    #[test]
    fn a_smaller_window_does_not_lower_the_peak_of_its_second() {
        let row = row();
        for bytes in [500u64, 200] {
            row[ID].store(700, Ordering::Relaxed);
            row[BYTES].store(bytes, Ordering::Relaxed);
            close_idle(&row, 701);
        }
        assert_eq!(get(&row, PEAKS + 7), 7 << 32 | 500);
    }

    #[test]
    fn the_signature_covers_what_is_written_last() {
        for window in [0, WINDOW] {
            for word in [ID, BYTES, COUNT, SUM, PEAKS, PEAKS + PEAK_SECONDS - 1] {
                assert!(SIGNATURE.contains(&(window + word)));
            }
        }
        assert!(SIGNATURE.iter().all(|word| *word < 2 * WINDOW));
    }

    #[test]
    fn no_byte_is_lost_or_counted_twice_while_packets_arrive() {
        let row: Arc<Vec<AtomicU64>> = Arc::new(row());
        let stop = Arc::new(AtomicBool::new(false));
        let clock = Arc::new(AtomicU64::new(1));
        let writer = {
            let (row, stop, clock) = (Arc::clone(&row), Arc::clone(&stop), Arc::clone(&clock));
            std::thread::spawn(move || {
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    // As the programs do: close what ended, then add.
                    let now = clock.load(Ordering::Relaxed);
                    if row[ID].load(Ordering::Relaxed) < now {
                        close(&row[..WINDOW], now);
                    }
                    row[BYTES].fetch_add(3, Ordering::Relaxed);
                    written += 3;
                }
                written
            })
        };
        for now in 2..20_000u64 {
            clock.store(now, Ordering::Relaxed);
            close_idle(&row, now);
        }
        stop.store(true, Ordering::Relaxed);
        let written: u64 = writer.join().unwrap();
        close_idle(&row, 1 << 40);
        assert_eq!(get(&row, SUM), written);
        let buckets: u64 = row[BUCKETS..COUNT].iter().map(|word| word.load(Ordering::Relaxed)).sum();
        assert_eq!(buckets, get(&row, COUNT));
    }
}
