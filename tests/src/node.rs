//! A node: a namespace with an in-process stand-in for tailscaled.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;

use crate::control::{Control, Machine};
use crate::localapi::{Behaviour, LocalApi, View};
use crate::netns::{Namespace, NamespaceError};
use crate::process::{CommandError, Process, run_with_input};
use crate::tun::{Tun, TunError};
use crate::wireguard::{DiscoTruth, Engine, EngineError, HandshakeTruth, PeerConfig, PeerStats};

/// The tunnel device of every node.
pub const TUNNEL: &str = "tailscale0";
/// Creation of the device to its offloads, and to UP, as measured on tailscaled 1.102.3.
const UNTIL_OFFLOADS: Duration = Duration::from_millis(3);
const UNTIL_UP: Duration = Duration::from_millis(9);

/// Why a node did not come up.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its namespace.
    #[error("node {node}")]
    Namespace {
        /// The node.
        node: String,
        /// The reason.
        #[source]
        source: NamespaceError,
    },
    /// Addresses, routes and rules.
    #[error("node {node}: cannot configure {TUNNEL}")]
    Configure {
        /// The node.
        node: String,
        /// The reason.
        #[source]
        source: CommandError,
    },
    /// Its tunnel device.
    #[error("node {node}")]
    Tun {
        /// The node.
        node: String,
        /// The reason.
        #[source]
        source: Box<TunError>,
    },
    /// Its data plane.
    #[error("node {node}")]
    Engine {
        /// The node.
        node: String,
        /// The reason.
        #[source]
        source: EngineError,
    },
    /// Its LocalAPI.
    #[error("node {node}: cannot serve the LocalAPI at {socket}")]
    LocalApi {
        /// The node.
        node: String,
        /// The unix socket.
        socket: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// The kernel's counters of a network device since it was made; a super-packet counts as one packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Bytes received: from the peers, on the tunnel.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes transmitted: to the peers, on the tunnel.
    pub tx_bytes: u64,
    /// Packets transmitted.
    pub tx_packets: u64,
    /// Packets that the device's ring had no room for.
    pub tx_dropped: u64,
}

impl DeviceCounters {
    /// Reads the counters of a device in the namespace of the calling thread; `None` when there is no such device.
    #[must_use]
    pub fn read(device: &str) -> Option<Self> {
        let table = fs::read_to_string("/proc/thread-self/net/dev").ok()?;
        let line = table.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'))?;
        let columns: Vec<u64> = line.split_whitespace().filter_map(|column| column.parse().ok()).collect();
        let column = |at: usize| columns.get(at).copied();
        Some(Self {
            rx_bytes: column(0)?,
            rx_packets: column(1)?,
            tx_bytes: column(8)?,
            tx_packets: column(9)?,
            tx_dropped: column(11)?,
        })
    }
}

/// How tailscaled ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// SIGTERM: the LocalAPI socket is removed.
    Terminated,
    /// SIGKILL: the LocalAPI socket stays as a dead file.
    Killed,
}

/// A node of the miniature tailnet.
pub struct Node {
    id: u64,
    name: String,
    // The daemon's devices go before the namespace does.
    daemon: Mutex<Option<Daemon>>,
    view: Arc<View>,
    socket: PathBuf,
    namespace: Arc<Namespace>,
}

/// What lives and dies with tailscaled.
struct Daemon {
    engine: Arc<Engine>,
    api: LocalApi,
    routes: BTreeSet<IpNet>,
}

impl Node {
    pub(crate) fn new(
        id: u64,
        name: &str,
        namespace: Arc<Namespace>,
        control: Arc<Mutex<Control>>,
        socket: PathBuf,
    ) -> Self {
        let view = Arc::new(View::new(id, control));
        Self { id, name: name.to_owned(), daemon: Mutex::new(None), view, socket, namespace }
    }

    /// NodeID.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name it was made with; the control plane may have renamed it since.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its Tailscale addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        Machine::new(self.id, "").ips()
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Where its LocalAPI listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs a command in the node's namespace to its end.
    pub fn exec(&self, program: &str, arguments: &[&str]) -> io::Result<Output> {
        self.namespace.command(program).args(arguments).output()
    }

