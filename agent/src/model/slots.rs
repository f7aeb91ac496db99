//! Which peer owns which row of the kernel maps.
//!
//! A slot outlives its peer by a grace period: the peer may come back, and packets may still be in flight.
//! Only after that, and after its counters were taken over by [`SlotTable::release`]'s caller, is it reused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::paths::PathHistory;
use crate::model::tailnet::{Path, Peer, WireGuardSession};

/// A peer's row.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Last known state of the peer.
    pub peer: Arc<Peer>,
    /// When the peer left the tailnet; `None` while it is a member.
    pub gone_since: Option<Instant>,
    /// By which paths it was reached.
    pub paths: PathHistory,
}

impl Slot {
    /// WireGuard session of a member; nobody knows that of a peer that left.
    #[must_use]
    pub fn session(&self) -> Option<WireGuardSession> {
        self.peer.wireguard.filter(|_| self.gone_since.is_none())
    }
}

/// Peers by slot. Slot 0 belongs to nobody: unattributed traffic.
#[derive(Debug, Default)]
pub struct SlotTable {
    slots: Vec<Option<Slot>>,
    by_id: HashMap<String, u32>,
    capacity: u32,
    overflow: usize,
}

impl SlotTable {
    /// A table of `capacity` slots, slot 0 included.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self { slots: vec![None], capacity, ..Self::default() }
    }

    /// Takes over the current members: known ones keep their slot, new ones get the lowest free one, missing
    /// ones are marked as gone since `now`. Members beyond the capacity get none and are counted.
    pub fn update(&mut self, members: &[Arc<Peer>], now: Instant) {
        for slot in self.slots.iter_mut().flatten() {
            slot.gone_since.get_or_insert(now);
        }
        self.overflow = 0;
        let mut first_free = 1;
        for peer in members {
            let known = self.by_id.get(&peer.id).and_then(|index| self.slots[*index as usize].as_mut());
            if let Some(slot) = known {
                slot.peer = Arc::clone(peer);
                slot.gone_since = None;
                continue;
            }
            while self.slots.get(first_free).is_some_and(Option::is_some) {
                first_free += 1;
            }
            if first_free >= self.capacity as usize {
                self.overflow += 1;
                continue;
            }
            if first_free == self.slots.len() {
                self.slots.push(None);
            }
            let paths = PathHistory::default();
            self.slots[first_free] = Some(Slot { peer: Arc::clone(peer), gone_since: None, paths });
            self.by_id.insert(peer.id.clone(), first_free as u32);
        }
    }

    /// Takes tailscaled's word for the path of every member, and the moment at which it was asked; `None` while it has
    /// none. Nobody knows the path of a peer that left.
    pub fn hear_paths(&mut self, asked: Option<Instant>, now: Instant) {
        for slot in self.slots.iter_mut().flatten() {
            if slot.gone_since.is_some() {
                slot.paths.leave(now);
            } else {
                slot.paths.hear(asked.map(|asked| (slot.peer.path, asked)), now);
            }
        }
    }

    /// The underlay has just shown WireGuard data sent to the peer of a slot by `path`, one over UDP. To be called about
    /// once a second while data flows; where several paths carried some, with the one that carried most.
    pub fn see_path(&mut self, slot: u32, path: Path, now: Instant) {
        let slot = self.slots.get_mut(slot as usize).and_then(Option::as_mut);
        if let Some(slot) = slot.filter(|slot| slot.gone_since.is_none()) {
            slot.paths.see(path, now);
        }
    }

    /// Slots whose peer has been gone for `grace` or longer.
    #[must_use]
    pub fn expired(&self, now: Instant, grace: Duration) -> Vec<u32> {
        self.iter()
            .filter(|(_, slot)| {
                slot.gone_since.is_some_and(|since| now.saturating_duration_since(since) >= grace)
            })
            .map(|(index, _)| index)
            .collect()
    }

    /// Frees a slot. The caller has already taken its counters over.
    pub fn release(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize).and_then(Option::take) {
            self.by_id.remove(&slot.peer.id);
        }
    }

    /// Occupied slots in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| slot.as_ref().map(|slot| (index as u32, slot)))
    }

    /// The peer in a slot.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize).and_then(Option::as_ref)
    }

    /// Slot of a peer.
    #[must_use]
    pub fn slot_of(&self, peer_id: &str) -> Option<u32> {
        self.by_id.get(peer_id).copied()
    }

    /// One more than the highest slot ever used: rows to read.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.slots.len().max(1) as u32
    }

    /// Slots there are, slot 0 included.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Members that found no free slot; their traffic is in slot 0.
    #[must_use]
    pub const fn overflow(&self) -> usize {
        self.overflow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: &str) -> Arc<Peer> {
        Arc::new(Peer { id: id.to_owned(), ..Peer::default() })
    }

    #[test]
    fn a_peer_keeps_its_slot_while_others_come_and_go() {
        let mut table = SlotTable::new(8);
        let now = Instant::now();
        table.update(&[peer("a"), peer("b")], now);
        table.update(&[peer("c"), peer("b")], now);
        assert_eq!(table.slot_of("b"), Some(2));
        assert_eq!(table.slot_of("c"), Some(3), "the slot of a is still held");
        assert!(table.get(1).is_some_and(|slot| slot.gone_since == Some(now)));
    }

    #[test]
    fn a_slot_is_reused_only_after_release() {
        let mut table = SlotTable::new(8);
        let now = Instant::now();
        let grace = Duration::from_secs(300);
        table.update(&[peer("a")], now);
        table.update(&[], now);
        assert!(table.expired(now + grace - Duration::from_secs(1), grace).is_empty());
        assert_eq!(table.expired(now + grace, grace), vec![1]);
        table.release(1);
        table.update(&[peer("z")], now);
        assert_eq!(table.slot_of("z"), Some(1));
        assert_eq!(table.slot_of("a"), None);
    }

    #[test]
    fn a_peer_that_returns_within_the_grace_keeps_its_slot() {
        let mut table = SlotTable::new(8);
        let now = Instant::now();
        table.update(&[peer("a")], now);
        table.update(&[], now);
        table.update(&[peer("a")], now);
        assert_eq!(table.slot_of("a"), Some(1));
        assert!(table.get(1).is_some_and(|slot| slot.gone_since.is_none()));
    }

    #[test]
    fn paths_are_kept_across_news_until_the_slot_is_released() {
        let mut table = SlotTable::new(8);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let on = |path, name: &str| {
            vec![Arc::new(Peer { id: "a".to_owned(), name: name.to_owned(), path, ..Peer::default() })]
        };
        let mut hear = |members: &[Arc<Peer>], knows: bool, at| {
            table.update(members, after(at));
            table.hear_paths(knows.then(|| after(at)), after(at));
        };
        hear(&on(Path::DirectIpv4, "old"), true, 0);
        hear(&on(Path::DirectIpv4, "renamed"), true, 10);
        hear(&on(Path::Derp, "renamed"), true, 20);
        hear(&on(Path::Derp, "renamed"), false, 30);
        hear(&on(Path::Derp, "renamed"), true, 40);
        hear(&[], true, 50);
        hear(&[], true, 60);
        hear(&on(Path::Derp, "back"), true, 70);
        let spent = |table: &SlotTable, path, at| table.get(1).unwrap().paths.spent(path, after(at));
        assert_eq!(spent(&table, Path::DirectIpv4, 80), Some(Duration::from_secs(20)));
        assert_eq!(spent(&table, Path::Derp, 80), Some(Duration::from_secs(10 + 10 + 10)));
        assert_eq!(table.get(1).map(|slot| slot.paths.changes()), Some(1));
        table.update(&[], after(90));
        table.release(1);
        table.update(&on(Path::Idle, "a"), after(100));
        assert_eq!(spent(&table, Path::Derp, 100), None, "whoever gets the slot begins anew");
    }

    #[test]
    fn the_underlay_shows_the_path_of_members_alone() {
        let mut table = SlotTable::new(8);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        table.update(&[peer("a"), peer("b")], start);
        table.hear_paths(Some(start), start);
        table.update(&[peer("a")], after(10));
        table.hear_paths(Some(after(10)), after(10));
        for slot in 0..4 {
            table.see_path(slot, Path::DirectIpv6, after(20));
        }
        let current = |slot| table.get(slot).map(|slot| slot.paths.current());
        assert_eq!([0, 1, 2, 3].map(current), [None, Some(Path::DirectIpv6), Some(Path::Idle), None]);
        let spent = |slot, path| table.get(slot).unwrap().paths.spent(path, after(30));
        assert_eq!(spent(1, Path::DirectIpv6), Some(Duration::from_secs(10)));
        assert_eq!(spent(2, Path::Idle), Some(Duration::from_secs(10)), "until it left");
    }

    #[test]
    fn members_beyond_the_capacity_are_counted_and_nobody_takes_slot_zero() {
        let mut table = SlotTable::new(3);
        let members: Vec<_> = ["a", "b", "c", "d"].map(peer).into();
        table.update(&members, Instant::now());
        assert_eq!(table.overflow(), 2);
        assert!(table.get(0).is_none());
        assert_eq!(table.rows(), 3);
    }
}
