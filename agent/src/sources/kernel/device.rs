//! The tunnel device and this host's addresses, as rtnetlink knows them.

use std::ffi::CStr;
use std::io;
use std::net::IpAddr;

use netlink_packet_route::link::{LinkHeader, LinkLayerType, Stats64};

use crate::model::kernel::DeviceCounters;
use crate::sources::netlink::{Netlink, attributes, push_attribute};

/// `struct ifinfomsg`.
const LINK_HEADER_BYTES: usize = 16;
/// `struct ifaddrmsg`.
const ADDRESS_HEADER_BYTES: usize = 8;
/// `struct if_stats_msg`.
const STATS_HEADER_BYTES: usize = 12;
/// `IFLA_STATS_LINK_64`, and its bit in the filter mask.
const STATS_LINK_64: u16 = 1;
/// A dump that was interrupted by changes is repeated this often.
const DUMP_TRIES: usize = 5;

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Never reused while the namespace lives.
    pub(super) index: u32,
    pub(super) name: String,
    /// ARPHRD: what a packet of this device begins with.
    pub(super) layer: LinkLayer,
    /// Counters since the device exists, when the message carried them.
    pub(super) counters: Option<DeviceCounters>,
}

/// What the first byte of a packet on the device belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkLayer {
    /// An IP header.
    Layer3,
    /// Something else, by its ARPHRD number.
    Other(u16),
}

impl LinkLayer {
    fn from_arphrd(number: u16) -> Self {
        match LinkLayerType::from(number) {
            LinkLayerType::None | LinkLayerType::Rawip | LinkLayerType::Ppp => Self::Layer3,
            _ => Self::Other(number),
        }
    }

    /// Name and number of a type that is refused.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Layer3 => "layer 3".to_owned(),
            Self::Other(number) => format!("{:?} (ARPHRD {number})", LinkLayerType::from(number)),
        }
    }
}

/// Reads the body of an RTM_NEWLINK or RTM_DELLINK; `None` when it is about a bridge port or malformed.
pub(super) fn parse_link(body: &[u8]) -> Option<Link> {
    let header = LinkHeader::parse(body).ok()?;
    if u8::from(header.interface_family) != libc::AF_UNSPEC as u8 {
        return None;
    }
    let mut name = None;
    let mut counters = None;
    for (kind, value) in attributes(body.get(LINK_HEADER_BYTES..)?) {
        match kind {
            libc::IFLA_IFNAME => name = CStr::from_bytes_until_nul(value).ok(),
            libc::IFLA_STATS64 => counters = parse_counters(value),
            _ => {}
        }
    }
    Some(Link {
        index: header.index,
        name: name?.to_string_lossy().into_owned(),
        layer: LinkLayer::from_arphrd(header.link_layer_type.into()),
        counters,
    })
}

fn parse_counters(value: &[u8]) -> Option<DeviceCounters> {
    let stats = Stats64::parse(value).ok()?;
    Some(DeviceCounters {
        receive_packets: stats.rx_packets,
        receive_bytes: stats.rx_bytes,
        transmit_packets: stats.tx_packets,
        transmit_bytes: stats.tx_bytes,
        transmit_dropped: stats.tx_dropped,
    })
}

