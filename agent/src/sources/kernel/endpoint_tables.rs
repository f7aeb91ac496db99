//! The maps that say whose the messages on the underlay are: those that the agent writes, and what the programs
//! learned beside them.

use std::io;

use aya::maps::{HashMap, MapData};
use tailgauge_ebpf::layout::{Control, Disco, Endpoint, maps};
use tailgauge_ebpf::message::DISCO_KEY;

use super::KernelError;
use super::endpoints::{self, ENDPOINT, Members};
use super::lru::Lru;
use super::object::Object;
use super::sizes::Sizes;
use super::tables::{Table, open};
use crate::model::kernel::MapUse;

/// All maps of endpoints and disco keys.
#[derive(Debug)]
pub(super) struct EndpointTables {
    endpoints: Table<HashMap<MapData, [u8; ENDPOINT], u32>, ENDPOINT>,
    disco_keys: Table<HashMap<MapData, [u8; DISCO_KEY], u32>, DISCO_KEY>,
    learned: Lru<Endpoint, u32>,
    disco: Lru<Endpoint, Disco>,
    /// Whose keys are installed; `None` after a failure.
    members: Option<Members>,
    relay_port: u16,
    /// Slots whose peers are gone, since the last [`Self::install`].
    retired: Vec<u32>,
    /// Changes so far.
    generation: u32,
    refused: u64,
    errors: u64,
}

impl EndpointTables {
    pub(super) fn open(object: &mut Object) -> Result<Self, KernelError> {
        let sizes = object.sizes();
        let endpoints = open(object, maps::ENDPOINTS)?;
        let disco_keys = open(object, maps::DISCO_KEYS)?;
        Ok(Self {
            endpoints: Table::new(maps::ENDPOINTS, sizes.endpoints, endpoints),
            disco_keys: Table::new(maps::DISCO_KEYS, sizes.slots, disco_keys),
            learned: Lru::open(object, maps::LEARNED_ENDPOINTS, sizes.learned_endpoints)?,
            disco: Lru::open(object, maps::DISCO, sizes.disco)?,
            members: None,
            relay_port: 0,
            retired: Vec::new(),
            generation: 0,
            refused: 0,
            errors: 0,
        })
    }

    /// Makes the maps hold the keys of `members`. The programs forget the slots they know when [`Self::control`] is
    /// stored after a change.
    pub(super) fn install(&mut self, members: Members, relay_port: Option<u16>, sizes: &Sizes) {
        self.relay_port = relay_port.unwrap_or(0);
        // Once more: a program may have been about to learn one when they were retired.
        let unlearned = !self.retired.is_empty();
        if self.unlearn() {
            self.retired.clear();
        }
        let is_known = self.members.as_ref().is_some_and(|known| endpoints::claim_the_same(known, &members));
        if is_known && !unlearned {
            return;
        }
        let keys = endpoints::keys(&members, sizes);
        self.refused = keys.refused;
        if unlearned
            || self.endpoints.installed != keys.endpoints
            || self.disco_keys.installed != keys.disco_keys
        {
            self.generation = self.generation.wrapping_add(1);
        }
        let errors = self.endpoints.install(keys.endpoints) + self.disco_keys.install(keys.disco_keys);
        self.errors += errors;
        self.members = (errors == 0).then_some(members);
    }

    /// Adds to the settings what goes with what is installed.
    pub(super) fn control(&self, control: Control) -> Control {
        Control { endpoints_generation: self.generation, relay_port: u32::from(self.relay_port), ..control }
    }

    /// Removes what was learned of slots that may get other peers from the next [`Self::install`] on. The programs forget
    /// the slots they know when [`Self::control`] is stored.
    pub(super) fn retire(&mut self, slots: &[u32]) {
        self.retired.extend_from_slice(slots);
        self.unlearn();
        self.generation = self.generation.wrapping_add(1);
    }

    /// Removes what was learned of slots that were retired; whether that succeeded.
    fn unlearn(&mut self) -> bool {
        if self.retired.is_empty() {
            return true;
        }
        let Self { learned, retired, .. } = self;
        retired.sort_unstable();
        let mut gone = Vec::new();
        let read = learned.read(|endpoint, slot| {
            if retired.binary_search(slot).is_ok() {
                gone.push(*endpoint);
            }
        });
        if let Err(error) = &read {
            tracing::warn!(%error, "cannot look for the endpoints of peers that left");
        }
        for endpoint in &gone {
            // Not there means that the programs forgot it themselves.
            let _ = learned.remove(endpoint);
        }
        read.is_ok()
    }

    /// Counts what the programs learned, now and then.
    pub(super) fn count(&mut self) -> io::Result<()> {
        self.learned.count()?;
        self.disco.count()
    }

    /// Fill of every map; of those that the programs write at the last count.
    pub(super) fn fill(&self) -> [MapUse; 4] {
        [self.endpoints.fill(), self.disco_keys.fill(), self.learned.fill(), self.disco.fill()]
    }

    /// Updates that the kernel refused so far.
    pub(super) const fn errors(&self) -> u64 {
        self.errors
    }

    /// Keys that have no room at present.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }
}
