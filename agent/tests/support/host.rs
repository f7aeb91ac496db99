//! A host with something in every field.

use std::sync::Arc;
use std::time::Duration;

use tailgauge::model::host::{
    Boot, Cgroup, Coalescing, Connections, Conntrack, ConntrackStatistics, Cpu, CpuFrequency, CpuTime,
    DeviceInterrupts, DeviceSettings, DeviceTraffic, Discipline, Disk, DriverStatistics, Filesystem, Host,
    Ip, Load, Memory, NetworkDevice, NetworkDevices, Paging, Pressure, Processes, Protocols, Qdisc,
    RoundTrip, Settings, Sizes, SocketUse, SoftirqVector, Softirqs, Softnet, Stall, Tailscaled,
    TailscaledUdp, Tcp as HostTcp, TcpSockets, TcpStates, Throttling, Time, Udp, UdpBuffers, UdpSockets,
};
use tailgauge::model::synthetic;

fn connections() -> Connections {
    Connections {
        open: 2,
        round_trip: Some(RoundTrip { mean: 0.0125, max: 0.02, min: None, variation: 0.001 }),
        retransmitted_segments: 3,
        delivery_rate: Some(1 << 20),
        busy_seconds: Some(1.5),
        ..Connections::default()
    }
}

pub(super) fn host() -> Host {
    let time = CpuTime { user: 10.5, system: 3.25, idle: 1000.0, softirq: 0.75, ..CpuTime::default() };
    let filesystem = Filesystem {
        device: "/dev/vda1".to_owned(),
        mount_point: "/a \"b\"".to_owned(),
        fstype: "ext4".to_owned(),
        size_bytes: 1 << 40,
        available_bytes: 1 << 39,
        ..Filesystem::default()
    };
    let ip = Ip {
        in_receives: Some(100),
        forwarded: Some(90),
        fragmentation_failures: Some(1),
        reverse_path_drops: Some(2),
        ..Ip::default()
    };
    let udp =
        Udp { in_datagrams: Some(5), in_errors: Some(3), receive_buffer_errors: Some(2), ..Udp::default() };
    let stall = Stall { some_seconds: 1.5, full_seconds: Some(0.5) };
    Host {
        boot: Some(Boot { hostname: "exit".to_owned(), kernel_release: "6.18.0".to_owned() }),
        cpu: Some(Cpu {
            total: time,
            per_cpu: vec![(0, time), (1, time)],
            context_switches: 9,
            boot_time: Some(1_790_000_000),
            ..Cpu::default()
        }),
        cpu_frequencies: Some(vec![CpuFrequency {
            cpu: 1,
            hertz: Some(1_200_000_000),
            limit_hertz: Some(3_400_000_000),
            core_throttles: Some(5),
            package_throttles: Some(7),
        }]),
        load: Some(Load { one: 0.25, five: 0.5, fifteen: 0.75 }),
        processes: Some(Processes { threads: 91, threads_limit: 192_730, pids_limit: 32_768 }),
        time: Some(Time {
            now: Duration::from_millis(1_790_100_000_125),
            uptime: Duration::from_millis(100_000_125),
            discipline: Some(Discipline {
                synchronized: true,
                offset_seconds: -0.001,
                frequency_ratio: 1.000_025,
                ..Discipline::default()
            }),
            sources: vec!["tsc".to_owned(), "hpet".to_owned()],
            source: "tsc".to_owned(),
        }),
        memory: Some(Memory { total: 1 << 32, available: Some(1 << 31), ..Memory::default() }),
        paging: Some(Paging {
            oom_kills: Some(0),
            allocation_stalls: Some(3),
            major_faults: Some(12),
            ..Paging::default()
        }),
        disks: Some(vec![Disk { name: "vda".to_owned(), reads: 3, read_seconds: 0.125, ..Disk::default() }]),
        filesystems: Some(vec![filesystem]),
        protocols: Some(Protocols {
            ipv4: ip,
            ipv6: Some(ip),
            udp,
            udp6: None,
            tcp: HostTcp {
                established: Some(4),
                retransmitted_segments: Some(6),
                lost_retransmits: Some(7),
                sack_recoveries: Some(8),
                mtu_probe_successes: Some(9),
                ..HostTcp::default()
            },
        }),
        cgroup: Some(Cgroup {
            cpu_quota: Some(0.5),
            throttling: Some(Throttling { periods: 10, throttled_periods: 4, throttled_seconds: 1.5 }),
            memory_bytes: Some(4096),
            memory_limit_bytes: None,
            oom_kills: Some(0),
            pressure: Some(Pressure { cpu: Some(stall), memory: None, io: Some(stall), irq: Some(0.125) }),
        }),
        udp: Some(TailscaledUdp {
            ipv4: UdpSockets {
                sockets: 1,
                buffers: Some(UdpBuffers {
                    receive_buffer_bytes: 7 << 20,
                    drops: 5,
                    ..UdpBuffers::default()
                }),
            },
            ipv6: UdpSockets { sockets: 0, buffers: Some(UdpBuffers::default()) },
        }),
        tcp: Some(TcpSockets {
            states: TcpStates { established: Some(4), listen: 3, close_wait: 1, ..TcpStates::default() },
            // The last one has no slot.
            peers: [1, 2, 4].map(|number| (Arc::new(synthetic::peer(number)), connections())).into(),
            tailscaled: Some(Connections { open: 2, connecting: 1, ..Connections::default() }),
        }),
        devices: Some(NetworkDevices {
            count: 1,
            devices: vec![NetworkDevice {
                index: 2,
                name: "tailscale0".to_owned(),
                operational_state: "unknown",
                up: true,
                mtu: Some(1280),
                gso_max_bytes: Some(65_536),
                speed_megabits: Some(1000),
                duplex: Some("full"),
                receive_no_handler: 5,
                transmit: DeviceTraffic { bytes: 100, packets: 2, errors: 0, dropped: 1 },
                ..NetworkDevice::default()
            }],
        }),
        device_settings: Some(vec![DeviceSettings {
            device: "eth0".to_owned(),
            driver: Some("virtio_net".to_owned()),
            offloads: vec![("rx-gro-list", false), ("rx-udp-gro-forwarding", true)],
            receive_ring: Sizes { now: Some(256), most: Some(1024) },
            transmit_ring: Sizes { now: Some(512), most: Some(2048) },
            receive_queues: Sizes { now: Some(1), most: Some(2) },
            transmit_queues: Sizes { now: Some(3), most: Some(4) },
            receive_coalescing: Coalescing { delay_microseconds: Some(50), adaptive: Some(true) },
            transmit_coalescing: Coalescing { delay_microseconds: Some(0), adaptive: Some(false) },
            receive_pause: Some(true),
            transmit_pause: Some(false),
        }]),
        driver_statistics: Some(vec![DriverStatistics {
            device: "eth0".to_owned(),
            losses: vec![("rx_drops".into(), 8), ("tx_timeouts".into(), 0)],
            allowances_exceeded: vec![("bw_in".into(), 9)],
            allowances_available: vec![("conntrack".into(), 1000)],
            found: 4,
        }]),
        qdiscs: Some(vec![Qdisc {
            device: "eth0".to_owned(),
            kind: "tbf".to_owned(),
            drops: 3,
            ..Qdisc::default()
        }]),
        interrupts: Some(vec![DeviceInterrupts {
            device: "eth0".to_owned(),
            lines: 2,
            by_cpu: vec![(0, 4_976), (1, 0)],
        }]),
        softirqs: Some(Softirqs {
            cpus: vec![0, 1],
            vectors: vec![SoftirqVector { name: "NET_RX".to_owned(), runs: vec![5, 7] }],
        }),
        sockets: Some(SocketUse { sockets: 12, tcp: 5, tcp6: Some(1), udp: 3, ..SocketUse::default() }),
        conntrack: Some(Conntrack {
            entries: 42,
            limit: 262_144,
            buckets: Some(65_536),
            statistics: Some(ConntrackStatistics { drop: 1, ..ConntrackStatistics::default() }),
        }),
        settings: Some(Settings {
            numbers: vec![
                ("net.ipv4.ip_forward".into(), 1),
                ("net.ipv4.conf.tailscale0.rp_filter".into(), 2),
            ],
            congestion_control: Some("cubic".to_owned()),
            default_qdisc: None,
        }),
        softnet: Some(vec![Softnet {
            cpu: 0,
            processed: 77,
            received_rps: 6,
            backlog: Some(0),
            ..Softnet::default()
        }]),
        pressure: Some(Pressure { cpu: Some(stall), memory: Some(stall), io: None, irq: Some(0.25) }),
        tailscaled: Some(Tailscaled {
            pid: 1,
            started: Duration::from_millis(100_250),
            user_seconds: 2.0,
            system_seconds: 1.0,
            run_queue_delay_seconds: Some(0.5),
            threads: 12,
            resident_bytes: 50 << 20,
            virtual_bytes: 1 << 31,
            open_fds: None,
            max_fds: Some(1024),
            allowed_cpus: Some(2),
            swapped_bytes: Some(0),
            voluntary_context_switches: Some(100),
            involuntary_context_switches: Some(3),
        }),
    }
}
