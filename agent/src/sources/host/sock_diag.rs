//! What UDP and TCP share of sock_diag(7) (include/uapi/linux/inet_diag.h, net/ipv4/inet_diag.c).

use crate::sources::netlink::{attributes, push_attribute};

/// `SOCK_DIAG_BY_FAMILY`: sockets of one address family.
pub(in crate::sources::host) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct inet_diag_req_v2` and where the socket is in it.
const REQUEST_BYTES: usize = 56;
const REQUEST_ID: usize = 8;
/// `struct inet_diag_sockid`: ports, addresses, device, cookie.
pub(in crate::sources::host) const ID_BYTES: usize = 48;
pub(in crate::sources::host) const ID_REMOTE_PORT: usize = 2;
pub(in crate::sources::host) const ID_LOCAL_ADDRESS: usize = 4;
pub(in crate::sources::host) const ID_REMOTE_ADDRESS: usize = 20;
const ID_COOKIE: usize = 40;
/// `struct inet_diag_msg`.
const ANSWER_BYTES: usize = 72;
const ANSWER_ID: usize = 4;
/// `idiag_rqueue` and `idiag_wqueue` as words of it.
const ANSWER_RECEIVE_QUEUE: usize = 14;
const ANSWER_TRANSMIT_QUEUE: usize = 15;
/// `INET_DIAG_MARK`.
const MARK: u16 = 15;
/// `INET_DIAG_REQ_BYTECODE`: a program that says which sockets are wanted (`inet_diag_bc_run`).
const BYTECODE: u16 = 1;
/// `INET_DIAG_BC_MARK_COND`.
const IF_MARK: u8 = 10;
/// `struct inet_diag_bc_op`.
pub(in crate::sources::host) const STEP_BYTES: usize = 4;

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
    pub(in crate::sources::host) id: [u8; ID_BYTES],
}

impl Socket {
    /// Local port.
    pub(in crate::sources::host) const fn port(&self) -> u16 {
        u16::from_be_bytes([self.id[0], self.id[1]])
    }

    /// Local address.
    pub(in crate::sources::host) fn address(&self) -> [u8; 16] {
        let mut address = [0; 16];
        address.copy_from_slice(&self.id[ID_LOCAL_ADDRESS..ID_REMOTE_ADDRESS]);
        address
    }

    /// Never reused while the host is up.
    pub(in crate::sources) fn cookie(&self) -> [u8; 8] {
        let mut cookie = [0; 8];
        cookie.copy_from_slice(&self.id[ID_COOKIE..]);
        cookie
    }
}

/// A `struct inet_diag_msg` and what follows it.
#[derive(Clone, Copy, Debug)]
pub(in crate::sources::host) struct Answer<'a> {
    pub(in crate::sources::host) socket: Socket,
    /// `TCP_ESTABLISHED` and so on, for UDP too.
    pub(in crate::sources::host) state: u8,
    /// Bytes that wait to be read; on a listening TCP socket, connections that wait to be accepted.
    pub(in crate::sources::host) receive_queue: u32,
    /// Bytes that wait to be sent or acknowledged; on a listening TCP socket, how many connections may wait.
    pub(in crate::sources::host) transmit_queue: u32,
    attributes: &'a [u8],
}

impl<'a> Answer<'a> {
    /// Reads an answer; `None` when it is too short to be one.
    pub(in crate::sources::host) fn parse(body: &'a [u8]) -> Option<Self> {
        let id = *body.get(ANSWER_ID..)?.first_chunk()?;
        let [family, state, ..] = *body else { return None };
        Some(Self {
            socket: Socket { family, id },
            state,
            receive_queue: word(body, ANSWER_RECEIVE_QUEUE)?,
            transmit_queue: word(body, ANSWER_TRANSMIT_QUEUE)?,
            attributes: body.get(ANSWER_BYTES..)?,
        })
    }

    /// Attributes by number.
    pub(in crate::sources::host) fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        attributes(self.attributes)
    }

    /// Whether it has tailscaled's mark. The kernel shows marks to holders of CAP_NET_ADMIN only.
    pub(in crate::sources::host) fn is_marked(&self) -> bool {
        let mark = self.attributes().find(|(kind, _)| *kind == MARK).and_then(|(_, value)| word(value, 0));
        mark.is_some_and(|mark| mark & MARK_MASK == BYPASS_MARK)
    }
}

/// A protocol of sockets, and which extensions its answers shall have.
pub(in crate::sources::host) type Protocol = (u8, u8);

/// `struct inet_diag_req_v2`. `states` has a bit for each state by number.
pub(in crate::sources::host) fn request(
    family: u8,
    (protocol, extensions): Protocol,
    states: u32,
    id: &[u8; ID_BYTES],
) -> [u8; REQUEST_BYTES] {
    let mut request = [0; REQUEST_BYTES];
    request[0] = family;
    request[1] = protocol;
    request[2] = extensions;
    request[4..8].copy_from_slice(&states.to_ne_bytes());
    request[REQUEST_ID..].copy_from_slice(id);
    request
}

/// Has the kernel answer with those sockets only that `program` accepts.
pub(in crate::sources::host) fn push_program(request: &mut Vec<u8>, program: &[u8]) {
    push_attribute(request, BYTECODE, program);
}

/// `struct inet_diag_bc_op`: where to go on when the condition holds, and when not.
pub(in crate::sources::host) fn step(code: u8, holds: usize, holds_not: usize) -> Vec<u8> {
    let [low, high] = (holds_not as u16).to_ne_bytes();
    vec![code, holds as u8, low, high]
}

/// The condition of tailscaled's mark, and `struct inet_diag_markcond`. The kernel refuses it with EPERM to those whom it
/// does not show marks.
pub(in crate::sources::host) fn if_marked() -> (u8, Vec<u8>) {
    (IF_MARK, [BYPASS_MARK.to_ne_bytes(), MARK_MASK.to_ne_bytes()].concat())
}

/// The word at `place` of an array of them.
pub(in crate::sources::host) fn word(value: &[u8], place: usize) -> Option<u32> {
    value.get(place * 4..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer of the kernel with these attributes.
    fn answer(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![0; ANSWER_BYTES];
        body[..2].copy_from_slice(&[libc::AF_INET as u8, 7]);
        body[ANSWER_ID + ID_COOKIE..ANSWER_ID + ID_BYTES].copy_from_slice(&[9; 8]);
        for (kind, value) in attributes {
            push_attribute(&mut body, *kind, value);
        }
        body
    }

    #[test]
    fn the_mark_is_told_from_what_others_put_beside_it() {
        for (mark, marked) in
            [(0x8_0000u32, true), (0x8_0000 | 0xff, true), (0x4_0000, false), (0xc_0000, false)]
        {
            let body = answer(&[(2, &[0; 200]), (MARK, &mark.to_ne_bytes())]);
            let answer = Answer::parse(&body).unwrap();
            assert_eq!((answer.state, answer.socket.cookie()), (7, [9; 8]));
            assert_eq!(answer.is_marked(), marked, "{mark:#x}");
        }
        assert!(!Answer::parse(&answer(&[])).unwrap().is_marked(), "the kernel did not show it");
    }

    proptest! {
        #[test]
        fn any_body_is_an_answer_or_nothing(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(answer) = Answer::parse(&body) {
                let _ = (answer.is_marked(), answer.attributes().count());
            }
        }
    }
}
