//! tailscaled restarts and makes its device anew: counters of the device begin at 0, sums of the agent go on.

use std::net::{Ipv4Addr, UdpSocket};

use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::needs;
use tailgauge_testbed::process::wait_for;
use tailgauge_testbed::proof::device::Device;
use tailgauge_testbed::stage::{Stage, TUNNEL};
use tailgauge_testbed::tun::Tun;

use crate::{PATIENCE, agreed};

const RING: u64 = 100;

/// Sends so many packets that nobody reads.
fn overflow(stage: &Stage, packets: u64) {
    let socket = stage.namespace.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    for _ in 0..packets {
        socket.send_to(&[7; 100], (Ipv4Addr::new(100, 64, 0, 2), 9)).unwrap();
    }
}

fn make_device(stage: &Stage) -> Tun {
    let tun = stage.make_device().unwrap();
    stage.namespace.ip(&["link", "set", TUNNEL, "txqueuelen", &RING.to_string()]).unwrap();
    tun
}

/// Drops of the device, and those that the sampler saw.
fn said(scrape: &Exposition) -> [Option<f64>; 2] {
    [
        scrape.value("tailgauge_host_network_transmit_drops_total", &[("device", TUNNEL)]),
        scrape.value("tailgauge_tunnel_transmit_dropped_sample_packets_sum", &[("device", TUNNEL)]),
    ]
}

#[test]
fn a_device_made_anew_begins_at_zero_and_the_samples_go_on() {
    let test = "a_device_made_anew_begins_at_zero_and_the_samples_go_on";
    let Ok(()) = needs::root_and(test, &["ip"]) else { return };
    let stage = Stage::without_device().unwrap();
    let tun = make_device(&stage);
    let agent = stage.agent(&[]).unwrap();
    let kernel = || Device::read(&stage.namespace, TUNNEL).unwrap().tx_dropped;
    let wait = |what: &str, dropped: u64, sampled: u64| {
        agreed(&agent, what, kernel, |scrape, kernel| {
            *kernel == dropped && said(scrape) == [Some(dropped as f64), Some(sampled as f64)]
        })
    };
    wait("a device at rest", 0, 0);
    overflow(&stage, RING + 70);
    wait("the overflow", 70, 70);

    drop(tun);
    agreed(&agent, "a host without the device", || (), |scrape, ()| said(scrape) == [None, Some(70.0)]);
    let _tun = make_device(&stage);
    // Neither minus 70 nor 70 again; and one series, which a restart of a counter does not interrupt.
    wait("the new device", 0, 70);
    let before = agent.scrape().unwrap();
    wait_for("samples of the new device", PATIENCE, || {
        let name = "tailgauge_tunnel_transmit_dropped_sample_packets_count";
        (agent.scrape().ok()?.sum(name, &[]) >= before.sum(name, &[]) + 2.0).then_some(())
    })
    .unwrap();
    overflow(&stage, RING + 30);
    wait("the overflow of the new device", 30, 100);
}
