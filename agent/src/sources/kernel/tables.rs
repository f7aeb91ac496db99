//! The maps whose keys belong to the agent, and what is in them.

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError};
use tailgauge_ebpf::layout::{Control, maps};

use super::KernelError;
use super::keys::{Entries, PeerKeys, Prefix, RouteKeys, difference};
use super::object::Object;
use crate::model::kernel::MapUse;

/// A map that takes keys of `N` bytes.
pub(super) trait Store<const N: usize> {
    fn set(&mut self, key: &Prefix<N>, value: u32) -> Result<(), MapError>;
    fn remove(&mut self, key: &Prefix<N>) -> Result<(), MapError>;
}

impl<const N: usize> Store<N> for HashMap<MapData, [u8; N], u32>
where
    [u8; N]: Pod,
{
    fn set(&mut self, key: &Prefix<N>, value: u32) -> Result<(), MapError> {
        self.insert(key.address, value, 0)
    }

    fn remove(&mut self, key: &Prefix<N>) -> Result<(), MapError> {
        self.remove(&key.address)
    }
}

impl<const N: usize> Store<N> for LpmTrie<MapData, [u8; N], u32>
where
    [u8; N]: Pod,
{
    fn set(&mut self, key: &Prefix<N>, value: u32) -> Result<(), MapError> {
        self.insert(&Key::new(u32::from(key.length), key.address), value, 0)
    }

    fn remove(&mut self, key: &Prefix<N>) -> Result<(), MapError> {
        self.remove(&Key::new(u32::from(key.length), key.address))
    }
}

/// A map and what we put into it. Nobody else writes it, so there is no need to read it back.
#[derive(Debug)]
pub(super) struct Table<S, const N: usize> {
    name: &'static str,
    capacity: u32,
    store: S,
    pub(super) installed: Entries<N>,
}

impl<S: Store<N>, const N: usize> Table<S, N> {
    pub(super) const fn new(name: &'static str, capacity: u32, store: S) -> Self {
        Self { name, capacity, store, installed: Vec::new() }
    }

    /// Makes the map hold `wanted`; returns how many updates failed. New keys go in before old ones go out, so
    /// that a network which is split or merged is never without an owner; what had no room until then is tried
    /// again. What failed is tried again by the next call, as it does not count as installed.
    pub(super) fn install(&mut self, mut wanted: Entries<N>) -> u64 {
        let (set, remove) = difference(&self.installed, &wanted);
        let mut last_error = None;
        let mut unset: Vec<_> =
            set.into_iter().filter(|(key, value)| self.store.set(key, *value).is_err()).collect();
        let mut stuck = Vec::new();
        for key in remove {
            match self.store.remove(&key) {
                Ok(()) | Err(MapError::KeyNotFound | MapError::ElementNotFound) => {}
                Err(error) => {
                    last_error = Some(error);
                    stuck.push(key);
                }
            }
        }
        unset.retain(|(key, value)| match self.store.set(key, *value) {
            Ok(()) => false,
            Err(error) => {
                last_error = Some(error);
                true
            }
        });
        if let Some(error) = last_error {
            let (unset, stuck) = (unset.len(), stuck.len());
            tracing::warn!(map = self.name, unset, stuck, %error, "the kernel refused keys");
        }
        let errors = (unset.len() + stuck.len()) as u64;
        if errors > 0 {
            self.correct(&mut wanted, &unset, &stuck);
        }
        self.installed = wanted;
        errors
    }

    /// Makes `wanted` say what the map holds after failures.
    fn correct(&self, wanted: &mut Entries<N>, unset: &Entries<N>, stuck: &[Prefix<N>]) {
        let before = |key: &Prefix<N>| {
            let found = self.installed.binary_search_by_key(key, |(key, _)| *key);
            found.ok().map(|index| self.installed[index])
        };
        wanted.retain(|(key, _)| unset.binary_search_by_key(key, |(key, _)| *key).is_err());
        wanted.extend(unset.iter().filter_map(|(key, _)| before(key)));
        wanted.extend(stuck.iter().filter_map(before));
        wanted.sort_unstable_by_key(|(key, _)| *key);
    }

