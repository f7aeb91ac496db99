//! Dropped packets: the program on the tracepoint, which device counts in which row, and what was counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::maps::{HashMap, Map, MapData};
use aya::programs::raw_trace_point::RawTracePointLink;
use tailgauge_ebpf::layout::{
    DROP_OTHER, DROP_REASONS, DROP_ROWS, DROP_TUNNEL, DROP_UNKNOWN, DropRow, maps, programs,
};

use super::KernelError;
use super::device::{self, Link};
use super::drop_types::{DropTypes, Reason};
use super::hooks::chain;
use super::mmap::Rows;
use super::object::Object;
use super::watch::Change;
use crate::model::kernel::{DropDevice, DropReasons, HookMode, Kernel};
use crate::sources::clean;
use crate::sources::netlink::Netlink;

/// Rows for devices beside the tunnel.
const NAMED: std::ops::Range<u32> = DROP_TUNNEL + 1..DROP_OTHER;

/// The program, its place, and its rows.
#[derive(Debug)]
pub(super) struct Drops {
    state: State,
    rows: Arc<Rows<DropRow>>,
    indexes: HashMap<MapData, u32, u32>,
    /// By row.
    devices: Vec<Device>,
    reasons: Arc<DropReasons>,
    /// Number of the tunnel, 0 while there is none.
    tunnel: Arc<AtomicU32>,
}

/// What the tunnel's ring had no room for, read where the program counts it: no system call.
#[derive(Debug)]
pub struct RingDrops {
    rows: Arc<Rows<DropRow>>,
    /// Number of `FULL_RING`.
    reason: usize,
    tunnel: Arc<AtomicU32>,
}

impl RingDrops {
    /// Number of the tunnel, while it exists.
    pub(in crate::sources) fn tunnel(&self) -> Option<u32> {
        Some(self.tunnel.load(Ordering::Relaxed)).filter(|index| *index != 0)
    }

