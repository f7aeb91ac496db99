//! Who is where: namespaces, links, addresses, routes and firewall rules of the miniature tailnet.
//!
//! ```text
//!   c1  c2  six            router ── lan 192.0.2.0/24
//!     \  |  /               /
//!      core (10.99.0.0/24, 2001:db8:99::/64) ── exit ── web: 203.0.113.2 "internet", 198.51.100.2 exit's own subnet
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use crate::control::{Control, Machine};
use crate::link::{Conditions, Link, LinkError};
use crate::netns::{Namespace, NamespaceError};
use crate::node::ip_batch;
use crate::process::{CommandError, run_with_input};
use crate::wireguard::{BYPASS_MARK, PORT};

/// The "internet" server, one routed hop behind the exit node.
pub const WEB_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The same over IPv6.
pub const WEB_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xcafe, 0, 0, 0, 0, 2);
/// A host in the subnet that the exit node advertises; lives in `web` too.
pub const EXIT_SUBNET_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The same over IPv6.
pub const EXIT_SUBNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 2);
/// The host behind `router`.
pub const LAN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The same over IPv6.
pub const LAN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x2, 0, 0, 0, 0, 10);

/// The hub of the underlay.
pub const CORE_V4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The same over IPv6.
pub const CORE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1);

/// Why the topology could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A link.
    #[error("between {left} and {right}")]
    Link {
        /// One end.
        left: String,
        /// The other end.
        right: String,
        /// The reason.
        #[source]
        source: Box<LinkError>,
    },
    /// Addresses, routes and rules.
    #[error("network namespace {namespace}: addresses and routes")]
    Configure {
        /// The namespace.
        namespace: String,
        /// The reason.
        #[source]
        source: CommandError,
    },
}

/// How a node hangs on the underlay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    pub(super) id: u64,
    pub(super) name: &'static str,
    /// Last part of its underlay addresses.
    host: u8,
    ipv4: bool,
    uses_exit: bool,
    forwards: bool,
    routes: &'static [&'static str],
}

/// The nodes; the exit node is the first one.
pub(super) const SITES: [Site; 5] = [
    Site {
        id: 1,
        name: "exit",
        host: 2,
        ipv4: true,
        uses_exit: false,
        forwards: true,
        routes: &["0.0.0.0/0", "::/0", "198.51.100.0/24", "2001:db8:51::/64"],
    },
    Site { id: 2, name: "c1", host: 11, ipv4: true, uses_exit: true, forwards: false, routes: &[] },
    Site { id: 3, name: "c2", host: 12, ipv4: true, uses_exit: true, forwards: false, routes: &[] },
    Site {
        id: 4,
        name: "router",
        host: 3,
        ipv4: true,
        uses_exit: false,
        forwards: true,
        routes: &["192.0.2.0/24", "2001:db8:2::/64"],
    },
    Site { id: 5, name: "six", host: 13, ipv4: false, uses_exit: true, forwards: false, routes: &[] },
];

impl Site {
    fn underlay(self) -> (Ipv4Addr, Ipv6Addr) {
        let host = u16::from(self.host);
        (Ipv4Addr::new(10, 99, 0, self.host), Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, host))
    }

    fn machine(self) -> Machine {
        let (v4, v6) = self.underlay();
        let mut machine = Machine::new(self.id, self.name);
        machine.routes = self.routes.iter().filter_map(|route| route.parse::<IpNet>().ok()).collect();
        let own = [self.ipv4.then_some(IpAddr::from(v4)), Some(v6.into())];
        machine.endpoints = own.into_iter().flatten().map(|ip| SocketAddr::new(ip, PORT)).collect();
        machine
    }
}

/// What the control plane knows at the start.
pub(super) fn control() -> Control {
    let mut control = Control { hub: vec![CORE_V4.into(), CORE_V6.into()], ..Control::default() };
    for site in SITES {
        control.machines.insert(site.id, site.machine());
        if site.uses_exit {
            control.exit_node_of.insert(site.id, SITES[0].id);
        }
    }
    control
}

/// Joins two namespaces.
pub(super) fn join(
    left: (&Namespace, &str),
    right: (&Namespace, &str),
    seed: u64,
) -> Result<Link, TopologyError> {
    Link::create(left, right, seed).map_err(|source| TopologyError::Link {
        left: left.0.name().to_owned(),
        right: right.0.name().to_owned(),
        source: Box::new(source),
    })
}

/// Settings that every namespace needs before it has devices.
pub(super) fn prepare(namespace: &Namespace, forwards: bool) -> Result<(), TopologyError> {
    // What tailscaled sends is routed by its mark, what it receives is not: strict reverse-path checks must not apply.
    for name in ["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter"] {
        namespace.sysctl(name, "0")?;
    }
    namespace.sysctl("net.ipv4.ping_group_range", "0 2147483647")?;
    if forwards {
        namespace.sysctl("net.ipv4.ip_forward", "1")?;
        namespace.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    }
    Ok(())
}

