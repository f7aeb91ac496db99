//! The kernel source on real TUN devices: attaching, following, counting, retiring.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::EbpfLoader;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use tailgauge::model::kernel::{HookMode, Kernel};
use tailgauge::model::slots::SlotTable;
use tailgauge::model::tailnet::{Peer, Tailnet};
use tailgauge::sources::kernel::{AttachMode, DeviceWatch, KernelConfig, KernelError, KernelSource, probe};
use tailgauge_ebpf::layout::{CLASS_EXIT, CLASS_LOCAL, CLASS_SUBNET, RECEIVE, TRANSMIT, globals, programs};
use tailgauge_testbed::netns::{Namespace, unique_prefix};
use tailgauge_testbed::offload::vnet::VNET_HEADER_LEN;
use tailgauge_testbed::process::{self, wait_for, wait_until};
use tailgauge_testbed::tun::Tun;
use tailgauge_testbed::{needs, programs::OBJECT};

const DEVICE: &str = "tailscale0";
const HOST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
const PAYLOAD: usize = 100;
/// IPv4 header, UDP header, payload.
const PACKET: u64 = 20 + 8 + PAYLOAD as u64;
const DEADLINE: Duration = Duration::from_secs(10);

fn namespace(test: &str) -> Option<Namespace> {
    needs::root_and(test, &["ip", "tc"]).ok()?;
    let namespace = Namespace::create(format!("{}-attach", unique_prefix())).unwrap();
    // No router solicitations between the packets that are counted here.
    namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
    Some(namespace)
}

/// A device with an address, up.
fn device(namespace: &Namespace) -> Tun {
    let tun = create(namespace);
    bring_up(namespace);
    tun
}

/// A device, down. One before it may be held for a moment by a child that another test has forked.
fn create(namespace: &Namespace) -> Tun {
    wait_for("the device", DEADLINE, || Tun::create(namespace, DEVICE).ok()).unwrap()
}

fn bring_up(namespace: &Namespace) {
    namespace.ip(&["addr", "add", "100.64.0.1/24", "dev", DEVICE]).unwrap();
    namespace.ip(&["link", "set", DEVICE, "up"]).unwrap();
}

fn config(mode: AttachMode) -> KernelConfig {
    KernelConfig { attach_mode: mode, ..KernelConfig::new(DEVICE, 10) }
}

/// The hook to expect where none is demanded: tcx came with Linux 6.6.
fn best_mode() -> HookMode {
    let has_tcx = KernelVersion::current().unwrap() >= KernelVersion::new(6, 6, 0);
    if has_tcx { HookMode::Tcx } else { HookMode::Clsact }
}

/// The modes that can be demanded of this kernel.
fn demandable_modes() -> &'static [AttachMode] {
    let both = &[AttachMode::Clsact, AttachMode::Tcx];
    if best_mode() == HookMode::Tcx { both } else { &both[..1] }
}

fn tailnet(peers: &[(&str, Ipv4Addr)]) -> Tailnet {
    let peer = |(id, address): &(&str, Ipv4Addr)| {
        let addresses = vec![IpAddr::from(*address)];
        Arc::new(Peer { id: (*id).to_owned(), addresses, ..Peer::default() })
    };
    Tailnet { peers: peers.iter().map(peer).collect(), ..Tailnet::default() }
}

/// Gives the source the tailnet and its slots.
fn sync(source: &mut KernelSource, slots: &mut SlotTable, tailnet: &Tailnet) {
    slots.update(&tailnet.peers, Instant::now());
    source.sync(tailnet, slots);
}

/// A UDP packet behind an empty virtio_net_hdr, as tailscaled writes it.
fn frame(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0; VNET_HEADER_LEN];
    let total = PACKET as u16;
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&total.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend_from_slice(&source.octets());
    frame.extend_from_slice(&destination.octets());
    frame.extend_from_slice(&[0x30, 0x39, 0x30, 0x39, 0, 8 + PAYLOAD as u8, 0, 0]);
    frame.resize(VNET_HEADER_LEN + PACKET as usize, 0);
    let sum = frame[VNET_HEADER_LEN..VNET_HEADER_LEN + 20]
        .chunks_exact(2)
        .fold(0u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    frame[VNET_HEADER_LEN + 10..VNET_HEADER_LEN + 12].copy_from_slice(&checksum.to_be_bytes());
    frame
}

