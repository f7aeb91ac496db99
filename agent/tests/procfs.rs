//! The collectors that read /proc, over what several kernels printed there (see procfs/README.md). Expected figures
//! were read from the files by eye.

use std::fs::File;
use std::path::{Path, PathBuf};

use procfs::{FromRead, FromReadSI, KernelStats, Meminfo};
use tailgauge::model::collector::Collectors;
use tailgauge::model::host::Host;
use tailgauge::sources::host::{HostSource, Paths};

/// Those that ask the kernel of this machine and not /proc, and what a tree of text cannot have.
const ELSEWHERE: [&str; 8] = ["cpufreq", "driver", "ethtool", "link", "processes", "qdisc", "tcp", "udp"];
const KERNELS: [&str; 3] = ["6.1", "6.12", "6.18"];

fn tree(kernel: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/procfs").join(kernel)
}

/// Runs the collectors once; each that has its files must succeed.
fn collect(kernel: &str) -> Host {
    let tree = tree(kernel);
    let paths = Paths {
        procfs: tree.join("proc"),
        sysfs: tree.join("sys"),
        rootfs: tree.join("no-file-systems"),
        localapi: tree.join("no-socket"),
        interface: "near0".to_owned(),
    };
    let has_mounts = tree.join("proc/self/mountinfo").exists();
    let mut source = HostSource::new(paths, |info| {
        !ELSEWHERE.contains(&info.name) && (has_mounts || info.name != "filesystem")
    });
    let (mut host, mut status) = (Host::default(), Collectors::default());
    source.collect(&mut host, &mut status);
    let failed: Vec<_> = status.iter().filter(|(_, status)| !status.success).map(|(name, _)| name).collect();
    assert!(failed.is_empty() && status.iter().count() >= 13, "{kernel}: {failed:?}");
    host
}

#[test]
fn every_collector_understands_every_kernel() {
    for kernel in KERNELS {
        let host = collect(kernel);
        let cpu = host.cpu.expect("cpu");
        assert_eq!(cpu.per_cpu.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1], "{kernel}");
        assert_eq!(host.softirqs.expect("softirqs").cpus, [0, 1], "{kernel}");
        assert_eq!(host.filesystems.is_some(), kernel != "6.18", "{kernel}");
        let pressure = host.pressure.expect("pressure");
        assert!(pressure.cpu.is_some_and(|cpu| cpu.some_seconds > 5.0 && cpu.full_seconds == Some(0.0)));
        assert_eq!(pressure.irq, None, "{kernel} was built without IRQ_TIME_ACCOUNTING");
        let conntrack = host.conntrack.expect("conntrack");
        assert_eq!(
            (conntrack.entries, conntrack.statistics.map(|counts| counts.drop)),
            (5, Some(0)),
            "{kernel}"
        );
        let protocols = host.protocols.expect("netstat");
        assert_eq!(protocols.tcp.active_opens, Some(1), "{kernel}");
        assert_eq!(protocols.udp.no_ports, Some(1), "{kernel}");
        assert_eq!(protocols.udp.receive_buffer_errors, protocols.udp.in_errors, "{kernel}");
        let sockets = host.sockets.expect("sockstat");
        assert_eq!((sockets.udp, sockets.tcp_time_wait), (1, 1), "{kernel}");
        let settings = host.settings.expect("sysctl");
        let setting =
            |name: &str| settings.numbers.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        assert_eq!(setting("net.ipv4.ip_forward"), Some(1), "{kernel}");
        assert_eq!(setting("net.ipv4.conf.near0.forwarding"), Some(1), "{kernel}");
        assert_eq!(setting("net.ipv6.conf.near0.forwarding"), Some(0), "{kernel}");
        assert_eq!(setting("net.netfilter.nf_conntrack_udp_timeout_stream"), Some(120), "{kernel}");
    }
}