/// Joins a node to `core` and gives it underlay addresses and tailscaled's routing rules.
pub(super) fn attach(
    site: Site,
    node: &Namespace,
    core: &Namespace,
    seed: u64,
) -> Result<Link, TopologyError> {
    prepare(node, site.forwards)?;
    let port = format!("v-{}", site.name);
    let link = join((node, "eth0"), (core, &port), seed)?;
    let (v4, v6) = site.underlay();
    let mut own = format!("address add {v6}/64 dev eth0 nodad\nroute add ::/0 dev eth0 metric 4096\n");
    let mut hub = format!("route add {v6}/128 dev {port}\n");
    if site.ipv4 {
        own.push_str(&format!(
            "address add {v4}/24 dev eth0\nroute add 0.0.0.0/0 via {CORE_V4} metric 4096\n"
        ));
        hub.push_str(&format!("route add {v4}/32 dev {port}\n"));
    }
    // The local network stays reachable beside an exit node.
    own.push_str("route add throw 10.99.0.0/24 table 52\nroute add throw 2001:db8:99::/64 table 52\n");
    batch(node, &own)?;
    batch(core, &hub)?;
    let mark = format!("{BYPASS_MARK:#x}/0xff0000");
    let rules = format!(
        "rule add pref 5210 fwmark {mark} table main\n\
         rule add pref 5230 fwmark {mark} table default\n\
         rule add pref 5250 fwmark {mark} type unreachable\n\
         rule add pref 5270 table 52\n"
    );
    batch(node, &rules)?;
    batch_v6(node, &rules)?;
    Ok(link)
}

/// The hub of the underlay.
pub(super) fn configure_core(core: &Namespace) -> Result<(), TopologyError> {
    prepare(core, true)?;
    batch(core, &format!("address add {CORE_V4}/32 dev lo\naddress add {CORE_V6}/128 dev lo nodad\n"))
}

/// The way from the exit node to the internet.
pub(super) fn connect_web(exit: &Namespace, web: &Namespace, seed: u64) -> Result<Link, TopologyError> {
    prepare(web, false)?;
    let link = join((exit, "eth1"), (web, "eth0"), seed)?;
    batch(
        exit,
        "address add 198.18.0.1/30 dev eth1\naddress add 2001:db8:18::1/64 dev eth1 nodad\n\
         route add 0.0.0.0/0 via 198.18.0.2\nroute add ::/0 via 2001:db8:18::2 dev eth1\n",
    )?;
    let addresses = [WEB_V4, EXIT_SUBNET_V4].map(|address| format!("address add {address}/32 dev lo\n"));
    let addresses6 =
        [WEB_V6, EXIT_SUBNET_V6].map(|address| format!("address add {address}/128 dev lo nodad\n"));
    batch(web, &[addresses.concat(), addresses6.concat()].concat())?;
    batch(
        web,
        "address add 198.18.0.2/30 dev eth0\naddress add 2001:db8:18::2/64 dev eth0 nodad\n\
         route add 0.0.0.0/0 via 198.18.0.1\nroute add ::/0 via 2001:db8:18::1 dev eth0\n",
    )?;
    exit.nft(EXIT_RULES)?;
    Ok(link)
}

/// The subnet behind the router.
pub(super) fn connect_lan(router: &Namespace, lan: &Namespace, seed: u64) -> Result<Link, TopologyError> {
    prepare(lan, false)?;
    let link = join((router, "eth1"), (lan, "eth0"), seed)?;
    batch(router, "address add 192.0.2.1/24 dev eth1\naddress add 2001:db8:2::1/64 dev eth1 nodad\n")?;
    let addresses = format!("address add {LAN_V4}/24 dev eth0\naddress add {LAN_V6}/64 dev eth0 nodad\n");
    let routes = "route add 0.0.0.0/0 via 192.0.2.1\nroute add ::/0 via 2001:db8:2::1 dev eth0\n";
    batch(lan, &format!("{addresses}{routes}"))?;
    Ok(link)
}

/// The delay of one direction that gives a leg its round-trip time.
#[must_use]
pub fn half_round_trip(round_trip: Duration) -> Conditions {
    Conditions::delayed(round_trip / 2)
}

fn batch(namespace: &Namespace, script: &str) -> Result<(), TopologyError> {
    ip_batch(namespace, script)
        .map_err(|source| TopologyError::Configure { namespace: namespace.name().to_owned(), source })
}

fn batch_v6(namespace: &Namespace, script: &str) -> Result<(), TopologyError> {
    let mut command = std::process::Command::new("ip");
    command.args(["-6", "-n", namespace.name(), "-batch", "-"]);
    run_with_input(&mut command, script.as_bytes())
        .map(drop)
        .map_err(|source| TopologyError::Configure { namespace: namespace.name().to_owned(), source })
}

/// What tailscaled 1.102 installs on an exit node in nftables mode, reduced to what touches forwarded packets.
const EXIT_RULES: &str = r#"
table ip filter {
    chain ts-forward {
        iifname "tailscale0" counter meta mark set meta mark & 0xff00ffff | 0x00040000
        meta mark & 0x00ff0000 == 0x00040000 counter accept
        oifname "tailscale0" ip saddr 100.64.0.0/10 counter drop
        oifname "tailscale0" counter accept
    }
    chain FORWARD { type filter hook forward priority filter; policy accept; jump ts-forward; }
}
table ip nat {
    chain ts-postrouting { meta mark & 0x00ff0000 == 0x00040000 counter masquerade; }
    chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; jump ts-postrouting; }
}
table ip6 filter {
    chain ts-forward {
        iifname "tailscale0" counter meta mark set meta mark & 0xff00ffff | 0x00040000
        meta mark & 0x00ff0000 == 0x00040000 counter accept
        oifname "tailscale0" counter accept
    }
    chain FORWARD { type filter hook forward priority filter; policy accept; jump ts-forward; }
}
table ip6 nat {
    chain ts-postrouting { meta mark & 0x00ff0000 == 0x00040000 counter masquerade; }
    chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; jump ts-postrouting; }
}
"#;
