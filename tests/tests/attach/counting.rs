//! What is counted, by slot, class and window, and slots and routes that come and go.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailgauge::model::kernel::Kernel;
use tailgauge::model::slots::SlotTable;
use tailgauge::model::tailnet::{Peer, Tailnet};
use tailgauge::sources::kernel::{AttachMode, DeviceWatch, KernelConfig, KernelSource};
use tailgauge_ebpf::layout::{CLASS_EXIT, CLASS_LOCAL, CLASS_SUBNET, programs};
use tailgauge_testbed::process::wait_until;

use crate::{
    DEADLINE, HOST, PACKET, PEER, assert_covered, config, device, drain, frame, namespace, read, sync,
    tailnet, write,
};

#[test]
fn a_slot_is_retired_and_reused_without_losing_a_packet() {
    let Some(namespace) = namespace("a_slot_is_retired_and_reused_without_losing_a_packet") else { return };
    let tun = device(&namespace);
    let other = Ipv4Addr::new(100, 64, 0, 3);
    namespace
        .run(|| {
            let mut source = KernelSource::load(&config(AttachMode::Auto)).unwrap();
            let (mut slots, mut kernel) = (SlotTable::new(source.slots()), Kernel::default());
            sync(&mut source, &mut slots, &tailnet(&[("a", PEER)]));
            write(&tun, &frame(PEER, HOST), 40);
            read(&mut source, &mut kernel);
            let first = kernel.slots[1];
            assert_eq!(first.direction[0].skbs, 40);
            assert!(kernel.windows.iter().any(|(slot, _)| *slot == 1));

            sync(&mut source, &mut slots, &tailnet(&[]));
            write(&tun, &frame(PEER, HOST), 2);
            read(&mut source, &mut kernel);
            assert_eq!(kernel.slots[1].direction[0], first.direction[0], "its key is gone");
            assert!(kernel.slots[0].direction[0].skbs >= 2);

            source.retire(&[1], |_, outcome| outcome.unwrap());
            slots.release(1);
            read(&mut source, &mut kernel);
            assert_eq!(kernel.slots[1].direction[0].skbs, 0);
            assert_eq!(kernel.retired.direction[0], first.direction[0]);
            assert!(kernel.windows.iter().all(|(slot, _)| *slot != 1), "nothing of it is left");

            sync(&mut source, &mut slots, &tailnet(&[("z", other)]));
            assert_eq!(slots.slot_of("z"), Some(1));
            write(&tun, &frame(other, HOST), 5);
            drain(&tun);
            read(&mut source, &mut kernel);
            assert_eq!(kernel.slots[1].direction[0].skbs, 5);
            assert_covered(&kernel);
        })
        .unwrap();
}

#[test]
fn classes_follow_the_addresses_of_the_host_and_the_advertised_routes() {
    let Some(namespace) = namespace("classes_follow_the_addresses_of_the_host_and_the_advertised_routes")
    else {
        return;
    };
    let tun = device(&namespace);
    let mut tailnet = tailnet(&[("a", PEER)]);
    tailnet.own_routes = vec!["192.168.7.0/24".parse().unwrap()];
    let lan = Ipv4Addr::new(192, 168, 7, 1);
    let kernel = namespace
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut watch = DeviceWatch::open().unwrap();
                let mut source = KernelSource::load(&config(AttachMode::Auto)).unwrap();
                let (mut slots, mut kernel) = (SlotTable::new(source.slots()), Kernel::default());
                sync(&mut source, &mut slots, &tailnet);
                write(&tun, &frame(PEER, HOST), 1);
                write(&tun, &frame(PEER, lan), 2);
                write(&tun, &frame(PEER, Ipv4Addr::new(198, 51, 100, 1)), 3);
                read(&mut source, &mut kernel);
                let generation = kernel.control.routes_generation;
                namespace.ip(&["addr", "add", "192.168.7.1/32", "dev", "lo"]).unwrap();
                while kernel.control.routes_generation == generation {
                    let event = tokio::time::timeout(DEADLINE, watch.next()).await.unwrap();
                    source.handle(&event);
                    read(&mut source, &mut kernel);
                }
                write(&tun, &frame(PEER, lan), 4);
                read(&mut source, &mut kernel);
                kernel
            })
        })
        .unwrap();
    let wire = kernel.slots[1].direction[0].wire;
    let packets = [CLASS_LOCAL, CLASS_SUBNET, CLASS_EXIT].map(|class| wire[class as usize].packets);
    assert_eq!(packets, [1 + 4, 2, 3]);
}

