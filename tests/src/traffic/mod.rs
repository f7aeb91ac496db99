//! Generators and servers with exact counts of what was sent and received; no other programs needed.

mod icmp;
mod mix;
mod server;
mod tcp;
mod udp;
mod wire;

use std::io;
use std::net::SocketAddr;

pub use icmp::{Ping, PingReport, ping};
pub use mix::Mix;
pub use server::{PORT, Server, UdpCount};
pub use tcp::{TcpReport, tcp_requests, tcp_transfer};
pub use udp::{Udp, UdpReport, udp_echo, udp_flood_from, udp_send};

use crate::netns::NamespaceError;

/// Why traffic did not flow.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The namespace was not to be had.
    #[error("traffic")]
    Namespace(#[from] NamespaceError),
    /// A socket said no.
    #[error("{operation} with {remote}")]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// The other side, or the own address of a server.
        remote: SocketAddr,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl TrafficError {
    /// For `map_err`.
    fn socket(operation: &'static str, remote: SocketAddr) -> impl Fn(io::Error) -> Self {
        move |source| Self::Socket { operation, remote, source }
    }
}
