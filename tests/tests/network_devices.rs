//! What the collectors `ethtool` and `driver` say of veth devices is what ethtool(8) prints.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use tailgauge::model::collector::Collectors;
use tailgauge::model::host::{Coalescing, DeviceSettings, DriverStatistics, Host};
use tailgauge::sources::host::{HostSource, Paths};
use tailgauge_testbed::netns::{Namespace, unique_prefix};
use tailgauge_testbed::process::{run, wait_until};
use tailgauge_testbed::{needs, xdp};

const LIMIT: Duration = Duration::from_secs(10);
const PORT: u16 = 9;

/// Both collectors, run once.
fn collect() -> Host {
    let mut source = HostSource::new(Paths::default(), |info| ["driver", "ethtool"].contains(&info.name));
    let (mut host, mut status) = (Host::default(), Collectors::default());
    source.collect(&mut host, &mut status);
    host
}

/// Two namespaces joined by a veth pair of two queues each way, and no need to ask for addresses.
struct Pair {
    near: Namespace,
    far: Namespace,
}

impl Pair {
    fn up() -> Self {
        let prefix = unique_prefix();
        let [near, far] = ["near", "far"].map(|end| Namespace::create(format!("{prefix}-{end}")).unwrap());
        let queues = ["numtxqueues", "2", "numrxqueues", "2"];
        let first = ["link", "add", "near0", "address", "02:00:00:00:00:01"];
        let second = ["type", "veth", "peer", "name", "far0", "netns", far.name()];
        near.ip(&[&first[..], &queues, &second, &queues].concat()).unwrap();
        for (namespace, device, address) in [(&near, "near0", "10.9.8.1/24"), (&far, "far0", "10.9.8.2/24")] {
            namespace.ip(&["addr", "add", address, "dev", device]).unwrap();
            namespace.ip(&["link", "set", device, "up"]).unwrap();
        }
        let known = ["neigh", "add", "10.9.8.1", "lladdr", "02:00:00:00:00:01", "dev", "far0"];
        far.ip(&[&known[..], &["nud", "permanent"]].concat()).unwrap();
        Self { near, far }
    }

    fn ethtool(&self, arguments: &[&str]) -> String {
        run(self.near.command("ethtool").args(arguments)).unwrap()
    }

    /// What both collectors say of the near end, which is alone.
    fn collect(&self) -> (DeviceSettings, Option<DriverStatistics>) {
        let host = self.near.run(collect).unwrap();
        let (settings, drivers) = (host.device_settings.unwrap(), host.driver_statistics.unwrap());
        assert_eq!(settings.len(), 1, "lo is left out");
        assert!(drivers.len() <= 1);
        (settings[0].clone(), drivers.into_iter().next())
    }
}

/// Value behind `name: ` on each line that has it, ethtool's remarks left out.
fn printed<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let value = line.trim().strip_prefix(name)?.strip_prefix(':')?;
        value.split_whitespace().next()
    })
}

#[test]
fn offloads_are_what_ethtool_prints_and_follow_what_it_sets() {
    let test = "offloads_are_what_ethtool_prints_and_follow_what_it_sets";
    let Ok(()) = needs::root_and(test, &["ip", "ethtool"]) else { return };
    let pair = Pair::up();
    let assert_same = || {
        let (settings, _) = pair.collect();
        assert_eq!(settings.device, "near0");
        let text = pair.ethtool(&["-k", "near0"]);
        assert!(settings.offloads.len() >= 12, "{settings:?}");
        for (feature, on) in &settings.offloads {
            assert_eq!(
                printed(&text, feature).collect::<Vec<_>>(),
                [if *on { "on" } else { "off" }],
                "{feature}"
            );
        }
        settings
    };
    let is_on = |settings: &DeviceSettings, feature: &str| {
        settings.offloads.iter().find(|(name, _)| *name == feature).map(|(_, on)| *on)
    };
    let before = assert_same();
    for (feature, was) in [
        ("tx-udp-segmentation", true),
        ("tx-tcp-segmentation", true),
        ("rx-udp-gro-forwarding", false),
        ("rx-gro-list", false),
    ] {
        assert_eq!(is_on(&before, feature), Some(was), "{feature}");
        pair.ethtool(&["-K", "near0", feature, if was { "off" } else { "on" }]);
        assert_eq!(is_on(&assert_same(), feature), Some(!was), "{feature}");
    }
}

#[test]
fn queues_are_what_ethtool_sets() {
    let Ok(()) = needs::root_and("queues_are_what_ethtool_sets", &["ip", "ethtool"]) else { return };
    let pair = Pair::up();
    let (settings, _) = pair.collect();
    let (receive, transmit) = (settings.receive_queues, settings.transmit_queues);
    assert_eq!([receive.now, receive.most, transmit.now, transmit.most], [Some(2); 4]);
    pair.ethtool(&["-L", "near0", "tx", "1"]);
    let (settings, _) = pair.collect();
    assert_eq!((settings.transmit_queues.now, settings.receive_queues.now), (Some(1), Some(2)));
    assert_eq!(settings.receive_ring.now, None, "veth has no rings");
}

