//! Changes of devices, addresses and routes, as they happen.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::KernelError;
use super::device::{Link, parse_link};
use crate::sources::netlink::messages;

/// A burst of changes that the kernel may queue for us before it drops some.
const RECEIVE_BUFFER_BYTES: libc::c_int = 1 << 20;
/// Pause after an error that is not an overflow.
const RETRY: Duration = Duration::from_secs(1);

/// Something happened to a device, an address or a route; [`super::KernelSource::handle`] knows what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEvent(pub(super) Change);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A device appeared or changed.
    Link(Link),
    /// A device left this namespace; its counters are final.
    LinkGone(Link),
    /// Addresses changed.
    Addresses,
    /// Routes changed.
    Routes,
    /// Messages were lost: everything may have changed.
    Resync,
}

/// Follows devices, addresses and routes of this network namespace.
pub struct DeviceWatch {
    socket: TokioSocket,
    pending: VecDeque<Change>,
    buffer: Vec<u8>,
}

impl DeviceWatch {
    /// Subscribes. Must be called within a tokio runtime with I/O enabled, and before
    /// [`super::KernelSource::load`], so that no change falls between.
    ///
    /// # Errors
    /// When the kernel refuses the netlink socket.
    pub fn open() -> Result<Self, KernelError> {
        Self::subscribe()
            .map_err(|source| KernelError::Netlink { operation: "watch devices and addresses", source })
    }

    fn subscribe() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let _ = socket.socket_ref().set_rx_buf_sz(RECEIVE_BUFFER_BYTES);
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE;
        socket.socket_mut().bind(&SocketAddr::new(0, groups as u32))?;
        Ok(Self { socket, pending: VecDeque::new(), buffer: Vec::with_capacity(32 * 1024) })
    }

    /// The next change. Cancel-safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> DeviceEvent {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return DeviceEvent(change);
            }
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) => self.take_apart(),
                Err(error) => {
                    // ENOBUFS: the queue overflowed. After anything else, too, nothing is certain any more.
                    self.pending.push_back(Change::Resync);
                    if error.raw_os_error() != Some(libc::ENOBUFS) {
                        tracing::warn!(%error, "cannot read device events");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }

    fn take_apart(&mut self) {
        for message in messages(&self.buffer) {
            let Ok((header, body)) = message else {
                self.pending.push_back(Change::Resync);
                return;
            };
            let change = match header.kind {
                libc::RTM_NEWLINK => parse_link(body).map(Change::Link),
                libc::RTM_DELLINK => parse_link(body).map(Change::LinkGone),
                libc::RTM_NEWADDR | libc::RTM_DELADDR => Some(Change::Addresses),
                // tailscaled installs thousands at a time: one change says as much as many.
                libc::RTM_NEWROUTE | libc::RTM_DELROUTE if self.pending.back() != Some(&Change::Routes) => {
                    Some(Change::Routes)
                }
                _ => None,
            };
            self.pending.extend(change);
        }
    }
}

impl std::fmt::Debug for DeviceWatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DeviceWatch").field("pending", &self.pending).finish_non_exhaustive()
    }
}
