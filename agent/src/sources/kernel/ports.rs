//! The UDP ports that tailscaled listens on. They change while it runs: after a restart, and when a port is taken.
//!
//! Its sockets tell, by their mark. A tailscaled that may not mark them (without CAP_NET_ADMIN) says itself where it is
//! reached; then what it receives is known, and what it sends is not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tailgauge_ebpf::layout::{Ports, WatchedSocket, maps};

use super::KernelError;
use super::mmap::Rows;
use super::object::Object;
use crate::sources::host::UdpSockets;

/// Rows of the map: IPv4, then IPv6.
const FAMILIES: u32 = 2;
/// Ports are kept for this long after their sockets are gone: tailscaled binds anew, to the same ones, when its network
/// changes, and while it is restarted peers go on sending.
const LINGER: Duration = Duration::from_secs(30);

/// Ports, IPv4 and IPv6.
type PortLists = [Vec<u16>; FAMILIES as usize];

/// tailscaled's sockets, known by their mark, and what the programs know of them.
#[derive(Debug)]
pub(super) struct ListenPorts {
    sockets: UdpSockets,
    rows: Rows<Ports>,
    known: PortLists,
    /// Where tailscaled says it is reached on this host's own addresses.
    told: PortLists,
    /// Since when no port is found.
    gone_since: Option<Instant>,
}

impl ListenPorts {
    pub(super) fn open(object: &mut Object) -> Result<Self, KernelError> {
        let mut rows = Rows::new(maps::PORTS, object.take_map(maps::PORTS)?)?;
        rows.ensure(FAMILIES)?;
        Ok(Self {
            sockets: UdpSockets::default(),
            rows,
            known: PortLists::default(),
            told: PortLists::default(),
            gone_since: None,
        })
    }

    /// Takes over where tailscaled says it is reached; what others see of it behind NAT is none of its ports.
    pub(super) fn hear(&mut self, endpoints: &[SocketAddr], host: &[IpAddr]) {
        self.told = by_family(
            endpoints.iter().filter(|at| host.contains(&at.ip())).map(|at| (at.is_ipv6(), at.port())),
        );
    }

    /// The sockets that were there at the last look, for who samples.
    pub(super) fn sockets(&self) -> impl Iterator<Item = WatchedSocket> {
        self.sockets.iter().map(|socket| {
            let mut address = u128::from_be_bytes(socket.address());
            if address == 0 {
                // Bound to all of them.
                let (v4, v6) =
                    (u128::from(Ipv4Addr::LOCALHOST.to_bits()) << 96, Ipv6Addr::LOCALHOST.to_bits());
                address = if socket.is_ipv6() { v6 } else { v4 };
            }
            let word = |place: u32| ((address >> (96 - 32 * place)) as u32).to_be();
            WatchedSocket {
                cookie: socket.cookie(),
                address: [0, 1, 2, 3].map(word),
                port: socket.port().to_be().into(),
                is_v6: socket.is_ipv6().into(),
            }
        })
    }

    /// Asks for the sockets and tells the programs when their ports have changed. Cheap while the sockets are known.
    pub(super) fn refresh(&mut self) {
        if self.sockets.iter().next().is_none() {
            // Looked for anew each time until there are some.
            self.sockets.forget_list();
        }
        if let Err(error) = self.sockets.read() {
            tracing::debug!(%error, "cannot ask for the ports of tailscaled");
            return;
        }
        let sockets = self.sockets.iter().filter(|socket| socket.port() != 0);
        let mut found = by_family(sockets.map(|socket| (socket.is_ipv6(), socket.port())));
        if is_empty(&found) {
            found.clone_from(&self.told);
        }
        let since = if is_empty(&found) { self.gone_since.or_else(|| Some(Instant::now())) } else { None };
        self.gone_since = since;
        if found == self.known || since.is_some_and(|since| since.elapsed() < LINGER) {
            return;
        }
        tracing::info!(ipv4 = ?found[0], ipv6 = ?found[1], "ports of tailscaled");
        for (family, ports) in (0..).zip(&found) {
            let mut row = Ports::EMPTY;
            ports.iter().for_each(|port| row.add(*port));
            self.rows.store(family, &row);
        }
        self.known = found;
    }
}

/// Ports in order, each once.
fn by_family(ports: impl Iterator<Item = (bool, u16)>) -> PortLists {
    let mut lists = PortLists::default();
    for (is_ipv6, port) in ports {
        lists[usize::from(is_ipv6)].push(port);
    }
    for list in &mut lists {
        list.sort_unstable();
        list.dedup();
    }
    lists
}

fn is_empty(lists: &PortLists) -> bool {
    lists.iter().all(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_ordered_by_family_and_each_is_there_once() {
        let found = by_family([(true, 9), (false, 7), (false, 3), (false, 7)].into_iter());
        assert_eq!(found, [vec![3, 7], vec![9]]);
        assert!(is_empty(&by_family([].into_iter())) && !is_empty(&found));
    }
}