    pub(super) fn fill(&self) -> MapUse {
        MapUse { name: self.name, entries: self.installed.len() as u64, capacity: u64::from(self.capacity) }
    }
}

/// Opens a map of the object as one of aya's types.
pub(super) fn open<T>(object: &mut Object, name: &'static str) -> Result<T, KernelError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = object.take_map(name)?;
    T::try_from(map).map_err(|source| KernelError::Map {
        operation: "open",
        map: name,
        source: Box::new(source),
    })
}

/// All maps whose keys belong to the agent.
#[derive(Debug)]
pub(super) struct Tables {
    peers_v4: Table<HashMap<MapData, [u8; 4], u32>, 4>,
    peers_v6: Table<HashMap<MapData, [u8; 16], u32>, 16>,
    prefixes_v4: Table<LpmTrie<MapData, [u8; 4], u32>, 4>,
    prefixes_v6: Table<LpmTrie<MapData, [u8; 16], u32>, 16>,
    routes_v4: Table<LpmTrie<MapData, [u8; 4], u32>, 4>,
    routes_v6: Table<LpmTrie<MapData, [u8; 16], u32>, 16>,
    exit_node_slot: u32,
    refused_peers: u64,
    refused_routes: u64,
    /// Changes of the routes so far.
    routes_generation: u32,
    errors: u64,
}

impl Tables {
    pub(super) fn open(object: &mut Object) -> Result<Self, KernelError> {
        let sizes = object.sizes();
        Ok(Self {
            peers_v4: Table::new(maps::PEERS_V4, sizes.addresses, open(object, maps::PEERS_V4)?),
            peers_v6: Table::new(maps::PEERS_V6, sizes.addresses, open(object, maps::PEERS_V6)?),
            prefixes_v4: Table::new(maps::PREFIXES_V4, sizes.prefixes, open(object, maps::PREFIXES_V4)?),
            prefixes_v6: Table::new(maps::PREFIXES_V6, sizes.prefixes, open(object, maps::PREFIXES_V6)?),
            routes_v4: Table::new(maps::ROUTES_V4, sizes.routes, open(object, maps::ROUTES_V4)?),
            routes_v6: Table::new(maps::ROUTES_V6, sizes.routes, open(object, maps::ROUTES_V6)?),
            exit_node_slot: 0,
            refused_peers: 0,
            refused_routes: 0,
            routes_generation: 0,
            errors: 0,
        })
    }

    pub(super) fn install_peers(&mut self, keys: PeerKeys) {
        self.errors += self.peers_v4.install(keys.addresses_v4)
            + self.peers_v6.install(keys.addresses_v6)
            + self.prefixes_v4.install(keys.prefixes_v4)
            + self.prefixes_v6.install(keys.prefixes_v6);
        self.exit_node_slot = keys.exit_node_slot;
        self.refused_peers = keys.refused;
    }

    /// The programs forget the classes they know when [`Self::control`] is stored after a change.
    pub(super) fn install_routes(&mut self, keys: RouteKeys) {
        self.refused_routes = keys.refused;
        if self.routes_v4.installed == keys.v4 && self.routes_v6.installed == keys.v6 {
            return;
        }
        self.errors += self.routes_v4.install(keys.v4) + self.routes_v6.install(keys.v6);
        self.routes_generation = self.routes_generation.wrapping_add(1);
    }

