//! A peer relay: passes on datagrams between the two members of a network by the header before them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::messages::unwrap_geneve;
use crate::wake::{Stop, Threads, Wake, be_prompt};
use crate::wireguard::socket::{MAX_RECEIVE, MAX_SEGMENTS, UnderlaySocket};

/// The port that Tailscale's documentation proposes.
pub const PORT: u16 = 40_000;

/// The members of each network, by its number and whether they use IPv6: who moves from one family to the other still
/// has messages under way.
type Networks = Mutex<HashMap<(u32, bool), [SocketAddr; 2]>>;

/// A running relay; dropped, it stops.
///
/// The real one learns its members by a handshake of its own; here it is told.
#[derive(Debug)]
pub struct PeerRelay {
    networks: Arc<Networks>,
    _threads: Threads,
}

impl PeerRelay {
    /// Listens on every address, in the namespace of the calling thread.
    pub fn start() -> io::Result<Self> {
        let networks = Arc::<Networks>::default();
        let mut threads = Threads::new()?;
        for (name, ipv6) in [("relay4", false), ("relay6", true)] {
            let socket = UnderlaySocket::bind(PORT, ipv6)?;
            let networks = Arc::clone(&networks);
            threads.spawn(name, move |stop| {
                be_prompt();
                forward_loop(&socket, &networks, stop);
            })?;
        }
        Ok(Self { networks, _threads: threads })
    }

    /// Gives a network, a number of 24 bits, its members, both of one address family.
    pub fn set_members(&self, network: u32, members: [SocketAddr; 2]) {
        lock(&self.networks).insert((network, members[0].is_ipv6()), members);
    }
}

fn forward_loop(socket: &UnderlaySocket, networks: &Networks, stop: &Stop) {
    let mut buffer = vec![0; MAX_RECEIVE];
    while matches!(stop.wait(socket.as_fd(), None), Ok(Wake::Ready | Wake::TimedOut)) {
        while let Ok(received) = socket.receive(&mut buffer) {
            let datagrams: Vec<&[u8]> = buffer[..received.len].chunks(received.segment).collect();
            let target = |datagram: &[u8]| {
                let (_, network, _) = unwrap_geneve(datagram)?;
                other_member(networks, network, received.from)
            };
            // Datagrams of one network stay together.
            for group in datagrams.chunk_by(|left, right| target(left) == target(right)) {
                let Some(to) = target(group[0]) else { continue };
                for batch in group.chunks(MAX_SEGMENTS) {
                    // What cannot be sent is lost, as on any path.
                    let _ = socket.send(to, &batch.concat(), received.segment);
                }
            }
        }
    }
}

/// Who else is in a network; `None` when `from` is not in it.
fn other_member(networks: &Networks, network: u32, from: SocketAddr) -> Option<SocketAddr> {
    match *lock(networks).get(&(network, from.is_ipv6()))? {
        [one, other] if one == from => Some(other),
        [one, other] if other == from => Some(one),
        _ => None,
    }
}

fn lock(networks: &Networks) -> MutexGuard<'_, HashMap<(u32, bool), [SocketAddr; 2]>> {
    networks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_are_forwarded_for() {
        let networks = Networks::default();
        let [one, other, stranger] =
            ["10.99.0.2:1", "10.99.0.3:1", "10.99.0.4:1"].map(|at| at.parse().unwrap());
        lock(&networks).insert((5, false), [one, other]);
        assert_eq!(other_member(&networks, 5, one), Some(other));
        assert_eq!(other_member(&networks, 5, other), Some(one));
        assert_eq!(other_member(&networks, 5, stranger), None);
        assert_eq!(other_member(&networks, 6, one), None);
        let [one6, other6]: [SocketAddr; 2] =
            ["[2001:db8::2]:1", "[2001:db8::3]:1"].map(|at| at.parse().unwrap());
        lock(&networks).insert((5, true), [one6, other6]);
        assert_eq!(
            [other_member(&networks, 5, one), other_member(&networks, 5, one6)],
            [Some(other), Some(other6)]
        );
    }
}
