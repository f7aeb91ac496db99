//! Receive queues of tailscaled's UDP sockets.

use tailgauge_ebpf::layout::{Found, Sample, SampledQueue, UNKNOWN_32, WATCHED_SOCKETS, Watched};

use crate::programs::peek::{follow, peek};

/// Reads all of them.
#[inline(always)]
pub(super) fn read(watched: &Watched, found: &Found, sample: &mut Sample) {
    let fields = &watched.fields;
    for place in 0..WATCHED_SOCKETS {
        let (cookie, socket) = (watched.sockets[place].cookie, found.sockets[place]);
        let queue = &mut sample.sockets[place];
        // The memory of a socket that is gone may be another one's by now, or as it was, but for its file.
        let is_same = cookie != 0
            && peek(socket, fields.sock_cookie) == Some(cookie)
            && follow(socket, fields.sock_socket) != 0;
        *queue = if is_same {
            let number = |offset| peek(socket, offset).unwrap_or(UNKNOWN_32);
            SampledQueue { bytes: number(fields.sock_rmem_alloc), room: number(fields.sock_rcvbuf) }
        } else {
            SampledQueue { bytes: UNKNOWN_32, room: 0 }
        };
    }
}
