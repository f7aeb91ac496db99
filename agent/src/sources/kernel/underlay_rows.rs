//! Copies what the peers' packets were on the underlay, and their handshakes and disco, into the model; says by which
//! path each was sent to.
//!
//! The rows are twice as large as those of the tunnel, so silent slots are looked at in turns; see [`super::attention`].

use std::mem::offset_of;
use std::sync::atomic::Ordering;

use tailgauge_ebpf::histogram::Histogram;
use tailgauge_ebpf::layout::{
    DIRECTIONS, Messages, PathCounters, PeerUnderlayLine, TRANSMIT, UDP_PATHS, UNATTRIBUTED, WireGuard,
    line_index, maps,
};

use super::KernelError;
use super::attention::Attention;
use super::changes::{READS_AFTER_CHANGE, copy, signature};
use super::evidence::path_taken;
use super::mmap::Rows;
use super::object::Object;
use crate::model::kernel::Kernel;
use crate::model::tailnet::Path;

/// Words of a [`WireGuard`] of which at least one changes whenever a message was counted: count and sum of the
/// histograms, and all counters.
const SIGNATURE: [usize; 2 * HISTOGRAMS + COUNTERS] = signature(HISTOGRAMS);
const HISTOGRAMS: usize = offset_of!(WireGuard, completed) / size_of::<Histogram>();
const COUNTERS: usize =
    (offset_of!(WireGuard, data_window) - offset_of!(WireGuard, completed)) / size_of::<u64>();

/// Receive and transmit.
type Lines = [PeerUnderlayLine; DIRECTIONS as usize];

/// The mmapable rows of all slots, and of tailscaled as a whole.
#[derive(Debug)]
pub(super) struct UnderlayRows {
    lines: Rows<PeerUnderlayLine>,
    wireguard: Rows<WireGuard>,
    messages: Rows<Messages>,
    slots: u32,
    shards: u32,
    attention: Attention,
    /// Data sent by path at the last sweep, by slot.
    sent: Vec<[u64; UDP_PATHS]>,
    /// Readings for which a slot's row of handshakes and disco is still to be copied.
    stale: Vec<u8>,
    retired: Lines,
}

impl UnderlayRows {
    pub(super) fn open(object: &mut Object) -> Result<Self, KernelError> {
        let sizes = object.sizes();
        let mut messages = Rows::new(maps::MESSAGES, object.take_map(maps::MESSAGES)?)?;
        messages.ensure(1)?;
        Ok(Self {
            lines: Rows::new(maps::PEER_UNDERLAY, object.take_map(maps::PEER_UNDERLAY)?)?,
            wireguard: Rows::new(maps::WIREGUARD, object.take_map(maps::WIREGUARD)?)?,
            messages,
            slots: sizes.slots,
            shards: sizes.shards,
            attention: Attention::default(),
            sent: Vec::new(),
            stale: Vec::new(),
            retired: Lines::default(),
        })
    }

    fn ensure(&mut self, rows: u32) -> Result<(), KernelError> {
        self.lines.ensure(rows * self.shards * DIRECTIONS)?;
        if self.stale.len() < rows as usize {
            self.stale.resize(rows as usize, 0);
            self.sent.resize(rows as usize, [0; UDP_PATHS]);
        }
        Ok(())
    }

    /// Rows of a slot in one direction.
    fn rows_of(&self, slot: u32, direction: u32) -> impl Iterator<Item = u32> + use<> {
        let shards = self.shards;
        (0..shards).map(move |shard| line_index(slot, shard, shards, direction))
    }

    /// Sums the shards of one slot, each read by `read`.
    fn sum(&self, slot: u32, read: impl Fn(u32, &mut PeerUnderlayLine) -> bool) -> Lines {
        let mut sum = Lines::default();
        for (direction, into) in (0..).zip(&mut sum) {
            for row in self.rows_of(slot, direction) {
                let mut line = PeerUnderlayLine::default();
                read(row, &mut line);
                add(into, &line);
            }
        }
        sum
    }

    /// Notes that a slot's row of handshakes and disco may have changed.
    pub(super) fn touch(&mut self, slot: u32) {
        if let Some(stale) = self.stale.get_mut(slot as usize) {
            *stale = READS_AFTER_CHANGE;
        }
    }