#[test]
fn windows_of_a_burst_are_closed_and_their_sum_is_exact() {
    let Some(namespace) = namespace("windows_of_a_burst_are_closed_and_their_sum_is_exact") else { return };
    let tun = device(&namespace);
    namespace
        .run(|| {
            let mut source = KernelSource::load(&config(AttachMode::Auto)).unwrap();
            let (mut slots, mut kernel) = (SlotTable::new(source.slots()), Kernel::default());
            sync(&mut source, &mut slots, &tailnet(&[("a", PEER)]));
            write(&tun, &frame(PEER, Ipv4Addr::new(192, 0, 2, 1)), 500);
            wait_until("the windows to be closed", DEADLINE, || {
                read(&mut source, &mut kernel);
                let row = kernel.windows.iter().find(|(slot, _)| *slot == 1);
                row.is_some_and(|(_, row)| row.direction[0].bytes == 0)
            })
            .unwrap();
            let row = &kernel.windows.iter().find(|(slot, _)| *slot == 1).unwrap().1.direction[0];
            assert_eq!(row.histogram.sum, 500 * PACKET);
            assert_eq!(row.histogram.buckets.iter().sum::<u64>(), row.histogram.count);
            let peak = row.peaks.iter().map(|peak| peak & 0xffff_ffff).max().unwrap();
            assert!(peak > 0 && peak <= 500 * PACKET);
            let tunnel = &kernel.tunnel_windows.as_ref().unwrap().direction[0];
            assert_eq!(tunnel.histogram.sum + tunnel.bytes, 500 * PACKET);
        })
        .unwrap();
}

#[test]
fn run_time_is_counted_while_statistics_are_on() {
    let Some(namespace) = namespace("run_time_is_counted_while_statistics_are_on") else { return };
    let tun = device(&namespace);
    namespace
        .run(|| {
            let mut source = KernelSource::load(&config(AttachMode::Auto)).unwrap();
            let mut kernel = Kernel::default();
            source.enable_statistics(DEADLINE).unwrap();
            write(&tun, &frame(PEER, HOST), 10);
            read(&mut source, &mut kernel);
            let run = kernel.programs.iter().find(|run| run.name == programs::TUNNEL_INGRESS).unwrap();
            assert_eq!(run.count, 10);
            assert!(run.nanoseconds > 0);
        })
        .unwrap();
}

#[test]
fn a_hundred_thousand_routes_are_installed_and_removed() {
    let Some(namespace) = namespace("a_hundred_thousand_routes_are_installed_and_removed") else { return };
    let _tun = device(&namespace);
    namespace
        .run(|| {
            let mut source = KernelSource::load(&config(AttachMode::Auto)).unwrap();
            let (mut slots, mut kernel) = (SlotTable::new(source.slots()), Kernel::default());
            let network = |index: u32| {
                let address = Ipv4Addr::from(0x0a00_0000 + index * 4);
                format!("{address}/30").parse().unwrap()
            };
            let greedy = Peer {
                id: "a".to_owned(),
                allowed_ips: (0..100_000).map(network).collect(),
                ..Peer::default()
            };
            let tailnet = Tailnet { peers: vec![Arc::new(greedy)], ..Tailnet::default() };
            sync(&mut source, &mut slots, &tailnet);
            read(&mut source, &mut kernel);
            let fill = |kernel: &Kernel| {
                kernel.maps.iter().find(|map| map.name == "PREFIXES_V4").map(|map| map.entries)
            };
            assert_eq!((fill(&kernel), kernel.keys_without_room), (Some(100_000), 0));
            assert_eq!((kernel.control.has_prefixes_v4, kernel.control.has_prefixes_v6), (1, 0));
            sync(&mut source, &mut slots, &Tailnet::default());
            read(&mut source, &mut kernel);
            assert_eq!((fill(&kernel), kernel.map_update_errors_total), (Some(0), 0));
            assert_eq!(kernel.control.has_prefixes_v4, 0);
        })
        .unwrap();
}

#[test]
fn a_syn_that_nobody_answers_is_counted_once() {
    let Some(namespace) = namespace("a_syn_that_nobody_answers_is_counted_once") else { return };
    let _tun = device(&namespace);
    namespace
        .run(|| {
            let timeout = Duration::from_secs(1);
            let mut source =
                KernelSource::load(&KernelConfig { handshake_timeout: timeout, ..config(AttachMode::Auto) })
                    .unwrap();
            let (mut slots, mut kernel) = (SlotTable::new(source.slots()), Kernel::default());
            sync(&mut source, &mut slots, &tailnet(&[("a", PEER)]));
            let started = Instant::now();
            let address = (PEER, 80).into();
            assert!(TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err());
            let timed_out = |kernel: &Kernel| {
                kernel.tcp.iter().find(|(slot, _)| *slot == 1).map_or([0; 2], |(_, tcp)| tcp.timed_out)
            };
            let in_flight = |kernel: &Kernel| {
                kernel.maps.iter().find(|map| map.name == "HANDSHAKES").map(|map| map.entries)
            };
            source.sweep();
            read(&mut source, &mut kernel);
            if started.elapsed() < timeout {
                assert_eq!((in_flight(&kernel), timed_out(&kernel)), (Some(1), [0, 0]));
            }
            wait_until("the handshake to time out", DEADLINE, || {
                source.sweep();
                read(&mut source, &mut kernel);
                timed_out(&kernel) != [0, 0]
            })
            .unwrap();
            assert!(started.elapsed() >= timeout);
            source.sweep();
            read(&mut source, &mut kernel);
            assert_eq!(timed_out(&kernel), [0, 1], "by this host, once");
        })
        .unwrap();
}
