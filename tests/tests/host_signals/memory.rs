//! The memory limit of tailscaled's control group is reached.

use std::process::Command;
use std::time::Duration;

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::cgroup::{Controller, Group};
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::needs;
use tailgauge_testbed::process::Process;

use crate::throttle::sysfs_of_the_host;
use crate::{agreed, stage, stand_in, value};

const LIMIT: u64 = 64 << 20;

#[test]
fn a_memory_limit_that_is_reached_is_an_oom_kill() {
    let test = "a_memory_limit_that_is_reached_is_an_oom_kill";
    let Some(stage) = stage(test, &["ip", "sh", "tail"]) else { return };
    let group =
        match Group::create(Controller::Memory).and_then(|group| group.limit_memory(LIMIT).map(|()| group)) {
            Ok(group) => group,
            Err(error) => {
                needs::skip(test, &format!("a control group for memory: {error}"));
                return;
            }
        };
    let mut tailscaled = stand_in(&stage);
    group.add(tailscaled.id()).unwrap();
    let flags = ["--path.sysfs", &sysfs_of_the_host()];
    let agent = Agent::start(&stage.namespace, &tailscaled.socket(), &flags).unwrap();
    let read = || (group.memory().unwrap(), group.oom_kills().unwrap());
    let same = |scrape: &Exposition, kernel: &(u64, u64)| {
        let said = |name: &str| scrape.value(&format!("tailgauge_tailscaled_cgroup_{name}"), &[]);
        said("memory_bytes") == Some(kernel.0 as f64) && said("oom_kills_total") == Some(kernel.1 as f64)
    };
    let (before_scrape, before) = agreed(&agent, "the group at rest", read, same);
    assert_eq!(value(&before_scrape, "tailgauge_tailscaled_cgroup_memory_limit_bytes", &[]), LIMIT as f64);
    const TAKEN: usize = 16 << 20;
    tailscaled.hold(TAKEN).unwrap();
    let (_, healthy) = agreed(&agent, "memory below the limit", read, same);
    assert!(healthy.0 - before.0 >= TAKEN as u64 * 9 / 10, "{healthy:?} after {before:?}");
    assert_eq!(healthy.1, 0, "still when healthy");

    // A line without end, which tail keeps in memory.
    let script = format!("echo $$ > {} && exec tail /dev/zero", group.processes().display());
    // Not in the namespace, whose /sys has no control groups.
    let mut command = Command::new("sh");
    let mut victim =
        Process::spawn(command.args(["-c", &script]), stage.folder().join("victim.log")).unwrap();
    victim.wait(Duration::from_secs(20)).unwrap();
    let (_, after) = agreed(&agent, "a kill", read, same);
    assert_eq!(after.1, 1);
    tailscaled.burn(1, Duration::from_millis(1)).unwrap();
}
