//! tailscaled's UDP sockets, found now and then and read at any time.

use std::io;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::diag::{self, Memory};
use crate::sources::host::HostError;
use crate::sources::host::sock_diag::Socket;
use crate::sources::netlink::Netlink;

/// How long the list of sockets is used; it is made anew at once when one of them is gone.
const LIST_INTERVAL: Duration = Duration::from_secs(10);
const OPERATION: &str = "ask for tailscaled's UDP sockets (sock_diag)";

/// A socket and what was last read of it.
#[derive(Clone, Copy, Debug)]
pub(in crate::sources) struct Known {
    socket: Socket,
    pub(in crate::sources) memory: Memory,
}

impl Known {
    pub(in crate::sources) fn is_ipv6(&self) -> bool {
        self.socket.family == libc::AF_INET6 as u8
    }

    /// Local port.
    pub(in crate::sources) const fn port(&self) -> u16 {
        self.socket.port()
    }

    /// Local address, network order; of IPv4, the first 4 bytes.
    pub(in crate::sources) fn address(&self) -> [u8; 16] {
        self.socket.address()
    }

    /// Number that no other socket ever gets.
    pub(in crate::sources) fn cookie(&self) -> u64 {
        u64::from_ne_bytes(self.socket.cookie())
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(in crate::sources) struct Sockets {
    netlink: Option<Netlink>,
    known: Vec<Known>,
    listed: Option<Instant>,
    /// Whether what a socket dropped before it was listed is counted: it was not there at the first list.
    counts_new: bool,
    /// The kernel does not let this process ask for marks.
    blind: bool,
    drops: Option<[u64; 2]>,
}

impl Sockets {
    /// Reads every socket.
    pub(in crate::sources) fn read(&mut self) -> Result<(), HostError> {
        let mut netlink = match self.netlink.take() {
            Some(netlink) => netlink,
            None => Netlink::open(NETLINK_SOCK_DIAG).map_err(failed)?,
        };
        self.refresh(&mut netlink).map_err(failed)?;
        // Kept only while it works: a late answer would be taken for that of the next request.
        self.netlink = Some(netlink);
        Ok(())
    }

    /// They are listed anew with the next reading.
    pub(in crate::sources) const fn forget_list(&mut self) {
        self.listed = None;
    }

    /// What was read last.
    pub(in crate::sources) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.known.iter()
    }

    /// Whether this process may not know which sockets are tailscaled's.
    pub(in crate::sources) const fn is_blind(&self) -> bool {
        self.blind
    }

    /// Datagrams dropped since the first reading, IPv4 and IPv6, closed sockets included. `None` until there was a socket:
    /// a tailscaled that may not mark its own has drops that nobody sees.
    pub(in crate::sources) const fn drops(&self) -> Option<[u64; 2]> {
        self.drops
    }

    fn refresh(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        if self.blind {
            return Ok(());
        }
        if self.listed.is_none_or(|listed| listed.elapsed() >= LIST_INTERVAL) {
            self.list(netlink)?;
        }
        let mut is_one_gone = false;
        for known in &mut self.known {
            let Some(memory) = diag::memory(netlink, &known.socket)? else {
                is_one_gone = true;
                continue;
            };
            let new = memory.drops.wrapping_sub(known.memory.drops);
            self.drops.get_or_insert_default()[usize::from(known.is_ipv6())] += u64::from(new);
            known.memory = memory;
        }
        if is_one_gone {
            // tailscaled binds anew when its network changes; the next sockets are there at once.
            self.list(netlink)?;
        }
        Ok(())
    }

    fn list(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        let mut known = Vec::new();
        let mut drops = self.drops.unwrap_or_default();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let marked = match diag::marked(netlink, family as u8) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    self.blind = true;
                    return Ok(());
                }
                outcome => outcome?,
            };
            for socket in marked {
                let same = self.known.iter().find(|other| other.socket.cookie() == socket.cookie());
                known.push(match same {
                    Some(same) => *same,
                    None => {
                        let memory = diag::memory(netlink, &socket)?.unwrap_or_default();
                        let new = Known { socket, memory };
                        if self.counts_new {
                            drops[usize::from(new.is_ipv6())] += u64::from(memory.drops);
                        }
                        new
                    }
                });
            }
        }
        if !known.is_empty() {
            self.drops = Some(drops);
        }
        self.known = known;
        self.counts_new = true;
        self.listed = Some(Instant::now());
        Ok(())
    }
}

