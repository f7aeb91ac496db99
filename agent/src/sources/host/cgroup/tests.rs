//! Trees of control groups as they are on hosts and in containers.

use std::fs;

use super::files::MOST_OPEN;
use super::*;
use crate::model::host::Throttling;

/// A procfs and a sysfs with this process as tailscaled in a group.
struct Tree(tempfile::TempDir);

impl Tree {
    /// With groups below /sys/fs/cgroup.
    fn new(membership: &str, groups: &[&str]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.write("proc/77/comm", "tailscaled\n");
        tree.write("proc/77/stat", &format!("77 (tailscaled) S 1{}\n", " 0".repeat(40)));
        tree.write("proc/77/cgroup", membership);
        for group in groups {
            tree.write(&format!("sys/fs/cgroup/{group}/cgroup.procs"), "77\n");
        }
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn collect(&self) -> Result<Option<Cgroup>, HostError> {
        self.collect_with(&mut CgroupCollector::default())
    }

    fn collect_with(&self, collector: &mut CgroupCollector) -> Result<Option<Cgroup>, HostError> {
        let at = |name| self.0.path().join(name);
        let paths = Paths { procfs: at("proc"), sysfs: at("sys"), localapi: at("none"), ..Paths::default() };
        collector.collect(&paths)
    }
}

#[test]
fn version_2_with_a_quota_on_the_slice_above() {
    let tree = Tree::new(
        "0::/system.slice/tailscaled.service\n",
        &["", "system.slice", "system.slice/tailscaled.service"],
    );
    // As the real root's are.
    tree.write("sys/fs/cgroup/cpu.stat", "usage_usec 9\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n");
    tree.write("sys/fs/cgroup/system.slice/tailscaled.service/cpu.max", "max 100000\n");
    let own = "usage_usec 5\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n";
    tree.write("sys/fs/cgroup/system.slice/tailscaled.service/cpu.stat", own);
    tree.write("sys/fs/cgroup/system.slice/tailscaled.service/memory.current", "4096\n");
    tree.write("sys/fs/cgroup/system.slice/tailscaled.service/memory.max", "max\n");
    tree.write("sys/fs/cgroup/system.slice/tailscaled.service/memory.events", "oom 3\noom_kill 2\n");
    tree.write("sys/fs/cgroup/system.slice/cpu.max", "20000 100000\n");
    let slice = "nr_periods 10\nnr_throttled 4\nthrottled_usec 1500000\n";
    tree.write("sys/fs/cgroup/system.slice/cpu.stat", slice);
    tree.write("sys/fs/cgroup/system.slice/memory.max", "1048576\n");
    let expected = Cgroup {
        cpu_quota: Some(0.2),
        throttling: Some(Throttling { periods: 10, throttled_periods: 4, throttled_seconds: 1.5 }),
        memory_bytes: Some(4096),
        memory_limit_bytes: Some(1_048_576),
        oom_kills: Some(2),
        pressure: None,
    };
    assert_eq!(tree.collect().unwrap(), Some(expected));
}

#[test]
fn a_process_that_moves_is_followed_and_so_is_a_file_that_comes_and_changes() {
    let tree = Tree::new("0::/vpn\n", &["vpn"]);
    let mut collector = CgroupCollector::default();
    let mut limit = || tree.collect_with(&mut collector).unwrap().unwrap().memory_limit_bytes;
    assert_eq!(limit(), None);
    tree.write("sys/fs/cgroup/vpn/memory.max", "8192\n");
    assert_eq!(limit(), Some(8192));
    tree.write("sys/fs/cgroup/vpn/memory.max", "4096\n");
    assert_eq!(limit(), Some(4096));
    tree.write("sys/fs/cgroup/other/memory.max", "12288\n");
    tree.write("sys/fs/cgroup/other/cgroup.procs", "77\n");
    tree.write("proc/77/cgroup", "0::/other\n");
    assert_eq!(limit(), Some(12_288));
    fs::remove_dir_all(tree.0.path().join("proc/77")).unwrap();
    collector.known.as_mut().unwrap().membership = ProcFile::default();
    assert_eq!(tree.collect_with(&mut collector).unwrap(), None, "it is gone");
}

#[test]
fn more_levels_than_files_may_be_open_are_read_all_the_same() {
    let group = "/deep".repeat(MOST_OPEN);
    let tree = Tree::new(&format!("0::{group}\n"), &[&group]);
    tree.write("sys/fs/cgroup/deep/memory.max", "4096\n");
    tree.write("sys/fs/cgroup/deep/cpu.max", "20000 100000\n");
    let mut collector = CgroupCollector::default();
    for _ in 0..2 {
        let found = tree.collect_with(&mut collector).unwrap().unwrap();
        assert_eq!((found.memory_limit_bytes, found.cpu_quota), (Some(4096), Some(0.2)));
        assert_eq!(collector.known.as_ref().unwrap().files.0.len(), MOST_OPEN);
    }
}

#[test]
fn without_the_cpu_controller_nothing_is_known_of_throttling() {
    let tree = Tree::new("0::/vpn\n", &["", "vpn"]);
    tree.write("sys/fs/cgroup/vpn/cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\n");
    tree.write("sys/fs/cgroup/cpu.stat", "usage_usec 9\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n");
    let no_quota = Cgroup { cpu_quota: Some(f64::INFINITY), ..Cgroup::default() };
    assert_eq!(tree.collect().unwrap(), Some(no_quota));
    tree.write("proc/77/cgroup", "0::/\n");
    assert_eq!(tree.collect().unwrap(), Some(no_quota), "in the root itself");
}

#[test]
fn the_root_of_a_namespace_has_the_limits_of_its_container() {
    let tree = Tree::new("0::/\n", &["", "below"]);
    tree.write("sys/fs/cgroup/cpu.max", "150000 100000\n");
    tree.write("sys/fs/cgroup/cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_usec 1500000\n");
    tree.write("sys/fs/cgroup/memory.current", "4096\n");
    tree.write("sys/fs/cgroup/memory.max", "1048576\n");
    tree.write("sys/fs/cgroup/memory.events", "oom 3\noom_kill 2\n");
    let container = Cgroup {
        cpu_quota: Some(1.5),
        throttling: Some(Throttling { periods: 10, throttled_periods: 4, throttled_seconds: 1.5 }),
        memory_bytes: Some(4096),
        memory_limit_bytes: Some(1_048_576),
        oom_kills: Some(2),
        pressure: None,
    };
    assert_eq!(tree.collect().unwrap(), Some(container));
    tree.write("proc/77/cgroup", "0::/below\n");
    let below = Cgroup { memory_bytes: None, oom_kills: None, ..container };
    assert_eq!(tree.collect().unwrap(), Some(below));
}

#[test]
fn the_root_of_version_1_may_have_a_quota_and_its_memory_is_not_tailscaled_s() {
    let tree = Tree::new("4:memory:/\n1:cpu:/\n0::/\n", &["cpu", "memory"]);
    tree.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
    tree.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    tree.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "8192\n");
    tree.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "16384\n");
    let expected = Cgroup { cpu_quota: Some(0.5), ..Cgroup::default() };
    assert_eq!(tree.collect().unwrap(), Some(expected));
    tree.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    assert_eq!(tree.collect().unwrap().unwrap().cpu_quota, Some(f64::INFINITY), "the real one");
}

