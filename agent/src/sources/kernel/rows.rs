//! Copies the per-slot rows into the model, and takes them back when a slot is retired.
//!
//! Counters of all slots are read each time. Windows and TCP are fifty times as large, so a slot's are copied
//! only after its counters moved; the model keeps what was copied before.

use std::mem::offset_of;
use std::sync::atomic::Ordering;

use tailgauge_ebpf::layout::{DIRECTIONS, LEGS, Line, Tcp, Windows, line_index, maps};

use super::changes::{READS_AFTER_CHANGE, copy, signature};
use super::coverage::Counted;
use super::mmap::Rows;
use super::object::Object;
use super::{KernelError, window};
use crate::model::kernel::{Kernel, SlotCounters};

/// Words of a [`Tcp`] of which at least one changes whenever anything does, and last: count and sum of the
/// histograms, and all counters.
const TCP_SIGNATURE: [usize; TCP_SIGNS] = signature(LEGS + 1);
const TCP_SIGNS: usize = 2 * (LEGS + 1) + (size_of::<Tcp>() - offset_of!(Tcp, opened)) / size_of::<u64>();

/// What was read of a slot last.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// All its counters added up.
    total: u64,
    /// By direction.
    counted: [Counted; 2],
}

/// The mmapable rows of all slots.
#[derive(Debug)]
pub(super) struct SlotRows {
    counters: Rows<Line>,
    windows: Rows<Windows>,
    tunnel_windows: Rows<Windows>,
    drop_windows: Rows<Windows>,
    tcp: Rows<Tcp>,
    slots: u32,
    shards: u32,
    /// Reads for which a slot's windows and TCP are still to be copied.
    stale: Vec<u8>,
    seen: Vec<Seen>,
    retired: SlotCounters,
}

impl SlotRows {
    pub(super) fn open(object: &mut Object) -> Result<Self, KernelError> {
        let sizes = object.sizes();
        let windows = Rows::new(maps::WINDOWS, object.take_map(maps::WINDOWS)?)?;
        let mut tunnel_windows = windows.starting_at(sizes.slots)?;
        tunnel_windows.ensure(1)?;
        let mut drop_windows = windows.starting_at(sizes.slots + 1)?;
        drop_windows.ensure(1)?;
        Ok(Self {
            counters: Rows::new(maps::COUNTERS, object.take_map(maps::COUNTERS)?)?,
            windows,
            tunnel_windows,
            drop_windows,
            tcp: Rows::new(maps::TCP, object.take_map(maps::TCP)?)?,
            slots: sizes.slots,
            shards: sizes.shards,
            stale: Vec::new(),
            seen: Vec::new(),
            retired: SlotCounters::default(),
        })
    }

    /// Sums the shards of one slot, each read by `read`.
    fn sum(&self, slot: u32, read: impl Fn(u32, &mut Line) -> bool) -> SlotCounters {
        let mut sum = SlotCounters::default();
        for shard in 0..self.shards {
            for (direction, into) in sum.direction.iter_mut().enumerate() {
                let mut line = Line::default();
                read(line_index(slot, shard, self.shards, direction as u32), &mut line);
                add_line(into, &line);
            }
        }
        sum
    }

    fn slot(&self, slot: u32) -> SlotCounters {
        self.sum(slot, |row, line| self.counters.load(row, line))
    }

    /// All counters of a slot added up: another number after whatever was counted.
    fn total(&self, slot: u32) -> u64 {
        let first = line_index(slot, 0, self.shards, 0);
        let words = (first..first + self.shards * DIRECTIONS).flat_map(|row| self.counters.row(row));
        words.fold(0, |total, word| total.wrapping_add(word.load(Ordering::Relaxed)))
    }

    /// What the programs counted over `rows` slots and all retired ones, by direction.
    pub(super) fn counted(&mut self, rows: u32) -> Result<[Counted; 2], KernelError> {
        self.ensure(rows)?;
        let mut counted = self.counted_retired();
        for slot in 0..rows {
            add(&mut counted, &self.slot(slot));
        }
        Ok(counted)
    }

    fn counted_retired(&self) -> [Counted; 2] {
        let mut counted = [Counted::default(); 2];
        add(&mut counted, &self.retired);
        counted
    }

    fn ensure(&mut self, rows: u32) -> Result<(), KernelError> {
        self.counters.ensure(rows * self.shards * DIRECTIONS)?;
        if self.stale.len() < rows as usize {
            self.stale.resize(rows as usize, 0);
            self.seen.resize(rows as usize, Seen::default());
        }
        Ok(())
    }

    /// Notes that a slot's TCP row changed without a packet.
    pub(super) fn touch(&mut self, slot: u32) {
        if let Some(stale) = self.stale.get_mut(slot as usize) {
            *stale = READS_AFTER_CHANGE;
        }
    }

    /// Whether a slot's counters moved lately.
    pub(super) fn is_active(&self, slot: u32) -> bool {
        self.stale.get(slot as usize).is_some_and(|stale| *stale > 0)
    }

