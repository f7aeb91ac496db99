//! CPUs that go and come back, and counters that turn back.

use crate::observer::Observer;
use crate::reader::Exposition;
use crate::tree::Tree;

/// /proc/stat with these CPUs: number, user, idle and iowait in ticks.
fn stat(tree: &mut Tree, cpus: &[(u32, u64, u64, u64)]) {
    let mut text = "cpu  9 0 0 9 9 0 0 0 0 0\n".to_owned();
    for (cpu, user, idle, iowait) in cpus {
        text += &format!("cpu{cpu} {user} 0 0 {idle} {iowait} 0 0 0 0 0\n");
    }
    tree.set(
        "proc/stat",
        &(text + "intr 1 0\nctxt 1\nbtime 1\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n"),
    );
}

/// /proc/softirqs and softnet_stat as a kernel with these CPUs online prints them.
fn per_cpu(tree: &mut Tree, cpus: &[u32]) {
    let head: String = cpus.iter().map(|cpu| format!("CPU{cpu} ")).collect();
    let counts = " 7".repeat(cpus.len());
    tree.set("proc/softirqs", &format!("    {head}\n NET_RX:{counts}\n"));
    let rows: String = cpus.iter().map(|cpu| format!("7 0 0 0 0 0 0 0 0 0 0 0 {cpu:x} 0 0\n")).collect();
    tree.set("proc/net/softnet_stat", &rows);
}

fn seconds(exposition: &Exposition, cpu: &str, mode: &str) -> Option<f64> {
    let fits =
        |labels: &std::collections::BTreeMap<String, String>| labels["cpu"] == cpu && labels["mode"] == mode;
    let all = exposition.named("tailgauge_host_cpu_seconds_total");
    all.iter().find(|sample| fits(&sample.labels)).map(|sample| sample.value)
}

fn plain(exposition: &Exposition, name: &str) -> f64 {
    let samples = exposition.named(name);
    assert_eq!(samples.len(), 1, "{name}");
    samples[0].value
}

fn cpus(exposition: &Exposition, name: &str) -> Vec<String> {
    let mut cpus: Vec<_> = exposition.named(name).iter().map(|sample| sample.labels["cpu"].clone()).collect();
    cpus.dedup();
    cpus
}

#[test]
fn a_cpu_that_goes_has_no_series_and_the_others_keep_theirs_until_it_comes_back() {
    let mut tree = Tree::of_this_machine();
    let mut observer = Observer::new(&tree);
    let all = [(0, 100, 1000, 10), (1, 200, 2000, 20), (2, 300, 3000, 30)];
    for (present, expected) in [
        (vec![0, 1, 2], vec!["0", "1", "2"]),
        (vec![0, 2], vec!["0", "2"]),
        (vec![0, 1, 2], vec!["0", "1", "2"]),
    ] {
        let rows: Vec<_> = all.iter().copied().filter(|(cpu, ..)| present.contains(cpu)).collect();
        stat(&mut tree, &rows);
        per_cpu(&mut tree, &present);
        assert_eq!(observer.collect().failed, Vec::<String>::new());
        let exposition = observer.exposition();
        for name in [
            "tailgauge_host_cpu_seconds_total",
            "tailgauge_host_softirqs_total",
            "tailgauge_host_softnet_processed_packets_total",
        ] {
            assert_eq!(cpus(&exposition, name), expected, "{name}");
        }
        assert_eq!(plain(&exposition, "tailgauge_host_cpus"), expected.len() as f64);
        assert_eq!(seconds(&exposition, "2", "user"), Some(3.0), "not shifted");
        assert_eq!(seconds(&exposition, "2", "idle"), Some(30.0));
    }
}

#[test]
fn the_moment_of_boot_moves_when_the_clock_is_set() {
    let mut tree = Tree::of_this_machine();
    let mut observer = Observer::new(&tree);
    // A board without a clock of its own wakes up in 1970.
    for moment in [7, 1_790_000_000] {
        tree.set("proc/stat", &format!("cpu 9 0 0 9\ncpu0 9 0 0 9\nbtime {moment}\n"));
        assert_eq!(observer.collect().failed, Vec::<String>::new());
        let said = plain(&observer.exposition(), "tailgauge_host_boot_timestamp_seconds");
        assert_eq!(said, f64::from(moment));
    }
}

#[test]
fn idle_time_that_turns_back_a_little_stands_still_and_one_that_began_anew_is_taken() {
    let mut tree = Tree::of_this_machine();
    let mut observer = Observer::new(&tree);
    // One CPU over time: user, idle, iowait in hundredths, and what is exported of it.
    for ((user, idle, iowait), expected) in [
        ((100, 5000, 400), (1.0, 50.0, 4.0)),
        // proc(5): iowait may decrease, and idle time does while a CPU leaves its sleep.
        ((101, 4998, 250), (1.01, 50.0, 4.0)),
        ((102, 4999, 399), (1.02, 50.0, 4.0)),
        ((103, 5001, 401), (1.03, 50.01, 4.01)),
        // Before kernel 6.8 a CPU that was offline begins anew with these two, and only these.
        ((104, 20, 390), (1.04, 0.2, 3.9)),
        ((105, 30, 391), (1.05, 0.3, 3.91)),
    ] {
        stat(&mut tree, &[(0, user, idle, iowait)]);
        assert_eq!(observer.collect().failed, Vec::<String>::new());
        let exposition = observer.exposition();
        let found = ["user", "idle", "iowait"].map(|mode| seconds(&exposition, "0", mode).unwrap());
        assert_eq!(found, [expected.0, expected.1, expected.2], "after {user} {idle} {iowait}");
    }
}
