//! Whether there is memory for the maps.

use super::Finding;
use crate::sources::host::{self, Paths};
use crate::sources::kernel::probe;

/// How much memory there is.
#[derive(Clone, Copy, Debug)]
struct Bound {
    bytes: u64,
    /// What sets it.
    whose: &'static str,
    /// What to do when it is too little.
    remedy: &'static str,
}

pub(super) fn memory(max_peers: u32) -> Finding {
    judge(max_peers, &[available(), group_limit()])
}

fn judge(max_peers: u32, bounds: &[Option<Bound>]) -> Finding {
    let needed = match probe::map_memory(max_peers) {
        Ok(needed) => needed,
        Err(error) => return Finding::fail("memory", error.to_string(), "lower --max-peers"),
    };
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let found = format!("{} MiB of kernel memory for --max-peers {max_peers}", mebibytes(needed));
    let tightest = bounds.iter().flatten().min_by_key(|bound| bound.bytes);
    let Some(Bound { bytes, whose, remedy }) = tightest else { return Finding::ok("memory", found) };
    let found = format!("{found}, of {} MiB {whose}", mebibytes(*bytes));
    if *bytes < needed * 2 {
        return Finding::warn("memory", found, *remedy);
    }
    Finding::ok("memory", found)
}

/// `MemAvailable` of /proc/meminfo.
fn available() -> Option<Bound> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let remedy = "lower --max-peers to about the number of peers you have";
    Some(Bound { bytes: kibibytes * 1024, whose: "available", remedy })
}

/// What the control groups of this process may have, kernel memory included.
fn group_limit() -> Option<Bound> {
    let bytes = host::memory_limit(&Paths::default()).ok().flatten()?;
    let remedy =
        "raise the limit (MemoryMax= of the systemd unit, --memory of a container), or lower --max-peers";
    Some(Bound { bytes, whose: "that its control group may have", remedy })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Status;

    fn bound(mebibytes: u64, whose: &'static str) -> Option<Bound> {
        Some(Bound { bytes: mebibytes << 20, whose, remedy: whose })
    }

    #[test]
    fn more_peers_than_possible_are_refused() {
        let finding = memory(u32::MAX);
        assert_eq!(finding.status, Status::Fail);
        assert!(finding.found.contains("at most"), "{}", finding.found);
    }

    #[test]
    fn the_tighter_of_machine_and_control_group_decides() {
        let machine = bound(64 << 10, "machine");
        assert_eq!(judge(1024, &[machine, None]).status, Status::Ok);
        // What deploy/tailgauge.service sets, and what the agent begins with.
        assert_eq!(judge(1024, &[machine, bound(256, "group")]).status, Status::Ok);
        let finding = judge(60_000, &[machine, bound(256, "group")]);
        assert_eq!((finding.status, finding.remedy.as_deref()), (Status::Warn, Some("group")));
        assert!(finding.found.ends_with("of 256 MiB group"), "{}", finding.found);
        let finding = judge(60_000, &[bound(512, "machine"), bound(1 << 20, "group")]);
        assert_eq!((finding.status, finding.remedy.as_deref()), (Status::Warn, Some("machine")));
        assert_eq!(judge(60_000, &[None, None]).status, Status::Ok, "nothing is known");
    }
}
