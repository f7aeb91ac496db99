//! A CPU quota on tailscaled's control group runs out.

use std::time::Duration;

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::cgroup::{Controller, Group};
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::needs;

use crate::{agreed, stage, stand_in, value};

const NAMES: [&str; 3] = ["periods_total", "throttled_periods_total", "throttled_seconds_total"];

fn said(scrape: &Exposition, name: &str) -> Option<f64> {
    scrape.value(&format!("tailgauge_tailscaled_cgroup_{name}"), &[])
}

fn same(scrape: &Exposition, kernel: &[u64; 3]) -> bool {
    let kernel = [kernel[0] as f64, kernel[1] as f64, kernel[2] as f64 / 1e9];
    NAMES
        .into_iter()
        .zip(kernel)
        .all(|(name, kernel)| said(scrape, name).is_some_and(|said| (said - kernel).abs() < 1e-6))
}

/// The namespace's /sys has no control groups; the host's own has.
pub(crate) fn sysfs_of_the_host() -> String {
    format!("/proc/{}/root/sys", std::process::id())
}

#[test]
fn a_quota_that_runs_out_is_throttling_and_fewer_usable_cpus() {
    let test = "a_quota_that_runs_out_is_throttling_and_fewer_usable_cpus";
    let Some(stage) = stage(test, &["ip"]) else { return };
    let group = match Group::create(Controller::Cpu) {
        Ok(group) => group,
        Err(error) => {
            needs::skip(test, &format!("a control group for CPU time: {error}"));
            return;
        }
    };
    let mut tailscaled = stand_in(&stage);
    group.add(tailscaled.id()).unwrap();
    let flags = ["--path.sysfs", &sysfs_of_the_host()];
    let agent = Agent::start(&stage.namespace, &tailscaled.socket(), &flags).unwrap();
    let pid = rustix::process::Pid::from_raw(tailscaled.id().cast_signed()).unwrap();
    let read = || group.throttling().unwrap();

    // More than it gets later, and nobody minds.
    tailscaled.burn(2, Duration::from_millis(200)).unwrap();
    let (healthy_scrape, healthy) = agreed(&agent, "no quota", read, same);
    assert_eq!(healthy[1..], [0, 0], "still when healthy");
    let all = value(&healthy_scrape, "tailgauge_tailscaled_usable_cpus", &[]);
    assert_eq!(all, f64::from(rustix::thread::sched_getaffinity(Some(pid)).unwrap().count()));

    group.limit_cpu(0.1).unwrap();
    let burnt = Duration::from_millis(300);
    tailscaled.burn(2, burnt).unwrap();
    let (scrape, after) = agreed(&agent, "throttling", read, |scrape, kernel| {
        same(scrape, kernel) && scrape.value("tailgauge_tailscaled_usable_cpus", &[]) == Some(0.1)
    });
    assert!(after[1] >= 3 && after[0] >= after[1] && after[2] > 50_000_000, "{after:?}");
    let waited =
        |scrape: &Exposition| value(scrape, "tailgauge_tailscaled_run_queue_delay_seconds_total", &[]);
    // Throttled threads wait in the run queue.
    assert!(
        waited(&scrape) - waited(&healthy_scrape) > 0.05,
        "{} {}",
        waited(&scrape),
        waited(&healthy_scrape)
    );

    // The quota stays, and tailscaled wants less than it.
    let (_, quiet) = agreed(&agent, "a rest", read, same);
    tailscaled.burn(1, Duration::from_micros(500)).unwrap();
    let (_, rested) = agreed(&agent, "little work under the quota", read, same);
    assert!(rested[1] - quiet[1] <= 1, "still when there is enough: {rested:?} after {quiet:?}");
    drop(agent);
    drop(tailscaled);
}
