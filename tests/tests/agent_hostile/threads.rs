//! A system that gives the agent no more threads.

use std::time::Duration;

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::cgroup::{Controller, Group};
use tailgauge_testbed::needs;
use tailgauge_testbed::process::wait_until;
use tailgauge_testbed::scripted::{Script, peer, status};
use tailgauge_testbed::stage::Stage;

use crate::sentence;

/// A document that is long enough to be read on a thread of its own.
fn long_status() -> Vec<u8> {
    let filler = format!("\"Filler\":\"{}\",\"Version\":", "x".repeat(1 << 20));
    String::from_utf8(status(&[peer(2)])).unwrap().replace("\"Version\":", &filler).into_bytes()
}

#[test]
fn without_threads_it_attaches_all_the_same_and_ends_when_it_cannot_follow_tailscaled() {
    let name = "without_threads_it_attaches_all_the_same_and_ends_when_it_cannot_follow_tailscaled";
    let Ok(()) = needs::root_and(name, &["ip"]) else { return };
    let group = match Group::create(Controller::Pids) {
        Ok(group) => group,
        Err(error) => {
            needs::skip(name, &format!("a control group that limits threads: {error}"));
            return;
        }
    };
    let stage = Stage::without_device().unwrap();
    let mut agent = Agent::start(&stage.namespace, &stage.socket(), &[]).unwrap();
    group.add(agent.id()).unwrap();
    group.limit_threads(1).unwrap();
    let _tun = stage.make_device().unwrap();
    agent.wait_ready().unwrap();

    stage.api.say(Script::Status(long_status()));
    let ended = wait_until("its end", Duration::from_secs(20), || !agent.is_running());
    ended.unwrap_or_else(|timeout| panic!("{timeout}; its log:\n{}", agent.log()));
    let log = agent.log();
    let said = sentence(&log);
    assert!(said.starts_with("tailgauge: what is to follow tailscaled has ended: "), "{said}");
    assert!(said.contains("thread"), "{said}");
    assert_eq!(agent.stop().and_then(|status| status.code()), Some(1));
    drop(agent);
}
