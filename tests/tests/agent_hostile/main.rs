//! The agent under attack: whatever it is given, it says in one sentence what is wrong or counts what it refused; it
//! lives, and totals stay exact.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod device;
mod flags;
mod localapi;
mod packets;
mod peers;
mod signals;
mod threads;
mod web;

use std::path::Path;
use std::time::Duration;

use tailgauge_testbed::agent::{Agent, binary};
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::needs;
use tailgauge_testbed::process::{Process, wait_for};
use tailgauge_testbed::proof::device::Device;
use tailgauge_testbed::proof::totals::{self, Counted};
use tailgauge_testbed::stage::{Stage, TUNNEL};

/// A stage with a device; `None` when the test was skipped.
fn stage(test: &str) -> Option<Stage> {
    needs::root_and(test, &["ip"]).ok()?;
    Some(Stage::set().unwrap())
}

/// How a run of the agent ended that was to end by itself: exit code and what it printed.
fn ended(stage: &Stage, program: &str, arguments: &[&str]) -> (i32, String) {
    let log = stage.folder().join("ended.log");
    let _ = std::fs::remove_file(&log);
    let mut command = stage.namespace.command(program);
    command.args(arguments);
    let mut process = Process::spawn(&mut command, &log).unwrap();
    let status = process.wait(Duration::from_secs(20)).unwrap_or_else(|timeout| {
        panic!("{timeout}; it printed:\n{}", process.log());
    });
    (status.code().unwrap_or(-1), process.log())
}

/// The agent with these arguments, to its end.
fn refused(stage: &Stage, arguments: &[&str]) -> (i32, String) {
    ended(stage, path(&binary().unwrap()), arguments)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The one line that the agent ended with. Log lines may come before it.
fn sentence(printed: &str) -> &str {
    let sentences: Vec<_> = printed.lines().filter(|line| line.starts_with("tailgauge: ")).collect();
    match sentences.as_slice() {
        [one] => one,
        other => panic!("{} sentences instead of one:\n{printed}", other.len()),
    }
}

/// The sum of all samples of a metric.
fn sum(agent: &Agent<'_>, name: &str) -> f64 {
    agent.scrape().unwrap().sum(name, &[])
}

/// Value of a sample, which must be there.
fn value(scrape: &Exposition, name: &str, labels: &[(&str, &str)]) -> f64 {
    scrape.value(name, labels).unwrap_or_else(|| panic!("not one {name} with {labels:?}"))
}

/// What the device and the agent had counted before a test did its worst.
struct Before {
    device: Device,
    counted: Counted,
}

impl Before {
    fn read(stage: &Stage, agent: &Agent<'_>) -> Self {
        let (device, scrape) = at_one_time(stage, agent);
        Self { device, counted: Counted::read(&scrape) }
    }

    /// Asserts that device and agent counted the same since, to the packet and byte, and that nothing was missed
    /// since the hooks are attached. Returns what the device counted.
    fn assert_exact(&self, stage: &Stage, agent: &Agent<'_>) -> Device {
        let (device, scrape) = at_one_time(stage, agent);
        let device = device.since(self.device);
        totals::compare(device, Counted::read(&scrape).since(self.counted)).unwrap();
        for sample in scrape.matching("tailgauge_tunnel_coverage_ratio", &[]) {
            assert_eq!(sample.value, 1.0, "{sample:?}");
        }
        device
    }
}

/// The device's counters and a scrape between which nothing moved: both were read again until they did not.
fn at_one_time(stage: &Stage, agent: &Agent<'_>) -> (Device, Exposition) {
    let read = || {
        stage.drain();
        Device::read(&stage.namespace, TUNNEL).unwrap()
    };
    wait_for("the device to be at rest", Duration::from_secs(10), || {
        let (before, scrape) = (read(), agent.scrape().unwrap());
        (read() == before).then_some((before, scrape))
    })
    .unwrap()
}
