//! A tunnel device with nobody behind it but this process, which sends packets for any peer.

use std::error::Error;
use std::net::Ipv4Addr;

use tailgauge_testbed::netns::{Namespace, unique_prefix};
use tailgauge_testbed::node::TUNNEL;
use tailgauge_testbed::offload::checksum;
use tailgauge_testbed::offload::vnet::{NEEDS_CSUM, VNET_HEADER_LEN, VnetHeader};
use tailgauge_testbed::tun::{MAX_FRAME, Tun};

/// A namespace with the device, up.
#[derive(Debug)]
pub struct Device {
    // Goes before its namespace.
    tun: Tun,
    own: Ipv4Addr,
    namespace: Namespace,
}

impl Device {
    /// Makes both. The device has the address `own` and the route to all peers.
    pub fn create(role: &str, own: Ipv4Addr) -> Result<Self, Box<dyn Error>> {
        let namespace = Namespace::create(format!("{}-{role}", unique_prefix()))?;
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        let tun = Tun::create(&namespace, TUNNEL)?;
        tun.enable_offloads(TUNNEL)?;
        namespace.ip(&["address", "add", &format!("{own}/32"), "dev", TUNNEL])?;
        namespace.ip(&["link", "set", TUNNEL, "up"])?;
        namespace.ip(&["route", "add", "100.64.0.0/10", "dev", TUNNEL])?;
        Ok(Self { tun, own, namespace })
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Each peer asks for a connection to a closed port and is refused: a packet each way.
    pub fn knock(&self, peers: impl IntoIterator<Item = Ipv4Addr>) -> Result<(), Box<dyn Error>> {
        let mut answer = vec![0; MAX_FRAME];
        for peer in peers {
            let frame = syn(peer, self.own);
            if self.tun.write(&frame)? != frame.len() {
                return Err(format!("{TUNNEL} took part of a packet").into());
            }
            // The queue of the device holds 500 packets.
            while self.tun.read(&mut answer).is_ok() {}
        }
        Ok(())
    }
}

/// A SYN to port 9 whose TCP checksum the kernel is told not to expect.
fn syn(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    const IP: usize = VNET_HEADER_LEN;
    const TCP: usize = IP + 20;
    let vnet = VnetHeader { flags: NEEDS_CSUM, csum_start: 20, csum_offset: 16, ..VnetHeader::default() };
    let mut frame = vec![0; TCP + 20];
    frame[..IP].copy_from_slice(&vnet.to_bytes());
    frame[IP..IP + 12].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame[IP + 12..IP + 16].copy_from_slice(&source.octets());
    frame[IP + 16..TCP].copy_from_slice(&destination.octets());
    let sum = !checksum::sum(&frame[IP..TCP]);
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
    // Ports 49152 and 9, sequence number 1, five words of header, SYN, a window.
    frame[TCP..].copy_from_slice(&[0xc0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0, 0, 0, 0, 0]);
    frame
}
