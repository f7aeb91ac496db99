//! `/compat/node` when procfs and sysfs hold anything at all: it never panics, and what it writes is well-formed and
//! has no series twice.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use tailgauge::model::node::{Node, NodeCollector};
use tailgauge::outputs::compat;
use tailgauge::sources::host::{NodeSource, Paths};

#[path = "support/reader.rs"]
mod reader;

/// Files as the kernel writes them, all below one folder.
const FILES: [(&str, &str); 37] = [
    ("loadavg", "0.10 0.96 1.05 1/91 19623\n"),
    ("meminfo", "MemTotal: 100 kB\nActive(anon): 2 kB\nHugePages_Total: 3\n"),
    ("vmstat", "nr_free_pages 5\npgpgin 1\npgfault 4\noom_kill 6\n"),
    (
        "stat",
        "cpu 1 2 3 4 5\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu1 1 2 3 4\nintr 5 0\nctxt 6\nbtime 7\nprocesses 8\nprocs_running 1\nprocs_blocked 0\n",
    ),
    ("diskstats", " 254 0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n 8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n"),
    (
        "1/mountinfo",
        "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n28 1 0:5 / /far\\040away ro - tmpfs t rw\n",
    ),
    ("1/stat", "1 (init) S 0 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 2 0 1 1 1\n"),
    ("1/task/1/stat", "1 (init) S 0 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 2 0 1 1 1\n"),
    ("1/task/7/stat", "7 (init) R 0 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 2 0 1 1 1\n"),
    ("sys/kernel/threads-max", "100\n"),
    ("sys/kernel/pid_max", "32768\n"),
    ("sys/net/netfilter/nf_conntrack_count", "7\n"),
    ("sys/net/netfilter/nf_conntrack_max", "262144\n"),
    (
        "net/stat/nf_conntrack",
        "entries found invalid ignore insert insert_failed drop early_drop search_restart\n1 2 3 4 5 6 7 8 9\n",
    ),
    ("net/netstat", "TcpExt: SyncookiesSent ListenDrops\nTcpExt: 1 3\nIpExt: InOctets\nIpExt: 4\n"),
    ("net/snmp", "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: MaxConn InErrs\nTcp: -1 5\n"),
    ("net/snmp6", "Ip6InOctets 6\nUdpLite6InErrors 8\n"),
    ("net/sockstat", "sockets: used 20\nTCP: inuse 4 orphan 0 tw 0 alloc 4 mem 2\nFRAG: inuse 0 memory 0\n"),
    ("net/sockstat6", "TCP6: inuse 1\n"),
    ("net/softnet_stat", "0000000d 0 0 0 0 0 0 0 0 0 0 0 0\n00000001 0 0 0 0 0 0 0 0 0 0 0 1\n"),
    ("pressure/cpu", "some avg10=0.01 total=280833162\nfull avg10=0.00 total=0\n"),
    ("pressure/memory", "some total=1\nfull total=1\n"),
    ("pressure/io", "some total=1\nfull total=1\n"),
    ("pressure/irq", "full total=1\n"),
    ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='x y'\nSUPPORT_END=2030-01-01\n"),
    (
        "run/udev/data/b254:0",
        "E:ID_MODEL=a\nE:ID_FS_TYPE=ext4\nE:DM_NAME=b\nE:ID_ATA=1\nE:ID_ATA_WRITE_CACHE=1\n",
    ),
    ("block/vda/queue/rotational", "1\n"),
    ("class/net/eth0/mtu", "1500\n"),
    ("class/net/eth0/flags", "0x1003\n"),
    ("class/net/eth0/speed", "1000\n"),
    ("class/net/eth0/ifalias", "uplink\n"),
    ("devices/system/cpu/present", "0-1\n"),
    ("devices/system/cpu/isolated", "1\n"),
    ("devices/system/cpu/cpu0/online", "1\n"),
    ("devices/system/cpu/cpu1/online", "0\n"),
    ("devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet\n"),
    ("devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
];

fn write(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Where a removed file waits: the kernel's are never made anew, and are kept open.
fn aside(root: &Path, name: &str) -> PathBuf {
    root.join(format!("{name}.removed"))
}

/// What becomes of a file.
#[derive(Clone, Debug)]
enum Damage {
    Replaced(Vec<u8>),
    Cut(Index),
    Inserted(Index, Vec<u8>),
    /// Its lines are there twice, as after a row was added while it was read.
    Doubled,
    Removed,
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let words = || "[0-9a-z:=()\\\\/\"{}, \n-]{0,12}".prop_map(String::into_bytes);
    prop_oneof![
        bytes().prop_map(Damage::Replaced),
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), prop_oneof![bytes(), words()]).prop_map(|(at, bytes)| Damage::Inserted(at, bytes)),
        Just(Damage::Doubled),
        Just(Damage::Removed),
    ]
}

