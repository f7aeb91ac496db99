//! The ring between the tunnel device and tailscaled is full.

use std::net::{Ipv4Addr, UdpSocket};

use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::proof::device::Device;
use tailgauge_testbed::stage::TUNNEL;

use crate::{agreed, kernel, stage, value};

/// More than the ring has room for.
const PACKETS: usize = 900;
const RING: &str = "500";
const PEER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);

fn dropped(scrape: &Exposition) -> f64 {
    value(scrape, "tailgauge_host_network_transmit_drops_total", &[("device", TUNNEL)])
}

#[test]
fn tun_ring_overflow_is_the_device_s_drops_and_no_queueing_discipline_s() {
    let test = "tun_ring_overflow_is_the_device_s_drops_and_no_queueing_discipline_s";
    let Some(stage) = stage(test, &["ip", "tc"]) else { return };
    stage.namespace.ip(&["link", "set", TUNNEL, "txqueuelen", RING]).unwrap();
    let agent = stage.agent(&[]).unwrap();
    let socket = stage.namespace.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let send = || assert_eq!(socket.send_to(&[7; 100], (PEER, 9)).unwrap(), 100);
    let read = || Device::read(&stage.namespace, TUNNEL).unwrap();
    let right = |scrape: &Exposition, device: &Device| dropped(scrape) == device.tx_dropped as f64;

    let (_, before) = agreed(&agent, "the device at rest", read, right);
    for _ in 0..PACKETS {
        send();
        stage.drain();
    }
    let (healthy_scrape, healthy) = agreed(&agent, "healthy traffic", read, right);
    assert_eq!(healthy.since(before).tx_packets, PACKETS as u64);
    assert_eq!(healthy.tx_dropped, before.tx_dropped, "still when healthy");

    // Nobody reads.
    for _ in 0..PACKETS {
        send();
    }
    let (after_scrape, after) = agreed(&agent, "the overflow", read, |scrape, device| {
        right(scrape, device) && device.tx_dropped > healthy.tx_dropped
    });
    let ring: u64 = RING.parse().unwrap();
    assert_eq!(after.since(healthy).tx_dropped, PACKETS as u64 - ring, "what the ring has no room for");
    assert_eq!(dropped(&after_scrape) - dropped(&healthy_scrape), (PACKETS as u64 - ring) as f64);
    let length = value(&after_scrape, "tailgauge_host_network_transmit_queue_packets", &[("device", TUNNEL)]);
    assert_eq!(length, ring as f64);

    let qdisc = kernel::qdisc(&stage.namespace, TUNNEL);
    assert_eq!(qdisc["drops"], 0, "{qdisc}");
    assert_eq!(after_scrape.sum("tailgauge_host_qdisc_drops_total", &[("device", TUNNEL)]), 0.0);
    // Dropped or not, the programs counted each of them.
    assert_eq!(value(&after_scrape, "tailgauge_tunnel_transmit_skbs_total", &[]), 2.0 * PACKETS as f64);
}