    /// Copies `rows` slots; windows that ended before `window` are closed. Returns what the programs counted.
    pub(super) fn read(
        &mut self,
        kernel: &mut Kernel,
        rows: u32,
        window: u64,
    ) -> Result<[Counted; 2], KernelError> {
        let rows = rows.clamp(1, self.slots);
        self.ensure(rows)?;
        let known = kernel.slots.len();
        kernel.slots.resize(rows as usize, SlotCounters::default());
        kernel.retired = self.retired;
        let mut counted = self.counted_retired();
        let mut any_stale = false;
        for slot in 0..rows {
            let total = self.total(slot);
            let index = slot as usize;
            if self.seen[index].total != total || index >= known {
                let sum = self.slot(slot);
                let mut seen = Seen { total, ..Seen::default() };
                add(&mut seen.counted, &sum);
                self.seen[index] = seen;
                if kernel.slots[index] != sum {
                    kernel.slots[index] = sum;
                    self.stale[index] = READS_AFTER_CHANGE;
                }
            }
            for (into, seen) in counted.iter_mut().zip(&self.seen[index].counted) {
                into.skbs += seen.skbs;
                into.bytes += seen.bytes;
            }
            any_stale |= self.stale[index] > 0;
        }
        if any_stale {
            self.read_stale(kernel, rows, window)?;
        }
        self.read_tunnel(kernel, window);
        Ok(counted)
    }

    fn read_stale(&mut self, kernel: &mut Kernel, rows: u32, window: u64) -> Result<(), KernelError> {
        self.windows.ensure(rows)?;
        self.tcp.ensure(rows)?;
        for slot in 0..rows {
            let stale = &mut self.stale[slot as usize];
            if *stale == 0 {
                continue;
            }
            let open = window::close_idle(self.windows.row(slot), window);
            *stale = (*stale - 1).max(u8::from(open));
            copy(&self.windows, slot, &mut kernel.windows, &Windows::EMPTY, &window::SIGNATURE);
            copy(&self.tcp, slot, &mut kernel.tcp, &Tcp::EMPTY, &TCP_SIGNATURE);
        }
        Ok(())
    }

    fn read_tunnel(&self, kernel: &mut Kernel, window: u64) {
        window::close_idle(self.tunnel_windows.row(0), window);
        let into = kernel.tunnel_windows.get_or_insert_with(|| Box::new(Windows::EMPTY));
        self.tunnel_windows.load(0, into);
        window::close_idle(self.drop_windows.row(0), window);
        let into = kernel.drop_windows.get_or_insert_with(|| Box::new(Windows::EMPTY));
        self.drop_windows.load(0, into);
    }

    /// Adds one to a word of a slot's TCP row, given as a byte offset.
    pub(super) fn count_tcp(&mut self, slot: u32, offset: usize) -> Result<(), KernelError> {
        if slot >= self.slots {
            return Ok(());
        }
        self.tcp.add_one(slot, offset)?;
        self.touch(slot);
        Ok(())
    }

    /// Moves a slot's counters to the retired ones and zeroes all its rows. Nothing is lost if a packet still
    /// counts into them meanwhile.
    pub(super) fn retire(&mut self, slot: u32) -> Result<(), KernelError> {
        if slot >= self.slots {
            return Ok(());
        }
        self.ensure(slot + 1)?;
        self.windows.ensure(slot + 1)?;
        self.tcp.ensure(slot + 1)?;
        let taken = self.sum(slot, |row, line| self.counters.take(row, line));
        for (into, line) in self.retired.direction.iter_mut().zip(&taken.direction) {
            add_line(into, line);
        }
        for word in self.windows.row(slot).iter().chain(self.tcp.row(slot)) {
            word.store(0, Ordering::Relaxed);
        }
        // Whatever is found next is news.
        self.seen[slot as usize].total = u64::MAX;
        self.touch(slot);
        Ok(())
    }
}

fn add_line(into: &mut Line, line: &Line) {
    for (into, wire) in into.wire.iter_mut().zip(&line.wire) {
        into.packets += wire.packets;
        into.bytes += wire.bytes;
    }
    into.skbs += line.skbs;
    into.skb_bytes += line.skb_bytes;
}

fn add(counted: &mut [Counted; 2], slot: &SlotCounters) {
    for (into, line) in counted.iter_mut().zip(&slot.direction) {
        into.skbs += line.skbs;
        into.bytes += line.skb_bytes;
    }
}

#[cfg(test)]
mod tests {
    use tailgauge_ebpf::histogram::Histogram;

    use super::*;

    #[test]
    fn the_signature_of_tcp_is_count_and_sum_of_each_histogram_and_every_counter() {
        let word = |offset: usize| offset / size_of::<u64>();
        let counts = [offset_of!(Histogram, count), offset_of!(Histogram, sum)];
        let leg = size_of::<Histogram>();
        let mut expected: Vec<_> = [0, leg, offset_of!(Tcp, duration)]
            .iter()
            .flat_map(|start| counts.map(|count| word(start + count)))
            .collect();
        expected.extend(word(offset_of!(Tcp, opened))..=word(offset_of!(Tcp, lost)));
        assert_eq!(TCP_SIGNATURE[..], expected[..]);
    }
}
