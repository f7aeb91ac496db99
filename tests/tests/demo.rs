//! The demo as a newcomer sees it: real packets, first numbers, nothing left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tailgauge_testbed::process::{Process, wait_until};
use tailgauge_testbed::{agent, leftovers, needs};

/// Directories in /proc of the processes that `parent` started.
fn children(parent: u32) -> std::io::Result<Vec<PathBuf>> {
    let processes = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let is_child = |process: &PathBuf| {
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        let parent_of = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        parent_of == Some(parent.to_string().as_str())
    };
    Ok(processes.filter(is_child).collect())
}

#[test]
fn the_demo_shows_first_numbers_and_goes_without_a_trace() -> Result<(), Box<dyn std::error::Error>> {
    let Ok(()) = needs::root_and("demo", &["ip", "nft"]) else { return Ok(()) };
    let folder = leftovers::folder()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_miniature"));
    command.arg("demo").arg("--agent").arg(agent::binary()?);
    let mut demo = Process::spawn(&mut command, folder.path().join("log"))?;
    let told = wait_until("the first look", Duration::from_secs(60), || {
        !demo.is_running() || demo.log().contains("Ctrl-C removes everything")
    });
    let log = demo.log();
    told.map_err(|timeout| format!("{timeout}; it said:\n{log}"))?;

    let peers = ["c1", "c2", "router", "six"];
    for peer in peers {
        let row =
            log.lines().rfind(|line| line.starts_with(peer)).ok_or_else(|| format!("no {peer}:\n{log}"))?;
        assert_eq!(row.matches(" ms of ").count(), 3, "the path and both legs of {peer} are measured: {row}");
    }
    for direction in ["receive", "transmit"] {
        let line = format!("coverage of tailscale0, {direction}: ");
        let ratio: f64 =
            log.lines().find_map(|said| said.strip_prefix(&line)).ok_or("no coverage")?.parse()?;
        // Traffic flows, and the two counts are read one after the other.
        assert!((ratio - 1.0).abs() < 0.001, "{ratio} {direction}");
    }

    let (owned, running) = (leftovers::left_by(demo.id()), children(demo.id())?);
    for place in [Path::new("/run/netns"), &std::env::temp_dir()] {
        assert!(owned.iter().any(|path| path.starts_with(place)), "none in {}: {owned:?}", place.display());
    }
    assert!(!running.is_empty(), "the agent runs");
    demo.signal(Signal::INT);
    let status = demo.wait(Duration::from_secs(10))?;
    assert!(status.success(), "{status}");
    assert_eq!(leftovers::left_by(demo.id()), Vec::<PathBuf>::new());
    let running: Vec<_> = running.into_iter().filter(|process| process.exists()).collect();
    assert_eq!(running, Vec::<PathBuf>::new(), "processes");
    Ok(())
}
