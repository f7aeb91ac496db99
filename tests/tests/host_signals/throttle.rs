//! A CPU quota on tailscaled's control group runs out.

use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::cgroup::{Controller, Group};
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::needs;

use crate::{agreed, between, stage, stand_in, value};

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
    let pid = Pid::from_raw(tailscaled.id().cast_signed()).unwrap();
    let read = || group.throttling().unwrap();

    // More than it gets later, and nobody minds.
    tailscaled.burn(2, Duration::from_millis(200)).unwrap();
    let (healthy_scrape, healthy) = agreed(&agent, "no quota", read, same);
    assert_eq!(healthy[1..], [0, 0], "still when healthy");
    let all = value(&healthy_scrape, "tailgauge_tailscaled_usable_cpus", &[]);
    assert_eq!(all, f64::from(sched_getaffinity(Some(pid)).unwrap().count()));

    group.limit_cpu(0.1).unwrap();
    let burnt = Duration::from_secs(1);
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

/// One CPU of those that this process may use.
fn one_cpu() -> CpuSet {
    let all = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(first);
    one
}

#[test]
fn threads_that_share_a_cpu_are_pressure_of_the_control_group() {
    let test = "threads_that_share_a_cpu_are_pressure_of_the_control_group";
    let Some(stage) = stage(test, &["ip"]) else { return };
    let group = match Group::create_unified().and_then(|group| group.cpu_pressure().map(|_| group)) {
        Ok(group) => group,
        Err(error) => {
            needs::skip(test, &format!("pressure of control groups: {error}"));
            return;
        }
    };
    let mut tailscaled = stand_in(&stage);
    group.add(tailscaled.id()).unwrap();
    // Threads that it starts from now on stay there.
    sched_setaffinity(Pid::from_raw(tailscaled.id().cast_signed()), &one_cpu()).unwrap();
    let flags = ["--path.sysfs", &sysfs_of_the_host()];
    let agent = Agent::start(&stage.namespace, &tailscaled.socket(), &flags).unwrap();
    let kernel = || group.cpu_pressure().unwrap();
    let said = |scrape: &Exposition| {
        ["waiting", "stalled"].map(|how| {
            let name = format!("tailgauge_tailscaled_cgroup_pressure_{how}_seconds_total");
            scrape.value(&name, &[("resource", "cpu")]).unwrap()
        })
    };
    let within = |scrape: &Exposition, before: &[f64; 2], after: &[f64; 2]| {
        let bounds = before.iter().zip(after);
        said(scrape).iter().zip(bounds).all(|(said, (before, after))| before <= said && said <= after)
    };

    let (first, _) = between(&agent, "pressure before", kernel, within);
    tailscaled.burn(2, Duration::from_millis(300)).unwrap();
    let (second, _) = between(&agent, "pressure after", kernel, within);
    // One of the two always waits; the kernel adds a waiting time up every some milliseconds.
    let waited = said(&second)[0] - said(&first)[0];
    assert!(waited > 0.2, "{waited}");
    drop(agent);
    drop(tailscaled);
}
