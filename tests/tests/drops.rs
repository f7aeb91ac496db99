//! Dropped packets: provoked, and counted to the packet against the kernel's own counters.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size;
use tailgauge::model::kernel::{HookMode, Kernel};
use tailgauge::sources::kernel::{DeviceWatch, KernelConfig, KernelSource};
use tailgauge_ebpf::layout::{DROPPED_BY_RING, DROPPED_BY_SOCKET};
use tailgauge_testbed::needs;
use tailgauge_testbed::netns::{Namespace, unique_prefix};
use tailgauge_testbed::node::DeviceCounters;
use tailgauge_testbed::process::wait_until;
use tailgauge_testbed::tun::Tun;

const DEVICE: &str = "tailscale0";
const PEER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
const DEADLINE: Duration = Duration::from_secs(10);
const RING: &str = "FULL_RING";
const SOCKET: &str = "SOCKET_RCVBUFF";

/// A namespace with loopback and a tunnel of the same index in every one.
fn namespace(test: &str) -> Option<(Namespace, Tun)> {
    needs::root_and(test, &["ip"]).ok()?;
    let namespace = Namespace::create(format!("{}-drops", unique_prefix())).unwrap();
    namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
    namespace.ip(&["link", "set", "lo", "up"]).unwrap();
    let tun = tunnel(&namespace);
    Some((namespace, tun))
}

fn tunnel(namespace: &Namespace) -> Tun {
    let tun = Tun::create(namespace, DEVICE).unwrap();
    namespace.ip(&["address", "add", "100.64.0.1/24", "dev", DEVICE]).unwrap();
    namespace.ip(&["link", "set", DEVICE, "up", "txqueuelen", "100"]).unwrap();
    tun
}

fn drain(tun: &Tun) {
    let mut buffer = vec![0; 65_536];
    while tun.read(&mut buffer).is_ok() {}
}

/// Sends into the tunnel from the namespace of this thread.
fn flood(packets: usize) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    for _ in 0..packets {
        socket.send_to(&[0; 100], (PEER, 9)).unwrap();
    }
}

struct Counting {
    source: KernelSource,
    kernel: Kernel,
}

impl Counting {
    fn start() -> Self {
        let source = KernelSource::load(&KernelConfig::new(DEVICE, 10)).unwrap();
        let mut counting = Self { source, kernel: Kernel::default() };
        counting.read();
        let hook = counting.kernel.hooks.iter().find(|hook| hook.hook == "drops").unwrap();
        assert_eq!((hook.mode, &hook.reason), (HookMode::RawTracepoint, &None));
        counting
    }

    fn read(&mut self) {
        self.source.read(&mut self.kernel, 1).unwrap();
    }

    /// Drops for a reason: on one device, and on all.
    fn drops(&mut self, device: &str, reason: &str) -> (u64, u64) {
        self.read();
        let names = &self.kernel.drop_reasons.names;
        let of = |counts: &[(u16, u64)]| {
            let named = |number: u16| names[usize::from(number)].as_deref() == Some(reason);
            counts.iter().find(|(number, _)| named(*number)).map_or(0, |(_, count)| *count)
        };
        let drops = &self.kernel.drops;
        let here = drops.iter().find(|row| row.device == device).map_or(0, |row| of(&row.counts));
        (here, drops.iter().map(|row| of(&row.counts)).sum())
    }

    /// Drops in all windows, the open one included.
    fn in_windows(&mut self, kind: u32) -> u64 {
        self.read();
        let window = self.kernel.drop_windows.as_ref().unwrap().direction[kind as usize];
        assert_eq!(window.histogram.buckets.iter().sum::<u64>(), window.histogram.count);
        window.histogram.sum + window.bytes
    }
}

fn dropped_by_device() -> u64 {
    DeviceCounters::read(DEVICE).unwrap().tx_dropped
}

/// Drops of the UDP socket at a port, as /proc/net/udp has them in its last column.
fn dropped_by_socket(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap();
    let local = format!(":{port:04X}");
    let line = table
        .lines()
        .find(|line| line.split_whitespace().nth(1).is_some_and(|address| address.ends_with(&local)));
    line.unwrap().split_whitespace().next_back().unwrap().parse().unwrap()
}

#[test]
fn a_full_ring_is_counted_as_the_device_counts_it() {
    let Some((namespace, tun)) = namespace("a_full_ring_is_counted_as_the_device_counts_it") else { return };
    namespace
        .run(|| {
            let mut counting = Counting::start();
            // Healthy: every packet is read before the next burst.
            for _ in 0..20 {
                flood(50);
                drain(&tun);
            }
            assert_eq!((counting.drops(DEVICE, RING), dropped_by_device()), ((0, 0), 0));
            assert_eq!(counting.in_windows(DROPPED_BY_RING), 0);
            for _ in 0..3 {
                flood(1000);
                drain(&tun);
            }
            let dropped = dropped_by_device();
            assert!(dropped >= 2000, "{dropped}");
            assert_eq!(counting.drops(DEVICE, RING), (dropped, dropped));
            assert_eq!(counting.in_windows(DROPPED_BY_RING), dropped);
            assert_eq!(counting.drops(DEVICE, SOCKET).1, 0);
            wait_until("the window to be closed", DEADLINE, || {
                counting.read();
                counting.kernel.drop_windows.as_ref().unwrap().direction[0].bytes == 0
            })
            .unwrap();
            let window = counting.kernel.drop_windows.as_ref().unwrap().direction[0];
            let peak = window.peaks.iter().map(|peak| peak & 0xffff_ffff).max().unwrap();
            assert!(peak > 0 && peak <= dropped);
        })
        .unwrap();
}

