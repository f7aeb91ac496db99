//! Every signal of the host that limits a node is provoked once, and moves by what the kernel itself says; under healthy
//! traffic the same signal stays still.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod conntrack;
mod fragments;
mod kernel;
mod memory;
mod process;
mod qdisc;
mod recreated;
mod ring;
mod samples;
mod softirq;
mod stall;
mod throttle;
mod udp;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tailgauge_testbed::agent::{Agent, binary};
use tailgauge_testbed::exposition::{Exposition, Sample};
use tailgauge_testbed::needs;
use tailgauge_testbed::process::wait_for;
use tailgauge_testbed::stage::Stage;
use tailgauge_testbed::standin::StandIn;
use tempfile::TempDir;

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A stage with a device; `None` when the test was skipped.
fn stage(test: &str, programs: &[&str]) -> Option<Stage> {
    needs::root_and(test, programs).ok()?;
    Some(Stage::set().unwrap())
}

/// tailscaled in a process of its own.
fn stand_in(stage: &Stage) -> StandIn {
    StandIn::start(Path::new(env!("CARGO_BIN_EXE_standin")), &stage.namespace).unwrap()
}

/// The agent on a kernel that describes no types, as far as it can see: no program counts drops there, or samples.
struct Untyped {
    path: PathBuf,
    _folder: TempDir,
}

impl Untyped {
    fn new() -> Self {
        let folder = TempDir::with_prefix("tailgauge-untyped-").unwrap();
        let path = folder.path().join("agent");
        // A namespace's commands see mounts of their own.
        let text = "#!/bin/sh\nmount -t tmpfs none /sys/kernel/btf || exit 1\n";
        std::fs::write(&path, format!("{text}exec {} \"$@\"\n", binary().unwrap().display())).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Self { path, _folder: folder }
    }
}

/// Value of a sample, which must be there.
fn value(scrape: &Exposition, name: &str, labels: &[(&str, &str)]) -> f64 {
    scrape.value(name, labels).unwrap_or_else(|| panic!("not one {name} with {labels:?}"))
}

/// A scrape, and what the kernel said both before and after it. The agent reads the host at most every 50 ms, so a
/// scrape may be older than that: it is taken again until it is `right` about what stood still.
fn agreed<T: PartialEq>(
    agent: &Agent<'_>,
    what: &str,
    kernel: impl Fn() -> T,
    right: impl Fn(&Exposition, &T) -> bool,
) -> (Exposition, T) {
    let mut last = Vec::new();
    wait_for(what, PATIENCE, || {
        let before = kernel();
        let scrape = agent.scrape().unwrap();
        if kernel() == before && right(&scrape, &before) {
            return Some((scrape, before));
        }
        last = described(&scrape);
        None
    })
    .unwrap_or_else(|timeout| panic!("{timeout}; the last scrape was {last:#?}"))
}

/// A scrape between two readings of the kernel that lie no further apart than what the agent needs to read.
/// `within` says whether the scrape lies between them.
fn between<T>(
    agent: &Agent<'_>,
    what: &str,
    kernel: impl Fn() -> T,
    within: impl Fn(&Exposition, &T, &T) -> bool,
) -> (Exposition, T) {
    wait_for(what, PATIENCE, || {
        let before = kernel();
        let scrape = agent.scrape().unwrap();
        let after = kernel();
        within(&scrape, &before, &after).then_some((scrape, before))
    })
    .unwrap()
}

/// The samples that tests look at, for a message.
fn described(scrape: &Exposition) -> Vec<String> {
    let counted =
        scrape.samples.iter().filter(|sample| sample.value != 0.0 && !sample.name.ends_with("_bucket"));
    let line = |sample: &Sample| {
        let labels: Vec<&str> = sample.labels.iter().map(|(_, value)| value.as_str()).collect();
        format!("{} {} {}", sample.name, labels.join(" "), sample.value)
    };
    counted.filter(|sample| sample.label("name").is_none()).map(line).collect()
}
