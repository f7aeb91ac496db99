//! Σ over all slots equals what the interface counts; wire packets equal what the senders count.

use std::net::IpAddr;

use crate::agent::Agent;
use crate::exposition::Exposition;
use crate::process;
use crate::proof::Outcome;
use crate::proof::device::Device;
use crate::proof::iperf::Server;
use crate::tailnet::{Node, Tailnet};

/// The tunnel device, the same on every node.
pub const TUNNEL: &str = "tailscale0";

/// What the agent counted on the tunnel, both notions of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// Skbs received and sent.
    pub skbs: [f64; 2],
    /// Their bytes.
    pub skb_bytes: [f64; 2],
    /// Wire packets.
    pub packets: [f64; 2],
    /// Their bytes.
    pub bytes: [f64; 2],
}

impl Counted {
    /// Reads the tunnel's families.
    #[must_use]
    pub fn read(scrape: &Exposition) -> Self {
        let both = |what: &str| {
            ["receive", "transmit"]
                .map(|direction| scrape.sum(&format!("tailgauge_tunnel_{direction}_{what}_total"), &[]))
        };
        Self {
            skbs: both("skbs"),
            skb_bytes: both("skb_bytes"),
            packets: both("packets"),
            bytes: both("bytes"),
        }
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        let minus = |now: [f64; 2], then: [f64; 2]| [now[0] - then[0], now[1] - then[1]];
        Self {
            skbs: minus(self.skbs, earlier.skbs),
            skb_bytes: minus(self.skb_bytes, earlier.skb_bytes),
            packets: minus(self.packets, earlier.packets),
            bytes: minus(self.bytes, earlier.bytes),
        }
    }
}

/// Fails unless the agent's device notion is the interface's, to the packet and to the byte.
///
/// # Errors
/// The two differ; the message has both.
pub fn compare(device: Device, counted: Counted) -> Outcome {
    let same = |what: &str, device: u64, counted: f64| {
        if device as f64 == counted {
            Ok(())
        } else {
            Err(format!("{what}: the device says {device}, the agent {counted}"))
        }
    };
    same("received packets", device.rx_packets, counted.skbs[0])?;
    same("received bytes", device.rx_bytes, counted.skb_bytes[0])?;
    same("sent and dropped packets", device.tx_packets + device.tx_dropped, counted.skbs[1])?;
    if device.tx_dropped == 0 {
        same("sent bytes", device.tx_bytes, counted.skb_bytes[1])?;
    }
    Ok(())
}

/// Sends about `gigabytes` of TCP each way, UDP, ICMP, IPv6 and small packets until the ring overflows, and holds
/// the agent's totals against the device's.
///
/// # Errors
/// A sender failed or a total is wrong.
pub fn mixed_traffic(tailnet: &impl Tailnet, agent: &Agent<'_>, gigabytes: f64) -> Outcome {
    let folder = tempfile::tempdir()?;
    let exit = tailnet.exit_node();
    let clients = tailnet.clients();
    let client = clients.first().ok_or("the tailnet has no client")?;
    let addresses = tailnet.server_addresses();
    let before = Device::at_rest(exit.namespace, TUNNEL)?;
    let counted_before = Counted::read(&agent.scrape()?);

    let server = Server::start(tailnet.server(), addresses.internet_v4, folder.path())?;
    let half = format!("{}M", (gigabytes * 500.0) as u64);
    server.run(client, &["--bytes", &half])?;
    server.run(client, &["--bytes", &half, "--reverse"])?;
    server.run(client, &["--udp", "--bitrate", "200M", "--length", "1200", "--time", "2"])?;
    // Small packets towards the peer are what the ring of the TUN device has no room for.
    server.run(client, &["--udp", "--bitrate", "2G", "--length", "100", "--time", "2", "--reverse"])?;
    let subnet = Server::start(tailnet.server(), addresses.subnet_v4, folder.path())?;
    subnet.run(client, &["--bytes", "20M"])?;
    ping(client, addresses.internet_v4)?;
    if reaches(client, addresses.internet_v6) {
        let server = Server::start(tailnet.server(), addresses.internet_v6, folder.path())?;
        server.run(client, &["--bytes", "50M"])?;
        server.run(client, &["--bytes", "50M", "--reverse"])?;
    }

    let device = Device::at_rest(exit.namespace, TUNNEL)?.since(before);
    let counted = Counted::read(&agent.scrape()?).since(counted_before);
    println!("device {device:?}\nagent  {counted:?}");
    compare(device, counted)
}

/// Turns offloads of the client's tunnel off, so that its device counts packets one by one, and holds the exit
/// node's wire packets and bytes against that.
///
/// # Errors
/// A sender failed or a total is wrong.
pub fn wire_equals_sender(tailnet: &impl Tailnet, agent: &Agent<'_>) -> Outcome {
    let folder = tempfile::tempdir()?;
    let clients = tailnet.clients();
    let client = clients.first().ok_or("the tailnet has no client")?;
    let addresses = tailnet.server_addresses();
    process::run(client.command("ethtool").args([
        "-K",
        TUNNEL,
        "tso",
        "off",
        "gso",
        "off",
        "tx-udp-segmentation",
        "off",
    ]))?;
    // The kernel asks for IPv6 routers, which WireGuard has no peer for.
    client.namespace.sysctl("net.ipv6.conf.tailscale0.router_solicitations", "0")?;
    let ip = client.addresses.first().ok_or("the client has no address")?.to_string();
    let id = |scrape: &Exposition| {
        let info = scrape.matching("tailgauge_peer_info", &[]).find(|sample| sample.label("ip") == Some(&ip));
        info.and_then(|sample| sample.label("peer_id").map(str::to_owned))
    };
    let peer = id(&agent.scrape()?).ok_or("the agent does not know the client")?;
    let received = |scrape: &Exposition| {
        ["packets", "bytes"].map(|what| {
            scrape.sum(&format!("tailgauge_peer_receive_{what}_total"), &[("peer_id", peer.as_str())])
        })
    };
    let server = Server::start(tailnet.server(), addresses.internet_v4, folder.path())?;
    let before = Device::at_rest(client.namespace, TUNNEL)?;
    let counted_before = received(&agent.scrape()?);
    server.run(client, &["--bytes", "100M", "--bitrate", "200M"])?;
    server.run(client, &["--udp", "--bitrate", "20M", "--length", "1200", "--time", "2"])?;
    let sent = Device::at_rest(client.namespace, TUNNEL)?.since(before);
    let counted = received(&agent.scrape()?);
    let counted = [counted[0] - counted_before[0], counted[1] - counted_before[1]];
    println!("client {sent:?}\nagent  {counted:?}");
    // What the client's own ring dropped was never sent and is not in tx_packets either.
    if [sent.tx_packets as f64, sent.tx_bytes as f64] != counted {
        return Err(format!(
            "the client sent {} packets of {} bytes, the agent counted {counted:?}",
            sent.tx_packets, sent.tx_bytes
        )
        .into());
    }
    Ok(())
}

fn ping(node: &Node<'_>, to: IpAddr) -> Outcome {
    process::run(node.command("ping").args(["-c", "20", "-i", "0.02", "-W", "2", &to.to_string()]))?;
    Ok(())
}

fn reaches(node: &Node<'_>, to: IpAddr) -> bool {
    process::run(node.command("ping").args(["-c", "1", "-W", "2", &to.to_string()])).is_ok()
}