fn write(tun: &Tun, frame: &[u8], times: usize) {
    for _ in 0..times {
        assert_eq!(tun.write(frame).unwrap(), frame.len());
    }
}

/// Empties the queue towards user space, as tailscaled does; the device counts a packet when it is read.
fn drain(tun: &Tun) {
    let mut buffer = vec![0; 65_536];
    while tun.read(&mut buffer).is_ok() {}
}

fn read(source: &mut KernelSource, kernel: &mut Kernel) {
    source.read(kernel, 1).unwrap();
}

/// Asserts that what the programs counted is what the device counted, to the packet and byte.
fn assert_covered(kernel: &Kernel) {
    let coverage = kernel.coverage.unwrap();
    let device = coverage.device;
    assert_eq!(
        (coverage.counted_skbs, coverage.counted_bytes),
        (
            [device.receive_packets, device.transmit_packets + device.transmit_dropped],
            [device.receive_bytes, device.transmit_bytes]
        ),
        "counted ÷ device, packets and bytes"
    );
}

/// Of the hooks on the tunnel.
fn modes(kernel: &Kernel) -> Vec<HookMode> {
    kernel.hooks.iter().filter(|hook| hook.device == DEVICE).map(|hook| hook.mode).collect()
}

fn count_filters(namespace: &Namespace, device: &str, side: &str) -> usize {
    let arguments = ["filter", "show", "dev", device, side];
    let listed = process::run(namespace.command("tc").args(arguments)).unwrap();
    listed.lines().filter(|line| line.contains("handle")).count()
}

#[test]
fn both_modes_count_to_the_byte_and_leave_nothing_behind() {
    let Some(namespace) = namespace("both_modes_count_to_the_byte_and_leave_nothing_behind") else { return };
    let tun = device(&namespace);
    for &mode in [AttachMode::Auto].iter().chain(demandable_modes()) {
        let expected = match mode {
            AttachMode::Auto => best_mode(),
            AttachMode::Tcx => HookMode::Tcx,
            AttachMode::Clsact => HookMode::Clsact,
        };
        namespace
            .run(|| {
                // Traffic from before the hooks is none of theirs.
                write(&tun, &frame(PEER, HOST), 33);
                drain(&tun);
                let mut source = KernelSource::load(&config(mode)).unwrap();
                let (mut slots, mut kernel) = (SlotTable::new(source.slots()), Kernel::default());
                sync(&mut source, &mut slots, &tailnet(&[("a", PEER)]));
                read(&mut source, &mut kernel);
                assert_eq!(modes(&kernel), [expected; 2], "{mode:?}: {:?}", kernel.hooks);
                assert_eq!(kernel.hooks[0].reason, None);

                let before = kernel.slots[1];
                write(&tun, &frame(PEER, HOST), 100);
                let socket = UdpSocket::bind((HOST, 0)).unwrap();
                for _ in 0..50 {
                    socket.send_to(&[0; PAYLOAD], (PEER, 9)).unwrap();
                }
                drain(&tun);
                read(&mut source, &mut kernel);
                let [receive, transmit] = kernel.slots[1].direction;
                assert_eq!(receive.skbs - before.direction[0].skbs, 100);
                let wire = receive.wire[CLASS_LOCAL as usize];
                assert_eq!((wire.packets, wire.bytes), (100, 100 * PACKET));
                // Some of the peer's packets are answered by ICMP.
                assert!(transmit.wire[CLASS_LOCAL as usize].packets >= 50);
                assert_covered(&kernel);
                assert_eq!(kernel.coverage.unwrap().ratio(RECEIVE as usize), Some(1.0));
                assert_eq!(kernel.coverage.unwrap().ratio(TRANSMIT as usize), Some(1.0));
                if expected == HookMode::Clsact {
                    assert_eq!(
                        (
                            count_filters(&namespace, DEVICE, "ingress"),
                            count_filters(&namespace, DEVICE, "egress")
                        ),
                        (1, 1)
                    );
                }
                drop(source);
            })
            .unwrap();
        // A child that another test has forked may hold the links for a moment.
        wait_until("the hooks to go", DEADLINE, || hooks_on(&namespace, DEVICE) == 0).unwrap();
        assert_eq!(
            (count_filters(&namespace, DEVICE, "ingress"), count_filters(&namespace, DEVICE, "egress")),
            (0, 0)
        );
    }
}

