//! The interface: absent, of the wrong kind, replaced.

use std::time::Duration;

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::needs;
use tailgauge_testbed::process::wait_for;
use tailgauge_testbed::stage::{NOWHERE, Stage, TUNNEL, udp_frame};

use crate::{Before, path, refused, sentence};

/// What /readyz says, once it says `wanted`.
fn wait_readyz(agent: &Agent<'_>, status: u16, wanted: &str) -> String {
    let mut last = String::new();
    wait_for(wanted, Duration::from_secs(10), || {
        let answer = agent.get("/readyz").ok()?;
        last = answer.text();
        (answer.status == status && last.contains(wanted)).then_some(())
    })
    .unwrap_or_else(|timeout| panic!("{timeout}; /readyz says {last:?}; the log:\n{}", agent.log()));
    last
}

#[test]
fn a_missing_interface_is_awaited_and_counted_from_its_first_packet() {
    let name = "a_missing_interface_is_awaited_and_counted_from_its_first_packet";
    let Ok(()) = needs::root_and(name, &["ip"]) else { return };
    let mut stage = Stage::without_device().unwrap();
    let socket = stage.socket();
    let tun = {
        let agent = Agent::start(&stage.namespace, &socket, &[]).unwrap();
        let said = wait_readyz(&agent, 503, "there is no interface tailscale0 yet");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(agent.scrape().unwrap().sum("tailgauge_hook_attached", &[("device", TUNNEL)]), 0.0);

        // A device of the name that carries frames is refused in words, and not for ever.
        stage.namespace.ip(&["tuntap", "add", TUNNEL, "mode", "tap"]).unwrap();
        let said = wait_readyz(&agent, 503, "not a layer-3 tunnel");
        assert_eq!(said.lines().count(), 1, "{said}");
        stage.namespace.ip(&["link", "del", TUNNEL]).unwrap();
        wait_readyz(&agent, 503, "there is no interface tailscale0 yet");

        let tun = stage.make_device().unwrap();
        wait_readyz(&agent, 200, "ready");
        assert_eq!(agent.scrape().unwrap().sum("tailgauge_hook_attached", &[("device", TUNNEL)]), 2.0);
        tun
    };
    stage.tun = Some(tun);
    let agent = stage.agent(&[]).unwrap();
    let before = Before::read(&stage, &agent);
    for _ in 0..100 {
        assert!(stage.receive(&udp_frame([100, 64, 0, 2], NOWHERE, 100)));
    }
    assert_eq!(before.assert_exact(&stage, &agent).rx_packets, 100);
}

#[test]
fn an_interface_that_carries_frames_is_refused_at_the_start() {
    let name = "an_interface_that_carries_frames_is_refused_at_the_start";
    let Ok(()) = needs::root_and(name, &["ip"]) else { return };
    let stage = Stage::without_device().unwrap();
    let socket = stage.socket();
    let tap = ["tuntap", "add", TUNNEL, "mode", "tap"];
    let veth = ["link", "add", TUNNEL, "type", "veth", "peer", "name", "other"];
    for kind in [&tap[..], &veth] {
        stage.namespace.ip(kind).unwrap();
        let (code, printed) = refused(&stage, &["--tailscale.socket", path(&socket)]);
        assert_eq!(code, 1, "{kind:?}: {printed}");
        let said = sentence(&printed);
        for part in ["interface tailscale0", "not a layer-3 tunnel", "--interface", "Ether"] {
            assert!(said.contains(part), "{kind:?} without {part:?}: {said}");
        }
        stage.namespace.ip(&["link", "del", TUNNEL]).unwrap();
    }
    let (code, printed) = refused(&stage, &["--interface", "lo", "--tailscale.socket", path(&socket)]);
    assert_eq!((code, sentence(&printed).contains("Loopback")), (1, true), "{printed}");
}
