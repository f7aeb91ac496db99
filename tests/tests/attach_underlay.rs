//! The kernel source on the interfaces under the tunnel: finding, following and counting them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "attach_underlay/own_messages.rs"]
mod own_messages;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tailgauge::model::kernel::{HookMode, Kernel};
use tailgauge::model::slots::SlotTable;
use tailgauge::model::tailnet::{Peer, Tailnet};
use tailgauge::sources::kernel::{AttachMode, DeviceWatch, KernelConfig, KernelSource};
use tailgauge_ebpf::layout::{
    Carried, KIND_FORWARDED, KIND_TAILSCALED, MARK_FORWARDED, MARK_TAILSCALED, RECEIVE, TRANSMIT,
};
use tailgauge_testbed::needs;
use tailgauge_testbed::netns::{self, Namespace, unique_prefix};

const DEADLINE: Duration = Duration::from_secs(10);
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PAYLOAD: u64 = 100;
const PACKET: u64 = 28 + PAYLOAD;

/// This machine and a far one, joined by veth: Ethernet.
struct Pair {
    own: Namespace,
    far: Namespace,
}

impl Pair {
    fn up(test: &str) -> Option<Self> {
        needs::root_and(test, &["ip"]).ok()?;
        let prefix = unique_prefix();
        let [own, far] = ["own", "far"].map(|side| Namespace::create(format!("{prefix}-{side}")).unwrap());
        for side in [&own, &far] {
            side.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
        }
        let pair = Self { own, far };
        pair.connect("eth0");
        Some(pair)
    }

    /// A new device with this name, and its default route.
    fn connect(&self, device: &str) {
        netns::link((&self.own, device), (&self.far, device)).unwrap();
        for (side, address) in [(&self.own, OWN), (&self.far, FAR)] {
            side.ip(&["address", "add", &format!("{address}/24"), "dev", device]).unwrap();
            side.ip(&["link", "set", device, "up"]).unwrap();
        }
        self.own.ip(&["route", "add", "default", "via", &FAR.to_string(), "dev", device]).unwrap();
    }
}

/// The source with what it needs to follow.
struct Following {
    watch: DeviceWatch,
    source: KernelSource,
    kernel: Kernel,
    /// Slots in use.
    rows: u32,
}

impl Following {
    fn start(config: &KernelConfig) -> Self {
        let watch = DeviceWatch::open().unwrap();
        let source = KernelSource::load(config).unwrap();
        Self { watch, source, kernel: Kernel::default(), rows: 1 }
    }

    fn read(&mut self) {
        self.source.read(&mut self.kernel, self.rows).unwrap();
    }

    /// Works as the agent does until `done`.
    async fn until(&mut self, what: &str, done: impl Fn(&Kernel) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.read();
            if done(&self.kernel) {
                return;
            }
            assert!(Instant::now() < deadline, "never saw {what}: {:?}", self.kernel.hooks);
            match tokio::time::timeout(Duration::from_millis(20), self.watch.next()).await {
                Ok(event) => self.source.handle(&event),
                Err(_) => self.source.sweep(),
            }
        }
    }

    fn carried(&mut self, device: &str, direction: u32, kind: usize) -> Carried {
        self.read();
        let found = self.kernel.underlay.iter().find(|counters| counters.device == device);
        found.map_or_else(Carried::default, |counters| counters.direction[direction as usize].kind[kind])
    }
}

/// State of both underlay hooks on a device; empty without hooks.
fn modes(kernel: &Kernel, device: &str) -> Vec<HookMode> {
    let hooks = kernel.hooks.iter().filter(|hook| hook.device == device && hook.hook.starts_with("underlay"));
    hooks.map(|hook| hook.mode).collect()
}

fn is_attached(kernel: &Kernel, device: &str) -> bool {
    let modes = modes(kernel, device);
    modes.len() == 2 && !modes.contains(&HookMode::None)
}

fn config() -> KernelConfig {
    KernelConfig::new("tailscale0", 10)
}

/// Runs `test` in the namespace, in a runtime.
fn within(namespace: &Namespace, test: impl AsyncFnOnce() + Send) {
    namespace
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test());
        })
        .unwrap();
}

/// A socket with a mark, bound to a port of this namespace.
fn marked(mark: u32, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    SockRef::from(&socket).set_mark(mark).unwrap();
    socket
}

fn send(socket: &UdpSocket, to: impl Into<SocketAddr>, times: u64) {
    let to = to.into();
    for _ in 0..times {
        socket.send_to(&[0; PAYLOAD as usize], to).unwrap();
    }
}

/// What the far side sends to a port here.
fn send_here(pair: &Pair, port: u16, times: u64) {
    pair.far.run(|| send(&marked(0, 0), (OWN, port), times)).unwrap();
}

const fn packets(count: u64) -> Carried {
    let wire = tailgauge_ebpf::layout::Wire { packets: count, bytes: count * PACKET };
    Carried { wire, skbs: count, skb_bytes: count * (PACKET + 14) }
}