#[test]
fn attaching_amid_traffic_finds_the_starting_point() {
    let Some(namespace) = namespace("attaching_amid_traffic_finds_the_starting_point") else { return };
    let tun = device(&namespace);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // To an address that is not ours: dropped after the hook, never answered.
            let frame = frame(PEER, Ipv4Addr::new(192, 0, 2, 1));
            let mut written = 0u64;
            while !stop.load(Ordering::Relaxed) {
                write(&tun, &frame, 1);
                written += 1;
                // About 30,000 packets a second: a reading takes a third of the time between two.
                let next = Instant::now() + Duration::from_micros(30);
                while Instant::now() < next {
                    std::hint::spin_loop();
                }
            }
            written
        });
        namespace
            .run(|| {
                thread::sleep(Duration::from_millis(5));
                let mut source = KernelSource::load(&config(AttachMode::Auto)).unwrap();
                thread::sleep(Duration::from_millis(20));
                stop.store(true, Ordering::Relaxed);
                let written = writer.join().unwrap();
                let mut kernel = Kernel::default();
                read(&mut source, &mut kernel);
                let coverage = kernel.coverage.unwrap();
                let (counted, device) = (coverage.counted_skbs[0], coverage.device.receive_packets);
                assert!(counted > 0 && counted < written, "{counted} of {written}");
                // One packet may be between hook and counter each time we look.
                assert!(counted.abs_diff(device) <= 1, "counted {counted}, device {device}");
            })
            .unwrap();
    });
}

/// Says that a thread ended, even by panic.
struct Finished(Arc<AtomicBool>);

impl Drop for Finished {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs the source as the agent does, until `driver`, which works beside it, is done.
fn follow(
    namespace: &Namespace,
    config: &KernelConfig,
    peers: &Tailnet,
    driver: impl FnOnce() + Send,
) -> Kernel {
    let (ready, started) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let done = Arc::new(AtomicBool::new(false));
        let finished = Finished(Arc::clone(&done));
        scope.spawn(move || {
            let _finished = finished;
            started.recv().unwrap();
            driver();
        });
        namespace
            .run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut watch = DeviceWatch::open().unwrap();
                    let mut source = KernelSource::load(config).unwrap();
                    let (mut slots, mut kernel) = (SlotTable::new(source.slots()), Kernel::default());
                    sync(&mut source, &mut slots, peers);
                    ready.send(()).unwrap();
                    let mut tick = tokio::time::interval(Duration::from_millis(20));
                    loop {
                        let finished = done.load(Ordering::Acquire);
                        tokio::select! {
                            biased;
                            event = watch.next() => source.handle(&event),
                            _ = tick.tick(), if !finished => {}
                            // All events that the driver caused have been handled.
                            () = tokio::time::sleep(Duration::from_millis(50)), if finished => break,
                        }
                    }
                    read(&mut source, &mut kernel);
                    kernel
                })
            })
            .unwrap()
    })
}

#[test]
fn a_recreated_device_is_attached_before_it_comes_up() {
    let Some(namespace) = namespace("a_recreated_device_is_attached_before_it_comes_up") else { return };
    let frame = frame(PEER, HOST);
    for &mode in demandable_modes() {
        let mut tun = Some(device(&namespace));
        let kernel = follow(&namespace, &config(mode), &tailnet(&[("a", PEER)]), || {
            for _ in 0..3 {
                write(tun.as_ref().unwrap(), &frame, 10);
                drain(tun.as_ref().unwrap());
                drop(tun.take());
                let new = create(&namespace);
                wait_until("the hooks on the new device", DEADLINE, || hooks_on(&namespace, DEVICE) == 2)
                    .unwrap();
                bring_up(&namespace);
                write(&new, &frame, 10);
                drain(&new);
                tun = Some(new);
            }
        });
        assert_eq!(kernel.reattached_total, 3);
        assert_eq!(kernel.slots[1].direction[0].skbs, 60);
        assert_covered(&kernel);
    }
}

