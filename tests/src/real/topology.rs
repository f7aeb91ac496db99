//! The wires of the real tailnet: a bridge that joins control server and nodes, and a server one hop behind the exit node.
//!
//! ```text
//!   c1 10.99.0.11 ─┐                        ┌─ exit 10.99.0.2 ── 198.18.0.0/30 ── web: 203.0.113.2, 192.0.2.2,
//!   c2 10.99.0.12 ─┤ core: br0 10.99.0.1/24 ┤           2001:db8:198::/64           2001:db8:113::2
//!                  └────────────────────────┴─ relay 10.99.0.3
//! ```
//! The server is one routed hop further because an exit node refuses its own directly attached networks to its clients.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::netns::{Namespace, NamespaceError, link, unique_prefix};

/// The server on the internet.
pub const INTERNET_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The same for IPv6.
pub const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 2);
/// The server in the subnet that the exit node advertises, 192.0.2.0/24.
pub const SUBNET_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Where control server, DERP and STUN listen.
pub const CORE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Exit node and subnet router.
    Exit,
    /// The client whose path to the exit node can be chosen.
    Client1,
    /// A client that always has a direct path.
    Client2,
    /// The peer relay.
    Relay,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Exit, Self::Client1, Self::Client2, Self::Relay];

    /// Name of the namespace and host name in the tailnet.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Client1 => "c1",
            Self::Client2 => "c2",
            Self::Relay => "relay",
        }
    }

    /// Address on the bridge.
    #[must_use]
    pub fn underlay(self) -> Ipv4Addr {
        let host = match self {
            Self::Exit => 2,
            Self::Relay => 3,
            Self::Client1 => 11,
            Self::Client2 => 12,
        };
        Ipv4Addr::new(10, 99, 0, host)
    }
}

/// The namespaces, wired.
#[derive(Debug)]
pub(super) struct Topology {
    /// The bridge and the control server.
    pub(super) core: Namespace,
    /// The server on the internet.
    pub(super) web: Namespace,
    nodes: [Namespace; 4],
}

impl Topology {
    pub(super) fn create() -> Result<Self, NamespaceError> {
        let prefix = unique_prefix();
        let namespace = |name: &str| -> Result<Namespace, NamespaceError> {
            let namespace = Namespace::create(format!("{prefix}-{name}"))?;
            // tailscaled and headscale must not ask the machine's resolver.
            namespace.private_etc("resolv.conf", "nameserver 127.0.0.1\n")?;
            Ok(namespace)
        };
        let [exit, client1, client2, relay] = Role::ALL.map(|role| namespace(role.name()));
        let nodes = [exit?, client1?, client2?, relay?];
        let topology = Self { core: namespace("core")?, web: namespace("web")?, nodes };
        topology.bridge()?;
        topology.internet()?;
        Ok(topology)
    }

    pub(super) fn node(&self, role: Role) -> &Namespace {
        let [exit, client1, client2, relay] = &self.nodes;
        match role {
            Role::Exit => exit,
            Role::Client1 => client1,
            Role::Client2 => client2,
            Role::Relay => relay,
        }
    }

    fn bridge(&self) -> Result<(), NamespaceError> {
        self.core.ip(&["link", "add", "br0", "type", "bridge"])?;
        self.core.ip(&["addr", "add", &format!("{CORE}/24"), "dev", "br0"])?;
        self.core.ip(&["link", "set", "br0", "up"])?;
        for role in Role::ALL {
            let node = self.node(role);
            link((&self.core, role.name()), (node, "eth0"))?;
            self.core.ip(&["link", "set", role.name(), "master", "br0"])?;
            node.ip(&["addr", "add", &format!("{}/24", role.underlay()), "dev", "eth0"])?;
            node.ip(&["route", "add", "default", "via", &CORE.to_string()])?;
        }
        Ok(())
    }

    fn internet(&self) -> Result<(), NamespaceError> {
        let (exit, web) = (self.node(Role::Exit), &self.web);
        link((exit, "eth1"), (web, "eth0"))?;
        exit.ip(&["addr", "add", "198.18.0.1/30", "dev", "eth1"])?;
        exit.ip(&["addr", "add", "2001:db8:198::1/64", "dev", "eth1", "nodad"])?;
        exit.ip(&["route", "add", "203.0.113.0/24", "via", "198.18.0.2"])?;
        exit.ip(&["route", "add", "192.0.2.0/24", "via", "198.18.0.2"])?;
        exit.ip(&["route", "add", "2001:db8:113::/64", "via", "2001:db8:198::2"])?;
        exit.sysctl("net.ipv4.ip_forward", "1")?;
        exit.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        web.ip(&["addr", "add", "198.18.0.2/30", "dev", "eth0"])?;
        web.ip(&["addr", "add", "2001:db8:198::2/64", "dev", "eth0", "nodad"])?;
        web.ip(&["addr", "add", &format!("{INTERNET_V4}/32"), "dev", "lo"])?;
        web.ip(&["addr", "add", &format!("{SUBNET_V4}/32"), "dev", "lo"])?;
        web.ip(&["addr", "add", &format!("{INTERNET_V6}/128"), "dev", "lo", "nodad"])?;
        web.ip(&["route", "add", "default", "via", "198.18.0.1"])?;
        web.ip(&["route", "add", "default", "via", "2001:db8:198::1"])?;
        Ok(())
    }
}
