//! Collector `netdev`: counters of network devices by RTM_GETLINK (`rtnl_fill_stats` in net/core/rtnetlink.c).

use super::super::HostError;
use super::super::link;
use super::super::route::Route;
use crate::model::node::{LinkCounter, NetDevice, Rows};
use crate::sources::clean;
use crate::sources::netlink::attributes;

/// Devices that are shown: each has 17 series here, and as many of `netclass`.
pub(super) const MOST: usize = 1024;

/// Keeps a netlink socket.
#[derive(Default)]
pub(super) struct Reader(Route);

impl Reader {
    pub(super) fn read(&mut self, devices: &mut Rows<NetDevice>) -> Result<(), HostError> {
        devices.clear();
        link::dump(&mut self.0, |body| {
            if devices.len() < MOST {
                add(body, devices);
            }
        })
    }
}

/// Appends the device of an RTM_NEWLINK, unless it has no name or counters, or another has its name.
fn add(body: &[u8], devices: &mut Rows<NetDevice>) {
    let device = devices.push();
    let mut counted = None;
    for (kind, value) in attributes(body.get(link::HEADER_BYTES..).unwrap_or_default()) {
        match kind {
            libc::IFLA_IFNAME => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                clean::refill(&mut device.name, &clean::lossy(name));
            }
            libc::IFLA_STATS64 => counted = count(&mut device.counters, value),
            _ => {}
        }
    }
    // Two names can be the same once they are cleaned, and two series must not.
    let known = devices.split_last().is_none_or(|(device, others)| {
        device.name.is_empty() || others.iter().any(|other| other.name == device.name)
    });
    if counted.is_none() || known {
        devices.pop();
    }
}

fn count(counters: &mut [u64; LinkCounter::COUNT], value: &[u8]) -> Option<()> {
    for (place, bytes) in counters.iter_mut().zip(value.get(..LinkCounter::COUNT * 8)?.chunks_exact(8)) {
        *place = u64::from_ne_bytes(bytes.try_into().ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::netlink::push_attribute;
    use proptest::prelude::*;

    fn message(name: &[u8], counters: u64) -> Vec<u8> {
        let mut body = vec![0; link::HEADER_BYTES];
        push_attribute(&mut body, libc::IFLA_IFNAME, name);
        let stats: Vec<u8> = (1..=counters).flat_map(u64::to_ne_bytes).collect();
        push_attribute(&mut body, libc::IFLA_STATS64, &stats);
        body
    }

    #[test]
    fn counters_are_taken_in_the_kernel_s_order() {
        let mut devices = Rows::default();
        add(&message(b"tailscale0\0", 25), &mut devices);
        assert_eq!(devices[0].name, "tailscale0");
        assert_eq!(devices[0].sum(&[LinkCounter::RxPackets]), 1);
        assert_eq!(devices[0].sum(&[LinkCounter::RxDropped, LinkCounter::RxMissedErrors]), 7 + 16);
        assert_eq!(devices[0].sum(&[LinkCounter::RxNohandler]), 24);
    }

    #[test]
    fn what_is_no_device_and_what_is_there_already_is_left_out() {
        let mut devices = Rows::default();
        for (name, counters) in [(&b"a\0"[..], 24), (b"a\x01\0", 24), (b"b\0", 3), (b"\0", 24), (b"c\0", 24)]
        {
            add(&message(name, counters), &mut devices);
        }
        assert_eq!(devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        add(&[libc::AF_BRIDGE as u8; 60], &mut devices);
        assert_eq!(devices.len(), 2);
    }

    proptest! {
        #[test]
        fn any_message_is_a_device_or_nothing(mut body in prop::collection::vec(any::<u8>(), 1..200)) {
            body[0] = 0;
            add(&body, &mut Rows::default());
        }
    }
}
