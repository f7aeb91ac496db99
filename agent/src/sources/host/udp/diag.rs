//! UDP sockets by sock_diag (net/ipv4/udp_diag.c, sock_diag(7)).

use std::io;

use crate::sources::host::sock_diag::{
    Answer, ID_BYTES, ID_LOCAL_ADDRESS, ID_REMOTE_ADDRESS, ID_REMOTE_PORT, Protocol, SOCK_DIAG_BY_FAMILY,
    STEP_BYTES, Socket, if_marked, push_program, request, step, word,
};
use crate::sources::netlink::Netlink;

/// `INET_DIAG_SKMEMINFO`.
const MEMORY: u16 = 7;
/// Bits of `idiag_ext` are numbered from 1.
const EXTENSIONS: u8 = 1 << (MEMORY - 1);
const UDP: Protocol = (libc::IPPROTO_UDP as u8, EXTENSIONS);
/// `TCP_CLOSE`, the state of a UDP socket that is not connected.
const UNCONNECTED: u32 = 1 << 7;

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

/// Unconnected sockets with tailscaled's mark; EPERM without the right to ask for marks. The kernel walks all UDP sockets:
/// not for every sample.
pub(in crate::sources) fn marked(netlink: &mut Netlink, family: u8) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    let mut request = request(family, UDP, UNCONNECTED, &[0; ID_BYTES]).to_vec();
    let (code, operand) = if_marked();
    let end = STEP_BYTES + operand.len();
    // Beyond the end is rejected.
    push_program(&mut request, &[step(code, end, end + STEP_BYTES), operand].concat());
    netlink.request(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP as u16, &request, |_, body| {
        found.extend(Answer::parse(body).filter(Answer::is_marked).map(|answer| answer.socket));
    })?;
    Ok(found)
}

/// Memory of one socket by a look-up in a hash table; `None` when it is gone.
pub(in crate::sources) fn memory(netlink: &mut Netlink, socket: &Socket) -> io::Result<Option<Memory>> {
    // For UDP the kernel reads the two ends the other way round (`udp_dump_one`, "swapped for historical reasons").
    // The socket is not connected, so only the local end is anything but zero.
    let mut id = socket.id;
    let (local, remote) = ([id[0], id[1]], [id[ID_REMOTE_PORT], id[ID_REMOTE_PORT + 1]]);
    id[..ID_REMOTE_PORT].copy_from_slice(&remote);
    id[ID_REMOTE_PORT..ID_LOCAL_ADDRESS].copy_from_slice(&local);
    let (source, destination) =
        (ID_LOCAL_ADDRESS..ID_REMOTE_ADDRESS, ID_REMOTE_ADDRESS..ID_REMOTE_ADDRESS + 16);
    id[source.clone()].copy_from_slice(&socket.id[destination.clone()]);
    id[destination].copy_from_slice(&socket.id[source]);
    let mut found = None;
    let outcome =
        netlink.request(SOCK_DIAG_BY_FAMILY, 0, &request(socket.family, UDP, u32::MAX, &id), |_, body| {
            found = parse(body);
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

fn parse(body: &[u8]) -> Option<Memory> {
    let answer = Answer::parse(body)?;
    let (_, value) = answer.attributes().find(|(kind, _)| *kind == MEMORY)?;
    Some(Memory {
        receive_queue: word(value, 0)?,
        receive_buffer: word(value, 1)?,
        transmit_queue: word(value, 2)?,
        transmit_buffer: word(value, 3)?,
        drops: word(value, 8)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_answer_is_memory_or_nothing(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }
    }
}