    /// A command to run in the node's namespace, arguments and environment still to be added.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.namespace.command(program)
    }

    /// Starts a program in the node's namespace that ends with its guard; stdout and stderr go to `log`.
    pub fn spawn(&self, program: &str, arguments: &[&str], log: &Path) -> Result<Process, CommandError> {
        Process::spawn(self.command(program).args(arguments), log)
    }

    /// Starts tailscaled: LocalAPI, a new tunnel device, sessions from nothing. Nothing happens when it runs.
    ///
    /// The device exists in state DOWN and without addresses for some 12 ms, as with the real one.
    pub fn start(&self) -> Result<(), NodeError> {
        let mut daemon = self.lock();
        if daemon.is_some() {
            return Ok(());
        }
        let api = LocalApi::start(&self.socket, Arc::clone(&self.view)).map_err(|source| {
            NodeError::LocalApi { node: self.name.clone(), socket: self.socket.clone(), source }
        })?;
        let tun_error = |error| NodeError::Tun { node: self.name.clone(), source: Box::new(error) };
        let tun = Tun::create(&self.namespace, TUNNEL).map_err(tun_error)?;
        thread::sleep(UNTIL_OFFLOADS);
        tun.enable_offloads(TUNNEL).map_err(tun_error)?;
        self.ip_batch(&format!("link set {TUNNEL} mtu 1280 txqueuelen 500\n"))?;
        thread::sleep(UNTIL_UP);
        self.ip_batch(&format!("link set {TUNNEL} up\n"))?;
        let (own, peers, hub) = {
            let control = self.view.control();
            let own = control.machines.get(&self.id).cloned();
            (own, control.peer_configs(self.id), control.hub_for(self.id))
        };
        let own = own.unwrap_or_else(|| Machine::new(self.id, &self.name));
        let (v4, v6) = own.addresses;
        self.ip_batch(&format!(
            "address add {v4}/32 dev {TUNNEL}\naddress add {v6}/128 dev {TUNNEL} nodad\n"
        ))?;
        let engine = Engine::start(
            self.id,
            &self.namespace,
            tun,
            own.identity(),
            &peers,
            hub,
            self.view.session_hook(),
        )
        .map_err(|source| NodeError::Engine { node: self.name.clone(), source })?;
        let engine = Arc::new(engine);
        self.view.set_engine(Some(&engine));
        let mut running = Daemon { engine, api, routes: BTreeSet::new() };
        self.install_routes(&mut running, &peers)?;
        *daemon = Some(running);
        Ok(())
    }

    /// Ends tailscaled; its device disappears, and readers of the IPN bus see the end of the stream.
    pub fn stop(&self, exit: Exit) {
        let Some(daemon) = self.lock().take() else { return };
        self.view.set_engine(None);
        daemon.api.stop(exit == Exit::Terminated);
    }

    /// Ends tailscaled and starts it again.
    pub fn restart(&self, exit: Exit) -> Result<(), NodeError> {
        self.stop(exit);
        self.start()
    }

    /// How the LocalAPI answers from now on.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.view.set_behaviour(behaviour);
    }

    /// What the data plane knows about a peer; `None` while tailscaled is down.
    #[must_use]
    pub fn peer_stats(&self, peer: u64) -> Option<PeerStats> {
        self.lock().as_ref()?.engine.peer_stats(peer)
    }

    /// The disco messages with a peer since tailscaled started; `None` while it is down.
    #[must_use]
    pub fn disco(&self, peer: u64) -> Option<DiscoTruth> {
        self.lock().as_ref()?.engine.disco(peer)
    }

    /// The handshakes with a peer since tailscaled started; `None` while it is down.
    #[must_use]
    pub fn handshakes(&self, peer: u64) -> Option<HandshakeTruth> {
        self.lock().as_ref()?.engine.handshakes(peer)
    }

    /// Starts a new WireGuard handshake with a peer now, instead of 120 s after the last; whether the initiation left.
    ///
    /// The library's clock has steps of 100 ms: of two sessions that young, the older may stay in use.
    pub fn rekey(&self, peer: u64) -> bool {
        self.lock().as_ref().is_some_and(|daemon| daemon.engine.rekey(peer))
    }

    /// STUN requests sent and answers received since tailscaled started; `None` while it is down.
    #[must_use]
    pub fn stun(&self) -> Option<(u64, u64)> {
        Some(self.lock().as_ref()?.engine.stun())
    }

    /// Makes tailscaled, until it ends, hold back every pong for so long, as if it were busy.
    pub fn set_reaction(&self, time: Duration) {
        if let Some(daemon) = self.lock().as_ref() {
            daemon.engine.set_reaction(time);
        }
    }

    /// What the kernel counted on the tunnel device; `None` while there is none.
    pub fn tunnel_counters(&self) -> Result<Option<DeviceCounters>, NamespaceError> {
        self.namespace.run(|| DeviceCounters::read(TUNNEL))
    }

    /// Packets that the data plane threw away since tailscaled started.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().as_ref().map_or(0, |daemon| daemon.engine.drops())
    }

    /// Gives the data plane what the control plane says now; a machine that was removed knows nobody.
    pub(crate) fn reconfigure(&self) -> Result<(), NodeError> {
        let (identity, peers) = {
            let control = self.view.control();
            (control.machines.get(&self.id).map(Machine::identity), control.peer_configs(self.id))
        };
        let mut daemon = self.lock();
        let Some(running) = daemon.as_mut() else { return Ok(()) };
        running.engine.configure(identity.as_ref(), &peers);
        self.install_routes(running, &peers)
    }

    /// Connects to DERP; false when tailscaled is down.
    pub(crate) fn connect_derp(&self) -> Result<bool, NodeError> {
        let daemon = self.lock();
        let Some(running) = daemon.as_ref() else { return Ok(false) };
        let outcome = running.engine.connect_derp();
        outcome.map(|()| true).map_err(|source| NodeError::Engine { node: self.name.clone(), source })
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Table 52 as tailscaled fills it: every prefix of every peer.
    fn install_routes(&self, daemon: &mut Daemon, peers: &[PeerConfig]) -> Result<(), NodeError> {
        let wanted: BTreeSet<IpNet> = peers.iter().flat_map(|peer| peer.allowed_ips.clone()).collect();
        let line = |verb: &str, prefix: &IpNet| format!("route {verb} {prefix} dev {TUNNEL} table 52\n");
        let removed = daemon.routes.difference(&wanted).map(|prefix| line("del", prefix));
        let added = wanted.difference(&daemon.routes).map(|prefix| line("add", prefix));
        let script: String = removed.chain(added).collect();
        if !script.is_empty() {
            self.ip_batch(&script)?;
        }
        daemon.routes = wanted;
        Ok(())
    }

    fn ip_batch(&self, script: &str) -> Result<(), NodeError> {
        ip_batch(&self.namespace, script)
            .map_err(|source| NodeError::Configure { node: self.name.clone(), source })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs many `ip` commands in one process.
pub(crate) fn ip_batch(namespace: &Namespace, script: &str) -> Result<(), CommandError> {
    let mut command = Command::new("ip");
    command.args(["-n", namespace.name(), "-batch", "-"]);
    run_with_input(&mut command, script.as_bytes()).map(drop)
}
