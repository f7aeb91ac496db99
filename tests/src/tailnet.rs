//! What a test may ask of a tailnet, be it the miniature or the real one.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use crate::netns::Namespace;

/// Where the server behind the exit node is reached.
#[derive(Debug, Clone, Copy)]
pub struct ServerAddresses {
    /// Through the exit node's offer of the whole internet (class `exit`).
    pub internet_v4: IpAddr,
    /// The same for IPv6.
    pub internet_v6: IpAddr,
    /// Inside a route that the exit node advertises as a subnet router (class `subnet`).
    pub subnet_v4: IpAddr,
}

/// A node of a tailnet, in a network namespace of its own with a device `tailscale0`.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    /// Its host name in the tailnet.
    pub name: &'a str,
    /// Where it lives.
    pub namespace: &'a Namespace,
    /// Its Tailscale addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Its LocalAPI's unix socket.
    pub socket: &'a Path,
}

impl Node<'_> {
    /// A command that will run on the node.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.namespace.command(program)
    }
}

/// An exit node that is also a subnet router, clients that use it, and a server on the internet one hop behind it.
pub trait Tailnet {
    /// The node that the agent is tested on.
    fn exit_node(&self) -> Node<'_>;
    /// Nodes that send everything through the exit node and accept its subnet route.
    fn clients(&self) -> Vec<Node<'_>>;
    /// The server's namespace.
    fn server(&self) -> &Namespace;
    /// The server's addresses.
    fn server_addresses(&self) -> ServerAddresses;
}
