//! The proof of completeness: what the programs counted against what the device counted meanwhile.
//!
//! A device may be older than its hooks and dies with each restart of tailscaled, so its counters are kept as
//! differences: since the hook was attached, plus what earlier devices counted under a hook.

use std::thread::sleep;
use std::time::Duration;

use tailgauge_ebpf::layout::{RECEIVE, TRANSMIT};

use crate::model::kernel::{Coverage, DeviceCounters};

/// Readings at most for the starting point, and the pause between them: a few milliseconds in all.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_micros(50);

/// What the programs counted in one direction over all slots, retired ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) skbs: u64,
    pub(super) bytes: u64,
}

/// What the device counted in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Side {
    packets: u64,
    bytes: u64,
    dropped: u64,
}

impl Side {
    fn both(device: &DeviceCounters) -> [Self; 2] {
        let receive = Self { packets: device.receive_packets, bytes: device.receive_bytes, dropped: 0 };
        let transmit = Self {
            packets: device.transmit_packets,
            bytes: device.transmit_bytes,
            dropped: device.transmit_dropped,
        };
        [receive, transmit]
    }

    const fn device([receive, transmit]: &[Self; 2]) -> DeviceCounters {
        DeviceCounters {
            receive_packets: receive.packets,
            receive_bytes: receive.bytes,
            transmit_packets: transmit.packets,
            transmit_bytes: transmit.bytes,
            transmit_dropped: transmit.dropped,
        }
    }

    // A starting point may lie below zero when a packet passed between attaching and reading, so differences wrap.
    fn minus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(other.packets),
            bytes: self.bytes.wrapping_sub(other.bytes),
            dropped: self.dropped.wrapping_sub(other.dropped),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
            dropped: self.dropped.wrapping_add(other.dropped),
        }
    }
}

/// Device and programs, read in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) device: DeviceCounters,
    pub(super) counted: [Counted; 2],
}

/// Device counters at the moment the hooks began to count, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Baseline([Side; 2]);

impl Baseline {
    /// Finds the starting point of freshly attached hooks. `before` is what was read just before they were
    /// attached; `read` gives `None` when the device is gone.
    ///
    /// A packet passes the hook before the device counts it, so device − counted is never above the true
    /// starting point, and below it only by the packets that pass between the two readings or are between hook
    /// and device: the largest of several is nearest. Two equal readings say that nothing is under way, and end
    /// the search.
    pub(super) fn find<E>(
        before: &Reading,
        mut read: impl FnMut() -> Result<Option<Reading>, E>,
    ) -> Result<Self, E> {
        let mut best = Self::at(&before.device);
        let mut previous = None;
        for _ in 0..TRIES {
            let Some(reading) = read()? else { break };
            best = best.max(Self::of(&before.counted, &reading));
            if reading.device == before.device || previous == Some(reading) {
                break;
            }
            previous = Some(reading);
            sleep(PAUSE);
        }
        Ok(best)
    }

    /// The hooks began to count when the device stood at `device`.
    pub(super) fn at(device: &DeviceCounters) -> Self {
        Self(Side::both(device))
    }

    fn of(before: &[Counted; 2], reading: &Reading) -> Self {
        let sides = Side::both(&reading.device);
        Self([RECEIVE, TRANSMIT].map(|direction| {
            let direction = direction as usize;
            let (counted, before) = (reading.counted[direction], before[direction]);
            sides[direction].minus(Side {
                packets: counted.skbs.wrapping_sub(before.skbs),
                bytes: counted.bytes.wrapping_sub(before.bytes),
                dropped: 0,
            })
        }))
    }

    fn max(self, other: Self) -> Self {
        let total = |side: &Side| side.packets.wrapping_add(side.dropped).cast_signed();
        Self([0, 1].map(|direction| {
            let (mine, theirs): (&Side, &Side) = (&self.0[direction], &other.0[direction]);
            if total(theirs) > total(mine) { *theirs } else { *mine }
        }))
    }
}

/// Device counters under the hooks, over all devices so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    finished: [Side; 2],
    current: Period,
    /// Devices that were gone before their final counters were known: those come with a later message.
    vanished: Vec<(u32, Period)>,
}

/// A device's time under the hooks.
#[derive(Clone, Copy, Debug, Default)]
struct Period {
    /// Starting point, for directions whose hook is attached.
    baseline: [Option<Side>; 2],
    /// Last reading of the device.
    last: DeviceCounters,
}

impl Period {
    fn counted(&self) -> [Side; 2] {
        let sides = Side::both(&self.last);
        [0, 1].map(|direction: usize| {
            self.baseline[direction].map_or(Side::default(), |baseline| sides[direction].minus(baseline))
        })
    }
}