#[test]
fn kernel_6_1() {
    let host = collect("6.1");
    let boot_time = host.boot_time();
    let cpu = host.cpu.unwrap();
    assert_eq!((cpu.total.user, cpu.total.system, cpu.total.softirq), (1.86, 5.99, 0.46));
    assert_eq!((cpu.per_cpu[1].1.idle, cpu.context_switches, cpu.forks), (6.83, 4589, 162));
    assert_eq!(host.load.unwrap().one, 0.15);
    let vector = &host.softirqs.unwrap().vectors[3];
    assert_eq!((vector.name.as_str(), &vector.runs[..]), ("NET_RX", &[979, 332][..]));
    let softnet = host.softnet.unwrap();
    assert_eq!((softnet[0].processed, softnet[0].squeezed, softnet[1].cpu), (0x43e, 10, 1));
    let disks = host.disks.unwrap();
    assert_eq!((disks.len(), disks[0].name.as_str(), disks[0].reads), (1, "vda", 311));
    let protocols = host.protocols.unwrap();
    assert_eq!((protocols.ipv4.in_receives, protocols.ipv4.out_requests), (Some(1191), Some(303)));
    assert_eq!(protocols.ipv6.unwrap().in_receives, Some(14));
    assert_eq!(protocols.udp.receive_buffer_errors, Some(83));
    assert_eq!(protocols.tcp.out_segments, Some(2989));
    let tailscaled = host.tailscaled.unwrap();
    assert_eq!((tailscaled.pid, tailscaled.user_seconds, tailscaled.system_seconds), (125, 1.72, 0.17));
    assert_eq!(tailscaled.run_queue_delay_seconds, Some(8.024_185_875));
    assert_eq!(boot_time.map(|boot| (boot + tailscaled.started).as_millis()), Some(1_795_622_599_120));
    assert_eq!((tailscaled.max_fds, tailscaled.allowed_cpus), (Some(1024), Some(2)));
    let cgroup = host.cgroup.unwrap();
    assert_eq!((cgroup.cpu_quota, cgroup.memory_limit_bytes), (Some(0.2), Some(256 << 20)));
    assert!(cgroup.throttling.is_some_and(|throttling| throttling.throttled_periods > 50));
}

#[test]
fn kernel_6_12() {
    let host = collect("6.12");
    let cpu = host.cpu.unwrap();
    assert_eq!((cpu.total.user, cpu.per_cpu[0].1.system, cpu.context_switches), (1.89, 3.3, 4686));
    assert_eq!(host.memory.unwrap().total, 990_068 << 10);
    let softnet = host.softnet.unwrap();
    assert_eq!((softnet[1].processed, softnet[1].squeezed, softnet[1].cpu), (0x51d, 4, 1));
    let protocols = host.protocols.unwrap();
    assert_eq!((protocols.ipv4.in_receives, protocols.ipv4.out_requests), (Some(1182), Some(328)));
    assert_eq!(protocols.udp.receive_buffer_errors, Some(81));
    let tailscaled = host.tailscaled.unwrap();
    assert_eq!((tailscaled.pid, tailscaled.resident_bytes), (171, 379 * 4096));
    assert_eq!(tailscaled.run_queue_delay_seconds, Some(8.638_710_272));
    assert_eq!(tailscaled.involuntary_context_switches, Some(173));
    assert_eq!(host.cgroup.unwrap().cpu_quota, Some(0.2));
}

#[test]
fn kernel_6_18() {
    let host = collect("6.18");
    let cpu = host.cpu.unwrap();
    assert_eq!((cpu.total.user, cpu.total.nice, cpu.total.steal), (2152.1, 789.62, 3.34));
    assert_eq!((cpu.per_cpu[1].1.softirq, cpu.context_switches), (4.8, 3_733_739));
    let paging = host.paging.unwrap();
    assert_eq!((paging.oom_kills, paging.major_faults), (Some(6), Some(19_726)));
    let softnet = host.softnet.unwrap();
    assert_eq!((softnet[0].processed, softnet[1].processed), (0xe_22d7, 0x16_7f5f));
    let disks: Vec<_> = host.disks.unwrap().into_iter().map(|disk| (disk.name, disk.reads)).collect();
    assert!(disks.contains(&("vda".to_owned(), 437_582)), "{disks:?}");
    let protocols = host.protocols.unwrap();
    assert_eq!((protocols.ipv4.in_receives, protocols.udp.receive_buffer_errors), (Some(1268), Some(86)));
    assert_eq!(protocols.tcp.retransmitted_segments, Some(1));
    assert_eq!(host.tailscaled.unwrap().run_queue_delay_seconds, Some(5.277_011_459));
    assert_eq!(host.cgroup, None, "its groups were not recorded");
}

#[test]
fn the_procfs_crate_reads_the_same() {
    for kernel in KERNELS {
        let host = collect(kernel);
        let open = |name: &str| File::open(tree(kernel).join("proc").join(name)).unwrap();
        let stat = KernelStats::from_read(open("stat"), procfs::current_system_info()).unwrap();
        let cpu = host.cpu.unwrap();
        assert_eq!((cpu.context_switches, cpu.forks), (stat.ctxt, stat.processes), "{kernel}");
        assert_eq!(cpu.running, u64::from(stat.procs_running.unwrap()), "{kernel}");
        let meminfo = Meminfo::from_read(open("meminfo")).unwrap();
        let memory = host.memory.unwrap();
        let expected = (meminfo.mem_total, meminfo.mem_free, meminfo.mem_available);
        assert_eq!((memory.total, memory.free, memory.available), expected, "{kernel}");
    }
}
