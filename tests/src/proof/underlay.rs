//! What comes out of the tunnel leaves the machine, and what tailscaled sends and receives is what its link carries.

use std::net::IpAddr;

use crate::agent::Agent;
use crate::exposition::Exposition;
use crate::miniature::{EXIT_SUBNET_V4, MiniatureTailnet, WEB_V4, WEB_V6};
use crate::proof::Outcome;
use crate::proof::device::Device;
use crate::traffic::{Ping, Udp, ping, tcp_transfer, udp_echo};

/// The exit node's device towards its peers, which carries nothing but tailscaled's own packets.
const PEERS: &str = "eth0";
/// Its device towards the internet.
const INTERNET: &str = "eth1";

/// What was counted so far: packets, then bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Totals {
    /// From the tunnel, for anywhere but this host.
    onward: [f64; 2],
    forwarded: [f64; 2],
    /// tailscaled's own in the interface's notion, receive and transmit.
    own: [[f64; 2]; 2],
}

impl Totals {
    fn read(scrape: &Exposition) -> Self {
        let both = |name: &str, units: [&str; 2], labels: &[(&str, &str)]| {
            units.map(|unit| scrape.sum(&format!("tailgauge_{name}_{unit}_total"), labels))
        };
        let wire = ["packets", "bytes"];
        let [exit, subnet] = ["exit", "subnet"].map(|class| both("peer_receive", wire, &[("class", class)]));
        let own = [("device", PEERS), ("kind", "tailscaled")];
        let device = ["skbs", "skb_bytes"];
        Self {
            onward: [exit[0] + subnet[0], exit[1] + subnet[1]],
            forwarded: both("underlay_transmit", wire, &[("device", INTERNET), ("kind", "forwarded")]),
            own: ["underlay_receive", "underlay_transmit"].map(|name| both(name, device, &own)),
        }
    }
}

fn minus(now: [f64; 2], before: [f64; 2]) -> [f64; 2] {
    [now[0] - before[0], now[1] - before[1]]
}

/// Carries TCP, UDP and ICMP both ways over IPv4 and IPv6, and compares.
///
/// # Errors
/// A sender failed or a total is wrong; the message has both.
pub fn what_leaves(tailnet: &MiniatureTailnet, agent: &mut Agent<'_>) -> Outcome {
    let _server = tailnet.serve_web()?;
    agent.wait_scrape("the hooks on both devices", |scrape| {
        [PEERS, INTERNET].iter().all(|device| {
            ["underlay_ingress", "underlay_egress"].iter().all(|hook| {
                scrape.sum("tailgauge_hook_attached", &[("device", device), ("hook", hook)]) == 1.0
            })
        })
    })?;
    let exit = tailnet.exit().namespace();
    let at_rest = || -> Result<(Device, Totals), Box<dyn std::error::Error>> {
        // Nothing is on its way any more.
        Device::at_rest(exit, INTERNET)?;
        // Peers are pinged and sessions kept alive all the time: read until nothing moved meanwhile.
        loop {
            let device = Device::read(exit, PEERS)?;
            let totals = Totals::read(&agent.scrape()?);
            if Device::read(exit, PEERS)? == device {
                return Ok((device, totals));
            }
        }
    };
    let (device, before) = at_rest()?;
    for (node, to) in [
        (tailnet.c1(), IpAddr::from(WEB_V4)),
        (tailnet.c2(), EXIT_SUBNET_V4.into()),
        (tailnet.c1(), WEB_V6.into()),
        (tailnet.six(), WEB_V6.into()),
        (tailnet.six(), WEB_V4.into()),
    ] {
        tcp_transfer(node.namespace(), to, 5_000_000, 5_000_000)?;
        let few = Udp { datagrams: 300, payload: 500, rate: Some(3000) };
        udp_echo(node.namespace(), to, few, std::time::Duration::from_secs(1))?;
        ping(node.namespace(), to, &Ping { count: 3, ..Ping::default() })?;
    }
    let (after_device, after) = at_rest()?;
    let device = after_device.since(device);
    println!("device {device:?}\nagent  {before:?}\n       {after:?}");

    let onward = minus(after.onward, before.onward);
    let forwarded = minus(after.forwarded, before.forwarded);
    if onward != forwarded || onward[1] < 25_000_000.0 {
        return Err(format!("from the tunnel came {onward:?}, to the internet went {forwarded:?}").into());
    }
    let link = [[device.rx_packets, device.rx_bytes], [device.tx_packets, device.tx_bytes]];
    for (direction, link) in link.into_iter().enumerate() {
        let own = minus(after.own[direction], before.own[direction]);
        if own != link.map(|count| count as f64) || own[1] < 25_000_000.0 {
            return Err(format!("direction {direction}: {PEERS} says {link:?}, the agent {own:?}").into());
        }
    }
    Ok(())
}
