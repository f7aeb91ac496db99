//! The agent beside a real exit node: real tailscaled, real headscale, three kinds of paths.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::needs;
use tailgauge_testbed::process::wait_until;
use tailgauge_testbed::proof::device::Device;
use tailgauge_testbed::proof::iperf::Server;
use tailgauge_testbed::proof::totals::{Counted, TUNNEL, compare};
use tailgauge_testbed::proof::{Outcome, scraped, totals};
use tailgauge_testbed::real::{Path, Programs, RealTailnet, Role};
use tailgauge_testbed::tailnet::Tailnet;

/// How the agent calls a path on this tailnet, whose underlay is IPv4.
fn label(path: Path) -> &'static str {
    match path {
        Path::Direct => "direct_ipv4",
        Path::Derp => "derp",
        Path::PeerRelay => "peer_relay_ipv4",
    }
}

/// Both directions of a peer's bytes, received first.
fn peer_bytes(scrape: &Exposition, peer: &str, class: &str) -> [f64; 2] {
    ["receive", "transmit"].map(|direction| {
        let metric = format!("tailgauge_peer_{direction}_bytes_total");
        scrape.sum(&metric, &[("peer_id", peer), ("class", class)])
    })
}

/// The coverage ratio is exactly 1 each way.
fn covered(scrape: &Exposition) -> Outcome {
    for direction in ["receive", "transmit"] {
        let ratio = scrape.value("tailgauge_tunnel_coverage_ratio", &[("direction", direction)]);
        if ratio != Some(1.0) {
            return Err(format!("coverage of {direction}: {ratio:?}").into());
        }
    }
    Ok(())
}

/// iperf3 each way through the exit node over `path`; the agent must have seen every byte, and attribute it to c1.
fn totals_on(tailnet: &RealTailnet, agent: &mut Agent<'_>, path: Path) -> Outcome {
    let peer = tailnet.status(Role::Exit)?.peer("c1").ok_or("exit does not know c1")?.id.clone();
    tailnet.path(path)?;
    let knock = tailnet.knocker(Role::Client1)?;
    agent.wait_scrape(&format!("the path {path}"), |scrape| {
        let _ = knock.send(b"knock");
        let value = |path| scrape.value("tailgauge_peer_path", &[("peer_id", peer.as_str()), ("path", path)]);
        value(label(path)) == Some(1.0)
            && scrape.sum("tailgauge_peer_path", &[("peer_id", peer.as_str())]) == 1.0
    })?;

    let exit = tailnet.exit_node();
    let client = tailnet.node(Role::Client1);
    let folder = tempfile::tempdir()?;
    let device = Device::at_rest(exit.namespace, TUNNEL)?;
    let before = agent.scrape()?;
    let server = Server::start(tailnet.server(), tailnet.server_addresses().internet_v4, folder.path())?;
    // DERP drops what its queue of 32 packets cannot hold, so it is not pushed.
    let size = if path == Path::Derp { "10M" } else { "200M" };
    let up = server.run(&client, &["--bytes", size])?;
    let down = server.run(&client, &["--bytes", size, "--reverse"])?;
    let device = Device::at_rest(exit.namespace, TUNNEL)?.since(device);
    let after = agent.scrape()?;

    let (now, then) = (peer_bytes(&after, &peer, "exit"), peer_bytes(&before, &peer, "exit"));
    let counted = [now[0] - then[0], now[1] - then[1]];
    println!(
        "{path}: iperf3 moved {} up and {} down at {:.0} and {:.0} Mbit/s with {} and {} retransmits; \
         the agent counted {counted:?} for c1",
        up.received_bytes,
        down.received_bytes,
        up.bits_per_second / 1e6,
        down.bits_per_second / 1e6,
        up.retransmits,
        down.retransmits,
    );
    compare(device, Counted::read(&after).since(Counted::read(&before)))?;
    covered(&after)?;
    for (counted, moved) in counted.into_iter().zip([up, down]) {
        // Data in packets of 1228 and 52 bytes of headers, sent again where it was lost, and the other direction's
        // acknowledgements.
        let with_headers = |payload: u64| payload as f64 * 1280.0 / 1228.0;
        let least = with_headers(moved.received_bytes);
        let most = with_headers(moved.sent_bytes + 1228 * moved.retransmits) * 1.1;
        if !(least..most).contains(&counted) {
            return Err(format!("{path}: the agent counted {counted}, not {least} to {most}").into());
        }
    }
    Ok(())
}

