//! Signals, and what stays on the device after them.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use tailgauge_testbed::agent::{ADDRESS, Agent};
use tailgauge_testbed::needs;
use tailgauge_testbed::process;
use tailgauge_testbed::stage::{NOWHERE, Stage, TUNNEL, udp_frame};

use crate::{Before, path, refused, sentence};

/// clsact filters on both sides.
fn filters(stage: &Stage) -> usize {
    let show = |side| {
        let listed =
            stage.namespace.command("tc").args(["filter", "show", "dev", TUNNEL, side]).output().unwrap();
        String::from_utf8(listed.stdout).unwrap().lines().filter(|line| line.contains("handle")).count()
    };
    show("ingress") + show("egress")
}

/// tcx programs on both sides.
fn links(stage: &Stage) -> usize {
    use aya::programs::{SchedClassifier, TcAttachType};
    let query = |side| SchedClassifier::query_tcx(TUNNEL, side).unwrap().1.len();
    stage.namespace.run(|| query(TcAttachType::Ingress) + query(TcAttachType::Egress)).unwrap()
}

fn counts_exactly(stage: &Stage, agent: &Agent<'_>) {
    let before = Before::read(stage, agent);
    for _ in 0..50 {
        assert!(stage.receive(&udp_frame([100, 64, 0, 2], NOWHERE, 100)));
    }
    assert_eq!(before.assert_exact(stage, agent).rx_packets, 50);
}

#[test]
fn terminated_it_ends_soon_and_leaves_nothing_on_the_device() {
    let name = "terminated_it_ends_soon_and_leaves_nothing_on_the_device";
    let Ok(()) = needs::root_and(name, &["ip", "tc"]) else { return };
    let stage = Stage::set().unwrap();
    for (mode, attached) in [("tcx", (2, 0)), ("clsact", (0, 2))] {
        let mut agent = stage.agent(&["--attach.mode", mode]).unwrap();
        assert_eq!((links(&stage), filters(&stage)), attached, "{mode}");
        agent.signal(Signal::HUP);
        process::wait_until("the answer to SIGHUP", Duration::from_secs(5), || {
            agent.log().contains("nothing to reload")
        })
        .unwrap();
        assert_eq!(agent.get("/readyz").unwrap().status, 200);
        // Clients that dawdle do not keep it from ending.
        let open = || (0..20).map(|_| TcpStream::connect(ADDRESS).unwrap()).collect::<Vec<_>>();
        let mut clients = stage.namespace.run(open).unwrap();
        clients[0].write_all("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100).as_bytes()).unwrap();
        // After 5 s it would be killed, and have no code.
        let status = agent.stop().unwrap();
        assert_eq!(status.code(), Some(0), "{mode}: {}", agent.log());
        assert_eq!((links(&stage), filters(&stage)), (0, 0), "{mode}");
    }
    let mut agent = stage.agent(&[]).unwrap();
    agent.signal(Signal::INT);
    process::wait_until("SIGINT to end it", Duration::from_secs(5), || !agent.is_running()).unwrap();
    assert_eq!(agent.stop().unwrap().code(), Some(0));
}

#[test]
fn killed_it_starts_again_and_cleans_up_after_itself() {
    let name = "killed_it_starts_again_and_cleans_up_after_itself";
    let Ok(()) = needs::root_and(name, &["ip", "tc"]) else { return };
    let stage = Stage::set().unwrap();
    for (mode, left, attached) in [("tcx", 0, (2, 0)), ("clsact", 2, (0, 2))] {
        let flags = ["--attach.mode", mode];
        let mut agent = stage.agent(&flags).unwrap();
        agent.signal(Signal::KILL);
        process::wait_until("SIGKILL to end it", Duration::from_secs(5), || !agent.is_running()).unwrap();
        drop(agent);
        assert_eq!(filters(&stage), left, "{mode}: filters have no process to go with");
        let agent = stage.agent(&flags).unwrap();
        assert_eq!((links(&stage), filters(&stage)), attached, "{mode}");
        counts_exactly(&stage, &agent);
    }
    assert_eq!((links(&stage), filters(&stage)), (0, 0));
}

#[test]
fn two_agents_on_one_device_do_not_disturb_each_other() {
    let name = "two_agents_on_one_device_do_not_disturb_each_other";
    let Ok(()) = needs::root_and(name, &["ip", "tc"]) else { return };
    let stage = Stage::set().unwrap();
    for mode in ["tcx", "clsact"] {
        let flags = ["--attach.mode", mode];
        let first = stage.agent(&flags).unwrap();
        // The second finds the port taken and leaves without touching the hooks of the first.
        let socket = stage.socket();
        let own = ["--tailscale.socket", path(&socket)];
        let (code, printed) = refused(&stage, &[&own[..], &flags].concat());
        assert_eq!(
            (code, sentence(&printed).contains("another process has the port")),
            (1, true),
            "{printed}"
        );
        assert_eq!(links(&stage) + filters(&stage), 2, "{mode}");
        counts_exactly(&stage, &first);
    }
}
