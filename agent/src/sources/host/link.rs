//! Collector `link`: network devices by RTM_GETLINK (`rtnl_fill_ifinfo` in net/core/rtnetlink.c).
//!
//! Speed and duplex take a lock that stops all network configuration, and are asked for every 10 s only.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use netlink_packet_route::link::{LinkHeader, Stats64};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::proc_file::{number, read_once};
use super::route::Route;
use super::{Collector, HostError, Paths};
use crate::model::host::{DeviceTraffic, Host, NetworkDevice, NetworkDevices};
use crate::sources::clean;
use crate::sources::netlink::attributes;

/// `struct ifinfomsg`.
pub(super) const HEADER_BYTES: usize = 16;
/// `IFLA_GSO_MAX_SIZE` (include/uapi/linux/if_link.h).
const IFLA_GSO_MAX_SIZE: u16 = 41;
/// Devices that get series of their own: a host of containers may have thousands.
const MOST: usize = 128;
/// How long speed and duplex are remembered.
const SETTINGS_INTERVAL: Duration = Duration::from_secs(10);
/// `IF_OPER_…` by number (RFC 2863).
const STATES: [&str; 7] = ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"];

/// Keeps a netlink socket, and what is asked rarely.
#[derive(Default)]
pub(super) struct LinkCollector {
    route: Route,
    settings: Settings,
}

impl Collector for LinkCollector {
    const NAME: &'static str = "link";
    const HELP: &'static str = "traffic, drops and state of the first 128 network devices by netlink";
    type Output = NetworkDevices;

    fn field(host: &mut Host) -> &mut Option<NetworkDevices> {
        &mut host.devices
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<NetworkDevices>, HostError> {
        let mut found = NetworkDevices::default();
        dump(&mut self.route, |body| {
            found.count += 1;
            if found.devices.len() < MOST {
                found.devices.extend(parse(body));
            }
        })?;
        tell_apart(&mut found.devices);
        self.settings.apply(&paths.sysfs.join("class/net"), &mut found.devices);
        Ok(Some(found))
    }
}

/// Hands the body of an RTM_NEWLINK of every device to `each`.
pub(super) fn dump(route: &mut Route, mut each: impl FnMut(&[u8])) -> Result<(), HostError> {
    route.dump("list network devices", NETLINK_ROUTE, libc::RTM_GETLINK, &[0; HEADER_BYTES], |body| {
        // Port attributes of a bridge come as messages of their own family.
        if body.first() == Some(&(libc::AF_UNSPEC as u8)) {
            each(body);
        }
    })
}

/// Reads the body of an RTM_NEWLINK; `None` when it has no name or counters.
pub(super) fn parse(body: &[u8]) -> Option<NetworkDevice> {
    let header = LinkHeader::parse(body).ok()?;
    let mut device = NetworkDevice {
        index: header.index,
        up: header.flags.bits() & libc::IFF_UP as u32 != 0,
        operational_state: STATES[0],
        ..NetworkDevice::default()
    };
    let mut counted = false;
    for (kind, value) in attributes(body.get(HEADER_BYTES..)?) {
        let word = || value.first_chunk().map(|bytes| u64::from(u32::from_ne_bytes(*bytes)));
        match kind {
            libc::IFLA_IFNAME => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                device.name = clean::label(&clean::lossy(name), "unknown");
            }
            libc::IFLA_OPERSTATE => {
                let state = value.first().and_then(|number| STATES.get(usize::from(*number)));
                device.operational_state = state.copied().unwrap_or(STATES[0]);
            }
            libc::IFLA_CARRIER => device.carrier = value.first().map(|carrier| *carrier != 0),
            libc::IFLA_CARRIER_CHANGES => device.carrier_changes = word(),
            libc::IFLA_MTU => device.mtu = word(),
            IFLA_GSO_MAX_SIZE => device.gso_max_bytes = word(),
            libc::IFLA_TXQLEN => device.transmit_queue_length = word(),
            libc::IFLA_STATS64 => counted = count(&mut device, value).is_some(),
            _ => {}
        }
    }
    (counted && !device.name.is_empty()).then_some(device)
}

fn count(device: &mut NetworkDevice, value: &[u8]) -> Option<()> {
    let stats = Stats64::parse(value).ok()?;
    device.receive = DeviceTraffic {
        bytes: stats.rx_bytes,
        packets: stats.rx_packets,
        errors: stats.rx_errors,
        dropped: stats.rx_dropped,
    };
    device.transmit = DeviceTraffic {
        bytes: stats.tx_bytes,
        packets: stats.tx_packets,
        errors: stats.tx_errors,
        dropped: stats.tx_dropped,
    };
    device.receive_missed = stats.rx_missed_errors;
    device.receive_no_handler = stats.rx_nohandler;
    Some(())
}

