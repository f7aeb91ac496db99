//! Copies a slot's row into the model only after it changed: rows with histograms are large, and most stand still.

use tailgauge_ebpf::histogram::Histogram;

use super::mmap::{Row, Rows};

/// A packet is counted before its window and its connection are: what changed is copied once more.
pub(super) const READS_AFTER_CHANGE: u8 = 2;

/// Words of a row of which at least one changes whenever anything is counted, and last: count and sum of the
/// `histograms` that it begins with, and the counters after them.
pub(super) const fn signature<const SIGNS: usize>(histograms: usize) -> [usize; SIGNS] {
    let histogram = size_of::<Histogram>() / size_of::<u64>();
    let mut words = [0; SIGNS];
    let mut index = 0;
    while index < SIGNS {
        words[index] = if index < 2 * histograms {
            (index / 2 + 1) * histogram - 2 + index % 2
        } else {
            histograms * histogram + index - 2 * histograms
        };
        index += 1;
    }
    words
}

/// Brings one slot's entry in `list`, ordered by slot, up to date; a row equal to `empty` has none. Nothing is
/// copied unless one of the row's words at `signature` changed.
pub(super) fn copy<T: Row + PartialEq>(
    rows: &Rows<T>,
    slot: u32,
    list: &mut Vec<(u32, T)>,
    empty: &T,
    signature: &[usize],
) {
    match list.binary_search_by_key(&slot, |(slot, _)| *slot) {
        Ok(index) if rows.differs(slot, &list[index].1, signature) => {
            rows.load(slot, &mut list[index].1);
            if list[index].1 == *empty {
                list.remove(index);
            }
        }
        Err(index) if rows.differs(slot, empty, signature) => {
            let mut row = *empty;
            rows.load(slot, &mut row);
            list.insert(index, (slot, row));
        }
        _ => {}
    }
}
