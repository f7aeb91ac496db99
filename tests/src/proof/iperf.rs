//! iperf3, the reference for how much a test sent.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::netns::Namespace;
use crate::process::{self, Process, wait_until};
use crate::tailnet::Node;

/// A running server; ended when dropped.
#[derive(Debug)]
pub struct Server {
    address: IpAddr,
    _process: Process,
}

/// What one run moved.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Run {
    /// Bytes of payload that the sender handed to its socket.
    pub sent_bytes: u64,
    /// Bytes of payload that the receiver got.
    pub received_bytes: u64,
    /// Rate at the receiver, bits per second.
    pub bits_per_second: f64,
    /// Datagrams sent; 0 with TCP.
    pub datagrams: u64,
    /// Segments that the sender sent again; 0 with UDP.
    pub retransmits: u64,
}

impl Server {
    /// Serves on `address` in `namespace` until dropped; one test at a time.
    ///
    /// # Errors
    /// iperf3 cannot be started or does not listen in time.
    pub fn start(
        namespace: &Namespace,
        address: IpAddr,
        folder: &Path,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut command = namespace.command("iperf3");
        command.args(["--server", "--forceflush", "--bind", &address.to_string()]);
        let log = folder.join(format!("iperf3-{}.log", address.to_string().replace(':', "-")));
        let process = Process::spawn(&mut command, log)?;
        wait_until("iperf3 to listen", Duration::from_secs(5), || {
            process.log().contains("Server listening")
        })?;
        Ok(Self { address, _process: process })
    }

    /// Starts a client on `node` that goes on until it is dropped, with further `flags` as for [`Self::run`].
    ///
    /// # Errors
    /// iperf3 cannot be started.
    pub fn stream(
        &self,
        node: &Node<'_>,
        flags: &[&str],
        log: PathBuf,
    ) -> Result<Process, process::CommandError> {
        let mut command = node.command("iperf3");
        command.args(["--time", "0", "--client", &self.address.to_string()]).args(flags);
        Process::spawn(&mut command, log)
    }

    /// Runs a client on `node` with further `flags` such as `--reverse` or `--udp`.
    ///
    /// # Errors
    /// iperf3 failed; its own words are part of the error.
    pub fn run(&self, node: &Node<'_>, flags: &[&str]) -> Result<Run, Box<dyn std::error::Error>> {
        let mut command = node.command("iperf3");
        command
            .args(["--json", "--connect-timeout", "5000", "--client", &self.address.to_string()])
            .args(flags);
        let text = process::run(&mut command)?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        // With --json it exits with 0 whatever happened.
        if let Some(said) = json["error"].as_str() {
            return Err(format!("iperf3 to {} with {flags:?}: {said}", self.address).into());
        }
        let end = &json["end"];
        let bytes = |part: &str| end[part]["bytes"].as_u64().unwrap_or_default();
        Ok(Run {
            sent_bytes: bytes("sum_sent"),
            received_bytes: bytes("sum_received"),
            bits_per_second: end["sum_received"]["bits_per_second"].as_f64().unwrap_or_default(),
            datagrams: end["sum_sent"]["packets"].as_u64().unwrap_or_default(),
            retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or_default(),
        })
    }
}