    /// The settings that go with what is installed.
    pub(super) fn control(&self) -> Control {
        let any = |empty: bool| u32::from(!empty);
        Control {
            exit_node_slot: self.exit_node_slot,
            has_routes_v4: any(self.routes_v4.installed.is_empty()),
            has_routes_v6: any(self.routes_v6.installed.is_empty()),
            has_prefixes_v4: any(self.prefixes_v4.installed.is_empty()),
            has_prefixes_v6: any(self.prefixes_v6.installed.is_empty()),
            routes_generation: self.routes_generation,
            ..Control::default()
        }
    }

    /// Fill of every map.
    pub(super) fn fill(&self) -> [MapUse; 6] {
        [
            self.peers_v4.fill(),
            self.peers_v6.fill(),
            self.prefixes_v4.fill(),
            self.prefixes_v6.fill(),
            self.routes_v4.fill(),
            self.routes_v6.fill(),
        ]
    }

    /// Updates that the kernel refused so far.
    pub(super) const fn errors(&self) -> u64 {
        self.errors
    }

    /// Keys that have no room at present.
    pub(super) const fn refused(&self) -> u64 {
        self.refused_peers + self.refused_routes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;

    use proptest::prelude::*;

    use super::*;

    /// A map of bounded size, some of whose keys can be neither set nor removed.
    #[derive(Default)]
    struct Fake {
        held: BTreeMap<Prefix<4>, u32>,
        capacity: usize,
        broken: Option<u8>,
    }

    impl Fake {
        fn refuse(&self, key: &Prefix<4>) -> Result<(), MapError> {
            match self.broken {
                Some(broken) if key.address[3] == broken => {
                    Err(io::Error::from_raw_os_error(libc::ENOMEM).into())
                }
                _ => Ok(()),
            }
        }
    }

    impl Store<4> for Fake {
        fn set(&mut self, key: &Prefix<4>, value: u32) -> Result<(), MapError> {
            self.refuse(key)?;
            if !self.held.contains_key(key) && self.held.len() >= self.capacity {
                return Err(io::Error::from_raw_os_error(libc::E2BIG).into());
            }
            self.held.insert(*key, value);
            Ok(())
        }

        fn remove(&mut self, key: &Prefix<4>) -> Result<(), MapError> {
            self.refuse(key)?;
            self.held.remove(key).map(|_| ()).ok_or(MapError::KeyNotFound)
        }
    }

    fn entries() -> impl Strategy<Value = Entries<4>> {
        prop::collection::btree_map(0u8..12, 0u32..4, 0..10).prop_map(|map| {
            map.into_iter()
                .map(|(last, value)| (Prefix { address: [10, 0, 0, last], length: 32 }, value))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_installed_is_what_the_map_holds_and_what_is_wanted_once_nothing_fails(
            steps in prop::collection::vec((entries(), prop::option::of(0u8..12)), 1..8),
        ) {
            let fake = Fake { capacity: 10, ..Fake::default() };
            let mut table = Table::new("PEERS_V4", 10, fake);
            for (wanted, broken) in steps {
                table.store.broken = broken;
                let errors = table.install(wanted.clone());
                let held: Entries<4> = table.store.held.clone().into_iter().collect();
                prop_assert_eq!(&table.installed, &held);
                if errors == 0 {
                    prop_assert_eq!(&held, &wanted);
                }
                table.store.broken = None;
                if table.install(wanted.clone()) == 0 {
                    prop_assert_eq!(&table.installed, &wanted);
                } else {
                    prop_assert!(wanted.len() > 10);
                }
            }
        }
    }

    #[test]
    fn a_full_map_takes_new_keys_once_the_old_ones_are_gone() {
        let mut table = Table::new("PEERS_V4", 2, Fake { capacity: 2, ..Fake::default() });
        let key = |last| Prefix { address: [10, 0, 0, last], length: 32 };
        assert_eq!(table.install(vec![(key(1), 1), (key(2), 2)]), 0);
        assert_eq!(table.install(vec![(key(3), 1), (key(4), 2)]), 0);
        assert_eq!(table.installed, vec![(key(3), 1), (key(4), 2)]);
    }
}
