//! Attaching by either means, and what is left afterwards: nothing.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::EbpfLoader;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{SchedClassifier, TcAttachType};
use tailgauge::model::kernel::{HookMode, Kernel};
use tailgauge::model::slots::SlotTable;
use tailgauge::sources::kernel::{AttachMode, KernelSource, probe};
use tailgauge_ebpf::layout::{CLASS_LOCAL, RECEIVE, TRANSMIT, globals, programs};
use tailgauge_testbed::process::wait_until;
use tailgauge_testbed::programs::OBJECT;

use crate::{
    DEADLINE, DEVICE, HOST, PACKET, PAYLOAD, PEER, assert_covered, best_mode, config, count_filters,
    demandable_modes, device, drain, frame, hooks_on, modes, namespace, read, sync, tailnet, write,
};

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
                // About 10,000 packets a second: a reading takes a tenth of the time between two.
                let next = Instant::now() + Duration::from_micros(100);
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