/// Two names can be the same once they are cleaned, and two series must not.
pub(super) fn tell_apart(devices: &mut [NetworkDevice]) {
    let mut taken = HashSet::with_capacity(devices.len());
    for device in devices {
        if !taken.insert(device.name.clone()) {
            device.name = format!("{}#{}", device.name, device.index);
        }
    }
}

/// Speed and duplex by device number.
#[derive(Default)]
struct Settings {
    read: Option<Instant>,
    by_index: HashMap<u32, (Option<u64>, Option<&'static str>)>,
}

impl Settings {
    fn apply(&mut self, class: &Path, devices: &mut [NetworkDevice]) {
        if self.read.is_none_or(|read| read.elapsed() >= SETTINGS_INTERVAL) {
            self.by_index.clear();
            self.read = Some(Instant::now());
        }
        for device in devices {
            let read = || (speed(&class.join(&device.name)), duplex(&class.join(&device.name)));
            (device.speed_megabits, device.duplex) = *self.by_index.entry(device.index).or_insert_with(read);
        }
    }
}

/// Devices without a speed refuse to be read, or say -1.
fn speed(device: &Path) -> Option<u64> {
    let text = String::from_utf8(read_once(&device.join("speed")).ok()?).ok()?;
    number(Some(text.trim())).filter(|megabits| *megabits > 0 && *megabits < u64::from(u32::MAX))
}

fn duplex(device: &Path) -> Option<&'static str> {
    let text = String::from_utf8(read_once(&device.join("duplex")).ok()?).ok()?;
    ["full", "half"].into_iter().find(|known| *known == text.trim())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sources::netlink::push_attribute;
    use proptest::prelude::*;

    fn message(index: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![0; HEADER_BYTES];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8] = libc::IFF_UP as u8;
        for (kind, value) in attributes {
            push_attribute(&mut body, *kind, value);
        }
        body
    }

    #[test]
    fn the_kernel_s_counters_are_taken_over() {
        let stats: Vec<u8> = (1u64..=24).flat_map(u64::to_ne_bytes).collect();
        let body = message(
            7,
            &[
                (libc::IFLA_IFNAME, b"tailscale0\0"),
                (libc::IFLA_MTU, &1280u32.to_ne_bytes()),
                (libc::IFLA_OPERSTATE, &[6]),
                (IFLA_GSO_MAX_SIZE, &65_536u32.to_ne_bytes()),
                (libc::IFLA_STATS64, &stats),
            ],
        );
        let device = parse(&body).unwrap();
        assert_eq!((device.index, device.name.as_str(), device.up), (7, "tailscale0", true));
        assert_eq!((device.mtu, device.operational_state), (Some(1280), "up"));
        assert_eq!(device.gso_max_bytes, Some(65_536));
        // struct rtnl_link_stats64: packets, bytes, errors, dropped, each receive before transmit.
        assert_eq!(device.receive, DeviceTraffic { packets: 1, bytes: 3, errors: 5, dropped: 7 });
        assert_eq!(device.transmit, DeviceTraffic { packets: 2, bytes: 4, errors: 6, dropped: 8 });
        assert_eq!(parse(&message(7, &[(libc::IFLA_IFNAME, b"x\0")])), None, "no counters");
    }

    #[test]
    fn names_that_are_the_same_once_cleaned_are_told_apart() {
        let device =
            |index, name: &str| NetworkDevice { index, name: name.to_owned(), ..NetworkDevice::default() };
        let mut devices = [device(1, "eth0"), device(2, "a"), device(3, "a")];
        tell_apart(&mut devices);
        assert_eq!(devices.map(|device| device.name), ["eth0", "a", "a#3"]);
    }

    #[test]
    fn a_speed_that_is_none_is_not_a_number() {
        let root = tempfile::tempdir().unwrap();
        for (text, expected) in
            [("1000\n", Some(1000)), ("-1\n", None), ("4294967295\n", None), ("fast", None)]
        {
            fs::write(root.path().join("speed"), text).unwrap();
            assert_eq!(speed(root.path()), expected, "{text:?}");
        }
        fs::write(root.path().join("duplex"), "full\n").unwrap();
        assert_eq!(duplex(root.path()), Some("full"));
    }

    #[test]
    fn every_device_of_this_host_is_there_with_what_proc_says_of_it() {
        let found = LinkCollector::default().collect(&Paths::default()).unwrap().unwrap();
        let listed = procfs::net::dev_status().unwrap();
        let names = |devices: &[NetworkDevice]| {
            devices.iter().map(|device| device.name.clone()).collect::<HashSet<_>>()
        };
        assert_eq!(found.count, found.devices.len() as u64);
        let missing = listed.keys().filter(|name| !names(&found.devices).contains(*name));
        // Other tests make devices meanwhile; lo stays.
        assert!(missing.count() < listed.len() && names(&found.devices).contains("lo"));
    }

    proptest! {
        #[test]
        fn any_message_is_a_device_or_nothing(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }
    }
}
