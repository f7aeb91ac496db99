//! The control server: headscale with its embedded DERP and STUN servers, in plain HTTP.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::RealTailnetError;
use super::programs::Programs;
use super::topology::{CORE, Topology};
use crate::process::{self, Process, wait_for};

/// TCP port of the control server and of DERP.
const PORT: u16 = 8080;

/// What everyone may do. `*` as a destination means the tailnet only: the internet and the subnet are named.
/// The `relay` capability lets every node be a peer relay for every other.
const POLICY: &str = r#"{
  "acls": [{"action": "accept", "src": ["*"], "dst": [
    "*:*", "autogroup:internet:*", "203.0.113.0/24:*", "192.0.2.0/24:*", "2001:db8:113::/64:*"]}],
  "grants": [
    {"src": ["*"], "dst": ["*"], "ip": ["*"]},
    {"src": ["*"], "dst": ["*"], "app": {"tailscale.com/cap/relay": [{}]}}]
}
"#;

/// A running headscale with one user.
#[derive(Debug)]
pub(super) struct Control {
    headscale: PathBuf,
    configuration: PathBuf,
    process: Process,
}

/// A node as `headscale nodes list` shows it; only what is used.
#[derive(Debug, Deserialize)]
struct ListedNode {
    id: u64,
    name: String,
}

impl Control {
    pub(super) fn start(
        programs: &Programs,
        topology: &Topology,
        folder: &Path,
    ) -> Result<Self, RealTailnetError> {
        let write = |name: &str, content: &str| {
            let path = folder.join(name);
            fs::write(&path, content)
                .map(|()| path.clone())
                .map_err(|source| RealTailnetError::State { path, source })
        };
        write("policy.hujson", POLICY)?;
        let configuration = write("config.yaml", &configuration(folder))?;
        let mut serve = topology.core.command(&programs.headscale);
        serve.arg("-c").arg(&configuration).arg("serve");
        let process = Process::spawn(&mut serve, folder.join("log"))?;
        let mut control = Self { headscale: programs.headscale.clone(), configuration, process };
        let socket = folder.join("sock");
        let answered = wait_for("headscale's socket", Duration::from_secs(20), || {
            (!control.process.is_running() || socket.exists()).then_some(())
        });
        if answered.is_err() || !control.process.is_running() {
            return Err(RealTailnetError::Daemon { name: "headscale", log: tail(&control.process.log()) });
        }
        control.command(&["users", "create", "lab"])?;
        Ok(control)
    }

    /// The URL for `tailscale up --login-server`.
    pub(super) fn url() -> String {
        format!("http://{CORE}:{PORT}")
    }

    /// A key that lets any number of nodes in.
    pub(super) fn authentication_key(&self) -> Result<String, RealTailnetError> {
        let said = self.command(&["preauthkeys", "create", "-u", "1", "--reusable", "-e", "24h"])?;
        Ok(said.lines().last().unwrap_or_default().trim().to_owned())
    }

    /// Approves exactly these of the routes that a node advertises; an empty list takes every approval back.
    pub(super) fn approve_routes(&self, host: &str, routes: &[&str]) -> Result<(), RealTailnetError> {
        let id = self.id(host)?.to_string();
        self.command(&["nodes", "approve-routes", "--identifier", &id, "--routes", &routes.join(",")])?;
        Ok(())
    }

    /// Gives a node another name in the tailnet.
    pub(super) fn rename(&self, host: &str, name: &str) -> Result<(), RealTailnetError> {
        let id = self.id(host)?.to_string();
        self.command(&["nodes", "rename", "--identifier", &id, name])?;
        Ok(())
    }

    /// Asks the process to end, without waiting.
    pub(super) fn signal_end(&mut self) {
        self.process.signal(rustix::process::Signal::TERM);
    }

    fn id(&self, host: &str) -> Result<u64, RealTailnetError> {
        let listed = self.command(&["nodes", "list", "-o", "json"])?;
        let nodes: Vec<ListedNode> = serde_json::from_str(&listed)
            .map_err(|source| RealTailnetError::Answer { from: "headscale nodes list".into(), source })?;
        let node = nodes.iter().find(|node| node.name == host);
        node.map(|node| node.id).ok_or_else(|| RealTailnetError::NoSuchNode { name: host.to_owned() })
    }

    fn command(&self, arguments: &[&str]) -> Result<String, RealTailnetError> {
        let mut command = Command::new(&self.headscale);
        Ok(process::run(command.arg("-c").arg(&self.configuration).args(arguments))?)
    }
}

/// The last lines of a log, for an error.
pub(super) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"server_url: {url}
listen_addr: {CORE}:{PORT}
metrics_listen_addr: 127.0.0.1:9090
grpc_listen_addr: 127.0.0.1:50443
unix_socket: {folder}/sock
unix_socket_permission: "0700"
noise: {{private_key_path: {folder}/noise.key}}
prefixes: {{v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}}
derp:
  server:
    enabled: true
    region_id: 999
    region_code: lab
    region_name: Lab
    verify_clients: false
    stun_listen_addr: "0.0.0.0:3478"
    private_key_path: {folder}/derp.key
    automatically_add_embedded_derp_region: true
    ipv4: {CORE}
  urls: []
  paths: []
  auto_update_enabled: false
disable_check_updates: true
database: {{type: sqlite, sqlite: {{path: {folder}/db.sqlite}}}}
dns: {{magic_dns: false, base_domain: lab.internal, override_local_dns: false, nameservers: {{global: []}}}}
policy: {{mode: file, path: {folder}/policy.hujson}}
logtail: {{enabled: false}}
log: {{level: info}}
"#,
        url = Control::url(),
    )
}
