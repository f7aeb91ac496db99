//! A driver's name, and names and values of its statistics, by `SIOCETHTOOL` (net/ethtool/ioctl.c).
//!
//! The kernel writes as many names or values as the driver has at that moment, however long the caller's buffer is
//! (6.18 and before). So the buffer ends at a page that nobody may write to: too many are `EFAULT`, not
//! somebody else's memory.
#![expect(unsafe_code, reason = "an ioctl with a pointer inside, and the memory that it may write to")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::sources::clean;

const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// Commands, the first word of what is pointed to (include/uapi/linux/ethtool.h).
const GET_DRIVER_INFO: u32 = 0x03;
const GET_STRINGS: u32 = 0x1b;
const GET_STATISTICS: u32 = 0x1d;
const GET_STRING_SET_INFO: u32 = 0x37;
/// `ETH_SS_STATS`: names of the statistics.
const STATISTICS: u32 = 1;
/// `ETH_GSTRING_LEN`.
const NAME_BYTES: usize = 32;
/// More statistics than a device of 256 queues has.
const MOST: u32 = 1 << 15;

/// A socket to ask with, and memory for the answers.
#[derive(Debug)]
pub(super) struct Ethtool {
    socket: OwnedFd,
    answer: Answer,
}

impl Ethtool {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, answer: Answer::new()? })
    }

    /// What the device of that number is called now; `None` when it is gone.
    pub(super) fn name(&self, index: u32) -> io::Result<Option<String>> {
        match index_to_name(&self.socket, index) {
            Ok(name) => Ok(Some(name)),
            Err(rustix::io::Errno::NODEV) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Name of a device's driver; `None` without any.
    pub(super) fn driver(&mut self, device: &str) -> io::Result<Option<String>> {
        // struct ethtool_drvinfo: command, the driver's name, and 160 bytes more.
        if !self.ask(device, &[GET_DRIVER_INFO])? {
            return Ok(None);
        }
        let name = self.answer.bytes()[4..4 + NAME_BYTES].split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Some(clean::label(&clean::lossy(name), "")).filter(|name| !name.is_empty()))
    }

    /// Names of the statistics of a device's driver, 32 bytes each, padded with zeroes; none without any, with more than
    /// [`MOST`], or when their number changes meanwhile.
    pub(super) fn names(&mut self, device: &str) -> io::Result<impl Iterator<Item = &[u8]>> {
        // struct ethtool_sset_info: command, nothing, 64 bits that say which sets, one length a set.
        let sets = (1u64 << STATISTICS).to_ne_bytes();
        let [low, high] = [[sets[0], sets[1], sets[2], sets[3]], [sets[4], sets[5], sets[6], sets[7]]];
        let head = [GET_STRING_SET_INFO, 0, u32::from_ne_bytes(low), u32::from_ne_bytes(high), 0];
        let has_any = self.ask(device, &head)? && self.answer.bytes()[8..16] != [0; 8];
        let count = if has_any { self.answer.word(4) } else { 0 };
        // struct ethtool_gstrings: command, set, length, names.
        let any = (1..=MOST).contains(&count);
        let same =
            any && self.ask(device, &[GET_STRINGS, STATISTICS, count])? && self.answer.word(2) == count;
        let names = self.answer.bytes()[12..].chunks_exact(NAME_BYTES);
        Ok(names.take(if same { count as usize } else { 0 }))
    }

    /// The values, in the order of the names; `None` when the driver does not have `count` of them now.
    pub(super) fn values(&mut self, device: &str, count: usize) -> io::Result<Option<Values<'_>>> {
        // struct ethtool_stats: command, number, values.
        let count = count as u32;
        if !self.ask(device, &[GET_STATISTICS, count])? || self.answer.word(1) != count {
            return Ok(None);
        }
        let end = 8 + count as usize * size_of::<u64>();
        Ok(self.answer.bytes().get(8..end).map(Values))
    }

    /// Writes the head of a question, and lets the kernel put the answer in its place. False when the device is gone,
    /// its driver has no such thing, or there was no room for it.
    fn ask(&mut self, device: &str, head: &[u32]) -> io::Result<bool> {
        let bytes = self.answer.bytes_mut();
        for (place, word) in bytes.chunks_exact_mut(4).zip(head) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        let data = bytes.as_mut_ptr().cast();
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: data },
        };
        // The last byte stays zero.
        for (place, byte) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(device.bytes()) {
            *place = byte as libc::c_char;
        }
        // SAFETY: the request is a live `struct ifreq` whose name ends with a zero and whose pointer leads to the
        // answer's memory, which nothing else refers to now. What the kernel writes there is ascending from its
        // beginning, and stops at the page behind it.
        let outcome = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if outcome >= 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENODEV | libc::EOPNOTSUPP | libc::EFAULT) => Ok(false),
            _ => Err(error),
        }
    }
}

/// Values of statistics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a>(pub(super) &'a [u8]);

impl Values<'_> {
    pub(super) fn get(&self, place: usize) -> Option<u64> {
        let rest = self.0.get(place * size_of::<u64>()..)?;
        rest.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
    }
}

/// Memory with a page behind it that is not to be touched.
#[derive(Debug)]
struct Answer {
    address: NonNull<u8>,
    length: usize,
    page: usize,
}

impl Answer {
    fn new() -> io::Result<Self> {
        let page = rustix::param::page_size();
        let length = (MOST as usize * NAME_BYTES + 12).next_multiple_of(page);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let address =
            unsafe { mmap_anonymous(ptr::null_mut(), length + page, protection, MapFlags::PRIVATE) }?;
        let address = NonNull::new(address.cast::<u8>()).ok_or_else(io::Error::last_os_error)?;
        let mapping = Self { address, length, page };
        // SAFETY: the last page of the mapping, which `bytes` never gives out.
        unsafe {
            let behind = address.as_ptr().add(length).cast::<c_void>();
            mprotect(behind, page, MprotectFlags::empty())?;
        }
        Ok(mapping)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `length` bytes of the mapping may be read, are zero or were written, and live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.length) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.length) }
    }

    fn word(&self, place: usize) -> u32 {
        self.bytes()[place * 4..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: address and length are those of the mapping, and no borrow of it outlives `self`.
        let _ = unsafe { munmap(self.address.as_ptr().cast(), self.length + self.page) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_or_has_no_driver_has_no_statistics() {
        let mut ethtool = Ethtool::open().unwrap();
        assert_eq!(ethtool.name(u32::MAX >> 1).unwrap(), None);
        assert_eq!(ethtool.name(1).unwrap().as_deref(), Some("lo"));
        for device in ["no-such-device", "lo", "a-name-that-is-much-too-long-for-a-device"] {
            assert_eq!(ethtool.names(device).unwrap().count(), 0);
            assert_eq!(ethtool.driver(device).unwrap(), None);
            assert!(ethtool.values(device, 3).unwrap().is_none());
        }
    }

    #[test]
    fn the_kernel_cannot_write_behind_the_answer() {
        let ethtool = Ethtool::open().unwrap();
        let source = std::fs::File::open("/dev/zero").unwrap();
        let behind = ethtool.answer.address.as_ptr().wrapping_add(ethtool.answer.length - 1);
        // SAFETY: what may be written ends one byte after `behind`; the kernel says how far it came.
        let read = unsafe { libc::read(source.as_raw_fd(), behind.cast(), 2) };
        assert!(read <= 1, "{read}");
    }
}
