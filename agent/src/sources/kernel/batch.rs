//! Reads a hash table many entries a system call. aya reads one entry with two.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::Pod;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd` (since 5.6; the programs need 5.12 anyway).
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
/// Entries a call; a bucket must fit as a whole.
const BATCH: usize = 512;

/// The `batch` member of `union bpf_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Attribute {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

/// Buffers for reading one table.
#[derive(Debug)]
pub(super) struct Batch<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Pod + Default, V: Pod + Default> Batch<K, V> {
    pub(super) fn new() -> Self {
        Self { keys: vec![K::default(); BATCH], values: vec![V::default(); BATCH] }
    }

    /// Hands every entry of `map` to `each` and returns how many there were. Entries that come and go meanwhile
    /// may be missed; none is seen twice.
    ///
    /// The map's keys and values must have the sizes of `K` and `V`: aya's typed maps check that.
    pub(super) fn read(&mut self, map: BorrowedFd<'_>, mut each: impl FnMut(&K, &V)) -> io::Result<usize> {
        let mut cursor = 0u32;
        let mut total = 0;
        let mut attribute = Attribute::default();
        loop {
            attribute.count = self.keys.len() as u32;
            attribute.out_batch = (&raw mut cursor) as u64;
            attribute.keys = self.keys.as_mut_ptr() as u64;
            attribute.values = self.values.as_mut_ptr() as u64;
            attribute.map_fd = map.as_raw_fd() as u32;
            // SAFETY: the attribute is of the kernel's layout; its pointers lead to a cursor of the 4 bytes that
            // hash tables use, and to buffers for `count` keys and values, which outlive the call. Any bytes are
            // a valid `Pod`.
            let result = unsafe {
                libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attribute, size_of::<Attribute>())
            };
            let error = (result < 0).then(io::Error::last_os_error);
            match error.as_ref().and_then(io::Error::raw_os_error) {
                // The end of the table; the entries read last are valid.
                None | Some(libc::ENOENT) => {}
                Some(libc::ENOSPC) if self.keys.len() < 64 * BATCH => {
                    let length = self.keys.len() * 2;
                    self.keys.resize(length, K::default());
                    self.values.resize(length, V::default());
                    continue;
                }
                Some(_) => return Err(error.unwrap_or_else(io::Error::last_os_error)),
            }
            let count = attribute.count as usize;
            for (key, value) in self.keys.iter().zip(&self.values).take(count) {
                each(key, value);
            }
            total += count;
            if error.is_some() {
                return Ok(total);
            }
            attribute.in_batch = (&raw mut cursor) as u64;
        }
    }
}
