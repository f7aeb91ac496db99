//! Which devices are asked.

use std::io;

use netlink_packet_route::link::LinkHeader;

use crate::sources::host::link;
use crate::sources::host::route::Route;
use crate::sources::host::{HostError, Paths};
use crate::sources::netlink::attributes;

/// Devices that are asked: each takes the lock of the network configuration.
const MOST: usize = 16;
/// Name of the hardware behind a device, since kernel 5.14 (include/uapi/linux/if_link.h).
const IFLA_PARENT_DEV_NAME: u16 = 56;

/// A device that is up and not the loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// Its number.
    pub(super) index: u32,
    /// The name that collector `link` gives it.
    pub(super) name: String,
}

/// At most [`MOST`] devices: the tunnel, then hardware, then the rest, the oldest first.
pub(super) fn list(route: &mut Route, paths: &Paths) -> Result<Vec<Device>, HostError> {
    let (mut found, mut ranks) = (Vec::new(), Vec::new());
    link::dump(route, |body| {
        if let Some(device) = link::parse(body) {
            ranks.push(rank(body).map(|rank| if device.name == paths.interface { 0 } else { rank }));
            found.push(device);
        }
    })?;
    link::tell_apart(&mut found);
    let mut devices: Vec<_> = found
        .into_iter()
        .zip(ranks)
        .filter_map(|(device, rank)| Some((rank?, Device { index: device.index, name: device.name })))
        .collect();
    devices.sort_by_key(|(rank, device)| (*rank, device.index));
    devices.truncate(MOST);
    Ok(devices.into_iter().map(|(_, device)| device).collect())
}

/// Whether it is the driver of one device that failed: others can still be asked, and that one later.
pub(super) fn is_of_driver(error: &io::Error) -> bool {
    let own = [libc::EBUSY, libc::EIO, libc::ENETDOWN, libc::ENXIO, libc::ETIMEDOUT];
    error.raw_os_error().is_some_and(|number| own.contains(&number))
}

/// 1 for hardware, 2 for others; `None` for a device that is not asked.
fn rank(body: &[u8]) -> Option<u8> {
    let flags = LinkHeader::parse(body).ok()?.flags.bits();
    if flags & libc::IFF_UP as u32 == 0 || flags & libc::IFF_LOOPBACK as u32 != 0 {
        return None;
    }
    let hardware = attributes(body.get(link::HEADER_BYTES..)?).any(|(kind, _)| kind == IFLA_PARENT_DEV_NAME);
    Some(if hardware { 1 } else { 2 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::netlink::push_attribute;

    fn message(flags: i32, hardware: bool) -> Vec<u8> {
        let mut body = vec![0; link::HEADER_BYTES];
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        if hardware {
            push_attribute(&mut body, IFLA_PARENT_DEV_NAME, b"0000:00:03.0\0");
        }
        body
    }

    #[test]
    fn hardware_comes_before_the_rest_and_what_is_down_or_loops_back_is_left_out() {
        assert_eq!(rank(&message(libc::IFF_UP, true)), Some(1));
        assert_eq!(rank(&message(libc::IFF_UP, false)), Some(2));
        assert_eq!(rank(&message(libc::IFF_UP | libc::IFF_LOOPBACK, false)), None);
        assert_eq!(rank(&message(0, true)), None);
        assert_eq!(rank(&[0; 3]), None);
    }

    #[test]
    fn devices_of_this_host_are_up_and_none_is_the_loopback() {
        let found = list(&mut Route::default(), &Paths::default()).unwrap();
        assert!(found.len() <= MOST && found.iter().all(|device| device.name != "lo"));
    }
}
