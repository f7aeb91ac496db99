//! TUN devices as tailscaled makes them: L3, one queue, virtio_net_hdr before every packet.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::netns::{Namespace, NamespaceError};

/// Room for the longest read: vnet header and 64 KiB of packet.
pub const MAX_FRAME: usize = crate::offload::vnet::VNET_HEADER_LEN + 65_536;

// include/uapi/linux/if_tun.h
const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO4: libc::c_uint = 0x02;
const TUN_F_TSO6: libc::c_uint = 0x04;
const TUN_F_USO4: libc::c_uint = 0x20;
const TUN_F_USO6: libc::c_uint = 0x40;
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;

/// Why a TUN device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// Its namespace was not to be had.
    #[error("TUN device {device}")]
    Namespace {
        /// The device.
        device: String,
        /// The reason.
        #[source]
        source: NamespaceError,
    },
    /// The kernel said no.
    #[error("TUN device {device}: {operation} failed")]
    Kernel {
        /// The device.
        device: String,
        /// The call.
        operation: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// An open TUN device; the device disappears with it. Reads do not block.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Makes the device in the namespace. It is DOWN and has no offloads yet, like tailscaled's in its first moments.
    pub fn create(namespace: &Namespace, device: &str) -> Result<Self, TunError> {
        let opened = namespace
            .run(|| open(device))
            .map_err(|source| TunError::Namespace { device: device.to_owned(), source })?;
        opened.map_err(|(operation, source)| TunError::Kernel {
            device: device.to_owned(),
            operation,
            source,
        })
    }

    /// Lets the kernel hand over TCP and UDP super-packets with partial checksums.
    pub fn enable_offloads(&self, device: &str) -> Result<(), TunError> {
        let flags = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6;
        // SAFETY: the descriptor is an attached TUN, and TUNSETOFFLOAD takes an integer by value.
        let outcome =
            unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETOFFLOAD, libc::c_ulong::from(flags)) };
        check(outcome).map_err(|source| TunError::Kernel {
            device: device.to_owned(),
            operation: "TUNSETOFFLOAD",
            source,
        })
    }

    /// Reads one vnet header and packet; `WouldBlock` when there is none.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.file, buffer)?)
    }

    /// Writes one vnet header and packet.
    pub fn write(&self, frame: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.file, frame)?)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open(device: &str) -> Result<Tun, (&'static str, io::Error)> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(|source| ("opening /dev/net/tun", source))?;
    // SAFETY: ifreq is plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(("naming it", io::Error::from(io::ErrorKind::InvalidInput)));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    let outcome = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    check(outcome).map_err(|source| ("TUNSETIFF", source))?;
    Ok(Tun { file })
}

fn check(outcome: libc::c_int) -> io::Result<()> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
