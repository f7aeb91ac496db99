//! A mmapable array map as memory: reading it costs no system call.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::Map;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use tailgauge_ebpf::layout::{
    Control, CpuSample, DropRow, Found, Health, Line, Messages, PeerUnderlayLine, Ports, Sample, Session,
    SessionSet, Tcp, Underlay, UnderlayLine, Watched, Windows, WireGuard,
};

use super::KernelError;

/// A row of a mmapable array.
///
/// # Safety
/// `repr(C)`, no padding, integers only, every bit pattern valid, size a multiple of 8.
pub(super) unsafe trait Row: Copy {}

// SAFETY: `layout` promises plain old data without padding and tests the sizes.
unsafe impl Row for Line {}
// SAFETY: as above.
unsafe impl Row for Windows {}
// SAFETY: as above.
unsafe impl Row for Tcp {}
// SAFETY: as above.
unsafe impl Row for Control {}
// SAFETY: as above.
unsafe impl Row for Health {}
// SAFETY: as above.
unsafe impl Row for UnderlayLine {}
// SAFETY: as above.
unsafe impl Row for Underlay {}
// SAFETY: as above.
unsafe impl Row for Ports {}
// SAFETY: as above.
unsafe impl Row for DropRow {}
// SAFETY: as above.
unsafe impl Row for PeerUnderlayLine {}
// SAFETY: as above.
unsafe impl Row for WireGuard {}
// SAFETY: as above.
unsafe impl Row for Messages {}
// SAFETY: as above.
unsafe impl Row for SessionSet {}
// SAFETY: as above.
unsafe impl Row for Session {}
// SAFETY: as above.
unsafe impl Row for Watched {}
// SAFETY: as above.
unsafe impl Row for Found {}
// SAFETY: as above.
unsafe impl Row for Sample {}
// SAFETY: as above.
unsafe impl Row for CpuSample {}

/// The rows in use of an array map. The kernel populates a mapping at once and counts it as our memory, so no
/// more is mapped than was asked for, rounded up to whole pages.
///
/// A row is seen as a slice of 64-bit words: the programs add to each word atomically, and so do we.
#[derive(Debug)]
pub(super) struct Rows<T> {
    name: &'static str,
    fd: OwnedFd,
    /// Row of the map that is row 0 here.
    first: u32,
    /// Rows of the map from `first` on.
    capacity: u32,
    mapping: Option<Mapping>,
    row: PhantomData<T>,
}

impl<T: Row> Rows<T> {
    const WORDS: usize = size_of::<T>() / size_of::<u64>();

    /// Takes over a map of the object and checks that its rows have the size of `T`.
    pub(super) fn new(name: &'static str, map: Map) -> Result<Self, KernelError> {
        let Map::Array(map) = map else { return Err(KernelError::MissingMap(name)) };
        let error = |source| KernelError::Map { operation: "describe", map: name, source: Box::new(source) };
        let info = map.info().map_err(error)?;
        let found = info.value_size() as usize;
        if found != size_of::<T>() {
            return Err(KernelError::Layout { map: name, found, expected: size_of::<T>() });
        }
        let fd = map.fd().as_fd().try_clone_to_owned().map_err(|cause| error(cause.into()))?;
        Ok(Self { name, fd, first: 0, capacity: info.max_entries(), mapping: None, row: PhantomData })
    }

    /// The same map from row `first` on, with a mapping of its own.
    pub(super) fn starting_at(&self, first: u32) -> Result<Self, KernelError> {
        let error = |source| KernelError::Mmap { map: self.name, rows: first, source };
        let Some(capacity) = self.capacity.checked_sub(first) else {
            return Err(error(io::Error::from(io::ErrorKind::InvalidInput)));
        };
        let fd = self.fd.try_clone().map_err(error)?;
        Ok(Self { name: self.name, fd, first, capacity, mapping: None, row: PhantomData })
    }

