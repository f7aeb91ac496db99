//! The agent on the miniature tailnet: what it says of the exit node's own TCP sockets, and of what tailscaled measures.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::client::localapi;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::link::Conditions;
use tailgauge_testbed::miniature::{MiniatureTailnet, Options};
use tailgauge_testbed::needs;
use tailgauge_testbed::netns::Namespace;
use tailgauge_testbed::proof::Outcome;

/// There and back.
const ROUND_TRIP: f64 = 0.040;

/// A connection from `client` to a program of `server`: the server's end and the client's.
fn connect(server: &Namespace, address: SocketAddr, client: &Namespace) -> (TcpStream, TcpStream) {
    let listener = server.run(|| TcpListener::bind(address)).unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    let near = client.run(|| TcpStream::connect(address)).unwrap().unwrap();
    (listener.accept().unwrap().0, near)
}

fn value(scrape: &Exposition, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    scrape.matching(name, labels).next().map(|sample| sample.value)
}

#[test]
fn own_connections_with_a_peer_are_measured_and_loss_shows() -> Outcome {
    const TEST: &str = "own_connections_with_a_peer_are_measured_and_loss_shows";
    let Ok(()) = needs::root_and(TEST, &["ip", "nft"]) else { return Ok(()) };
    let tailnet = MiniatureTailnet::up(Options::default())?;
    let (exit, c1) = (tailnet.exit(), tailnet.c1());
    let delayed = Conditions::delayed(Duration::from_millis(20));
    tailnet.peer_link(c1).set_both(delayed);
    let mut agent = Agent::start(exit.namespace(), exit.socket(), &[])?;
    agent.wait_ready()?;

    let id = c1.id().to_string();
    let peer = [("peer_id", id.as_str())];
    const CONNECTIONS: &str = "tailgauge_peer_local_tcp_connections";
    assert_eq!(value(&agent.scrape()?, CONNECTIONS, &peer), None, "none yet");

    let address = SocketAddr::new(exit.addresses()[0], 0);
    let (mut sender, mut receiver) = connect(exit.namespace(), address, c1.namespace());
    let drain = thread::spawn(move || io::copy(&mut receiver, &mut io::sink()));
    let scrape = agent
        .wait_scrape("a connection with the peer", |scrape| value(scrape, CONNECTIONS, &peer) == Some(1.0))?;
    assert_eq!(scrape.matching(CONNECTIONS, &[]).count(), 1, "and with nobody else");
    let rtt = value(&scrape, "tailgauge_peer_local_tcp_rtt_seconds", &peer).unwrap();
    assert!((ROUND_TRIP..1.0).contains(&rtt), "{rtt}");
    let retransmitted = "tailgauge_peer_local_tcp_retransmitted_segments";
    assert_eq!(value(&scrape, retransmitted, &peer), Some(0.0));

    tailnet.peer_link(c1).set_both(Conditions { loss: 0.1, ..delayed });
    sender.write_all(&vec![7; 1 << 20])?;
    agent.wait_scrape("segments sent again", |scrape| value(scrape, retransmitted, &peer) > Some(0.0))?;
    tailnet.peer_link(c1).set_both(delayed);
    drop(sender);
    drain.join().unwrap()?;
    agent.wait_scrape("no connection any more", |scrape| value(scrape, CONNECTIONS, &peer).is_none())?;
    Ok(())
}

#[test]
fn marked_connections_are_tailscaled_s() -> Outcome {
    let Ok(()) = needs::root_and("marked_connections_are_tailscaled_s", &["ip", "nft"]) else {
        return Ok(());
    };
    let tailnet = MiniatureTailnet::up(Options::default())?;
    let exit = tailnet.exit();
    let mut agent = Agent::start(exit.namespace(), exit.socket(), &[])?;
    agent.wait_ready()?;
    const CONNECTIONS: &str = "tailgauge_tailscaled_tcp_connections";
    assert_eq!(value(&agent.scrape()?, CONNECTIONS, &[]), Some(0.0));

    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (relay, mut own) = connect(exit.namespace(), local, exit.namespace());
    socket2::SockRef::from(&own).set_mark(0x8_0000)?;
    agent.wait_scrape("a marked connection", |scrape| value(scrape, CONNECTIONS, &[]) == Some(1.0))?;
    // The relay does not read: what tailscaled writes stays here.
    own.set_write_timeout(Some(Duration::from_millis(200)))?;
    while own.write(&[7; 1 << 16]).is_ok() {}
    agent.wait_scrape("bytes that cannot be sent", |scrape| {
        value(scrape, "tailgauge_tailscaled_tcp_unsent_bytes", &[]) > Some(0.0)
    })?;
    drop((own, relay));
    agent.wait_scrape("no connection any more", |scrape| value(scrape, CONNECTIONS, &[]) == Some(0.0))?;
    Ok(())
}

#[test]
fn what_tailscaled_measures_is_passed_on_when_it_is_wanted() -> Outcome {
    const TEST: &str = "what_tailscaled_measures_is_passed_on_when_it_is_wanted";
    let Ok(()) = needs::root_and(TEST, &["ip", "nft"]) else { return Ok(()) };
    let tailnet = MiniatureTailnet::up(Options::default())?;
    let exit = tailnet.exit();
    for (flags, wanted) in [(&["--tailscale.user-metrics"][..], true), (&[], false)] {
        let mut agent = Agent::start(exit.namespace(), exit.socket(), flags)?;
        agent.wait_ready()?;
        if wanted {
            agent.wait_scrape("metrics of tailscaled", |scrape| {
                value(scrape, "tailscaled_home_derp_region_id", &[]).is_some()
            })?;
        }
        let passed_on = agent.get("/metrics")?.text();
        let said = localapi(exit.socket(), "/localapi/v0/usermetrics")?.text();
        // Counters go on; TYPE lines of families without samples are left out.
        let series = |text: &str| -> BTreeSet<String> {
            let lines = text.lines().filter(|line| line.starts_with("tailscaled_"));
            lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
        };
        assert_eq!(series(&passed_on), if wanted { series(&said) } else { BTreeSet::new() }, "{flags:?}");
    }
    Ok(())
}
