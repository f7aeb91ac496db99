//! UDP sockets by sock_diag (net/ipv4/udp_diag.c, sock_diag(7)).

use std::io;

use crate::sources::netlink::{Netlink, attributes};

/// `SOCK_DIAG_BY_FAMILY`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct inet_diag_req_v2` and where its fields are.
const REQUEST_BYTES: usize = 56;
const REQUEST_ID: usize = 8;
/// `struct inet_diag_sockid`: ports, addresses, device, cookie.
const ID_BYTES: usize = 48;
const ID_REMOTE_PORT: usize = 2;
const ID_COOKIE: usize = 40;
/// `struct inet_diag_msg`.
const ANSWER_BYTES: usize = 72;
const ANSWER_ID: usize = 4;
/// `INET_DIAG_SKMEMINFO` and `INET_DIAG_MARK`.
const MEMORY: u16 = 7;
const MARK: u16 = 15;
/// Bits of `idiag_ext` are numbered from 1.
const EXTENSIONS: u8 = 1 << (MEMORY - 1);
/// `TCP_CLOSE`, the state of a UDP socket that is not connected.
const UNCONNECTED: u32 = 1 << 7;

/// tailscaled marks its sockets so that its own routes do not catch them (`LinuxBypassMark` in
/// tsconst/linuxfw.go, `LinuxFwmarkMask`).
const BYPASS_MARK: u32 = 0x8_0000;
const MARK_MASK: u32 = 0xff_0000;

/// A socket, named so that no later one is taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sources) struct Socket {
    /// `AF_INET` or `AF_INET6`.
    pub(in crate::sources) family: u8,
    /// `struct inet_diag_sockid` as the kernel wrote it.
    id: [u8; ID_BYTES],
}

impl Socket {
    /// Local port.
    pub(super) const fn port(&self) -> u16 {
        u16::from_be_bytes([self.id[0], self.id[1]])
    }

    /// Never reused while the host is up.
    pub(in crate::sources) fn cookie(&self) -> [u8; 8] {
        let mut cookie = [0; 8];
        cookie.copy_from_slice(&self.id[ID_COOKIE..]);
        cookie
    }
}

/// Memory of a socket (`struct sk_meminfo`), bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sources) struct Memory {
    pub(in crate::sources) receive_queue: u32,
    pub(in crate::sources) receive_buffer: u32,
    pub(in crate::sources) transmit_queue: u32,
    pub(in crate::sources) transmit_buffer: u32,
    /// Datagrams dropped for want of room; begins anew at 2^32.
    pub(in crate::sources) drops: u32,
}

/// Unconnected sockets with tailscaled's mark. Walks all UDP sockets: not for every sample. The kernel shows marks to
/// holders of CAP_NET_ADMIN only.
pub(in crate::sources) fn marked(netlink: &mut Netlink, family: u8) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    let request = request(family, UNCONNECTED, &[0; ID_BYTES]);
    netlink.request(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP as u16, &request, |_, body| {
        found.extend(parse(body).filter(Answer::is_marked).map(|answer| answer.socket));
    })?;
    Ok(found)
}

/// Memory of one socket by a look-up in a hash table; `None` when it is gone.
pub(in crate::sources) fn memory(netlink: &mut Netlink, socket: &Socket) -> io::Result<Option<Memory>> {
    // For UDP the kernel reads the two ends the other way round (`udp_dump_one`, "swapped for historical reasons").
    // The socket is not connected, so only the local end is anything but zero.
    let mut id = socket.id;
    let (local, remote) = ([id[0], id[1]], [id[ID_REMOTE_PORT], id[ID_REMOTE_PORT + 1]]);
    id[..2].copy_from_slice(&remote);
    id[ID_REMOTE_PORT..4].copy_from_slice(&local);
    let (source, destination) = (4..20, 20..36);
    id[source.clone()].copy_from_slice(&socket.id[destination.clone()]);
    id[destination].copy_from_slice(&socket.id[source]);
    let mut found = None;
    let outcome =
        netlink.request(SOCK_DIAG_BY_FAMILY, 0, &request(socket.family, u32::MAX, &id), |_, body| {
            found = parse(body).and_then(|answer| answer.memory);
        });
    match outcome {
        Ok(()) => Ok(found),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// ESTALE: another socket is bound there now.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE))
}

fn request(family: u8, states: u32, id: &[u8; ID_BYTES]) -> [u8; REQUEST_BYTES] {
    let mut request = [0; REQUEST_BYTES];
    request[0] = family;
    request[1] = libc::IPPROTO_UDP as u8;
    request[2] = EXTENSIONS;
    request[4..8].copy_from_slice(&states.to_ne_bytes());
    request[REQUEST_ID..].copy_from_slice(id);
    request
}

/// What is used of an answer.
#[derive(Debug)]
struct Answer {
    socket: Socket,
    memory: Option<Memory>,
    mark: u32,
}

impl Answer {
    fn is_marked(&self) -> bool {
        self.mark & MARK_MASK == BYPASS_MARK
    }
}

fn parse(body: &[u8]) -> Option<Answer> {
    let id = body.get(ANSWER_ID..)?.first_chunk::<ID_BYTES>()?;
    let mut answer = Answer { socket: Socket { family: *body.first()?, id: *id }, memory: None, mark: 0 };
    for (kind, value) in attributes(body.get(ANSWER_BYTES..)?) {
        let word = |place: usize| {
            value.get(place * 4..).and_then(|rest| rest.first_chunk()).map(|word| u32::from_ne_bytes(*word))
        };
        match kind {
            MARK => answer.mark = word(0)?,
            MEMORY => {
                answer.memory = Some(Memory {
                    receive_queue: word(0)?,
                    receive_buffer: word(1)?,
                    transmit_queue: word(2)?,
                    transmit_buffer: word(3)?,
                    drops: word(8)?,
                });
            }
            _ => {}
        }
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_answer_is_a_socket_or_nothing(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }
    }
}