    /// Makes at least the first `rows` rows readable.
    pub(super) fn ensure(&mut self, rows: u32) -> Result<(), KernelError> {
        let error = |source| KernelError::Mmap { map: self.name, rows, source };
        if rows > self.capacity {
            return Err(error(io::Error::from(io::ErrorKind::InvalidInput)));
        }
        let bytes = rows as usize * size_of::<T>();
        if self.words().len() * size_of::<u64>() < bytes {
            let offset = self.first as usize * size_of::<T>();
            self.mapping = Some(Mapping::new(self.fd.as_fd(), offset, bytes).map_err(error)?);
        }
        Ok(())
    }

    /// All words that are mapped.
    pub(super) fn words(&self) -> &[AtomicU64] {
        self.mapping.as_ref().map_or(&[], Mapping::words)
    }

    /// Words of one row; empty when it is not mapped.
    pub(super) fn row(&self, row: u32) -> &[AtomicU64] {
        let start = row as usize * Self::WORDS;
        self.words().get(start..start + Self::WORDS).unwrap_or_default()
    }

    /// Adds one to the word at `offset` bytes of a row.
    pub(super) fn add_one(&mut self, row: u32, offset: usize) -> Result<(), KernelError> {
        self.ensure(row + 1)?;
        if let Some(word) = self.row(row).get(offset / size_of::<u64>()) {
            word.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Copies one row. Each word is whole; words are not of one moment. False when it is not mapped.
    pub(super) fn load(&self, row: u32, into: &mut T) -> bool {
        self.transfer(row, into, |word| word.load(Ordering::Relaxed))
    }

    /// Copies one row and zeroes it; what is added meanwhile is in either.
    pub(super) fn take(&self, row: u32, into: &mut T) -> bool {
        self.transfer(row, into, |word| word.swap(0, Ordering::Relaxed))
    }

    fn transfer(&self, row: u32, into: &mut T, read: impl Fn(&AtomicU64) -> u64) -> bool {
        let words = self.row(row);
        let target = ptr::from_mut(into).cast::<u64>();
        for (index, word) in words.iter().enumerate() {
            // SAFETY: `words` is empty or has as many words as `T` is long, and any bits are a valid `T`.
            // `T` may be less aligned than a word.
            unsafe { target.add(index).write_unaligned(read(word)) };
        }
        !words.is_empty()
    }

    /// Whether the row is mapped and differs from `known` in any of the words `at`.
    pub(super) fn differs(&self, row: u32, known: &T, at: &[usize]) -> bool {
        let words = self.row(row);
        let known = ptr::from_ref(known).cast::<u64>();
        at.iter().any(|&index| {
            words.get(index).is_some_and(|word| {
                // SAFETY: `index` is within the row, so within `T`; `T` has no padding, so every byte is
                // initialised.
                word.load(Ordering::Relaxed) != unsafe { known.add(index).read_unaligned() }
            })
        })
    }

    /// Replaces one row, word by word. Only for rows that the programs do not write.
    pub(super) fn store(&self, row: u32, from: &T) {
        let source = ptr::from_ref(from).cast::<u64>();
        for (index, word) in self.row(row).iter().enumerate() {
            // SAFETY: as in `transfer`; `T` has no padding, so every byte is initialised.
            word.store(unsafe { source.add(index).read_unaligned() }, Ordering::Relaxed);
        }
    }
}

/// A shared mapping of part of a map.
#[derive(Debug)]
struct Mapping {
    address: NonNull<AtomicU64>,
    words: usize,
    /// Words between the start of the page and what was asked for.
    skip: usize,
}

// SAFETY: the memory belongs to the mapping alone, is accessed only atomically, and goes when the mapping does.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, offset: usize, bytes: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let start = offset - offset % page;
        let length = (offset - start + bytes).max(1).next_multiple_of(page);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let address =
            unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, fd, start as u64) }?;
        let address = NonNull::new(address.cast()).ok_or_else(io::Error::last_os_error)?;
        let word = size_of::<u64>();
        Ok(Self { address, words: length / word, skip: (offset - start) / word })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `words` long, lives as long as `self`, and is only ever accessed
        // atomically: by us through this type, by the programs with atomic instructions or aligned words.
        let words = unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.words) };
        &words[self.skip..]
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: address and length are those of the mapping, and no borrow of it outlives `self`.
        let _ = unsafe { munmap(self.address.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}