impl Ledger {
    /// The hooks of `directions` count from `baseline` on; the other one goes on as it was.
    pub(super) fn begin(&mut self, directions: [bool; 2], baseline: Baseline) {
        for (direction, side) in baseline.0.into_iter().enumerate() {
            if directions[direction] {
                self.current.baseline[direction] = Some(side);
            }
        }
        // Until the device is read, it stands where the hooks began.
        if self.current.last == DeviceCounters::default() {
            self.current.last = Side::device(&baseline.0);
        }
    }

    /// Takes note of the current device's counters.
    pub(super) const fn observe(&mut self, device: DeviceCounters) {
        self.current.last = device;
    }

    /// The hooks left the device with this index. Without `last` it is gone, and counts as last read until
    /// [`Self::settle`] knows better.
    pub(super) fn finish(&mut self, index: u32, last: Option<DeviceCounters>) {
        let mut period = std::mem::take(&mut self.current);
        period.last = last.unwrap_or(period.last);
        if last.is_none() {
            self.vanished.push((index, period));
        } else {
            self.close(&period);
        }
    }

    /// Counters of a device that vanished came after all. `gone` when they are final; false when it is not one
    /// of these.
    pub(super) fn settle(&mut self, index: u32, device: Option<DeviceCounters>, gone: bool) -> bool {
        let Some(position) = self.vanished.iter().position(|(vanished, _)| *vanished == index) else {
            return false;
        };
        if let Some(device) = device {
            self.vanished[position].1.last = device;
        }
        if gone {
            let (_, period) = self.vanished.remove(position);
            self.close(&period);
        }
        true
    }

    /// No further word will come of devices that vanished.
    pub(super) fn settle_all(&mut self) {
        for (_, period) in std::mem::take(&mut self.vanished) {
            self.close(&period);
        }
    }

    fn close(&mut self, period: &Period) {
        let counted = period.counted();
        self.finished = [0, 1].map(|direction: usize| self.finished[direction].plus(counted[direction]));
    }

    /// Whether any hook counts at present.
    pub(super) fn counting(&self) -> bool {
        self.current.baseline.iter().any(Option::is_some)
    }