/// The device called `name`, if there is one.
pub(super) fn find(netlink: &mut Netlink, name: &str) -> io::Result<Option<Link>> {
    let mut body = vec![0; LINK_HEADER_BYTES];
    let mut value = name.as_bytes().to_vec();
    value.push(0);
    push_attribute(&mut body, libc::IFLA_IFNAME, &value);
    let mut found = None;
    match netlink.request(libc::RTM_GETLINK, 0, &body, |_, answer| found = parse_link(answer)) {
        Ok(()) => Ok(found),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Hands every device to `each`. A list that was interrupted by changes is made again.
pub(super) fn all(netlink: &mut Netlink, mut each: impl FnMut(Link)) -> io::Result<()> {
    let mut tries = 0;
    loop {
        let flags = libc::NLM_F_DUMP as u16;
        let outcome = netlink.request(libc::RTM_GETLINK, flags, &[0; LINK_HEADER_BYTES], |_, answer| {
            if let Some(link) = parse_link(answer) {
                each(link);
            }
        });
        tries += 1;
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && tries < DUMP_TRIES => {}
            outcome => return outcome,
        }
    }
}

/// The device with an index, if there is one.
pub(super) fn by_index(netlink: &mut Netlink, index: u32) -> io::Result<Option<Link>> {
    // `struct ifinfomsg`: family, padding, type, index.
    let mut body = [0; LINK_HEADER_BYTES];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut found = None;
    match netlink.request(libc::RTM_GETLINK, 0, &body, |_, answer| found = parse_link(answer)) {
        Ok(()) => Ok(found),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Counters of a device since it exists; `None` when it is gone. Allocates nothing.
pub(in crate::sources) fn counters(netlink: &mut Netlink, index: u32) -> io::Result<Option<DeviceCounters>> {
    let mut body = [0; STATS_HEADER_BYTES];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&(1u32 << (STATS_LINK_64 - 1)).to_ne_bytes());
    let mut found = None;
    let result = netlink.request(libc::RTM_GETSTATS, 0, &body, |_, answer| {
        found = attributes(answer.get(STATS_HEADER_BYTES..).unwrap_or_default())
            .find(|(kind, _)| *kind == STATS_LINK_64)
            .and_then(|(_, value)| parse_counters(value));
    });
    match result {
        Ok(()) => Ok(found),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All addresses of this host, in order.
pub(super) fn addresses(netlink: &mut Netlink) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for _ in 0..DUMP_TRIES {
        found.clear();
        let result = netlink.request(
            libc::RTM_GETADDR,
            libc::NLM_F_DUMP as u16,
            &[0; ADDRESS_HEADER_BYTES],
            |_, answer| found.extend(parse_address(answer)),
        );
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(()) => break,
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Reads the address in an RTM_NEWADDR: IFA_LOCAL where there is one (on a point-to-point link IFA_ADDRESS is
/// the other end), else IFA_ADDRESS.
fn parse_address(body: &[u8]) -> Option<IpAddr> {
    let mut address = None;
    for (kind, value) in attributes(body.get(ADDRESS_HEADER_BYTES..)?) {
        let parsed = match value.len() {
            4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
            _ => None,
        };
        match kind {
            libc::IFA_LOCAL => return parsed,
            libc::IFA_ADDRESS => address = parsed,
            _ => {}
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;

    #[test]
    fn the_loopback_device_is_found_refused_and_counted() {
        let mut netlink = Netlink::open(NETLINK_ROUTE).unwrap();
        let lo = find(&mut netlink, "lo").unwrap().unwrap();
        assert_eq!(lo.name, "lo");
        assert_eq!(by_index(&mut netlink, lo.index).unwrap().unwrap().name, "lo");
        assert_eq!(by_index(&mut netlink, u32::MAX >> 1).unwrap(), None);
        assert_eq!(lo.layer, LinkLayer::Other(772));
        assert_eq!(lo.layer.describe(), "Loopback (ARPHRD 772)");
        assert!(counters(&mut netlink, lo.index).unwrap().is_some());
        assert_eq!(find(&mut netlink, "no-such-device").unwrap(), None);
        assert_eq!(counters(&mut netlink, u32::MAX >> 1).unwrap(), None);
    }

    #[test]
    fn only_devices_whose_packets_begin_with_an_ip_header_are_layer_3() {
        assert_eq!(LinkLayer::from_arphrd(65534), LinkLayer::Layer3);
        assert_eq!(LinkLayer::from_arphrd(519), LinkLayer::Layer3);
        assert_eq!(LinkLayer::from_arphrd(1), LinkLayer::Other(1));
        assert_eq!(LinkLayer::Other(1).describe(), "Ether (ARPHRD 1)");
    }

    #[test]
    fn a_bridge_port_message_is_not_about_the_device() {
        let mut body = vec![0u8; 16];
        push_attribute(&mut body, libc::IFLA_IFNAME, b"tailscale0\0");
        assert!(parse_link(&body).is_some());
        body[0] = libc::AF_BRIDGE as u8;
        assert_eq!(parse_link(&body), None);
        assert_eq!(parse_link(&body[..10]), None);
    }

    #[test]
    fn the_local_end_of_a_point_to_point_link_is_ours() {
        let mut body = vec![0u8; 8];
        push_attribute(&mut body, libc::IFA_ADDRESS, &[10, 0, 0, 2]);
        push_attribute(&mut body, libc::IFA_LOCAL, &[10, 0, 0, 1]);
        assert_eq!(parse_address(&body), Some(IpAddr::from([10, 0, 0, 1])));
    }
}
