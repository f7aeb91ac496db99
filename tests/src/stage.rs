//! The smallest place where the agent works: one namespace, a TUN that the test holds, a scripted LocalAPI.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::agent::{Agent, AgentError};
use crate::leftovers;
use crate::netns::{Namespace, NamespaceError, unique_prefix};
use crate::offload::checksum;
use crate::offload::vnet::VNET_HEADER_LEN;
use crate::scripted::{Script, Scripted, peer, status};
use crate::tun::{MAX_FRAME, Tun, TunError};

/// The tunnel device.
pub const TUNNEL: &str = "tailscale0";
/// This host on the tunnel.
pub const HOST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
/// An address that nobody has: packets to it are counted, dropped and never answered.
pub const NOWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);

/// Why a stage could not be set.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Its namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// Its device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// Its LocalAPI, or the folder for that.
    #[error("cannot serve a LocalAPI")]
    LocalApi(#[source] io::Error),
}

/// A namespace with `tailscale0` up, and somebody who answers as tailscaled; dropped, all of it goes.
#[derive(Debug)]
pub struct Stage {
    /// What the test writes arrives from peers; `None` once the test took it away.
    pub tun: Option<Tun>,
    /// What tailscaled says: at first that peer 100.64.0.2, `n2`, is there.
    pub api: Scripted,
    /// Where the agent runs.
    pub namespace: Namespace,
    folder: TempDir,
}

impl Stage {
    /// Sets everything up but the agent.
    ///
    /// # Errors
    /// Something could not be made.
    pub fn set() -> Result<Self, StageError> {
        let stage = Self::without_device()?;
        let tun = stage.make_device()?;
        Ok(Self { tun: Some(tun), ..stage })
    }

    /// As [`Self::set`], while there is no device yet.
    ///
    /// # Errors
    /// Something could not be made.
    pub fn without_device() -> Result<Self, StageError> {
        let namespace = Namespace::create(format!("{}-stage", unique_prefix()))?;
        // The kernel's own multicast would come between the packets that are counted.
        namespace.sysctl("net.ipv6.conf.default.router_solicitations", "0")?;
        namespace.sysctl("net.ipv6.conf.default.addr_gen_mode", "1")?;
        let folder = leftovers::folder().map_err(StageError::LocalApi)?;
        let api = Scripted::start(&folder.path().join("tailscaled.sock"), Script::Status(status(&[peer(2)])))
            .map_err(StageError::LocalApi)?;
        Ok(Self { tun: None, api, namespace, folder })
    }

    /// A device with an address, up.
    ///
    /// # Errors
    /// The kernel refuses, for example because there is one.
    pub fn make_device(&self) -> Result<Tun, StageError> {
        let tun = Tun::create(&self.namespace, TUNNEL)?;
        self.namespace.ip(&["addr", "add", &format!("{HOST}/24"), "dev", TUNNEL])?;
        self.namespace.ip(&["link", "set", TUNNEL, "up"])?;
        Ok(tun)
    }

    /// Where the LocalAPI is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("tailscaled.sock")
    }

    /// A folder that goes with the stage.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the agent and waits until it is ready.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn agent(&self, flags: &[&str]) -> Result<Agent<'_>, AgentError> {
        let mut agent = Agent::start(&self.namespace, &self.socket(), flags)?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Writes a frame, vnet header first; whether the kernel took it.
    pub fn receive(&self, frame: &[u8]) -> bool {
        self.tun.as_ref().is_some_and(|tun| tun.write(frame).is_ok())
    }

    /// Reads what was sent to peers, as tailscaled does: the device counts a packet when it is read.
    pub fn drain(&self) {
        let mut buffer = vec![0; MAX_FRAME];
        while self.tun.as_ref().is_some_and(|tun| tun.read(&mut buffer).is_ok()) {}
    }
}

/// A UDP packet behind an empty vnet header, as tailscaled writes it.
#[must_use]
pub fn udp_frame(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, payload: usize) -> Vec<u8> {
    let mut frame = vec![0; VNET_HEADER_LEN];
    frame.extend_from_slice(&udp_packet(source.into(), destination.into(), payload));
    frame
}

/// A UDP packet; one of IPv4 when both addresses are.
#[must_use]
pub fn udp_packet(source: IpAddr, destination: IpAddr, payload: usize) -> Vec<u8> {
    let length = (8 + payload) as u16;
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
            header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            let sum = !checksum::sum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        _ => {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
            header[4..6].copy_from_slice(&length.to_be_bytes());
            for address in [source, destination] {
                let octets = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                header.extend_from_slice(&octets);
            }
            header
        }
    };
    packet.extend_from_slice(&[0x30, 0x39, 0x30, 0x39]);
    packet.extend_from_slice(&length.to_be_bytes());
    packet.resize(packet.len() + 2 + payload, 0);
    packet
}
