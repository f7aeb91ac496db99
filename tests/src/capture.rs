//! TCP handshakes as tcpdump sees them on a device: what the agent's legs are held against.

use std::collections::HashMap;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::leftovers;
use crate::netns::Namespace;
use crate::process::{CommandError, Process, Timeout, wait_until};

/// For tcpdump to open the device, and to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// KiB of packets that tcpdump may fall behind by.
const BUFFER: &str = "16384";

/// Why there is no capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Its folder could not be made.
    #[error("cannot create a temporary folder for tcpdump")]
    Folder(#[source] std::io::Error),
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] CommandError),
    /// It does not begin, or does not end.
    #[error("tcpdump: {timeout}; it says:\n{log}")]
    Stuck {
        /// What was waited for.
        #[source]
        timeout: Timeout,
        /// What it printed.
        log: String,
    },
    /// It did not see every packet.
    #[error("tcpdump did not see all: {0}")]
    Incomplete(String),
}

/// A tcpdump of the TCP packets of one port; ended when dropped.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    _folder: TempDir,
}

/// Seconds of Unix time, and the two ends: what passed the device when.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Packet<'a> {
    at: f64,
    from: &'a str,
    to: &'a str,
    flags: &'a str,
}

/// When each packet of a handshake passed the device for the first time, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Handshake {
    /// From SYN to SYN-ACK.
    pub answer: f64,
    /// From SYN-ACK to the first ACK.
    pub confirmation: f64,
}

impl Capture {
    /// Captures from when this returns.
    ///
    /// # Errors
    /// tcpdump is not there or cannot open the device.
    pub fn start(namespace: &Namespace, device: &str, port: u16) -> Result<Self, CaptureError> {
        let folder = leftovers::folder().map_err(CaptureError::Folder)?;
        let mut command = namespace.command("tcpdump");
        command.args(["-i", device, "-B", BUFFER, "-s", "128", "-n", "-l", "-tt", "--immediate-mode"]);
        command.args(["--time-stamp-precision=nano", &format!("tcp port {port}")]);
        let mut tcpdump = Process::spawn(&mut command, folder.path().join("packets"))?;
        let begun = wait_until("tcpdump to listen", PATIENCE, || {
            !tcpdump.is_running() || tcpdump.log().contains("listening on")
        });
        match begun {
            Ok(()) if tcpdump.is_running() => Ok(Self { tcpdump, _folder: folder }),
            Ok(()) => Err(CaptureError::Incomplete(tcpdump.log())),
            Err(timeout) => Err(CaptureError::Stuck { timeout, log: tcpdump.log() }),
        }
    }

    /// Ends it once it has seen so many handshakes, and returns all of which three packets passed.
    ///
    /// # Errors
    /// There are fewer, tcpdump does not end, or the kernel dropped packets before it saw them.
    pub fn handshakes(mut self, count: usize) -> Result<Vec<Handshake>, CaptureError> {
        let seen = || handshakes(&self.tcpdump.log()).len() >= count;
        let ended = wait_until("handshakes", PATIENCE, seen).and_then(|()| {
            self.tcpdump.signal(Signal::INT);
            self.tcpdump.wait(PATIENCE)
        });
        let log = self.tcpdump.log();
        if let Err(timeout) = ended {
            return Err(CaptureError::Stuck { timeout, log });
        }
        if !log.lines().any(|line| line == "0 packets dropped by kernel") {
            return Err(CaptureError::Incomplete(log));
        }
        Ok(handshakes(&log))
    }
}

/// The handshakes among tcpdump's lines.
fn handshakes(log: &str) -> Vec<Handshake> {
    /// Of one connection: SYN, SYN-ACK, ACK.
    type Times = [Option<f64>; 3];
    // By who opened it.
    let mut connections: HashMap<(&str, &str), Times> = HashMap::new();
    for packet in log.lines().filter_map(parse) {
        let (key, step) = match packet.flags {
            "S" => ((packet.from, packet.to), 0),
            "S." => ((packet.to, packet.from), 1),
            _ => ((packet.from, packet.to), 2),
        };
        let is_next = |times: &Times| times[..step].iter().all(Option::is_some);
        let times = connections.entry(key).or_default();
        if is_next(times) {
            times[step].get_or_insert(packet.at);
        }
    }
    let whole = |times: Times| {
        let [syn, syn_ack, ack] = times;
        let (syn, syn_ack, ack) = (syn?, syn_ack?, ack?);
        Some(Handshake { answer: syn_ack - syn, confirmation: ack - syn_ack })
    };
    connections.into_values().filter_map(whole).collect()
}

/// `1764117000.123456789 IP 100.64.0.2.40000 > 203.0.113.2.7010: Flags [S.], seq …`.
fn parse(line: &str) -> Option<Packet<'_>> {
    let (at, rest) = line.split_once(" IP")?;
    let (_, rest) = rest.split_once(' ')?;
    let (ends, rest) = rest.split_once(": Flags [")?;
    let (from, to) = ends.split_once(" > ")?;
    let (flags, _) = rest.split_once(']')?;
    Some(Packet { at: at.parse().ok()?, from, to, flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_packet_counts() {
        let log = "\
listening on tailscale0, link-type RAW (Raw IP), snapshot length 128 bytes
1.000000000 IP 100.64.0.2.40000 > 203.0.113.2.7010: Flags [S], seq 1, win 64240, length 0
1.000500000 IP6 fd7a::2.4 > 2001:db8::2.7010: Flags [S.], seq 1, ack 2, win 64240, length 0
1.250000000 IP 203.0.113.2.7010 > 100.64.0.2.40000: Flags [S.], seq 7, ack 2, win 65160, length 0
1.300000000 IP 203.0.113.2.7010 > 100.64.0.2.40000: Flags [S.], seq 7, ack 2, win 65160, length 0
1.375000000 IP 100.64.0.2.40000 > 203.0.113.2.7010: Flags [.], ack 8, win 502, length 0
1.376000000 IP 100.64.0.2.40000 > 203.0.113.2.7010: Flags [P.], seq 2:7, ack 8, win 502, length 5
2.000000000 IP6 fd7a::2.5 > 2001:db8::2.7010: Flags [S], seq 1, win 64240, length 0
2.500000000 IP6 2001:db8::2.7010 > fd7a::2.5: Flags [R.], seq 0, ack 2, win 0, length 0
7 packets captured";
        assert_eq!(handshakes(log), [Handshake { answer: 0.25, confirmation: 0.125 }]);
    }
}
