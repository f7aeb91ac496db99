//! The UDP ports that tailscaled listens on. They change while it runs: after a restart, and when a port is taken.

use tailgauge_ebpf::layout::{Ports, maps};

use super::KernelError;
use super::mmap::Rows;
use super::object::Object;
use crate::sources::host::UdpSockets;

/// Rows of the map: IPv4, then IPv6.
const FAMILIES: u32 = 2;

/// tailscaled's sockets, known by their mark, and what the programs know of them.
#[derive(Debug)]
pub(super) struct ListenPorts {
    sockets: UdpSockets,
    rows: Rows<Ports>,
    known: [Vec<u16>; FAMILIES as usize],
}

impl ListenPorts {
    pub(super) fn open(object: &mut Object) -> Result<Self, KernelError> {
        let mut rows = Rows::new(maps::PORTS, object.take_map(maps::PORTS)?)?;
        rows.ensure(FAMILIES)?;
        Ok(Self { sockets: UdpSockets::default(), rows, known: Default::default() })
    }

    /// Asks for the sockets and tells the programs when their ports have changed. Cheap while the sockets are known.
    pub(super) fn refresh(&mut self) {
        if self.known.iter().all(Vec::is_empty) {
            // Looked for anew each time until there are some.
            self.sockets = UdpSockets::default();
        }
        if let Err(error) = self.sockets.read() {
            tracing::debug!(%error, "cannot ask for the ports of tailscaled");
            return;
        }
        let mut found: [Vec<u16>; FAMILIES as usize] = Default::default();
        for socket in self.sockets.iter().filter(|socket| socket.port() != 0) {
            found[usize::from(socket.is_ipv6())].push(socket.port());
        }
        found.iter_mut().for_each(|ports| ports.sort_unstable());
        if found == self.known {
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