    /// What the devices counted under the hooks beside what the programs did.
    pub(super) fn coverage(&self, counted: [Counted; 2]) -> Coverage {
        let periods = self.vanished.iter().map(|(_, period)| period).chain([&self.current]);
        let sum = periods.map(Period::counted).fold(self.finished, |sum, counted| {
            [0, 1].map(|direction: usize| sum[direction].plus(counted[direction]))
        });
        Coverage {
            counted_skbs: counted.map(|counted| counted.skbs),
            counted_bytes: counted.map(|counted| counted.bytes),
            device: Side::device(&sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn device(receive: u64, transmit: u64, dropped: u64) -> DeviceCounters {
        DeviceCounters {
            receive_packets: receive,
            receive_bytes: receive * 100,
            transmit_packets: transmit,
            transmit_bytes: transmit * 100,
            transmit_dropped: dropped,
        }
    }

    fn counted(receive: u64, transmit: u64) -> [Counted; 2] {
        [receive, transmit].map(|skbs| Counted { skbs, bytes: skbs * 100 })
    }

    fn find(counted: [Counted; 2], readings: &[Reading]) -> (Baseline, usize) {
        let before = Reading { device: device(40, 0, 0), counted };
        let mut index = 0;
        let baseline = Baseline::find(&before, || {
            let reading = readings.get(index.min(readings.len().saturating_sub(1))).copied();
            index += 1;
            Ok::<_, Infallible>(reading)
        });
        (baseline.unwrap(), index)
    }

    #[test]
    fn a_device_that_counted_nothing_meanwhile_starts_where_it_was_after_one_reading() {
        // Packets that passed after the device was read do not matter.
        let reading = Reading { device: device(40, 0, 0), counted: counted(17, 7) };
        let (baseline, tries) = find(counted(7, 7), &[reading]);
        assert_eq!((baseline.0[0].packets, baseline.0[1].packets, tries), (40, 0, 1));
    }

    #[test]
    fn packets_between_attaching_and_reading_do_not_shift_the_start() {
        // The device had 1000 and 500 when the hooks came; 3 and 2 packets passed since.
        let reading = Reading { device: device(1003, 501, 1), counted: counted(23, 12) };
        let (baseline, tries) = find(counted(20, 10), &[reading, reading]);
        assert_eq!(tries, 2);
        let mut ledger = Ledger::default();
        ledger.begin([true, true], baseline);
        ledger.observe(device(1103, 551, 11));
        let coverage = ledger.coverage(counted(100 + 3, 50 + 10 + 2));
        assert_eq!(coverage.device.receive_packets, 103);
        assert_eq!(coverage.device.transmit_packets + coverage.device.transmit_dropped, 62);
        assert_eq!(coverage.ratio(0), Some(1.0));
        assert_eq!(coverage.ratio(1), Some(1.0));
    }

    #[test]
    fn a_packet_between_hook_and_device_is_found_out_by_a_later_reading() {
        let under_way = Reading { device: device(1000, 0, 0), counted: counted(1, 0) };
        let arrived = Reading { device: device(1001, 0, 0), counted: counted(1, 0) };
        let (baseline, tries) = find(counted(0, 0), &[under_way, arrived, arrived]);
        assert_eq!(tries, 3);
        assert_eq!(baseline.0[0].packets, 1000);
    }

    #[test]
    fn a_device_that_vanishes_at_once_starts_where_it_was_before() {
        let (baseline, _) = find(counted(0, 0), &[]);
        assert_eq!(baseline.0[0].packets, 40);
    }

    #[test]
    fn the_search_ends_on_a_device_that_never_rests() {
        let readings: Vec<_> = (0..100)
            .map(|index| Reading {
                device: device(1000 + index, 0, 0),
                // Two packets pass between the readings, but for one time.
                counted: counted(index + if index == 9 { 0 } else { 2 }, 0),
            })
            .collect();
        let (baseline, tries) = find(counted(0, 0), &readings);
        assert_eq!(tries, TRIES);
        assert_eq!(baseline.0[0].packets, 1000);
    }

    #[test]
    fn totals_survive_the_device() {
        let mut ledger = Ledger::default();
        ledger.begin([true, true], Baseline(Side::both(&device(100, 100, 0))));
        ledger.observe(device(150, 120, 0));
        assert!(ledger.counting());
        ledger.finish(2, Some(device(160, 130, 5)));
        assert!(!ledger.counting());
        assert_eq!(ledger.coverage(counted(60, 35)).device, device(60, 30, 5));

        ledger.begin([true, true], Baseline::default());
        assert_eq!(ledger.coverage(counted(60, 35)).device, device(60, 30, 5));
        ledger.observe(device(1, 2, 3));
        assert_eq!(ledger.coverage(counted(61, 40)).device, device(61, 32, 8));
    }

    #[test]
    fn a_device_that_vanished_counts_as_last_read_until_its_final_counters_come() {
        let mut ledger = Ledger::default();
        ledger.begin([true, true], Baseline(Side::both(&device(5, 5, 0))));
        ledger.observe(device(10, 10, 0));
        ledger.finish(2, None);
        assert_eq!(ledger.coverage(counted(5, 5)).device, device(5, 5, 0));
        ledger.begin([true, true], Baseline::default());
        ledger.observe(device(1, 1, 0));
        assert!(!ledger.settle(9, Some(device(99, 99, 9)), true), "nobody knows that device");
        assert!(ledger.settle(2, Some(device(12, 10, 0)), false));
        assert_eq!(ledger.coverage(counted(8, 6)).device, device(8, 6, 0));
        assert!(ledger.settle(2, Some(device(15, 10, 2)), true));
        assert!(!ledger.settle(2, Some(device(0, 0, 0)), true), "once is enough");
        assert_eq!(ledger.coverage(counted(11, 8)).device, device(11, 6, 2));
    }

    #[test]
    fn a_hook_that_comes_later_starts_later() {
        let mut ledger = Ledger::default();
        ledger.begin([true, false], Baseline(Side::both(&device(5, 5, 0))));
        assert_eq!(ledger.coverage(counted(0, 0)).device, device(0, 0, 0), "before the first reading, too");
        ledger.observe(device(10, 10, 0));
        ledger.begin([false, true], Baseline(Side::both(&device(11, 12, 0))));
        ledger.observe(device(20, 20, 1));
        assert_eq!(ledger.coverage(counted(15, 9)).device, device(15, 8, 1));
    }

    #[test]
    fn what_is_known_of_vanished_devices_survives_a_loss_of_messages() {
        let mut ledger = Ledger::default();
        ledger.begin([true, true], Baseline::default());
        ledger.observe(device(10, 10, 0));
        ledger.finish(2, None);
        ledger.settle_all();
        assert!(!ledger.settle(2, Some(device(99, 99, 0)), true));
        assert_eq!(ledger.coverage(counted(10, 10)).device, device(10, 10, 0));
    }

    #[test]
    fn a_direction_without_hook_is_not_held_against_the_programs() {
        let mut ledger = Ledger::default();
        ledger.begin([true, false], Baseline::default());
        ledger.observe(device(10, 10, 0));
        assert_eq!(ledger.coverage(counted(10, 0)).ratio(1), None);
        assert_eq!(ledger.coverage(counted(10, 0)).ratio(0), Some(1.0));
    }
}
