//! A whole real tailnet on one machine: headscale with its embedded DERP and STUN, an exit node that is also a subnet
//! router, two clients, a peer relay and a server on the internet, each in a network namespace of its own.

mod control;
mod daemon;
mod path;
mod programs;
mod topology;

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::http::HttpError;
use crate::leftovers;
use crate::netns::{Namespace, NamespaceError};
use crate::process::{CommandError, Timeout, wait_every};
use crate::tailnet::{Node, ServerAddresses, Tailnet};
use control::Control;
use daemon::Daemon;
use topology::Topology;

pub use daemon::{PeerStatus, Status};
pub use path::Path;
pub use programs::{MissingPrograms, PROGRAMS_FOLDER, Programs};
pub use topology::{INTERNET_V4, INTERNET_V6, Role, SUBNET_V4};

/// Routes that the exit node advertises and the control server approves.
pub const ROUTES: [&str; 3] = ["0.0.0.0/0", "::/0", "192.0.2.0/24"];

/// Why the tailnet did not come up, or did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum RealTailnetError {
    /// A namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A command line.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Something took too long.
    #[error(transparent)]
    Timeout(#[from] Timeout),
    /// A LocalAPI could not be asked.
    #[error(transparent)]
    LocalApi(#[from] HttpError),
    /// A daemon ended or did not answer.
    #[error("{name} did not come up; the end of its log:\n{log}")]
    Daemon {
        /// `headscale`, or the node.
        name: &'static str,
        /// Its last lines.
        log: String,
    },
    /// An answer that is not the JSON that was expected.
    #[error("cannot read {from}")]
    Answer {
        /// What was asked.
        from: String,
        /// Where it went wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The control server does not know the node.
    #[error("headscale knows no node named {name}")]
    NoSuchNode {
        /// The name.
        name: String,
    },
    /// A folder or file for state.
    #[error("cannot make {path}")]
    State {
        /// The path.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The socket whose traffic wakes a path up.
    #[error("cannot open a UDP socket on a client")]
    Knock {
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

/// The running tailnet; dropped, nothing of it is left.
#[derive(Debug)]
pub struct RealTailnet {
    daemons: [Daemon; 4],
    control: Control,
    topology: Topology,
    folder: tempfile::TempDir,
}

impl RealTailnet {
    /// Brings everything up: routes approved, both clients using the exit node, c1 on whatever path came first.
    pub fn up(programs: &Programs) -> Result<Self, RealTailnetError> {
        let state = |path: PathBuf| move |source| RealTailnetError::State { path, source };
        let folder = leftovers::folder().map_err(state(std::env::temp_dir()))?;
        let subfolder = |name: &str| -> Result<PathBuf, RealTailnetError> {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).map_err(state(path.clone()))?;
            Ok(path)
        };
        let topology = Topology::create()?;
        let control = Control::start(programs, &topology, &subfolder("headscale")?)?;
        let [exit, client1, client2, relay] = Role::ALL.map(|role| {
            subfolder(role.name()).and_then(|folder| Daemon::start(role, programs, &topology, &folder))
        });
        let mut tailnet = Self { daemons: [exit?, client1?, client2?, relay?], control, topology, folder };
        tailnet.log_in()?;
        tailnet.approve_routes(&ROUTES)?;
        for client in [Role::Client1, Role::Client2] {
            tailnet.use_exit_node(client)?;
        }
        Ok(tailnet)
    }

    /// A node of the tailnet.
    #[must_use]
    pub fn node(&self, role: Role) -> Node<'_> {
        let daemon = self.daemon(role);
        let namespace = self.topology.node(role);
        Node { name: role.name(), namespace, addresses: daemon.addresses.clone(), socket: &daemon.socket }
    }

    /// What a node's LocalAPI says now.
    pub fn status(&self, role: Role) -> Result<Status, RealTailnetError> {
        self.daemon(role).status()
    }

    /// Runs `tailscale ARGUMENTS` for a node and returns what it printed.
    pub fn tailscale(&self, role: Role, arguments: &[&str]) -> Result<String, RealTailnetError> {
        self.daemon(role).tailscale(arguments)
    }

    /// `tailscale` for a node, to be given arguments.
    #[must_use]
    pub fn tailscale_command(&self, role: Role) -> Command {
        self.daemon(role).command_line()
    }

    /// The pid of a node's tailscaled while it runs.
    #[must_use]
    pub fn tailscaled_id(&self, role: Role) -> Option<u32> {
        self.daemon(role).id()
    }

    /// Approves exactly these of the exit node's routes.
    pub fn approve_routes(&self, routes: &[&str]) -> Result<(), RealTailnetError> {
        self.control.approve_routes(Role::Exit.name(), routes)
    }

    /// Gives a node another name in the tailnet; its host name stays.
    pub fn rename(&self, role: Role, name: &str) -> Result<(), RealTailnetError> {
        self.control.rename(role.name(), name)
    }

    /// Ends a node's tailscaled by `signal`; its tailscale0 goes with it.
    pub fn end_tailscaled(&self, role: Role, signal: Signal) -> Result<(), RealTailnetError> {
        self.daemon(role).end(signal)
    }

    /// Starts a node's tailscaled again, with the state it had, and waits until it is Running.
    pub fn start_tailscaled(&self, role: Role) -> Result<(), RealTailnetError> {
        let daemon = self.daemon(role);
        daemon.run(&self.topology)?;
        daemon.wait_running()?;
        Ok(())
    }

    /// Where state and logs are while the tailnet is up.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Logs every node in at the same time: each takes seconds, mostly waiting.
    fn log_in(&mut self) -> Result<(), RealTailnetError> {
        let key = self.control.authentication_key()?;
        let log_in = |daemon: &mut Daemon| -> Result<(), RealTailnetError> {
            let (server, key) = (format!("--login-server={}", Control::url()), format!("--auth-key={key}"));
            let name = format!("--hostname={}", daemon.role.name());
            let mut arguments = vec!["up", &server, &key, &name, "--accept-dns=false", "--accept-routes"];
            if daemon.role == Role::Exit {
                arguments.extend(["--advertise-exit-node", "--advertise-routes=192.0.2.0/24"]);
            }
            daemon.tailscale(&arguments)?;
            daemon.addresses = daemon.wait_running()?;
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                self.daemons.iter_mut().map(|daemon| scope.spawn(|| log_in(daemon))).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    /// Until the approval has reached the client, the exit node "is not advertising an exit node".
    fn use_exit_node(&self, client: Role) -> Result<(), RealTailnetError> {
        let name = client.name();
        let (pause, patience) = (Duration::from_millis(200), Duration::from_secs(20));
        let argument = format!("--exit-node={}", Role::Exit.name());
        wait_every(pause, &format!("{name} to accept the exit node"), patience, || {
            self.tailscale(client, &["set", &argument]).ok()
        })?;
        let namespace = self.topology.node(client);
        wait_every(pause, &format!("{name}'s routes through the tunnel"), patience, || {
            let routes = namespace.ip(&["route", "show", "table", "52"]).ok()?;
            ["default dev tailscale0", "192.0.2.0/24 dev tailscale0"]
                .iter()
                .all(|route| routes.contains(route))
                .then_some(())
        })?;
        // The first session takes a handshake, which may get lost while both ends still look for their paths.
        let knock = self.knocker(client)?;
        wait_every(pause, &format!("{name} to reach the exit node"), patience, || {
            let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
            knock.send(b"knock").is_err_and(refused).then_some(())
        })?;
        Ok(())
    }

    fn daemon(&self, role: Role) -> &Daemon {
        let [exit, client1, client2, relay] = &self.daemons;
        match role {
            Role::Exit => exit,
            Role::Client1 => client1,
            Role::Client2 => client2,
            Role::Relay => relay,
        }
    }
}

impl Tailnet for RealTailnet {
    fn exit_node(&self) -> Node<'_> {
        self.node(Role::Exit)
    }

    fn clients(&self) -> Vec<Node<'_>> {
        vec![self.node(Role::Client1), self.node(Role::Client2)]
    }

    fn server(&self) -> &Namespace {
        &self.topology.web
    }

    fn server_addresses(&self) -> ServerAddresses {
        ServerAddresses {
            internet_v4: INTERNET_V4.into(),
            internet_v6: INTERNET_V6.into(),
            subnet_v4: SUBNET_V4.into(),
        }
    }
}

impl Drop for RealTailnet {
    /// All daemons end at the same time; the fields' own guards wait for them one by one.
    fn drop(&mut self) {
        self.daemons.iter().for_each(Daemon::signal_end);
        self.control.signal_end();
    }
}
