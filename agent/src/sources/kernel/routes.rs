//! Which devices packets leave by, as rtnetlink knows it: the default routes, and the ways to given addresses.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use tailgauge_ebpf::layout::{MARK_FORWARDED, MARK_TAILSCALED};

use crate::sources::netlink::{Netlink, attributes, push_attribute};

/// `struct rtmsg`.
const ROUTE_HEADER_BYTES: usize = 12;
/// `struct rtnexthop`.
const NEXT_HOP_BYTES: usize = 8;
/// A dump that was interrupted by changes is repeated this often.
const DUMP_TRIES: usize = 5;

/// Adds the devices of all default routes, in any table, and of the routes within `subnets`. A full Internet routing
/// table is read, but not kept: the caller must see to it that this is done seldom.
pub(super) fn by_table(netlink: &mut Netlink, subnets: &[IpNet], devices: &mut Vec<u32>) -> io::Result<()> {
    let known = devices.len();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut body = [0; ROUTE_HEADER_BYTES];
        body[0] = family as u8;
        let mut tries = 0;
        loop {
            let flags = libc::NLM_F_DUMP as u16;
            let outcome = netlink.request(libc::RTM_GETROUTE, flags, &body, |_, answer| {
                let wanted = |route: &Route<'_>| {
                    let network = route.network();
                    network.is_some_and(|to| subnets.iter().any(|subnet| subnet.contains(&to)))
                        || route.prefix_length == 0
                };
                for index in Route::parse(answer).filter(wanted).iter().flat_map(Route::devices) {
                    if !devices.contains(&index) {
                        devices.push(index);
                    }
                }
            });
            tries += 1;
            match outcome {
                // What was read before the change may be wrong now.
                Err(error) if error.kind() == io::ErrorKind::Interrupted && tries < DUMP_TRIES => {
                    devices.truncate(known);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => break,
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
    }
    Ok(())
}

/// The device by which tailscaled's own packets to `address` leave; `None` when there is no way, or it is this host.
pub(in crate::sources) fn of_tailscaled(netlink: &mut Netlink, address: IpAddr) -> io::Result<Option<u32>> {
    look_up(netlink, address, MARK_TAILSCALED)
}

/// Adds the devices by which forwarded packets to a subnet leave: tried with its first and last addresses, of which
/// one or another is this host's own.
pub(super) fn to_subnet(netlink: &mut Netlink, subnet: &IpNet, devices: &mut Vec<u32>) -> io::Result<()> {
    for address in some_addresses(subnet) {
        if let Some(index) = look_up(netlink, address, MARK_FORWARDED)?
            && !devices.contains(&index)
        {
            devices.push(index);
        }
    }
    Ok(())
}

fn some_addresses(subnet: &IpNet) -> impl Iterator<Item = IpAddr> {
    let mut hosts = match subnet {
        IpNet::V4(subnet) => {
            let (first, last) = (u32::from(subnet.network()), u32::from(subnet.broadcast()));
            let within = [first.saturating_add(1), first.saturating_add(2), last.saturating_sub(1)];
            within.map(|address| IpAddr::from(address.clamp(first, last).to_be_bytes())).to_vec()
        }
        IpNet::V6(subnet) => {
            let (first, last) = (u128::from(subnet.network()), u128::from(subnet.broadcast()));
            let within = [first.saturating_add(1), first.saturating_add(2), last.saturating_sub(1)];
            within.map(|address| IpAddr::from(address.clamp(first, last).to_be_bytes())).to_vec()
        }
    };
    hosts.dedup();
    hosts.into_iter()
}

/// Asks for the route of a packet with `mark` (`inet_rtm_getroute`, `inet6_rtm_getroute`).
fn look_up(netlink: &mut Netlink, address: IpAddr, mark: u32) -> io::Result<Option<u32>> {
    let mut body = vec![0; ROUTE_HEADER_BYTES];
    match address {
        IpAddr::V4(address) => {
            (body[0], body[1]) = (libc::AF_INET as u8, 32);
            push_attribute(&mut body, libc::RTA_DST, &address.octets());
        }
        IpAddr::V6(address) => {
            (body[0], body[1]) = (libc::AF_INET6 as u8, 128);
            push_attribute(&mut body, libc::RTA_DST, &address.octets());
        }
    }
    push_attribute(&mut body, libc::RTA_MARK, &mark.to_ne_bytes());
    let mut found = None;
    let outcome = netlink.request(libc::RTM_GETROUTE, 0, &body, |_, answer| {
        found = Route::parse(answer).and_then(|route| route.devices().next());
    });
    match outcome {
        Ok(()) => Ok(found),
        // Unreachable, prohibited, black hole: packets leave by no device.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A route by which packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route<'a> {
    prefix_length: u8,
    destination: Option<&'a [u8]>,
    device: Option<u32>,
    next_hops: &'a [u8],
}

impl<'a> Route<'a> {
    /// Reads an RTM_NEWROUTE; `None` unless it is a unicast route.
    fn parse(body: &'a [u8]) -> Option<Self> {
        // `rtm_type` is the eighth byte.
        if *body.get(7)? != libc::RTN_UNICAST {
            return None;
        }
        let mut route = Self { prefix_length: body[1], destination: None, device: None, next_hops: &[] };
        for (kind, value) in attributes(body.get(ROUTE_HEADER_BYTES..)?) {
            match kind {
                libc::RTA_DST => route.destination = Some(value),
                libc::RTA_OIF => route.device = value.first_chunk().map(|index| u32::from_ne_bytes(*index)),
                libc::RTA_MULTIPATH => route.next_hops = value,
                _ => {}
            }
        }
        Some(route)
    }

    fn network(&self) -> Option<IpNet> {
        let destination = self.destination?;
        let address = match destination.len() {
            4 => IpAddr::from(*destination.first_chunk::<4>()?),
            16 => IpAddr::from(*destination.first_chunk::<16>()?),
            _ => return None,
        };
        IpNet::new(address, self.prefix_length).ok()
    }

    /// Indexes of the devices, several for a multipath route.
    fn devices(&self) -> impl Iterator<Item = u32> + use<'a> {
        let mut rest = self.next_hops;
        let hops = std::iter::from_fn(move || {
            let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
            let hop = rest.get(..length.max(NEXT_HOP_BYTES))?;
            rest = rest.get(length.max(NEXT_HOP_BYTES).next_multiple_of(4)..).unwrap_or_default();
            hop.get(4..)?.first_chunk().map(|index| u32::from_ne_bytes(*index))
        });
        self.device.into_iter().chain(hops)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, prefix_length: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![0; ROUTE_HEADER_BYTES];
        (body[1], body[7]) = (prefix_length, kind);
        for (kind, value) in attributes {
            push_attribute(&mut body, *kind, value);
        }
        body
    }

    #[test]
    fn a_route_has_the_device_it_names_or_those_of_its_next_hops() {
        let body = message(
            libc::RTN_UNICAST,
            24,
            &[(libc::RTA_DST, &[192, 0, 2, 0]), (libc::RTA_OIF, &7u32.to_ne_bytes())],
        );
        let route = Route::parse(&body).unwrap();
        assert_eq!(route.network(), Some("192.0.2.0/24".parse().unwrap()));
        assert_eq!(route.devices().collect::<Vec<_>>(), [7]);

        // Two next hops, the first with a gateway after its header.
        let mut hops = Vec::new();
        for (length, index) in [(16u16, 3u32), (8, 4)] {
            hops.extend(length.to_ne_bytes());
            hops.extend([0, 0]);
            hops.extend(index.to_ne_bytes());
            hops.resize(hops.len() + usize::from(length) - 8, 9);
        }
        let body = message(libc::RTN_UNICAST, 0, &[(libc::RTA_MULTIPATH, &hops)]);
        let route = Route::parse(&body).unwrap();
        assert_eq!((route.prefix_length, route.network()), (0, None));
        assert_eq!(route.devices().collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn what_does_not_leave_by_a_device_is_no_route() {
        for kind in [libc::RTN_LOCAL, libc::RTN_UNREACHABLE, libc::RTN_BLACKHOLE, libc::RTN_BROADCAST] {
            let body = message(kind, 0, &[(libc::RTA_OIF, &7u32.to_ne_bytes())]);
            assert_eq!(Route::parse(&body), None);
        }
        assert_eq!(Route::parse(&[0; 5]), None);
    }

    #[test]
    fn a_subnet_is_tried_within_its_bounds() {
        for (subnet, expected) in [
            ("192.0.2.0/24", vec!["192.0.2.1", "192.0.2.2", "192.0.2.254"]),
            ("192.0.2.7/32", vec!["192.0.2.7"]),
            ("255.255.255.255/32", vec!["255.255.255.255"]),
            ("2001:db8::/127", vec!["2001:db8::1", "2001:db8::"]),
        ] {
            let expected: Vec<IpAddr> = expected.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(some_addresses(&subnet.parse().unwrap()).collect::<Vec<_>>(), expected, "{subnet}");
        }
    }

    proptest! {
        #[test]
        fn any_message_is_a_route_or_nothing(body in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Some(route) = Route::parse(&body) {
                let _ = route.network();
                prop_assert!(route.devices().count() <= body.len());
            }
        }
    }
}
