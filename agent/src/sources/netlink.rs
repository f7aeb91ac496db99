//! A blocking conversation with netlink: one request, its answers.
//!
//! Messages are taken apart here only as far as needed: an attribute that some driver or a newer kernel sends
//! in an unknown shape must not cost us the device.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use netlink_packet_core::{NLA_TYPE_MASK, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// The kernel fills at most 32 KiB of a dump at a time.
const BUFFER_BYTES: usize = 32 * 1024;
/// `NLM_F_DUMP_INTR`: the dumped objects changed meanwhile.
const DUMP_INTERRUPTED: u16 = 0x10;
/// The kernel answers before `send` returns; a request that it leaves unanswered must not stop the agent.
const PATIENCE: Duration = Duration::from_secs(1);
const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;

/// A socket for requests; not subscribed to anything.
pub(in crate::sources) struct Netlink {
    socket: Socket,
    request: Vec<u8>,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Netlink {
    /// A socket of `protocol`, such as `NETLINK_ROUTE`.
    pub(in crate::sources) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        set_socket_timeout(socket.as_fd(), Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, request: Vec::with_capacity(128), buffer: vec![0; BUFFER_BYTES], sequence: 0 })
    }

    /// Sends one request and hands every answer's type and body to `each`. An answer that says "no such
    /// device or object" is the error with that number.
    pub(in crate::sources) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.request_at_most(usize::MAX, kind, flags, body, each)
    }

    /// As [`Self::request`], but fails after `most` answers. This socket is of no use then, as more are to come.
    pub(in crate::sources) fn request_at_most(
        &mut self,
        most: usize,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.send(kind, flags, body)?;
        let mut answers = 0;
        let dump = i32::from(flags) & libc::NLM_F_DUMP == libc::NLM_F_DUMP;
        let mut interrupted = false;
        loop {
            let length = self.socket.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC)?;
            let received =
                self.buffer.get(..length).ok_or_else(|| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
            for message in messages(received) {
                let (header, body) = message?;
                if header.sequence != self.sequence {
                    continue;
                }
                interrupted |= header.flags & DUMP_INTERRUPTED != 0;
                match header.kind {
                    NLMSG_ERROR => return acknowledged(body),
                    NLMSG_DONE if interrupted => return Err(io::Error::from_raw_os_error(libc::EINTR)),
                    // What the dump came to (`netlink_dump_done` in net/netlink/af_netlink.c).
                    NLMSG_DONE => return acknowledged(body),
                    _ if answers == most => {
                        let text = format!("there are more than {most}");
                        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
                    }
                    kind => each(kind, body),
                }
                answers += 1;
                if !dump && i32::from(flags) & libc::NLM_F_ACK == 0 {
                    return Ok(());
                }
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.request.clear();
        let length = (HEADER_BYTES + body.len()) as u32;
        self.request.extend_from_slice(&length.to_ne_bytes());
        self.request.extend_from_slice(&kind.to_ne_bytes());
        self.request.extend_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        self.request.extend_from_slice(&self.sequence.to_ne_bytes());
        self.request.extend_from_slice(&0u32.to_ne_bytes());
        self.request.extend_from_slice(body);
        self.socket.send(&self.request, 0).map(|_| ())
    }
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Netlink").finish_non_exhaustive()
    }
}

/// What matters of a `struct nlmsghdr`.
#[derive(Clone, Copy, Debug)]
pub(in crate::sources) struct Header {
    pub(in crate::sources) kind: u16,
    flags: u16,
    sequence: u32,
}

/// Splits a datagram into its messages.
pub(in crate::sources) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = io::Result<(Header, &[u8])>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let Ok(message) = NetlinkBuffer::new_checked(datagram) else {
            datagram = &[];
            return Some(Err(io::Error::from(io::ErrorKind::InvalidData)));
        };
        let header = Header {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
        };
        let length = message.length() as usize;
        let body = &datagram[HEADER_BYTES..length];
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok((header, body)))
    })
}

