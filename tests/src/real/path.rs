//! Chooses how c1 and the exit node reach each other, and waits until both say so.

use std::fmt::{self, Display};
use std::net::{IpAddr, UdpSocket};
use std::str::FromStr;
use std::time::Duration;

use super::daemon::{PeerStatus, UNDERLAY_PORT};
use super::{RealTailnet, RealTailnetError, Role};
use crate::process::wait_every;

/// Up to 40 s were seen.
const PATIENCE: Duration = Duration::from_secs(90);
/// UDP port of the peer relay.
const RELAY_PORT: u16 = 40000;

/// How packets travel between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// UDP between the nodes themselves.
    Direct,
    /// Through the DERP server, over TCP.
    Derp,
    /// Through another node of the tailnet, over UDP.
    PeerRelay,
}

impl Path {
    /// All of them, in an order in which each change is quick: a relay is found in 3 s from DERP, in 20 s from a
    /// direct path.
    pub const ALL: [Self; 3] = [Self::Direct, Self::Derp, Self::PeerRelay];

    /// Reads the path from tailscaled's status; `None` while the peer is idle.
    #[must_use]
    pub fn of(peer: &PeerStatus) -> Option<Self> {
        if !peer.peer_relay.is_empty() {
            Some(Self::PeerRelay)
        } else if !peer.cur_addr.is_empty() {
            Some(Self::Direct)
        } else {
            peer.active.then_some(Self::Derp)
        }
    }
}

impl Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Direct => "direct",
            Self::Derp => "derp",
            Self::PeerRelay => "peer-relay",
        })
    }
}

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = Self::ALL.into_iter().find(|path| path.to_string() == text);
        path.ok_or_else(|| format!("no path `{text}`: direct, derp or peer-relay"))
    }
}

impl RealTailnet {
    /// Makes c1 and the exit node use `path`, and waits until both report it.
    pub fn path(&self, path: Path) -> Result<(), RealTailnetError> {
        let exit = self.topology.node(Role::Exit);
        let drop_direct = match path {
            Path::Direct => String::new(),
            Path::Derp | Path::PeerRelay => {
                let client = Role::Client1.underlay();
                format!(
                    "table inet path {{
                       chain in {{
                         type filter hook input priority -10;
                         ip saddr {client} udp dport {UNDERLAY_PORT} drop;
                       }}
                       chain out {{
                         type filter hook output priority -10;
                         ip daddr {client} udp dport {UNDERLAY_PORT} drop;
                       }}
                     }}"
                )
            }
        };
        // Declared first, so that deleting it never fails.
        exit.nft(&format!("table inet path {{ }}\ndelete table inet path\n{drop_direct}"))?;
        let port = if path == Path::PeerRelay { RELAY_PORT.to_string() } else { String::new() };
        self.tailscale(Role::Relay, &["set", &format!("--relay-server-port={port}")])?;
        self.wait_path(path)
    }

    /// How c1 and the exit node see each other; `None` while they differ or one is idle.
    pub fn current_path(&self) -> Result<Option<Path>, RealTailnetError> {
        let seen = |by: Role, of: Role| -> Result<Option<Path>, RealTailnetError> {
            Ok(self.status(by)?.peer(of.name()).and_then(Path::of))
        };
        let (there, back) = (seen(Role::Client1, Role::Exit)?, seen(Role::Exit, Role::Client1)?);
        Ok(there.filter(|_| there == back))
    }

    /// A socket on a client whose datagrams keep the path to the exit node in use, and do nothing else: the exit node
    /// refuses them.
    pub fn knocker(&self, client: Role) -> Result<UdpSocket, RealTailnetError> {
        let exit = self.daemon(Role::Exit).addresses.first().copied();
        let socket = self.topology.node(client).run(|| knocker(exit))?;
        socket.map_err(|source| RealTailnetError::Knock { source })
    }

    /// Paths are only looked for while there is traffic, so a little is sent.
    fn wait_path(&self, path: Path) -> Result<(), RealTailnetError> {
        let knock = self.knocker(Role::Client1)?;
        wait_every(Duration::from_millis(200), &format!("the path {path}"), PATIENCE, || {
            // Refused by the exit node's discard port, which sends a packet back: all that is wanted.
            let _ = knock.send(b"knock");
            matches!(self.current_path(), Ok(Some(now)) if now == path).then_some(())
        })?;
        Ok(())
    }
}

/// A socket in the calling thread's namespace to the exit node's discard port.
fn knocker(exit: Option<IpAddr>) -> std::io::Result<UdpSocket> {
    let exit = exit.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((exit, 9))?;
    Ok(socket)
}