/// Traffic to the node itself, to its subnet and to the internet is told apart, over IPv4 and IPv6.
fn classes(tailnet: &RealTailnet, agent: &Agent<'_>) -> Outcome {
    let exit = tailnet.exit_node();
    let client = tailnet.node(Role::Client2);
    let peer = tailnet.status(Role::Exit)?.peer("c2").ok_or("exit does not know c2")?.id.clone();
    let own = exit.addresses.first().copied().ok_or("exit has no address")?;
    let folder = tempfile::tempdir()?;
    let addresses = tailnet.server_addresses();
    let cases = [
        (tailnet.server(), addresses.internet_v4, "exit"),
        (tailnet.server(), addresses.internet_v6, "exit"),
        (tailnet.server(), addresses.subnet_v4, "subnet"),
        (exit.namespace, own, "local"),
    ];
    for (namespace, address, class) in cases {
        let server = Server::start(namespace, address, folder.path())?;
        let before = agent.scrape()?;
        let moved = server.run(&client, &["--bytes", "5M"])?.received_bytes as f64;
        let after = agent.scrape()?;
        for other in ["local", "subnet", "exit"] {
            let counted = peer_bytes(&after, &peer, other)[0] - peer_bytes(&before, &peer, other)[0];
            // iperf3's server stops counting when the client says that it is done, which may be before the last byte.
            let right = if other == class { counted > 0.0 && counted >= moved } else { counted == 0.0 };
            if !right {
                return Err(format!("{moved} bytes to {address}: {counted} counted as {other}").into());
            }
        }
    }
    Ok(())
}

/// A new name in the tailnet appears under the same id, whose counters go on.
fn rename(tailnet: &RealTailnet, agent: &mut Agent<'_>) -> Outcome {
    let peer = tailnet.status(Role::Exit)?.peer("c2").ok_or("exit does not know c2")?.id.clone();
    let before = peer_bytes(&agent.scrape()?, &peer, "exit")[0];
    let labels = [("peer_id", peer.as_str())];
    tailnet.rename(Role::Client2, "renamed")?;
    let scrape = agent.wait_scrape("the new name", |scrape| {
        let names: Vec<_> = scrape
            .matching("tailgauge_peer_info", &labels)
            .filter_map(|sample| sample.label("peer_name"))
            .collect();
        matches!(names.as_slice(), [name] if name.starts_with("renamed"))
    })?;
    let after = peer_bytes(&scrape, &peer, "exit")[0];
    if before == 0.0 || after < before {
        return Err(format!("c2 had {before} bytes before it was renamed and {after} after").into());
    }
    Ok(())
}

#[test]
fn agent_beside_a_real_exit_node() {
    let Ok(programs) = Programs::or_skip("agent_beside_a_real_exit_node") else { return };
    let tailnet = RealTailnet::up(&programs).unwrap();
    let exit = tailnet.exit_node();
    let mut agent = Agent::start(exit.namespace, exit.socket, &[]).unwrap();
    agent.wait_ready().unwrap();
    classes(&tailnet, &agent).unwrap();
    rename(&tailnet, &mut agent).unwrap();
    for path in Path::ALL {
        totals_on(&tailnet, &mut agent, path).unwrap();
    }
}