/// Attributes after a message's fixed header, by number; ends at the first malformed one.
pub(in crate::sources) fn attributes(mut body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*body.first_chunk()?));
        let value = body.get(ATTRIBUTE_HEADER_BYTES..length)?;
        let kind = u16::from_ne_bytes(*body.get(2..)?.first_chunk()?) & NLA_TYPE_MASK;
        body = body.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Appends an attribute, padded.
pub(in crate::sources) fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend_from_slice(&((ATTRIBUTE_HEADER_BYTES + value.len()) as u16).to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// An `NLMSG_ERROR` or `NLMSG_DONE` body: zero is an acknowledgement.
fn acknowledged(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;

    #[test]
    fn messages_are_split_at_their_padded_length_and_a_short_one_ends_the_datagram() {
        let mut datagram = Vec::new();
        for (kind, body) in [(16u16, vec![1u8, 2, 3]), (17, vec![4; 8])] {
            datagram.extend_from_slice(&((16 + body.len()) as u32).to_ne_bytes());
            datagram.extend_from_slice(&kind.to_ne_bytes());
            datagram.extend_from_slice(&[0; 10]);
            datagram.extend_from_slice(&body);
            datagram.resize(datagram.len().next_multiple_of(4), 0);
        }
        let found: Vec<_> = messages(&datagram)
            .map(|message| message.map(|(header, body)| (header.kind, body.to_vec())))
            .collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].as_ref().unwrap(), &(16, vec![1, 2, 3]));
        assert_eq!(found[1].as_ref().unwrap(), &(17, vec![4; 8]));

        let cut = &datagram[..datagram.len() - 1];
        let found: Vec<_> = messages(cut).collect();
        assert!(found[0].is_ok() && found[1].is_err());
    }

    #[test]
    fn attributes_survive_a_round_trip_and_garbage_ends_them() {
        let mut body = Vec::new();
        push_attribute(&mut body, 3, b"tailscale0\0");
        push_attribute(&mut body, 23, &[7; 8]);
        body.extend_from_slice(&[1, 0, 9]);
        let found: Vec<_> = attributes(&body).collect();
        assert_eq!(found, vec![(3, &b"tailscale0\0"[..]), (23, &[7u8; 8][..])]);
    }

    #[test]
    fn a_request_without_an_answer_ends() {
        let mut netlink = Netlink::open(NETLINK_ROUTE).unwrap();
        // The root of lo is no queue, and the kernel says nothing about it.
        let mut body = [0; 20];
        body[4..8].copy_from_slice(&1u32.to_ne_bytes());
        body[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        let error = netlink.request(libc::RTM_GETQDISC, 0, &body, |_, _| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        netlink.request(libc::RTM_GETQDISC, libc::NLM_F_ACK as u16, &body, |_, _| ()).unwrap();
    }

    #[test]
    fn a_dump_that_ends_in_an_error_is_none() {
        let mut netlink = Netlink::open(netlink_sys::protocols::NETLINK_SOCK_DIAG).unwrap();
        // struct inet_diag_req_v2 of a protocol that has no sockets.
        let mut body = [0; 56];
        (body[0], body[1]) = (libc::AF_INET as u8, 200);
        let error = netlink.request(20, libc::NLM_F_DUMP as u16, &body, |_, _| ()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_missing_device_is_an_error_with_its_number_and_the_socket_stays_usable() {
        let mut netlink = Netlink::open(NETLINK_ROUTE).unwrap();
        let mut body = vec![0; 16];
        push_attribute(&mut body, libc::IFLA_IFNAME, b"no-such-device\0");
        let error = netlink.request(libc::RTM_GETLINK, 0, &body, |_, _| ()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        let mut answers = 0;
        netlink.request(libc::RTM_GETLINK, libc::NLM_F_DUMP as u16, &[0; 16], |_, _| answers += 1).unwrap();
        assert!(answers >= 1, "there is at least lo");
    }

    #[test]
    fn more_answers_than_wanted_are_an_error() {
        let mut netlink = Netlink::open(NETLINK_ROUTE).unwrap();
        let dump = libc::NLM_F_DUMP as u16;
        let error = netlink.request_at_most(0, libc::RTM_GETLINK, dump, &[0; 16], |_, _| ()).unwrap_err();
        assert_eq!(error.to_string(), "there are more than 0");
    }
}