#[test]
fn a_socket_without_a_reader_is_counted_as_it_counts_itself() {
    let Some((namespace, _tun)) = namespace("a_socket_without_a_reader_is_counted") else { return };
    namespace
        .run(|| {
            let mut counting = Counting::start();
            let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
            set_socket_recv_buffer_size(&receiver, 16 << 10).unwrap();
            let to = receiver.local_addr().unwrap();
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut buffer = [0; 2000];
            for _ in 0..200 {
                sender.send_to(&[7; 1000], to).unwrap();
                receiver.recv(&mut buffer).unwrap();
            }
            assert_eq!((counting.drops("lo", SOCKET).1, dropped_by_socket(to.port())), (0, 0));
            for _ in 0..500 {
                sender.send_to(&[7; 1000], to).unwrap();
            }
            let dropped = dropped_by_socket(to.port());
            assert!(dropped > 400, "{dropped}");
            let (on_lo, everywhere) = counting.drops("lo", SOCKET);
            assert_eq!(everywhere, dropped);
            // The kernel may have put something else where the device was.
            assert_eq!(on_lo + counting.drops("unknown", SOCKET).0, dropped);
            assert_eq!(counting.in_windows(DROPPED_BY_SOCKET), dropped);
            assert_eq!(counting.drops(DEVICE, RING), (0, 0));
            // What nobody listens for has its own reason.
            sender.send_to(&[0; 10], "127.0.0.1:9").unwrap();
            assert_eq!(counting.drops("lo", "NO_SOCKET").0, 1);
        })
        .unwrap();
}

#[test]
fn another_namespace_with_the_same_index_is_not_counted() {
    let Some((own, _tun)) = namespace("another_namespace_with_the_same_index_is_not_counted") else { return };
    let (other, _other_tun) = namespace("another_namespace").unwrap();
    let index = |namespace: &Namespace| namespace.ip(&["-o", "link", "show", DEVICE]).unwrap();
    let number = |text: String| text.split(':').next().unwrap().to_owned();
    assert_eq!(number(index(&own)), number(index(&other)));
    own.run(|| {
        let mut counting = Counting::start();
        let there = other
            .run(|| {
                flood(1000);
                let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
                set_socket_recv_buffer_size(&receiver, 16 << 10).unwrap();
                let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
                for _ in 0..500 {
                    sender.send_to(&[7; 1000], receiver.local_addr().unwrap()).unwrap();
                }
                (dropped_by_device(), dropped_by_socket(receiver.local_addr().unwrap().port()))
            })
            .unwrap();
        assert!(there.0 > 800 && there.1 > 400, "{there:?}");
        assert_eq!(counting.drops(DEVICE, RING), (0, 0));
        assert_eq!(counting.drops("lo", SOCKET), (0, 0));
        // The same here is counted.
        flood(1000);
        assert_eq!(counting.drops(DEVICE, RING).0, dropped_by_device());
    })
    .unwrap();
}

#[test]
fn a_device_that_is_made_anew_counts_on_in_its_row() {
    let Some((namespace, tun)) = namespace("a_device_that_is_made_anew_counts_on_in_its_row") else { return };
    let mut tun = Some(tun);
    namespace
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut watch = DeviceWatch::open().unwrap();
                let mut counting = Counting::start();
                flood(500);
                let first = dropped_by_device();
                assert_eq!(counting.drops(DEVICE, RING).0, first);
                drop(tun.take());
                tun = Some(tunnel(&namespace));
                while let Ok(event) = tokio::time::timeout(Duration::from_millis(200), watch.next()).await {
                    counting.source.handle(&event);
                }
                flood(500);
                assert_eq!(counting.drops(DEVICE, RING).0, first + dropped_by_device());
                assert_eq!(counting.drops("other", RING).0, 0);
            });
        })
        .unwrap();
}

#[test]
fn drops_can_be_switched_off() {
    let Some((namespace, _tun)) = namespace("drops_can_be_switched_off") else { return };
    namespace
        .run(|| {
            let config = KernelConfig { drops: false, ..KernelConfig::new(DEVICE, 10) };
            let mut source = KernelSource::load(&config).unwrap();
            let mut kernel = Kernel::default();
            flood(1000);
            source.read(&mut kernel, 1).unwrap();
            assert!(kernel.drops.is_empty());
            assert!(kernel.hooks.iter().all(|hook| hook.hook != "drops"));
        })
        .unwrap();
}