#[test]
fn version_1_with_controllers_in_one_mount() {
    let tree = Tree::new("4:memory:/vpn\n2:cpu,cpuacct:/vpn\n0::/\n", &["cpu,cpuacct/vpn", "memory/vpn"]);
    tree.write("sys/fs/cgroup/cpu,cpuacct/vpn/cpu.cfs_quota_us", "50000\n");
    tree.write("sys/fs/cgroup/cpu,cpuacct/vpn/cpu.cfs_period_us", "100000\n");
    let stat = "nr_periods 7\nnr_throttled 3\nthrottled_time 2000000000\n";
    tree.write("sys/fs/cgroup/cpu,cpuacct/vpn/cpu.stat", stat);
    tree.write("sys/fs/cgroup/memory/vpn/memory.usage_in_bytes", "8192\n");
    tree.write("sys/fs/cgroup/memory/vpn/memory.limit_in_bytes", "9223372036854771712\n");
    let found = tree.collect().unwrap().unwrap();
    assert_eq!(
        (found.cpu_quota, found.memory_bytes, found.memory_limit_bytes),
        (Some(0.5), Some(8192), None)
    );
    let throttling = Throttling { periods: 7, throttled_periods: 3, throttled_seconds: 2.0 };
    assert_eq!(found.throttling, Some(throttling));
}

#[test]
fn a_group_that_cannot_be_seen_or_has_an_odd_name_says_nothing() {
    let x = "x".repeat(5000);
    // Outside of the namespace, odd, not there, and nothing mounted at all.
    for (group, others) in
        [("../other", &["", "other"][..]), ("\u{1b}[2J", &[""]), (&x, &[""]), ("vpn", &[""]), ("", &[])]
    {
        let tree = Tree::new(&format!("0::/{group}\n"), others);
        tree.write("sys/fs/cgroup/cpu.max", "20000 100000\n");
        assert_eq!(tree.collect().unwrap(), Some(Cgroup::default()), "{group:?}");
    }
}

#[test]
fn bad_content_is_named() {
    let tree = Tree::new("0::/vpn\n", &["vpn"]);
    tree.write("sys/fs/cgroup/vpn/cpu.max", "some 100000\n");
    let error = tree.collect().unwrap_err().to_string();
    assert!(error.contains("vpn/cpu.max") && error.contains("a quota or `max`"), "{error}");
}