#[test]
fn the_device_of_the_default_route_is_counted_in_both_modes() {
    let Some(pair) = Pair::up("the_device_of_the_default_route_is_counted_in_both_modes") else { return };
    within(&pair.own, async || {
        for mode in [AttachMode::Clsact, AttachMode::Auto] {
            let mut following = Following::start(&KernelConfig { attach_mode: mode, ..config() });
            following.until("hooks on eth0", |kernel| is_attached(kernel, "eth0")).await;
            if mode == AttachMode::Clsact {
                assert_eq!(modes(&following.kernel, "eth0"), [HookMode::Clsact; 2]);
            }
            assert!(modes(&following.kernel, "lo").is_empty());
            let wireguard = marked(MARK_TAILSCALED, 0);
            let port = wireguard.local_addr().unwrap().port();
            // The port is asked for each second while there is none.
            following.source.sweep();
            send(&wireguard, (FAR, 9), 3);
            send(&marked(MARK_FORWARDED, 0), (FAR, 9), 5);
            send(&marked(0, 0), (FAR, 9), 7);
            send_here(&pair, port, 11);
            send_here(&pair, port ^ 1, 13);
            assert_eq!(following.carried("eth0", TRANSMIT, KIND_TAILSCALED), packets(3));
            assert_eq!(following.carried("eth0", TRANSMIT, KIND_FORWARDED), packets(5));
            assert_eq!(following.carried("eth0", RECEIVE, KIND_TAILSCALED), packets(11));
            assert_eq!(following.carried("eth0", RECEIVE, KIND_FORWARDED), packets(0));

            // tailscaled takes another port.
            drop(wireguard);
            let wireguard = marked(MARK_TAILSCALED, 0);
            let port = wireguard.local_addr().unwrap().port();
            let deadline = Instant::now() + DEADLINE;
            while following.carried("eth0", RECEIVE, KIND_TAILSCALED) == packets(11) {
                assert!(Instant::now() < deadline, "the new port stays unknown");
                following.source.sweep();
                send_here(&pair, port, 1);
            }
        }
    });
}

#[test]
fn a_device_that_is_made_anew_counts_on() {
    let Some(pair) = Pair::up("a_device_that_is_made_anew_counts_on") else { return };
    within(&pair.own, async || {
        let mut following = Following::start(&config());
        following.until("hooks on eth0", |kernel| is_attached(kernel, "eth0")).await;
        send(&marked(MARK_TAILSCALED, 0), (FAR, 9), 3);
        for round in 1..=3 {
            pair.own.ip(&["link", "del", "eth0"]).unwrap();
            following.until("the device to go", |kernel| !is_attached(kernel, "eth0")).await;
            assert_eq!(following.carried("eth0", TRANSMIT, KIND_TAILSCALED), packets(3 * round));
            pair.connect("eth0");
            following.until("hooks on the new device", |kernel| is_attached(kernel, "eth0")).await;
            send(&marked(MARK_TAILSCALED, 0), (FAR, 9), 3);
        }
        assert_eq!(following.carried("eth0", TRANSMIT, KIND_TAILSCALED), packets(12));
        assert_eq!(following.kernel.underlay.len(), 1);
    });
}

#[test]
fn endpoints_and_subnets_lead_to_their_devices_and_the_tunnel_is_none() {
    let Some(pair) = Pair::up("endpoints_and_subnets_lead_to_their_devices") else { return };
    for device in ["peers0", "lan0", "other0", "tailscale0"] {
        netns::link((&pair.own, device), (&pair.far, device)).unwrap();
        pair.own.ip(&["link", "set", device, "up"]).unwrap();
    }
    let route = |to: &str, device: &str| {
        pair.own.ip(&["route", "add", to, "dev", device]).unwrap();
    };
    route("198.51.100.0/24", "peers0");
    pair.own.ip(&["address", "add", "203.0.113.1/24", "dev", "lan0"]).unwrap();
    route("10.0.0.0/8", "other0");
    route("0.0.0.0/1", "tailscale0");
    within(&pair.own, async || {
        // A tunnel device of frames is refused, so the source is told of another.
        let mut following = Following::start(&KernelConfig { interface: "ts0".to_owned(), ..config() });
        let peer = Peer {
            id: "a".to_owned(),
            endpoint: Some("198.51.100.7:41641".parse().unwrap()),
            ..Peer::default()
        };
        let tailnet = Tailnet {
            peers: vec![peer.into()],
            own_routes: vec!["203.0.113.0/24".parse().unwrap()],
            ..Tailnet::default()
        };
        let mut slots = SlotTable::new(following.source.slots());
        slots.update(&tailnet.peers, Instant::now());
        following.source.sync(&tailnet, &slots);
        let wanted = ["eth0", "peers0", "lan0"];
        following
            .until("three devices", |kernel| wanted.iter().all(|device| is_attached(kernel, device)))
            .await;
        for device in ["other0", "tailscale0", "lo"] {
            assert!(modes(&following.kernel, device).is_empty(), "{device}");
        }
    });
}

#[test]
fn demanded_devices_are_the_only_ones_and_say_why_they_are_not_attached() {
    let Some(pair) = Pair::up("demanded_devices_are_the_only_ones") else { return };
    within(&pair.own, async || {
        let names = ["uplink0", "lo"].map(str::to_owned).to_vec();
        let config = KernelConfig { interface: "ts0".to_owned(), underlay: names, ..config() };
        let mut following = Following::start(&config);
        following.read();
        assert!(modes(&following.kernel, "eth0").is_empty());
        let reason = |kernel: &Kernel, device: &str| {
            let hook = kernel.hooks.iter().find(|hook| hook.device == device);
            hook.and_then(|hook| hook.reason.clone()).unwrap_or_default()
        };
        assert!(reason(&following.kernel, "uplink0").contains("no interface uplink0"));
        let refused = reason(&following.kernel, "lo");
        assert!(refused.contains("Loopback") && refused.contains("not supported"), "{refused}");
        pair.own.ip(&["link", "del", "eth0"]).unwrap();
        pair.connect("uplink0");
        following.until("hooks on uplink0", |kernel| is_attached(kernel, "uplink0")).await;
        send(&marked(MARK_FORWARDED, 0), (FAR, 9), 4);
        assert_eq!(following.carried("uplink0", TRANSMIT, KIND_FORWARDED), packets(4));
    });
}
