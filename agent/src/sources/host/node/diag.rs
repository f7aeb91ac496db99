//! Collectors `tcpstat` and `udp_queues` by sock_diag (net/ipv4/inet_diag.c): what /proc/net/tcp and udp say, without
//! a line of text for each socket. The kernel walks all sockets all the same.

use std::io;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::super::proc_file::ProcFile;
use super::super::sock_diag::{Answer, ID_BYTES, SOCK_DIAG_BY_FAMILY, request};
use super::super::{HostError, Paths};
use super::udp;
use crate::model::node::{QueuedBytes, TcpStates, UdpQueues};
use crate::sources::netlink::Netlink;

const OPERATION: &str = "list sockets (sock_diag)";
/// Every state but those that only exist inside the kernel (`TCP_NEW_SYN_RECV`, which comes as `TCP_SYN_RECV`).
const TCP_STATES: u32 = 0xfff;

/// Keeps a socket to ask with, and the files that are read where the kernel cannot be asked.
#[derive(Default)]
pub(super) struct Reader {
    netlink: Option<Netlink>,
    udp: [ProcFile; 2],
}

impl Reader {
    /// Collector `tcpstat`.
    pub(super) fn tcp(&mut self, paths: &Paths, states: &mut TcpStates) -> Result<(), HostError> {
        *states = TcpStates::default();
        for (family, file) in [(libc::AF_INET, "net/tcp"), (libc::AF_INET6, "net/tcp6")] {
            // Tells whether the kernel runs with this IP version; it is not read.
            if family == libc::AF_INET6 && !paths.procfs.join(file).exists() {
                continue;
            }
            self.dump(family, libc::IPPROTO_TCP, TCP_STATES, |socket| {
                if let Some(count) = states.sockets.get_mut(usize::from(socket.state)) {
                    *count += 1;
                }
                add(&mut states.queued, socket);
            })?;
        }
        Ok(())
    }

    /// Collector `udp_queues`.
    pub(super) fn udp(&mut self, paths: &Paths, queues: &mut UdpQueues) -> Result<(), HostError> {
        *queues = UdpQueues::default();
        for (index, family, name, place) in [
            (0, libc::AF_INET, "net/udp", &mut queues.ipv4),
            (1, libc::AF_INET6, "net/udp6", &mut queues.ipv6),
        ] {
            if !paths.procfs.join(name).exists() {
                continue;
            }
            let mut sum = QueuedBytes::default();
            match self.dump(family, libc::IPPROTO_UDP, u32::MAX, |socket| add(&mut sum, socket)) {
                Err(error) if is_unknown(&error) => {
                    sum = self.udp[index].parse(&paths.procfs, name, udp::parse)?;
                }
                outcome => outcome?,
            }
            *place = Some(sum);
        }
        Ok(())
    }

    fn dump(
        &mut self,
        family: i32,
        protocol: i32,
        states: u32,
        mut each: impl FnMut(&Answer<'_>),
    ) -> Result<(), HostError> {
        let failed = |source: io::Error| HostError::Netlink { operation: OPERATION, source };
        let mut netlink = match self.netlink.take() {
            Some(netlink) => netlink,
            None => Netlink::open(NETLINK_SOCK_DIAG).map_err(failed)?,
        };
        let request = request(family as u8, (protocol as u8, 0), states, &[0; ID_BYTES]);
        netlink
            .request(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP as u16, &request, |_, body| {
                if let Some(socket) = Answer::parse(body) {
                    each(&socket);
                }
            })
            .map_err(failed)?;
        // Kept only while it works: a late answer would be taken for that of the next request.
        self.netlink = Some(netlink);
        Ok(())
    }
}

/// The kernel was built without udp_diag, or may not load it.
fn is_unknown(error: &HostError) -> bool {
    let HostError::Netlink { source, .. } = error else { return false };
    matches!(source.raw_os_error(), Some(libc::ENOENT | libc::EPROTONOSUPPORT))
}

fn add(sum: &mut QueuedBytes, socket: &Answer<'_>) {
    sum.receive += u64::from(socket.receive_queue);
    sum.transmit += u64::from(socket.transmit_queue);
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_socket_that_listens_and_a_datagram_that_waits_are_seen() {
        const LISTEN: usize = 10;
        let (mut reader, paths) = (Reader::default(), Paths::default());
        let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut states = TcpStates::default();
        reader.tcp(&paths, &mut states).unwrap();
        assert!(states.sockets[LISTEN] >= 1, "{states:?}");

        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.send_to(&[1; 1000], receiver.local_addr().unwrap()).unwrap();
        let mut queues = UdpQueues::default();
        reader.udp(&paths, &mut queues).unwrap();
        assert!(queues.ipv4.is_some_and(|sum| sum.receive >= 1000), "{queues:?}");
    }

    #[test]
    fn a_kernel_that_does_not_know_the_question_is_told_apart() {
        // No protocol of sockets has this number.
        let error = Reader::default().dump(libc::AF_INET, 200, u32::MAX, |_| ()).unwrap_err();
        assert!(is_unknown(&error), "{error:?}");
    }

    #[test]
    fn without_an_ip_version_there_is_none() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { procfs: root.path().to_owned(), ..Paths::default() };
        let mut queues = UdpQueues::default();
        Reader::default().udp(&paths, &mut queues).unwrap();
        assert_eq!(queues, UdpQueues::default());
    }
}