#[test]
fn devices_that_come_and_go_faster_than_they_can_be_followed_do_no_harm() {
    let Some(namespace) = namespace("devices_that_come_and_go_faster_than_they_can_be_followed_do_no_harm")
    else {
        return;
    };
    let mut tun = None;
    let kernel = follow(&namespace, &config(AttachMode::Auto), &tailnet(&[("a", PEER)]), || {
        for _ in 0..20 {
            let new = device(&namespace);
            write(&new, &frame(PEER, Ipv4Addr::new(192, 0, 2, 1)), 10);
            drop(new);
        }
        tun = Some(device(&namespace));
        write(tun.as_ref().unwrap(), &frame(PEER, Ipv4Addr::new(192, 0, 2, 1)), 10);
    });
    assert_eq!(modes(&kernel), [best_mode(); 2]);
    // A device may be gone before anything could be read from it; what passed before the hooks is then held against
    // them, and never the other way round.
    let coverage = kernel.coverage.unwrap();
    let (counted, device) = (coverage.counted_skbs[0], coverage.device.receive_packets);
    assert!(10 <= counted && counted <= device && device <= 210, "counted {counted}, device {device}");
}

#[test]
fn a_missing_device_is_awaited_and_attached_when_it_comes() {
    let Some(namespace) = namespace("a_missing_device_is_awaited_and_attached_when_it_comes") else { return };
    let mut tun = None;
    namespace
        .run(|| {
            let mut source = KernelSource::load(&config(AttachMode::Auto)).unwrap();
            let mut kernel = Kernel::default();
            read(&mut source, &mut kernel);
            assert_eq!((kernel.ifindex, kernel.coverage), (None, None));
            assert_eq!(modes(&kernel), [HookMode::None; 2]);
            let reason = kernel.hooks[0].reason.as_deref().unwrap();
            assert!(reason.contains("no interface tailscale0"), "{reason}");
        })
        .unwrap();
    let kernel = follow(&namespace, &config(AttachMode::Auto), &tailnet(&[("a", PEER)]), || {
        let device = create(&namespace);
        wait_until("the hooks", DEADLINE, || hooks_on(&namespace, DEVICE) == 2).unwrap();
        bring_up(&namespace);
        write(&device, &frame(PEER, HOST), 7);
        drain(&device);
        tun = Some(device);
    });
    assert_eq!(modes(&kernel), [best_mode(); 2]);
    assert_eq!(kernel.slots[1].direction[0].skbs, 7);
    assert_eq!(kernel.reattached_total, 0);
    assert_covered(&kernel);
}

#[test]
fn a_device_that_is_renamed_away_is_left_and_found_again() {
    let Some(namespace) = namespace("a_device_that_is_renamed_away_is_left_and_found_again") else { return };
    let tun = device(&namespace);
    let rename = |from, to| {
        namespace.ip(&["link", "set", from, "down"]).unwrap();
        namespace.ip(&["link", "set", from, "name", to]).unwrap();
        namespace.ip(&["link", "set", to, "up"]).unwrap();
    };
    let kernel = follow(&namespace, &config(AttachMode::Auto), &tailnet(&[("a", PEER)]), || {
        write(&tun, &frame(PEER, HOST), 5);
        rename(DEVICE, "other0");
        wait_until("the hooks to leave", DEADLINE, || hooks_on(&namespace, "other0") == 0).unwrap();
        write(&tun, &frame(PEER, HOST), 11);
        rename("other0", DEVICE);
        wait_until("the hooks to return", DEADLINE, || hooks_on(&namespace, DEVICE) == 2).unwrap();
        write(&tun, &frame(PEER, HOST), 3);
        drain(&tun);
    });
    assert_eq!(kernel.slots[1].direction[0].skbs, 8);
    assert_eq!(kernel.reattached_total, 1);
    let coverage = kernel.coverage.unwrap();
    assert_eq!(coverage.counted_skbs[0], coverage.device.receive_packets);
}

