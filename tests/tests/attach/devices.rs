//! Devices that come, go, and change their names.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tailgauge::model::kernel::{HookMode, Kernel};
use tailgauge::model::slots::SlotTable;
use tailgauge::model::tailnet::Tailnet;
use tailgauge::sources::kernel::{AttachMode, DeviceWatch, KernelConfig, KernelError, KernelSource};
use tailgauge_testbed::netns::Namespace;
use tailgauge_testbed::process::wait_until;

use crate::{
    DEADLINE, DEVICE, HOST, PEER, assert_covered, best_mode, bring_up, config, create, demandable_modes,
    device, drain, frame, hooks_on, modes, namespace, read, sync, tailnet, write,
};

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
        let last = device(&namespace);
        wait_until("the hooks on the last device", DEADLINE, || hooks_on(&namespace, DEVICE) == 2).unwrap();
        write(&last, &frame(PEER, Ipv4Addr::new(192, 0, 2, 1)), 10);
        tun = Some(last);
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
