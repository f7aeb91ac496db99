//! The underlay socket: marked, with large buffers, UDP GSO on the way out and GRO on the way in.

use std::io;
use std::mem::{size_of, size_of_val};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::BYPASS_MARK;

/// tailscaled's `socketBufferSize`.
const BUFFER_LEN: libc::c_int = 7 << 20;
/// Most datagrams of one GSO send (`UDP_MAX_SEGMENTS` of older kernels).
pub const MAX_SEGMENTS: usize = 64;
/// Most bytes of one GSO send.
pub const MAX_BATCH: usize = 65_000;
/// Room for the longest receive.
pub const MAX_RECEIVE: usize = 65_536;

// include/uapi/linux/udp.h
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;

/// A UDP socket of one address family.
#[derive(Debug)]
pub struct UnderlaySocket {
    socket: Socket,
}

/// What one receive brought: datagrams of `segment` bytes, the last one possibly shorter.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Bytes in the buffer.
    pub len: usize,
    /// Bytes of each datagram.
    pub segment: usize,
    /// Who sent them.
    pub from: SocketAddr,
}

/// Ancillary data must be aligned like `cmsghdr`.
#[repr(C, align(8))]
struct Ancillary([u8; 64]);

impl UnderlaySocket {
    /// Binds to any address of the family, in the namespace of the calling thread.
    pub fn bind(port: u16, ipv6: bool) -> io::Result<Self> {
        let (domain, address): (_, SocketAddr) = if ipv6 {
            (Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into())
        } else {
            (Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if ipv6 {
            socket.set_only_v6(true)?;
        }
        socket.set_mark(BYPASS_MARK)?;
        for (level, option, value) in [
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER_LEN),
            (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER_LEN),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1),
            (libc::SOL_UDP, UDP_GRO, 1),
        ] {
            set_option(&socket, level, option, value)?;
        }
        socket.bind(&address.into())?;
        Ok(Self { socket })
    }

    /// Sends datagrams of `segment` bytes that lie one after the other; the last one may be shorter.
    pub fn send(&self, to: SocketAddr, datagrams: &[u8], segment: usize) -> io::Result<()> {
        let to = SockAddr::from(to);
        let mut ancillary = Ancillary([0; 64]);
        let mut vector =
            libc::iovec { iov_base: datagrams.as_ptr().cast_mut().cast(), iov_len: datagrams.len() };
        // SAFETY: msghdr is plain data, for which zero is valid; every pointer set below outlives the call, and the
        // control message written is no longer than the buffer of 64 bytes.
        let sent = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_name = to.as_ptr().cast_mut().cast();
            message.msg_namelen = to.len();
            message.msg_iov = &raw mut vector;
            message.msg_iovlen = 1;
            if datagrams.len() > segment {
                message.msg_control = ancillary.0.as_mut_ptr().cast();
                message.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as usize;
                let control = libc::CMSG_FIRSTHDR(&raw const message);
                (*control).cmsg_level = libc::SOL_UDP;
                (*control).cmsg_type = UDP_SEGMENT;
                (*control).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as usize;
                libc::CMSG_DATA(control).cast::<u16>().write_unaligned(segment as u16);
            }
            libc::sendmsg(self.socket.as_raw_fd(), &raw const message, 0)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Receives without blocking.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut storage = SockAddrStorage::zeroed();
        let mut ancillary = Ancillary([0; 64]);
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: msghdr is plain data, for which zero is valid; every pointer outlives the call, and the kernel fills
        // no more than the lengths given. Control messages are walked with the kernel's own macros.
        unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_name = (&raw mut storage).cast();
            message.msg_namelen = storage.size_of();
            message.msg_iov = &raw mut vector;
            message.msg_iovlen = 1;
            message.msg_control = ancillary.0.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&ancillary);
            let len = libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT);
            let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
            let mut segment = len;
            let mut control = libc::CMSG_FIRSTHDR(&raw const message);
            while !control.is_null() {
                if ((*control).cmsg_level, (*control).cmsg_type) == (libc::SOL_UDP, UDP_GRO) {
                    let size = libc::CMSG_DATA(control).cast::<libc::c_int>().read_unaligned();
                    segment = usize::try_from(size).unwrap_or(len);
                }
                control = libc::CMSG_NXTHDR(&raw const message, control);
            }
            let from = SockAddr::new(storage, message.msg_namelen)
                .as_socket()
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            Ok(Received { len, segment: segment.max(1), from })
        }
    }
}

impl AsFd for UnderlaySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A receive buffer beyond `net.core.rmem_max`, which root may have.
pub(crate) fn force_receive_buffer(socket: &impl AsRawFd, len: libc::c_int) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, len)
}

fn set_option(socket: &impl AsRawFd, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the option value is one c_int that outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