#[test]
fn totals_equal_the_real_interface_after_mixed_traffic() {
    let test = "totals_equal_the_real_interface_after_mixed_traffic";
    let Ok(programs) = Programs::or_skip(test) else { return };
    let Ok(()) = needs::root_and(test, &["ping", "ethtool"]) else { return };
    let tailnet = RealTailnet::up(&programs).unwrap();
    tailnet.path(Path::Direct).unwrap();
    let exit = tailnet.exit_node();
    let mut agent = Agent::start(exit.namespace, exit.socket, &[]).unwrap();
    agent.wait_ready().unwrap();
    totals::mixed_traffic(&tailnet, &agent, 0.5).unwrap();
    totals::wire_equals_sender(&tailnet, &agent).unwrap();
}

#[test]
fn prometheus_beside_a_real_exit_node() {
    let test = "prometheus_beside_a_real_exit_node";
    let Ok(programs) = Programs::or_skip(test) else { return };
    let Ok(()) = needs::root_and(test, &["prometheus", "promtool"]) else { return };
    let tailnet = RealTailnet::up(&programs).unwrap();
    tailnet.path(Path::Direct).unwrap();
    let exit = tailnet.exit_node();
    let mut agent = Agent::start(exit.namespace, exit.socket, &[]).unwrap();
    agent.wait_ready().unwrap();
    scraped::by_prometheus(&tailnet, &agent, 5).unwrap();
}

/// Ends the exit node's tailscaled by `signal` and starts it again, while c1 keeps sending.
fn restart(tailnet: &RealTailnet, agent: &mut Agent<'_>, signal: Signal) -> Outcome {
    let namespace = tailnet.exit_node().namespace;
    let reattached = |scrape: &Exposition| scrape.sum("tailgauge_hook_reattachments_total", &[]);
    let attached = |scrape: &Exposition| scrape.sum("tailgauge_hook_attached", &[("device", TUNNEL)]);

    tailnet.end_tailscaled(Role::Exit, signal)?;
    wait_until("the device to go", Duration::from_secs(5), || Device::read(namespace, TUNNEL).is_err())?;
    let before = agent.wait_scrape("detached hooks", |scrape| attached(scrape) == 0.0)?;
    // The device is gone: nothing can be counted until the next one.
    let counted_before = Counted::read(&before);
    let end = AtomicBool::new(false);
    let knock = tailnet.knocker(Role::Client1)?;
    std::thread::scope(|scope| -> Outcome {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                let _ = knock.send(b"knock");
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let mut start = || -> Outcome {
            tailnet.start_tailscaled(Role::Exit)?;
            agent.wait_scrape("attached hooks and traffic", |scrape| {
                let counted = Counted::read(scrape).since(counted_before);
                attached(scrape) == 2.0
                    && reattached(scrape) > reattached(&before)
                    && counted.packets[0] > 100.0
                    // The refusals of the exit node, which are rate-limited.
                    && counted.packets[1] > 0.0
            })?;
            Ok(())
        };
        let outcome = start();
        end.store(true, Ordering::Relaxed);
        outcome
    })?;
    let device = Device::at_rest(namespace, TUNNEL)?;
    let after = agent.scrape()?;
    println!("restart by {signal:?}, the new device {device:?}");
    // All of the new device's life, its first packet included.
    compare(device, Counted::read(&after).since(counted_before))?;
    covered(&after)
}

#[test]
fn no_byte_is_missed_when_tailscaled_restarts() {
    let Ok(programs) = Programs::or_skip("no_byte_is_missed_when_tailscaled_restarts") else { return };
    let tailnet = RealTailnet::up(&programs).unwrap();
    let exit = tailnet.exit_node();
    let mut agent = Agent::start(exit.namespace, exit.socket, &[]).unwrap();
    agent.wait_ready().unwrap();
    for signal in [Signal::KILL, Signal::TERM] {
        restart(&tailnet, &mut agent, signal).unwrap();
    }
    assert!(agent.is_running(), "one agent for both restarts");
}
