//! Which addresses are served: those of the command line, or loopback and this node's Tailscale addresses.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::outputs::http::{ListenError, Server, Site};

/// Where it serves unless told otherwise.
pub const DEFAULT_PORT: u16 = 10641;

/// Keeps a server on the addresses it should have, as these come and go.
#[derive(Debug)]
pub struct Listeners {
    fixed: bool,
    wanted: BTreeSet<SocketAddr>,
    complained: BTreeSet<SocketAddr>,
}

impl Listeners {
    /// The addresses of the command line; none of them means the default.
    #[must_use]
    pub fn new(addresses: &[SocketAddr]) -> Self {
        let fixed = !addresses.is_empty();
        let wanted = if fixed { addresses.iter().copied().collect() } else { defaults(&[]) };
        Self { fixed, wanted, complained: BTreeSet::new() }
    }

    /// The addresses that it should be on now.
    #[must_use]
    pub fn wanted(&self) -> Vec<SocketAddr> {
        self.wanted.iter().copied().collect()
    }

    /// Takes over this node's Tailscale addresses; without effect when the command line said where to listen.
    pub fn follow<S: Site>(&mut self, own: &[IpAddr], server: &Server<S>) {
        if self.fixed {
            return;
        }
        self.wanted = defaults(own);
        for address in server.addresses() {
            if !self.wanted.contains(&address) {
                server.unlisten(address);
                tracing::info!(%address, "no longer serving");
            }
        }
    }

    /// Listens where it should and does not yet. An address that this host does not have (yet) is tried again at
    /// the next call.
    ///
    /// # Errors
    /// An address that the command line asked for, or loopback, cannot be taken for any other reason.
    pub fn settle<S: Site>(&mut self, server: &Server<S>) -> Result<(), ListenError> {
        let listening = server.addresses();
        for &address in self.wanted.iter().filter(|address| !listening.contains(address)) {
            match server.listen(address) {
                Ok(address) => {
                    self.complained.remove(&address);
                    tracing::info!(%address, "serving");
                    if address.ip().is_unspecified() {
                        tracing::warn!(
                            %address,
                            "everyone who reaches this host can read names and addresses of peers"
                        );
                    }
                }
                Err(error) if self.is_required(address, &error) => return Err(error),
                Err(error) => {
                    if self.complained.insert(address) {
                        tracing::info!(%error, "not serving there yet");
                    }
                }
            }
        }
        Ok(())
    }

    fn is_required(&self, address: SocketAddr, error: &ListenError) -> bool {
        // IPv6 may be off, and a Tailscale address may come later; a port that is taken will stay so.
        let named = self.fixed || address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST);
        named && error.source.kind() != ErrorKind::AddrNotAvailable
    }
}

fn defaults(own: &[IpAddr]) -> BTreeSet<SocketAddr> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    loopback.iter().chain(own).map(|&ip| SocketAddr::new(ip, DEFAULT_PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_loopback_and_the_own_addresses() {
        let own = "100.64.0.1".parse().unwrap();
        let addresses = defaults(&[own]);
        assert_eq!(addresses.len(), 3);
        assert!(addresses.contains(&SocketAddr::new(own, DEFAULT_PORT)));
        assert!(addresses.iter().all(|address| !address.ip().is_unspecified()));
    }

    #[test]
    fn the_command_line_wins() {
        let named = "127.0.0.1:1".parse().unwrap();
        let listeners = Listeners::new(&[named]);
        assert_eq!(listeners.wanted, BTreeSet::from([named]));
        assert!(listeners.fixed);
    }
}