#[test]
fn the_tunnel_comes_first_though_it_is_the_youngest() {
    let test = "the_tunnel_comes_first_though_it_is_the_youngest";
    let Ok(()) = needs::root_and(test, &["ip"]) else { return };
    let pair = Pair::up();
    for name in ["tun7", "tailscale0"] {
        pair.near.ip(&["tuntap", "add", "dev", name, "mode", "tun"]).unwrap();
        pair.near.ip(&["link", "set", name, "up"]).unwrap();
    }
    let host = pair.near.run(collect).unwrap();
    let names: Vec<_> =
        host.device_settings.iter().flat_map(|list| list.iter()).map(|device| &device.device).collect();
    assert_eq!(names, ["tailscale0", "near0", "tun7"]);
    let drivers = host.device_settings.iter().flatten().map(|device| device.driver.as_deref());
    assert_eq!(drivers.collect::<Vec<_>>(), [Some("tun"), Some("veth"), Some("tun")]);
    assert_eq!(host.driver_statistics.unwrap().len(), 1, "a TUN device has no driver that counts");
}

#[test]
fn interrupts_are_put_off_as_ethtool_prints() {
    let test = "interrupts_are_put_off_as_ethtool_prints";
    let Ok(()) = needs::root_and(test, &["ip", "ethtool"]) else { return };
    // veth has no interrupts; hardware of this machine may.
    let pair = Pair::up();
    let own = pair.collect().0;
    assert_eq!([own.receive_coalescing, own.transmit_coalescing], [Coalescing::default(); 2]);
    for device in collect().device_settings.unwrap() {
        let Ok(text) = run(Command::new("ethtool").args(["-c", &device.device])) else { continue };
        let delay = |name| printed(&text, name).next().and_then(|value| value.parse::<u64>().ok());
        let found = [device.receive_coalescing, device.transmit_coalescing];
        assert_eq!(found.map(|way| way.delay_microseconds), ["rx-usecs", "tx-usecs"].map(delay), "{text}");
        // Adaptive RX: off  TX: n/a
        let line: Vec<&str> =
            text.lines().find(|line| line.starts_with("Adaptive")).unwrap().split(' ').collect();
        let adaptive = [line[2], *line.last().unwrap()].map(|said| match said {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        });
        assert_eq!(found.map(|way| way.adaptive), adaptive, "{text}");
    }
}

#[test]
fn queues_and_devices_that_go_leave_the_others_right() {
    let test = "queues_and_devices_that_go_leave_the_others_right";
    let Ok(()) = needs::root_and(test, &["ip", "ethtool"]) else { return };
    let pair = Pair::up();
    pair.near.ip(&["link", "add", "other0", "type", "veth", "peer", "name", "other1"]).unwrap();
    pair.near.ip(&["link", "set", "other0", "up"]).unwrap();
    let statistics = || {
        let mut source = HostSource::new(Paths::default(), |info| info.name == "driver");
        let (mut host, mut status) = (Host::default(), Collectors::default());
        let mut devices = || {
            source.collect(&mut host, &mut status);
            let list = host.driver_statistics.iter().flatten();
            list.map(|driver| (driver.device.clone(), driver.losses.len())).collect::<Vec<_>>()
        };
        let before = devices();
        assert_eq!(before.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["near0", "other0"]);
        // With fewer queues the driver has fewer statistics than were listed, and the same ones added up.
        pair.ethtool(&["-L", "near0", "rx", "1"]);
        assert_eq!(devices(), before);
        pair.near.ip(&["link", "set", "near0", "down"]).unwrap();
        pair.near.ip(&["link", "set", "near0", "name", "renamed0", "up"]).unwrap();
        pair.near.ip(&["link", "del", "other0"]).unwrap();
        assert_eq!(devices(), [("renamed0".to_owned(), before[0].1)]);
    };
    pair.near.run(statistics).unwrap();
}

#[test]
fn what_a_driver_drops_is_added_up_over_its_queues() {
    let test = "what_a_driver_drops_is_added_up_over_its_queues";
    let Ok(()) = needs::root_and(test, &["ip", "ethtool"]) else { return };
    const SENT: u64 = 20;
    let pair = Pair::up();
    let drops = || {
        let (_, driver) = pair.collect();
        let losses = driver.map(|driver| driver.losses).unwrap_or_default();
        losses.iter().find(|(name, _)| **name == *"rx_xdp_drops").map(|(_, value)| *value)
    };
    assert_eq!(drops(), Some(0));

    let shown = pair.near.ip(&["-o", "link", "show", "dev", "near0"]).unwrap();
    let index = shown.split(':').next().unwrap().parse().unwrap();
    let guard = pair.near.run(|| xdp::drop_all(index)).unwrap().unwrap();
    let send = || {
        let socket = UdpSocket::bind("10.9.8.2:0").unwrap();
        for _ in 0..SENT {
            socket.send_to(&[0; 100], ("10.9.8.1", PORT)).unwrap();
        }
    };
    pair.far.run(send).unwrap();
    wait_until("the driver to count what was dropped", LIMIT, || {
        let text = pair.ethtool(&["-S", "near0"]);
        let queues = ["rx_queue_0_xdp_drops", "rx_queue_1_xdp_drops"].map(|name| {
            let values: Vec<u64> = printed(&text, name).map(|value| value.parse().unwrap()).collect();
            assert_eq!(values.len(), 1, "{text}");
            values[0]
        });
        // Neighbours speak by themselves now and then.
        let sum = queues.iter().sum::<u64>();
        sum >= SENT && drops() == Some(sum)
    })
    .unwrap();
    drop(guard);
}
