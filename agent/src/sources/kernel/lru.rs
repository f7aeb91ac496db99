//! A table of the programs that makes room by forgetting: read as a whole, and counted now and then.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError};

use super::KernelError;
use super::batch::Batch;
use super::object::Object;
use crate::model::kernel::MapUse;

/// A table may be large, and its fill changes slowly.
const COUNT_EVERY: Duration = Duration::from_secs(15);
/// `BPF_EXIST`: never bring back what a program has just removed.
const EXIST: u64 = 2;

/// A table and the buffers to read it.
#[derive(Debug)]
pub(super) struct Lru<K: Pod, V: Pod> {
    map: HashMap<MapData, K, V>,
    fd: OwnedFd,
    batch: Batch<K, V>,
    fill: MapUse,
    counted: Option<Instant>,
}

impl<K: Pod + Default, V: Pod + Default> Lru<K, V> {
    pub(super) fn open(object: &mut Object, name: &'static str, capacity: u32) -> Result<Self, KernelError> {
        let error = |source| KernelError::Map { operation: "open", map: name, source: Box::new(source) };
        let map = object.take_map(name)?;
        let Map::LruHashMap(data) = &map else { return Err(KernelError::MissingMap(name)) };
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(|cause| error(cause.into()))?;
        Ok(Self {
            map: HashMap::try_from(map).map_err(error)?,
            fd,
            batch: Batch::new(),
            fill: MapUse { name, entries: 0, capacity: u64::from(capacity) },
            counted: None,
        })
    }

    /// Hands every entry to `each`.
    pub(super) fn read(&mut self, each: impl FnMut(&K, &V)) -> io::Result<()> {
        self.fill.entries = self.batch.read(self.fd.as_fd(), each)? as u64;
        self.counted = Some(Instant::now());
        Ok(())
    }

    /// Counts the entries, unless that was done a short time ago.
    pub(super) fn count(&mut self) -> io::Result<()> {
        if self.counted.is_some_and(|last| last.elapsed() < COUNT_EVERY) {
            return Ok(());
        }
        self.read(|_, _| ())
    }

    /// An entry as it is now.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.map.get(key, 0).ok()
    }

    /// Makes an entry, as a program does.
    #[cfg(test)]
    pub(super) fn insert(&mut self, key: &K, value: &V) {
        self.map.insert(key, value, 0).unwrap();
    }

    /// Replaces an entry that is there.
    pub(super) fn replace(&mut self, key: &K, value: &V) -> Result<(), MapError> {
        self.map.insert(key, value, EXIST)
    }

    /// Removes an entry that is there.
    pub(super) fn remove(&mut self, key: &K) -> Result<(), MapError> {
        self.map.remove(key)?;
        self.fill.entries = self.fill.entries.saturating_sub(1);
        Ok(())
    }

    /// Fill at the last reading, without what was removed since.
    pub(super) const fn fill(&self) -> MapUse {
        self.fill
    }
}