/// Programs on the device, by either kind of hook.
fn hooks_on(namespace: &Namespace, device: &str) -> usize {
    let filters: usize =
        ["ingress", "egress"].map(|side| count_filters(namespace, device, side)).iter().sum();
    let links: usize = namespace
        .run(|| {
            [TcAttachType::Ingress, TcAttachType::Egress]
                .map(|side| SchedClassifier::query_tcx(device, side).map_or(0, |found| found.1.len()))
                .iter()
                .sum()
        })
        .unwrap();
    filters + links
}

#[test]
fn a_device_with_frames_is_refused_in_one_sentence() {
    let Some(namespace) = namespace("a_device_with_frames_is_refused_in_one_sentence") else { return };
    namespace.ip(&["link", "add", DEVICE, "type", "bridge"]).unwrap();
    namespace
        .run(|| {
            let error = KernelSource::load(&config(AttachMode::Auto)).unwrap_err();
            assert!(matches!(error, KernelError::NotLayer3 { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("interface tailscale0 is of type Ether (ARPHRD 1)"), "{text}");
        })
        .unwrap();
    namespace.ip(&["link", "del", DEVICE]).unwrap();
    let kernel = follow(&namespace, &config(AttachMode::Auto), &tailnet(&[]), || {
        namespace.ip(&["link", "add", DEVICE, "type", "bridge"]).unwrap();
    });
    let reason = kernel.hooks[0].reason.as_deref().unwrap();
    assert!(reason.contains("not a layer-3 tunnel"), "{reason}");
    assert_eq!(modes(&kernel), [HookMode::None; 2]);
}

#[test]
fn filters_of_a_killed_agent_are_removed_and_nobody_elses() {
    let Some(namespace) = namespace("filters_of_a_killed_agent_are_removed_and_nobody_elses") else { return };
    let _tun = device(&namespace);
    namespace
        .run(|| {
            qdisc_add_clsact(DEVICE).unwrap();
            let mut ebpf = EbpfLoader::new()
                .override_global(globals::SLOTS, &1u32, true)
                .override_global(globals::SHARDS, &1u32, true)
                .load(OBJECT)
                .unwrap();
            let program: &mut SchedClassifier =
                ebpf.program_mut(programs::TUNNEL_INGRESS).unwrap().try_into().unwrap();
            program.load().unwrap();
            let mut leave_behind = |priority, process: u32| {
                let options = NlOptions { priority, handle: TcHandle::from(process), classid: None };
                let options = TcAttachOptions::Netlink(options);
                let id = program.attach_with_options(DEVICE, TcAttachType::Ingress, options).unwrap();
                std::mem::forget(program.take_link(id).unwrap());
            };
            // No process has the largest id there can be; process 1 lives.
            leave_behind(7, i32::MAX as u32);
            leave_behind(7, std::process::id());
            leave_behind(7, 1);
            leave_behind(8, i32::MAX as u32);
            assert_eq!(count_filters(&namespace, DEVICE, "ingress"), 4);
            let source = KernelSource::load(&config(AttachMode::Clsact)).unwrap();
            assert_eq!(count_filters(&namespace, DEVICE, "ingress"), 3, "two removed, ours added");
            drop(source);
            assert_eq!(count_filters(&namespace, DEVICE, "ingress"), 2);
        })
        .unwrap();
}

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

            source.retire(1).unwrap();
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
            let timeout = Duration::from_millis(300);
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
            assert_eq!(in_flight(&kernel), Some(1));
            if started.elapsed() < timeout {
                assert_eq!(timed_out(&kernel), [0, 0]);
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

#[test]
fn the_check_tries_both_modes_and_leaves_nothing_behind() {
    let Some(namespace) = namespace("the_check_tries_both_modes_and_leaves_nothing_behind") else { return };
    let before = namespace.ip(&["link", "show"]).unwrap();
    namespace
        .run(|| {
            for mode in [AttachMode::Tcx, AttachMode::Clsact] {
                let found = probe::attach(mode).unwrap();
                assert_eq!(found.is_ok(), demandable_modes().contains(&mode), "{mode:?}: {found:?}");
            }
        })
        .unwrap();
    assert_eq!(namespace.ip(&["link", "show"]).unwrap(), before);
}