fn apply(root: &Path, (name, text): (&str, &str), damage: &Damage) {
    let bytes = text.as_bytes();
    match damage {
        Damage::Replaced(bytes) => write(root, name, bytes),
        Damage::Cut(at) => write(root, name, &bytes[..at.index(bytes.len())]),
        Damage::Inserted(at, more) => {
            let (before, after) = bytes.split_at(at.index(bytes.len()));
            write(root, name, &[before, more, after].concat());
        }
        Damage::Doubled => write(root, name, &[bytes, bytes].concat()),
        // It may have been removed before.
        Damage::Removed => drop(fs::rename(root.join(name), aside(root, name))),
    }
}

fn scrape(source: &mut NodeSource, node: &mut Node) -> Result<reader::Exposition, String> {
    source.collect(NodeCollector::ALL.into_iter().collect(), node);
    let mut out = BytesMut::new();
    compat::node::render(node, &mut out);
    reader::parse(std::str::from_utf8(&out).map_err(|error| error.to_string())?, false)
}

fn source(root: &Path) -> NodeSource {
    let [procfs, sysfs, rootfs] = [(); 3].map(|()| root.to_owned());
    NodeSource::new(Paths { procfs, sysfs, rootfs, ..Paths::default() })
}

#[test]
fn every_collector_succeeds_on_good_files() {
    let root = tempfile::tempdir().unwrap();
    FILES.iter().for_each(|(name, text)| write(root.path(), name, text.as_bytes()));
    let exposition = scrape(&mut source(root.path()), &mut Node::default()).unwrap();
    for sample in exposition.named("node_scrape_collector_success") {
        assert_eq!(sample.value, 1.0, "{:?}", sample.labels);
    }
    assert!(exposition.types["node_vmstat_pgfault"] == "untyped" && exposition.samples.len() > 150);
}

#[test]
fn whatever_the_files_hold_the_answer_is_well_formed() {
    let root = tempfile::tempdir().unwrap();
    FILES.iter().for_each(|(name, text)| write(root.path(), name, text.as_bytes()));
    let shared = RefCell::new((source(root.path()), Node::default()));
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    let damages = prop::collection::vec((any::<Index>(), damage()), 1..24);
    let outcome = TestRunner::new(config).run(&damages, |damages| {
        let (source, node) = &mut *shared.borrow_mut();
        let damaged = || damages.iter().map(|(file, damage)| (FILES[file.index(FILES.len())], damage));
        damaged().for_each(|(file, damage)| apply(root.path(), file, damage));
        let answer = scrape(source, node);
        for ((name, text), _) in damaged() {
            // It was not removed, mostly.
            let _ = fs::rename(aside(root.path(), name), root.path().join(name));
            write(root.path(), name, text.as_bytes());
        }
        prop_assert!(answer.is_ok(), "{}", answer.unwrap_err());
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    // What was kept from bad files does no harm once they are good again.
    let (mut source, mut node) = shared.into_inner();
    let exposition = scrape(&mut source, &mut node).unwrap();
    for sample in exposition.named("node_scrape_collector_success") {
        assert_eq!(sample.value, 1.0, "{:?}", sample.labels);
    }
}
