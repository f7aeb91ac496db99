//! Generators and servers with exact counts of what was sent and received; no other programs needed.

mod icmp;

use std::io;
use std::net::SocketAddr;

pub use icmp::{Ping, PingReport, ping};

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
