//! Collector `tcp`: TCP sockets of this host itself, by sock_diag.
//!
//! The kernel walks its whole table of connections twice (0.15 ms each for the 262,144 rows of a host with 24 GB), so
//! the collector rests after each run in proportion to what the run cost. Established connections, which may be many,
//! are not listed but for those of peers and of tailscaled, which the kernel picks out; their number is what
//! /proc/net/snmp says.

mod diag;
mod info;
mod peers;
mod sum;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::netstat::pairs_of_lines;
use super::proc_file::{Bad, ProcFile};
use super::rest::Rest;
use super::{Collector, HostError, Paths};
use crate::model::host::{Connections, Host, TcpSockets, TcpStates};
use crate::model::tailnet::{Peer, Tailnet};
use crate::sources::netlink::Netlink;
use crate::sources::thread_time;
use diag::{Wanted, state};
use peers::Peers;
use sum::Sum;

/// Rests so many times as long as a run took on the CPU: 0.1 % of a core …
const REST_FACTOR: u32 = 1000;
/// … but scrapes closer together than this share a run in any case …
const SHORTEST_REST: Duration = Duration::from_secs(5);
/// … and no figure is older than this.
const LONGEST_REST: Duration = Duration::from_secs(60);
const OPERATION: &str = "list TCP sockets (sock_diag)";

/// All states but ESTABLISHED, which is counted elsewhere, and TIME-WAIT, which is in /proc/net/sockstat.
const COUNTED: [u8; 8] = [
    state::SYN_SENT,
    state::SYN_RECV,
    state::FIN_WAIT1,
    state::FIN_WAIT2,
    state::CLOSE_WAIT,
    state::LAST_ACK,
    state::LISTEN,
    state::CLOSING,
];
const OPEN: [u8; 3] = [state::ESTABLISHED, state::CLOSE_WAIT, state::SYN_SENT];

type ByPeer = Vec<(Arc<Peer>, Connections)>;

/// Keeps the socket, whose peers there are, and what was found last.
#[derive(Default)]
pub(super) struct TcpCollector {
    netlink: Option<Netlink>,
    snmp: ProcFile,
    peers: Peers,
    /// The kernel does not let this process ask for marks.
    blind: bool,
    rest: Rest,
}

impl Collector for TcpCollector {
    const NAME: &'static str = "tcp";
    const HELP: &'static str = "TCP sockets by state, and the connections with peers and of tailscaled, by sock_diag; \
                                rests after a run for 1000 times what it cost, 5 s to 60 s";
    type Output = TcpSockets;

    fn field(host: &mut Host) -> &mut Option<TcpSockets> {
        &mut host.tcp
    }

    fn follow(&mut self, tailnet: &Arc<Tailnet>) {
        self.peers.follow(tailnet);
    }

    fn rests(&self) -> bool {
        self.rest.is_on()
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<TcpSockets>, HostError> {
        let began = thread_time();
        let outcome = self.run(paths);
        let cost = thread_time().saturating_sub(began);
        self.rest.begin((cost * REST_FACTOR).clamp(SHORTEST_REST, LONGEST_REST));
        outcome.map(Some)
    }
}

impl TcpCollector {
    fn run(&mut self, paths: &Paths) -> Result<TcpSockets, HostError> {
        let mut netlink = match self.netlink.take() {
            Some(netlink) => netlink,
            None => Netlink::open(NETLINK_SOCK_DIAG).map_err(failed)?,
        };
        let mut states = count(&mut netlink).map_err(failed)?;
        let open = self.snmp.parse_whole(&paths.procfs, "net/snmp", open_connections)?;
        states.established = open.map(|open| open.saturating_sub(states.close_wait));
        let outcome = match self.connections(&mut netlink) {
            Err(error) if !self.blind && error.raw_os_error() == Some(libc::EPERM) => {
                self.blind = true;
                self.connections(&mut netlink)
            }
            outcome => outcome,
        };
        let (peers, tailscaled) = outcome.map_err(failed)?;
        // Kept only while it works: answers may still be to come.
        self.netlink = Some(netlink);
        Ok(TcpSockets { states, peers, tailscaled })
    }

