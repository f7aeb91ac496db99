//! What the ring of the tunnel drops is said with its reason.

use std::time::Duration;

use crate::agent::Agent;
use crate::exposition::Exposition;
use crate::miniature::{MiniatureTailnet, WEB_V4};
use crate::proof::Outcome;
use crate::proof::device::Device;
use crate::proof::totals::TUNNEL;
use crate::traffic::{Udp, tcp_transfer, udp_flood_from};

fn ring(scrape: &Exposition) -> f64 {
    scrape.sum("tailgauge_drops_total", &[("device", TUNNEL), ("reason", "FULL_RING")])
}

fn in_windows(scrape: &Exposition) -> f64 {
    scrape.sum("tailgauge_drop_window_packets_sum", &[("reason", "FULL_RING")])
}

/// Carries healthy traffic, which drops nothing, and then more small packets than tailscaled can read.
///
/// # Errors
/// A sender failed, or the agent's drops are not the device's.
pub fn full_ring(tailnet: &MiniatureTailnet, agent: &mut Agent<'_>) -> Outcome {
    let _server = tailnet.serve_web()?;
    let exit = tailnet.exit().namespace();
    let before = agent.scrape()?;
    tcp_transfer(tailnet.c1().namespace(), WEB_V4.into(), 5_000_000, 5_000_000)?;
    let device = Device::at_rest(exit, TUNNEL)?;
    let healthy = agent.scrape()?;
    let sockets = |scrape: &Exposition| scrape.sum("tailgauge_drops_total", &[("reason", "SOCKET_RCVBUFF")]);
    if ring(&healthy) != device.tx_dropped as f64 || sockets(&healthy) != sockets(&before) {
        return Err(format!("healthy traffic: {device:?}, the agent says {}", ring(&healthy)).into());
    }
    let small = Udp { datagrams: 200_000, payload: 60, rate: None };
    udp_flood_from(tailnet.c2().namespace(), WEB_V4.into(), small, Duration::from_secs(1))?;
    let device = Device::at_rest(exit, TUNNEL)?;
    let dropped = device.tx_dropped as f64;
    if dropped == 0.0 {
        return Err("the ring had room for everything".into());
    }
    let told = agent.wait_scrape("all windows to be closed", |scrape| in_windows(scrape) == ring(scrape))?;
    if ring(&told) != dropped {
        return Err(format!("the device dropped {dropped}, the agent says {}", ring(&told)).into());
    }
    Ok(())
}