    /// Packets since the agent began; `None` while there is no tunnel.
    pub(in crate::sources) fn packets(&self) -> Option<u64> {
        let word = self.rows.row(DROP_TUNNEL).get(self.reason).filter(|_| self.tunnel().is_some())?;
        Some(word.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
enum State {
    /// Switched off.
    Off,
    /// Detaches when dropped.
    Attached(#[expect(dead_code, reason = "held for its drop")] RawTracePointLink),
    /// With the reason.
    Detached(String),
}

/// Who counts in a row.
#[derive(Clone, Debug, Default)]
struct Device {
    name: String,
    /// While it exists.
    ifindex: Option<u32>,
}

impl Drops {
    /// Attaches the program, if the object has it: `types` is `None` when drops are not wanted.
    pub(super) fn open(
        object: &mut Object,
        tunnel: &str,
        types: Option<&Result<DropTypes, String>>,
        netlink: &mut Netlink,
    ) -> Result<Self, KernelError> {
        let error = |source| KernelError::Map { operation: "open", map: maps::DROP_DEVICES, source };
        let mut rows = Rows::new(maps::DROPS, object.take_map(maps::DROPS)?)?;
        rows.ensure(DROP_ROWS)?;
        let map: Map = object.take_map(maps::DROP_DEVICES)?;
        let indexes = HashMap::try_from(map).map_err(|cause| error(Box::new(cause)))?;
        let named = |name: &str| Device { name: name.to_owned(), ifindex: None };
        let mut devices = vec![Device::default(); DROP_ROWS as usize];
        devices[DROP_UNKNOWN as usize] = named("unknown");
        devices[DROP_TUNNEL as usize] = named(tunnel);
        devices[DROP_OTHER as usize] = named("other");
        let known = types.and_then(|types| types.as_ref().ok());
        let mut drops = Self {
            state: State::Off,
            rows: Arc::new(rows),
            indexes,
            devices,
            reasons: Arc::new(known.map(|types| reasons(&types.reasons)).unwrap_or_default()),
            tunnel: Arc::default(),
        };
        match types {
            None => return Ok(drops),
            Some(Err(reason)) => drops.state = State::Detached(reason.clone()),
            Some(Ok(_)) => {
                // Devices first, so that nothing counts as another's.
                drops.look(netlink);
                drops.state = object.attach_drops().map_or_else(State::Detached, State::Attached);
            }
        }
        match &drops.state {
            State::Detached(reason) => {
                tracing::warn!(hook = programs::DROPS, %reason, "drops are not counted");
            }
            _ => tracing::info!(hook = programs::DROPS, mode = HookMode::RawTracepoint.as_str(), "attached"),
        }
        Ok(drops)
    }

    /// Why drops are not counted; `None` when they are, or are not wanted.
    pub(super) fn reason(&self) -> Option<&str> {
        match &self.state {
            State::Detached(reason) => Some(reason),
            State::Off | State::Attached(_) => None,
        }
    }

    /// For who looks more often than [`Self::describe`] does; `None` when they are not counted, or this kernel does not
    /// tell them from others (before 5.18).
    pub(super) fn ring(&self) -> Option<RingDrops> {
        let reason = self.reasons.full_ring.filter(|_| matches!(self.state, State::Attached(_)))?;
        let (rows, tunnel) = (Arc::clone(&self.rows), Arc::clone(&self.tunnel));
        Some(RingDrops { rows, reason: reason.into(), tunnel })
    }

    /// Follows the names of devices.
    pub(super) fn handle(&mut self, change: &Change, netlink: &mut Netlink) {
        if !matches!(self.state, State::Attached(_)) {
            return;
        }
        match change {
            Change::Link(link) => self.name(link),
            Change::LinkGone(link) => self.forget(link.index),
            Change::Resync => self.look(netlink),
            Change::Addresses | Change::Routes => {}
        }
    }

    fn look(&mut self, netlink: &mut Netlink) {
        let mut links = Vec::new();
        if let Err(error) = device::all(netlink, |link| links.push(link)) {
            tracing::warn!(%error, "cannot list the devices; drops of new ones count as those of others");
            return;
        }
        let gone = |index: &u32| links.iter().all(|link| link.index != *index);
        for index in self.devices.iter().filter_map(|device| device.ifindex).filter(gone).collect::<Vec<_>>()
        {
            self.forget(index);
        }
        links.iter().for_each(|link| self.name(link));
    }

    /// Gives a device its row.
    fn name(&mut self, link: &Link) {
        let name = clean::label(&link.name, "unreadable");
        let known = self.devices.iter().position(|device| device.ifindex == Some(link.index));
        if known.is_some_and(|row| self.devices[row].name == name) {
            return;
        }
        self.forget(link.index);
        let Some(row) = self.row_for(&name) else { return };
        // One that bears the name of another before that one's end was heard of.
        if let Some(index) = self.devices[row].ifindex {
            self.forget(index);
        }
        match self.indexes.insert(link.index, row as u32, 0) {
            Ok(()) => {
                self.devices[row].ifindex = Some(link.index);
                self.publish_tunnel();
            }
            Err(error) => tracing::warn!(%error, device = name, "its drops count as those of others"),
        }
    }

    /// A row by name: its own, a new one, or that of a device that is gone. What was counted there was exported under that
    /// one's name: as drops of others it would be a burst that never was.
    fn row_for(&mut self, name: &str) -> Option<usize> {
        let rows = DROP_TUNNEL as usize..NAMED.end as usize;
        if let Some(row) = rows.clone().find(|row| self.devices[*row].name == name) {
            return Some(row);
        }
        let others = NAMED.start as usize..rows.end;
        let free = others.clone().find(|row| self.devices[*row].name.is_empty());
        let row = free.or_else(|| others.clone().find(|row| self.devices[*row].ifindex.is_none()))?;
        self.rows.row(row as u32).iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.devices[row] = Device { name: name.to_owned(), ifindex: None };
        Some(row)
    }

    fn forget(&mut self, index: u32) {
        for device in self.devices.iter_mut().filter(|device| device.ifindex == Some(index)) {
            device.ifindex = None;
        }
        self.publish_tunnel();
        // It may have had no row.
        let _ = self.indexes.remove(&index);
    }

    fn publish_tunnel(&self) {
        let index = self.devices[DROP_TUNNEL as usize].ifindex;
        self.tunnel.store(index.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Describes what was counted, and the hook at place `first` of the list; returns the place after it.
    pub(super) fn describe(&self, kernel: &mut Kernel, first: usize) -> usize {
        let (mode, reason) = match &self.state {
            State::Off => return first,
            State::Attached(_) => (HookMode::RawTracepoint, None),
            State::Detached(reason) => (HookMode::None, Some(reason.as_str())),
        };
        kernel.set_hook(first, programs::DROPS, mode, reason);
        if mode == HookMode::RawTracepoint {
            self.read(kernel);
        }
        first + 1
    }

    fn read(&self, kernel: &mut Kernel) {
        if !Arc::ptr_eq(&kernel.drop_reasons, &self.reasons) {
            kernel.drop_reasons = Arc::clone(&self.reasons);
        }
        let mut used = 0;
        for (row, device) in self.devices.iter().enumerate().filter(|(_, device)| !device.name.is_empty()) {
            if kernel.drops.len() == used {
                kernel.drops.push(DropDevice::default());
            }
            let into = &mut kernel.drops[used];
            used += 1;
            if into.device != device.name {
                into.device.clone_from(&device.name);
            }
            into.counts.clear();
            let counted = self.rows.row(row as u32).iter().enumerate();
            into.counts.extend(counted.filter_map(|(reason, word)| {
                let count = word.load(Ordering::Relaxed);
                // The ring of the tunnel is worth a zero, so that its first drops are an increase.
                let always = row == DROP_TUNNEL as usize && self.reasons.full_ring == Some(reason as u16);
                (count > 0 || always).then_some((reason as u16, count))
            }));
        }
        kernel.drops.truncate(used);
    }
}

/// Label values for every number.
fn reasons(known: &[Reason]) -> DropReasons {
    let name = |number: usize| match known.get(number) {
        _ if number == DROP_REASONS - 1 => Some("other".to_owned()),
        Some(Reason::Named(name)) => Some(name.clone()),
        Some(Reason::NoDrop) => None,
        Some(Reason::Unnamed) | None => Some(number.to_string()),
    };
    let names: Vec<_> = (0..DROP_REASONS).map(name).collect();
    let full_ring = names.iter().position(|name| name.as_deref() == Some("FULL_RING"));
    DropReasons { names, full_ring: full_ring.map(|number| number as u16) }
}

impl Object {
    /// Puts the program on its tracepoint.
    fn attach_drops(&mut self) -> Result<RawTracePointLink, String> {
        if let Some((_, reason)) = self.refused().iter().find(|(name, _)| *name == programs::DROPS) {
            return Err(reason.clone());
        }
        let program = self.drops_program().map_err(|error| chain(&error))?;
        let attached = program.attach("kfree_skb").and_then(|id| program.take_link(id));
        attached.map_err(|error| chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;
    use crate::sources::kernel::device::LinkLayer;
    use crate::sources::kernel::probe::missing_capabilities;
    use crate::sources::kernel::types::KernelTypes;

    fn link(index: u32) -> Link {
        Link { index, name: format!("device{index}"), layer: LinkLayer::Layer3, counters: None }
    }

    #[test]
    fn the_row_of_a_device_that_is_gone_begins_at_zero_for_another_one() {
        if !missing_capabilities().is_empty() {
            return eprintln!("skipped: needs root");
        }
        let mut object = Object::load(1, &KernelTypes::default()).unwrap();
        let mut netlink = Netlink::open(NETLINK_ROUTE).unwrap();
        let mut drops = Drops::open(&mut object, "tunnel", None, &mut netlink).unwrap();
        let all = NAMED.end - NAMED.start;
        for index in 1..=all {
            drops.name(&link(index));
        }
        for row in NAMED {
            drops.rows.row(row)[3].store(u64::from(row), Ordering::Relaxed);
        }
        let mut kernel = Kernel::default();
        let mut counts = |drops: &Drops, name: &str| {
            drops.read(&mut kernel);
            let found = kernel.drops.iter().find(|device| device.device == name);
            found.map(|device| device.counts.clone())
        };
        let row = |index: u32| u64::from(NAMED.start + index - 1);
        let late = link(all + 1);
        drops.name(&late);
        assert_eq!(counts(&drops, &late.name), None, "it has no row");
        drops.forget(5);
        assert_eq!(counts(&drops, "device5"), Some(vec![(3, row(5))]), "gone, and still there");
        drops.name(&late);
        assert_eq!(counts(&drops, "device5"), None);
        assert_eq!(counts(&drops, &late.name), Some(vec![]));
        assert_eq!(counts(&drops, "device6"), Some(vec![(3, row(6))]));
        assert_eq!(counts(&drops, "other"), Some(vec![]), "nothing was dropped a second time");
    }

    #[test]
    fn every_number_has_a_name_of_its_own_but_for_what_is_no_drop() {
        let named = Reason::Named("FULL_RING".to_owned());
        let reasons = reasons(&[Reason::NoDrop, Reason::Unnamed, named]);
        assert_eq!(reasons.full_ring, Some(2));
        let first = reasons.names[..4].iter().map(|name| name.as_deref()).collect::<Vec<_>>();
        assert_eq!(first, [None, Some("1"), Some("FULL_RING"), Some("3")]);
        assert_eq!(reasons.names[DROP_REASONS - 1].as_deref(), Some("other"));
        let mut distinct: Vec<_> = reasons.names.iter().flatten().collect();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), DROP_REASONS - 1);
    }
}