fn failed(source: io::Error) -> HostError {
    HostError::Netlink { operation: OPERATION, source }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use rustix::net::sockopt::set_socket_recv_buffer_size;

    use super::super::tests::alone;
    use super::*;

    /// Marks `socket` as tailscaled marks its own; false without the right to.
    fn mark(socket: &UdpSocket) -> bool {
        socket2::SockRef::from(socket).set_mark(0x8_0000).is_ok()
    }

    #[test]
    fn what_was_not_read_is_in_the_queue_and_what_had_no_room_is_dropped() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        if !mark(&receiver) {
            eprintln!("skipped: SO_MARK needs CAP_NET_ADMIN");
            return;
        }
        set_socket_recv_buffer_size(&receiver, 16 << 10).unwrap();
        let port = receiver.local_addr().unwrap().port();
        let mut sockets = Sockets::default();
        sockets.read().unwrap();
        let ours = |sockets: &Sockets| {
            let found = sockets.iter().find(|known| known.port() == port);
            found.map(|known| known.memory)
        };
        let before = ours(&sockets).expect("marked and bound");
        assert_eq!((before.receive_queue, before.drops), (0, 0));

        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        const SENT: usize = 100;
        for _ in 0..SENT {
            sender.send_to(&[7; 1000], receiver.local_addr().unwrap()).unwrap();
        }
        sockets.read().unwrap();
        let after = ours(&sockets).unwrap();
        assert!(after.receive_queue > 0 && after.receive_queue <= after.receive_buffer + 4096, "{after:?}");
        receiver.set_nonblocking(true).unwrap();
        let received = std::iter::from_fn(|| receiver.recv(&mut [0; 2000]).ok()).count();
        assert_eq!(after.drops as usize, SENT - received);
        assert!(sockets.drops().unwrap()[0] >= u64::from(after.drops) && after.drops > 0);
        drop(receiver);
        sockets.read().unwrap();
        assert_eq!(ours(&sockets), None, "it is gone");
    }

    #[test]
    fn what_a_socket_dropped_before_it_was_listed_counts_unless_it_was_there_first() {
        alone(|| {
            let loses = || {
                let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
                assert!(mark(&receiver));
                set_socket_recv_buffer_size(&receiver, 4 << 10).unwrap();
                let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
                for _ in 0..100 {
                    sender.send_to(&[7; 1000], receiver.local_addr().unwrap()).unwrap();
                }
                receiver
            };
            let mut sockets = Sockets::default();
            let mut read = || {
                sockets.forget_list();
                sockets.read().unwrap();
                let lost: u32 = sockets.iter().map(|known| known.memory.drops).sum();
                (u64::from(lost), sockets.drops().unwrap())
            };
            let first = loses();
            let (lost, drops) = read();
            assert!(lost > 50 && drops == [0, 0], "not ours to count: {lost} {drops:?}");
            // It is bound anew, and loses some before anybody looks.
            drop(first);
            let second = loses();
            let (lost, drops) = read();
            assert!(lost > 50 && drops == [lost, 0], "{lost} {drops:?}");
            assert_eq!(read(), (lost, [lost, 0]), "once");
            drop(second);
        });
    }

    #[test]
    fn a_socket_without_the_mark_is_not_tailscaled_s() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut sockets = Sockets::default();
        sockets.read().unwrap();
        assert!(sockets.iter().all(|known| known.port() != port));
    }
}
