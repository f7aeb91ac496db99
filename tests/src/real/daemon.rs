//! One node: a tailscaled in its namespace, its command line, and what its LocalAPI says of the peers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;

use super::RealTailnetError;
use super::control::tail;
use super::programs::Programs;
use super::topology::{Role, Topology};
use crate::http;
use crate::process::{self, Process, wait_for};

/// What the LocalAPI wants to be called.
const LOCAL_API_HOST: &str = "local-tailscaled.sock";
/// The UDP port of every node's underlay.
pub(super) const UNDERLAY_PORT: u16 = 41641;

/// The part of `/localapi/v0/status` that tests hold the agent against (`ipnstate.Status`).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// `Running` when the node is up.
    pub backend_state: String,
    /// The node itself.
    #[serde(rename = "Self")]
    pub own: PeerStatus,
    /// Peers by node key.
    pub peer: Option<BTreeMap<String, PeerStatus>>,
}

/// The part of `ipnstate.PeerStatus` that tests use.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PeerStatus {
    /// StableNodeID.
    #[serde(rename = "ID")]
    pub id: String,
    /// The host's own name, which a rename does not change.
    pub host_name: String,
    /// The name in the tailnet, with a dot at its end.
    #[serde(rename = "DNSName")]
    pub dns_name: String,
    /// Addresses, IPv4 first.
    #[serde(rename = "TailscaleIPs")]
    pub addresses: Option<Vec<IpAddr>>,
    /// Endpoint of a direct path.
    pub cur_addr: String,
    /// `ip:port:vni:N` of a peer relay's path.
    #[serde(default)]
    pub peer_relay: String,
    /// Whether something was sent within 45 s.
    pub active: bool,
    /// Whether this peer is the node's selected exit node.
    pub exit_node: bool,
}

impl Status {
    /// The peer of that host name.
    #[must_use]
    pub fn peer(&self, host: &str) -> Option<&PeerStatus> {
        self.peer.as_ref()?.values().find(|peer| peer.host_name == host)
    }
}

/// A node's daemon; it can be stopped and started again with the same state.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) role: Role,
    pub(super) socket: PathBuf,
    pub(super) addresses: Vec<IpAddr>,
    tailscale: PathBuf,
    tailscaled: PathBuf,
    folder: PathBuf,
    /// Behind a lock, so that a restart does not need the whole tailnet for itself.
    process: Mutex<Option<Process>>,
}

impl Daemon {
    pub(super) fn start(
        role: Role,
        programs: &Programs,
        topology: &Topology,
        folder: &Path,
    ) -> Result<Self, RealTailnetError> {
        let daemon = Self {
            role,
            socket: folder.join("sock"),
            addresses: Vec::new(),
            tailscale: programs.tailscale.clone(),
            tailscaled: programs.tailscaled.clone(),
            folder: folder.to_owned(),
            process: Mutex::new(None),
        };
        daemon.run(topology)?;
        Ok(daemon)
    }

    /// Starts tailscaled and waits until its LocalAPI answers.
    pub(super) fn run(&self, topology: &Topology) -> Result<(), RealTailnetError> {
        let mut command = topology.node(self.role).command(&self.tailscaled);
        command
            .args(["--tun=tailscale0", "--no-logs-no-support", &format!("--port={UNDERLAY_PORT}")])
            .arg(format!("--statedir={}", self.folder.display()))
            .arg(format!("--socket={}", self.socket.display()))
            .env("TS_LOGS_DIR", &self.folder)
            .env("TS_DEBUG_FIREWALL_MODE", "nftables")
            .env("TS_DEBUG_USE_DERP_HTTP", "1")
            .env("TS_DISABLE_PORTMAPPER", "1")
            .env("TS_NO_LOGS_NO_SUPPORT", "true")
            // Nothing here may ever talk to the real service.
            .env("TS_PANIC_IF_HIT_MAIN_CONTROL", "1");
        let mut process = Process::spawn(&mut command, self.folder.join("log"))?;
        let answered = wait_for("tailscaled's LocalAPI", Duration::from_secs(20), || {
            (!process.is_running() || self.status().is_ok()).then_some(())
        });
        if answered.is_err() || !process.is_running() {
            return Err(RealTailnetError::Daemon { name: self.role.name(), log: tail(&process.log()) });
        }
        *self.process() = Some(process);
        Ok(())
    }

    /// Ends tailscaled by `signal` and waits for its end.
    pub(super) fn end(&self, signal: Signal) -> Result<(), RealTailnetError> {
        if let Some(mut process) = self.process().take() {
            process.signal(signal);
            process.wait(Duration::from_secs(10))?;
        }
        Ok(())
    }

    /// Asks tailscaled to end, without waiting.
    pub(super) fn signal_end(&self) {
        if let Some(process) = self.process().as_mut() {
            process.signal(Signal::TERM);
        }
    }

    /// tailscaled's pid while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.process().as_ref().map(Process::id)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the node is logged in, and returns its addresses.
    pub(super) fn wait_running(&self) -> Result<Vec<IpAddr>, RealTailnetError> {
        let what = format!("{} to be Running", self.role.name());
        let status = wait_for(&what, Duration::from_secs(30), || {
            self.status().ok().filter(|status| status.backend_state == "Running")
        })?;
        Ok(status.own.addresses.unwrap_or_default())
    }

    /// `tailscale ARGUMENTS` for this node.
    pub(super) fn command_line(&self) -> Command {
        let mut command = Command::new(&self.tailscale);
        command.arg(format!("--socket={}", self.socket.display()));
        command
    }

    /// Runs `tailscale ARGUMENTS` to its end.
    pub(super) fn tailscale(&self, arguments: &[&str]) -> Result<String, RealTailnetError> {
        Ok(process::run(self.command_line().args(arguments))?)
    }

    /// What the LocalAPI says now.
    pub(super) fn status(&self) -> Result<Status, RealTailnetError> {
        let answer = http::get_unix(&self.socket, LOCAL_API_HOST, "/localapi/v0/status")?;
        let from = format!("{}'s /localapi/v0/status", self.role.name());
        serde_json::from_slice(&answer.body).map_err(|source| RealTailnetError::Answer { from, source })
    }
}
