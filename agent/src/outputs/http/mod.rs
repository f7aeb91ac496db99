//! The HTTP server: hyper on a current-thread runtime, one local task a connection.
//!
//! A connection is always in one of three phases, each with a deadline: sending the head of a request, waiting
//! for an answer to be taken, or idle. A client that dawdles loses its connection, and when all places are taken
//! the one that has been silent longest makes room. So nobody can keep a scraper out.

mod connection;
mod pages;
mod payload;
mod query;
mod routes;
mod server;

use std::net::SocketAddr;
use std::time::Duration;

pub use server::Server;

use super::own::SelfMetrics;
use crate::model::Model;
use crate::model::node::Selection;

/// What the server needs of the agent. Calls come from the one thread of the runtime and must not block.
pub trait Site: 'static {
    /// Brings the part of the model up to date that belongs to the moment of the scrape.
    fn take_snapshot(&self);

    /// Reads what these collectors say now into the model's node.
    fn read_node(&self, collectors: Selection);

    /// Lends the model.
    fn with_model<R>(&self, read: impl FnOnce(&Model) -> R) -> R;

    /// The agent's own metrics.
    fn own_metrics(&self) -> &SelfMetrics;

    /// Somebody wants run times of the BPF programs: keep BPF statistics on for `duration` from now.
    fn keep_program_statistics(&self, duration: Duration);
}

/// Bounds on what clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Answers to scrapes that are not taken yet; each holds a whole exposition in memory.
    pub scrapes: usize,
    /// From the first byte (or the connection's begin) to the end of the head.
    pub head: Duration,
    /// From the end of the head until the whole answer is taken.
    pub answer: Duration,
    /// Between requests.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            scrapes: 16,
            head: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(180),
        }
    }
}

/// A listen address could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", remedy(.source))]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What the kernel said.
    pub source: std::io::Error,
}

fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another process has the port (`ss -ltnp` shows which); stop it or choose another port with \
             --web.listen-address"
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "this host has no such address; `ip address` lists those that --web.listen-address can take"
        }
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one with --web.listen-address"
        }
        _ => "choose another address with --web.listen-address",
    }
}
