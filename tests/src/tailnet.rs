//! What a test may ask of a tailnet, be it the miniature or the real one.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use crate::netns::Namespace;

/// An address that is reached through the exit node's offer of the whole internet (class `exit`).
pub const INTERNET_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// As [`INTERNET_V4`], for IPv6.
pub const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 2);
/// An address inside the route that the exit node advertises as a subnet router, 192.0.2.0/24 (class `subnet`).
pub const SUBNET_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A node of a tailnet, in a network namespace of its own with a device `tailscale0`.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// Its host name in the tailnet.
    pub name: &'a str,
    /// Where it lives.
    pub namespace: &'a Namespace,
    /// Its Tailscale addresses, IPv4 first.
    pub addresses: &'a [IpAddr],
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
    /// The namespace that owns [`INTERNET_V4`] and [`SUBNET_V4`].
    fn server(&self) -> &Namespace;
}
