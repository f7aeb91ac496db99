//! The miniature tailnet: an exit node, four peers and an internet in namespaces of this process.
//!
//! ```no_run
//! use std::time::Duration;
//! use tailgauge_testbed::miniature::{MiniatureTailnet, Options, WEB_V4};
//! use tailgauge_testbed::{link::Conditions, traffic};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tailnet = MiniatureTailnet::up(Options::default())?;
//! tailnet.internet_link().set_both(Conditions::delayed(Duration::from_millis(10)));
//! let report = traffic::ping(tailnet.c1().namespace(), WEB_V4.into(), &traffic::Ping::default())?;
//! assert!(report.round_trips[0] >= Duration::from_millis(20));
//! # Ok(())
//! # }
//! ```

mod changes;
mod paths;
mod topology;
mod view;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

pub use paths::Via;
pub use topology::{
    CORE_V4, CORE_V6, EXIT_SUBNET_V4, EXIT_SUBNET_V6, LAN_V4, LAN_V6, TopologyError, WEB_V4, WEB_V6,
    half_round_trip,
};

use crate::control::Control;
use crate::leftovers::{self, unique_prefix};
use crate::link::Link;
use crate::netns::{Namespace, NamespaceError};
use crate::node::{Node, NodeError};
use crate::process::Timeout;
use crate::traffic::{Server, TrafficError};
use crate::underlay::hub::{Hub, HubError};
use topology::SITES;

/// What can be chosen about a miniature tailnet; the rest is changed while it runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What the losses of the links follow from.
    pub seed: u64,
}

/// Why the tailnet did not come up, or a change could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TailnetError {
    /// A namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// Links, addresses, rules.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// What stands in the middle.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The folder for sockets and logs.
    #[error("cannot make a folder for sockets and logs")]
    Folder(#[source] io::Error),
    /// A node does not get its connection to DERP.
    #[error(transparent)]
    Derp(#[from] Timeout),
    /// A machine has no address in the family of the relay.
    #[error("{machine} has no underlay address to reach {relay} from")]
    NoAddress {
        /// The machine.
        machine: String,
        /// The relay's address.
        relay: IpAddr,
    },
    /// There is no machine of that name.
    #[error("no machine is named {0}")]
    NoSuchMachine(String),
}

/// A running tailnet. Dropped, it takes its namespaces, processes, sockets and files with it, after a panic as well.
pub struct MiniatureTailnet {
    // The order of fields is the order in which they go.
    nodes: Vec<Node>,
    links: BTreeMap<&'static str, Link>,
    hub: Hub,
    control: Arc<Mutex<Control>>,
    web: Arc<Namespace>,
    lan: Arc<Namespace>,
    core: Arc<Namespace>,
    folder: TempDir,
}

impl MiniatureTailnet {
    /// Brings everything up. Sessions are made when the first packet asks for them.
    pub fn up(options: Options) -> Result<Self, TailnetError> {
        let seed = options.seed;
        let folder = leftovers::folder().map_err(TailnetError::Folder)?;
        let prefix = unique_prefix();
        let namespace = |role: &str| Namespace::create(format!("{prefix}-{role}")).map(Arc::new);
        let (core, web, lan) = (namespace("core")?, namespace("web")?, namespace("lan")?);
        topology::configure_core(&core)?;
        let hub = Hub::start(&core)?;
        let control = Arc::new(Mutex::new(topology::control()));
        let mut links = BTreeMap::new();
        let mut nodes = Vec::new();
        for site in SITES {
            let place = namespace(site.name)?;
            links.insert(site.name, topology::attach(site, &place, &core, seed.wrapping_add(site.id))?);
            let far = seed.wrapping_add(100 + site.id);
            match site.name {
                "exit" => drop(links.insert("web", topology::connect_web(&place, &web, far)?)),
                "router" => drop(links.insert("lan", topology::connect_lan(&place, &lan, far)?)),
                _ => {}
            }
            let socket = folder.path().join(format!("{}.sock", site.name));
            nodes.push(Node::new(site.id, site.name, place, Arc::clone(&control), socket));
        }
        for node in &nodes {
            node.start()?;
        }
        Ok(Self { nodes, links, hub, control, web, lan, core, folder })
    }

    /// The exit node, 100.64.0.1, which also advertises a subnet.
    #[must_use]
    pub fn exit(&self) -> &Node {
        &self.nodes[0]
    }

    /// A client of the exit node, 100.64.0.2.
    #[must_use]
    pub fn c1(&self) -> &Node {
        &self.nodes[1]
    }

    /// Another client of the exit node, 100.64.0.3.
    #[must_use]
    pub fn c2(&self) -> &Node {
        &self.nodes[2]
    }

    /// The subnet router in front of `lan`, 100.64.0.4.
    #[must_use]
    pub fn router(&self) -> &Node {
        &self.nodes[3]
    }

    /// A client of the exit node whose underlay has IPv6 only, 100.64.0.5.
    #[must_use]
    pub fn six(&self) -> &Node {
        &self.nodes[4]
    }

    /// All nodes, in the order of their ids.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The internet.
    #[must_use]
    pub fn web(&self) -> &Arc<Namespace> {
        &self.web
    }

    /// The host behind the router.
    #[must_use]
    pub fn lan(&self) -> &Arc<Namespace> {
        &self.lan
    }

    /// Starts a server for [`crate::traffic`] on the internet, which answers for the exit node's subnet too.
    pub fn serve_web(&self) -> Result<Server, TrafficError> {
        Server::start(
            &self.web,
            &[WEB_V4.into(), WEB_V6.into(), EXIT_SUBNET_V4.into(), EXIT_SUBNET_V6.into()],
        )
    }

    /// Starts a server on the host behind the router.
    pub fn serve_lan(&self) -> Result<Server, TrafficError> {
        Server::start(&self.lan, &[LAN_V4.into(), LAN_V6.into()])
    }

    /// Starts a server on a node's Tailscale addresses.
    pub fn serve_node(&self, node: &Node) -> Result<Server, TrafficError> {
        Server::start(node.namespace(), &node.addresses())
    }

    /// The hub of the underlay.
    #[must_use]
    pub fn core(&self) -> &Arc<Namespace> {
        &self.core
    }

    /// A node's link to the underlay; the node is on the left. `None` for a name that no node has.
    #[must_use]
    pub fn peer_link(&self, node: &Node) -> &Link {
        &self.links[node.name()]
    }

    /// The link between the exit node, left, and the internet, right.
    #[must_use]
    pub fn internet_link(&self) -> &Link {
        &self.links["web"]
    }

    /// The link between the router, left, and the host behind it, right.
    #[must_use]
    pub fn lan_link(&self) -> &Link {
        &self.links["lan"]
    }

    /// A folder for logs that goes with the tailnet; the nodes' LocalAPI sockets are in it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The control plane's data, to look at; change it with the methods of the tailnet.
    pub fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