    /// Open connections with each peer, and those of tailscaled.
    fn connections(&mut self, netlink: &mut Netlink) -> io::Result<(ByPeer, Option<Connections>)> {
        let mut wanted: Vec<_> = self.peers.networks().iter().copied().map(Wanted::Remote).collect();
        if !self.blind {
            wanted.push(Wanted::Marked);
        }
        if wanted.is_empty() {
            return Ok((Vec::new(), None));
        }
        let mut tailscaled = Sum::default();
        let mut by_peer = BTreeMap::<_, Sum>::new();
        diag::connections(netlink, &OPEN, &wanted, |connection| {
            if connection.marked {
                tailscaled.add(connection);
            } else if let Some(place) = self.peers.find(connection.remote) {
                by_peer.entry(place).or_default().add(connection);
            }
        })?;
        let by_peer = by_peer.into_iter();
        let by_peer = by_peer.filter_map(|(place, sum)| Some((self.peers.get(place)?.clone(), sum.finish())));
        Ok((by_peer.collect(), (!self.blind).then(|| tailscaled.finish())))
    }
}

fn count(netlink: &mut Netlink) -> io::Result<TcpStates> {
    let mut states = TcpStates::default();
    diag::states(netlink, &COUNTED, |state| {
        let count = match state {
            state::SYN_SENT => &mut states.syn_sent,
            state::SYN_RECV => &mut states.syn_recv,
            state::FIN_WAIT1 => &mut states.fin_wait1,
            state::FIN_WAIT2 => &mut states.fin_wait2,
            state::CLOSE_WAIT => &mut states.close_wait,
            state::LAST_ACK => &mut states.last_ack,
            state::LISTEN => &mut states.listen,
            state::CLOSING => &mut states.closing,
            _ => return,
        };
        *count += 1;
    })?;
    Ok(states)
}

/// `CurrEstab`: connections of both address families that are established or in CLOSE-WAIT.
fn open_connections(text: &str) -> Result<Option<u64>, Bad> {
    let mut open = None;
    pairs_of_lines(text, |name, value| {
        if name == ("Tcp", "CurrEstab") {
            open = Some(value);
        }
    })?;
    Ok(open)
}

fn failed(source: io::Error) -> HostError {
    HostError::Netlink { operation: OPERATION, source }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::model::collector::Collectors;
    use crate::sources::host::HostSource;

    /// An address of this host that no other run of these tests uses; `host` is below 32.
    pub(super) fn loopback(host: u8) -> Ipv4Addr {
        let [_, a, b, c] = (std::process::id() << 5 | u32::from(host)).to_be_bytes();
        Ipv4Addr::new(127, a, b, c)
    }

    fn tailnet(addresses: &[IpAddr]) -> Arc<Tailnet> {
        let peer = |address: &IpAddr| {
            Arc::new(Peer { id: address.to_string(), addresses: vec![*address], ..Peer::default() })
        };
        Arc::new(Tailnet { peers: addresses.iter().map(peer).collect(), ..Tailnet::default() })
    }

    fn with(found: &TcpSockets, address: Ipv4Addr) -> Option<Connections> {
        let peer = found.peers.iter().find(|(peer, _)| peer.addresses == [address]);
        peer.map(|(_, connections)| *connections)
    }

    #[test]
    fn connections_go_to_the_peer_with_the_address_and_measure_something() {
        let listener = TcpListener::bind((loopback(8), 0)).unwrap();
        let clients = [(); 3].map(|()| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let mut collector = TcpCollector::default();
        collector.follow(&tailnet(&[loopback(7).into(), loopback(8).into(), Ipv6Addr::LOCALHOST.into()]));
        let found = collector.collect(&Paths::default()).unwrap().unwrap();
        // Other tests have connections with ::1.
        let with_peer = with(&found, loopback(8)).unwrap();
        assert_eq!((with_peer.open, with(&found, loopback(7))), (3, None));
        assert!(with_peer.congestion_window_bytes > 0, "{with_peer:?}");
        assert!(with_peer.round_trip.is_some_and(|time| time.max >= time.mean && time.mean > 0.0));
        // Both ends are on this host.
        assert!(found.states.listen >= 1 && found.states.established.is_some_and(|count| count >= 6));

        // A peer's program that closed, and one here that did not.
        let (server, _) = listener.accept().unwrap();
        drop(server);
        let found = collector.collect(&Paths::default()).unwrap().unwrap();
        // The kernel may take 40 ms to acknowledge that it closed.
        let TcpStates { close_wait, fin_wait1, fin_wait2, .. } = found.states;
        assert!(close_wait >= 1 && fin_wait1 + fin_wait2 >= 1, "{:?}", found.states);
        assert_eq!(with(&found, loopback(8)).map(|sum| sum.open), Some(3), "it can still be written to");
        drop(clients);
    }

    #[test]
    fn states_are_what_procfs_says() {
        // Other tests open and close connections; a listener on an address of its own stays.
        let listener = TcpListener::bind((loopback(9), 0)).unwrap();
        let listed = |state| {
            let table =
                procfs::net::tcp().unwrap().into_iter().chain(procfs::net::tcp6().unwrap_or_default());
            table.filter(|entry| entry.state == state).count() as u64
        };
        for _ in 0..50 {
            let before = listed(procfs::net::TcpState::Listen);
            let states = TcpCollector::default().collect(&Paths::default()).unwrap().unwrap().states;
            if before == states.listen && before == listed(procfs::net::TcpState::Listen) {
                drop(listener);
                return;
            }
        }
        panic!("never the same");
    }

    #[test]
    fn a_marked_connection_is_tailscaled_s_and_no_peer_s() {
        let listener = TcpListener::bind((loopback(10), 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        if socket2::SockRef::from(&client).set_mark(0x8_0000).is_err() {
            eprintln!("skipped: SO_MARK needs CAP_NET_ADMIN");
            return;
        }
        let mut collector = TcpCollector::default();
        collector.follow(&tailnet(&[loopback(10).into()]));
        let found = collector.collect(&Paths::default()).unwrap().unwrap();
        assert!(found.peers.is_empty() && found.tailscaled.is_some_and(|sum| sum.open >= 1), "{found:?}");

        let mut blind = TcpCollector { blind: true, ..TcpCollector::default() };
        blind.follow(&tailnet(&[loopback(10).into()]));
        let found = blind.collect(&Paths::default()).unwrap().unwrap();
        assert_eq!(found.tailscaled, None, "without the right to see marks");
    }

    #[test]
    fn who_gets_no_answer_is_connecting() {
        let address = SocketAddr::from((loopback(11), 0));
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = socket();
        listener.bind(&address.into()).unwrap();
        // Room for one: the kernel leaves the others without an answer.
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let clients = [(); 4].map(|()| socket());
        for client in &clients {
            if client.set_mark(0x8_0000).is_err() {
                eprintln!("skipped: SO_MARK needs CAP_NET_ADMIN");
                return;
            }
            client.set_nonblocking(true).unwrap();
            // EINPROGRESS, and it stays that way for most.
            let _ = client.connect(&address);
        }
        let found = TcpCollector::default().collect(&Paths::default()).unwrap().unwrap();
        assert!(found.states.syn_sent >= 1, "{:?}", found.states);
        assert!(found.tailscaled.is_some_and(|sum| sum.connecting >= 1), "{:?}", found.tailscaled);
    }

    #[test]
    fn after_a_run_it_rests_and_what_was_found_stays_and_gets_old() {
        let mut source = HostSource::new(Paths::default(), |info| info.name == TcpCollector::NAME);
        let (mut host, mut status) = (Host::default(), Collectors::default());
        source.collect(&mut host, &mut status);
        let (first, found) = (status.get(TcpCollector::NAME).copied(), host.tcp.clone());
        assert!(first.is_some_and(|first| first.success) && found.is_some());
        source.collect(&mut host, &mut status);
        assert_eq!(status.get(TcpCollector::NAME).copied(), first);
        assert_eq!(host.tcp, found);
    }
}