    /// Copies `rows` slots. `is_active` says of which the traffic in the tunnel moved.
    pub(super) fn read(
        &mut self,
        kernel: &mut Kernel,
        rows: u32,
        is_active: impl Fn(u32) -> bool,
    ) -> Result<(), KernelError> {
        let rows = rows.clamp(1, self.slots);
        self.ensure(rows)?;
        let known = kernel.peer_underlay.len() as u32;
        kernel.peer_underlay.resize(rows as usize, Lines::default());
        kernel.retired_underlay = self.retired;
        let turn = self.attention.turn(rows);
        let mut any_stale = false;
        for slot in 0..rows {
            if slot >= known {
                self.attention.forget(slot);
            } else if is_active(slot) {
                self.attention.warm(slot);
            }
            if turn.contains(&slot) || self.attention.is_warm(slot) {
                let total = self.total(slot);
                if self.attention.is_news_to_reader(slot, total) {
                    let sum = self.sum(slot, |row, line| self.lines.load(row, line));
                    if kernel.peer_underlay[slot as usize] != sum {
                        kernel.peer_underlay[slot as usize] = sum;
                        self.touch(slot);
                    }
                }
            }
            any_stale |= self.stale[slot as usize] > 0;
        }
        if any_stale {
            self.wireguard.ensure(rows)?;
            for (slot, stale) in (0..rows).zip(&mut self.stale).filter(|(_, stale)| **stale > 0) {
                *stale -= 1;
                copy(&self.wireguard, slot, &mut kernel.wireguard, &WireGuard::EMPTY, &SIGNATURE);
            }
        }
        let messages = kernel.messages.get_or_insert_with(|| Box::new(Messages::EMPTY));
        self.messages.load(0, messages);
        Ok(())
    }

    /// Looks by which path each of `rows` slots was sent to since the last sweep; `paths` gets those that were.
    pub(super) fn sweep(&mut self, rows: u32, paths: &mut Vec<(u32, Path)>) -> Result<(), KernelError> {
        let rows = rows.clamp(1, self.slots);
        self.ensure(rows)?;
        let turn = self.attention.turn(rows);
        for slot in 0..rows {
            if !turn.contains(&slot) && !self.attention.is_warm(slot) {
                continue;
            }
            let total = self.total(slot);
            if self.attention.is_news_to_sweep(slot, total) {
                let sent = self.sent(slot);
                let before = std::mem::replace(&mut self.sent[slot as usize], sent);
                let path = path_taken(&before, &sent).filter(|_| slot != UNATTRIBUTED);
                paths.extend(path.map(|path| (slot, path)));
            }
        }
        Ok(())
    }

    /// All counters of a slot added up: another number after whatever was counted.
    fn total(&self, slot: u32) -> u64 {
        let rows = (0..DIRECTIONS).flat_map(|direction| self.rows_of(slot, direction));
        let words = rows.flat_map(|row| self.lines.row(row));
        words.fold(0, |total, word| total.wrapping_add(word.load(Ordering::Relaxed)))
    }

    /// Data sent to a slot, by path.
    fn sent(&self, slot: u32) -> [u64; UDP_PATHS] {
        let mut sent = [0; UDP_PATHS];
        for row in self.rows_of(slot, TRANSMIT) {
            for (into, data) in sent.iter_mut().zip(self.words(row, offset_of!(PathCounters, data))) {
                *into += data;
            }
        }
        sent
    }

    /// The word at `offset` of the counters of each path.
    fn words(&self, row: u32, offset: usize) -> [u64; UDP_PATHS] {
        let words = self.lines.row(row);
        std::array::from_fn(|path| {
            let index = (path * size_of::<PathCounters>() + offset) / size_of::<u64>();
            words.get(index).map_or(0, |word| word.load(Ordering::Relaxed))
        })
    }

    /// Counts an initiation of a slot that stayed without an answer.
    pub(super) fn count_failure(&mut self, slot: u32) -> Result<(), KernelError> {
        if slot >= self.slots {
            return Ok(());
        }
        self.ensure(slot + 1)?;
        self.wireguard.add_one(slot, offset_of!(WireGuard, failures))?;
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
        self.wireguard.ensure(slot + 1)?;
        let taken = self.sum(slot, |row, line| self.lines.take(row, line));
        for (into, line) in self.retired.iter_mut().zip(&taken) {
            add(into, line);
        }
        for word in self.wireguard.row(slot) {
            word.store(0, Ordering::Relaxed);
        }
        self.sent[slot as usize] = [0; UDP_PATHS];
        self.attention.forget(slot);
        self.touch(slot);
        Ok(())
    }
}

fn add(into: &mut PeerUnderlayLine, line: &PeerUnderlayLine) {
    for (into, path) in into.path.iter_mut().zip(&line.path) {
        into.bytes += path.bytes;
        into.data += path.data;
        into.others += path.others;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_count_and_sum_of_each_histogram_and_every_counter() {
        let word = |offset: usize| offset / size_of::<u64>();
        let counts = [offset_of!(Histogram, count), offset_of!(Histogram, sum)];
        let mut expected: Vec<_> = [offset_of!(WireGuard, handshake), offset_of!(WireGuard, disco_rtt)]
            .iter()
            .flat_map(|start| counts.map(|count| word(start + count)))
            .collect();
        expected
            .extend(word(offset_of!(WireGuard, completed))..=word(offset_of!(WireGuard, pongs_ambiguous)));
        assert_eq!(SIGNATURE[..], expected[..]);
    }
}
