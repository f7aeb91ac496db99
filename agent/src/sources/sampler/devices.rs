//! Devices whose queues are watched: the tunnel, and those on the way to the internet.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::model::sampled::{BYTE_BOUNDS, Distribution, Sampled};
use crate::sources::clean;
use crate::sources::kernel::routes;
use crate::sources::netlink::Netlink;

/// How often devices are looked for …
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// … and while there is no tunnel: tailscaled has most to do when it has just made it anew.
const MISSING_INTERVAL: Duration = Duration::from_millis(500);
/// Root name servers (a.root-servers.net): the way to them is the way to the internet. Nothing is sent there.
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];
/// As many as there can be: the tunnel, and one for each address of [`FAR`].
pub(super) const MOST: usize = 1 + FAR.len();
/// Beyond so many devices, the samples of those that are watched no more are forgotten.
const MOST_KEPT: usize = 16;

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) index: u32,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Devices {
    tunnel: String,
    found: Vec<Device>,
    looked: Option<Instant>,
}

impl Devices {
    pub(super) const fn new(tunnel: String) -> Self {
        Self { tunnel, found: Vec::new(), looked: None }
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Device> {
        self.found.iter()
    }

    /// The tunnel, while it exists.
    pub(super) fn tunnel(&self) -> Option<&Device> {
        self.found.iter().find(|device| device.name == self.tunnel)
    }

    /// They are looked for with the next call of [`Self::refresh`].
    pub(super) const fn forget(&mut self) {
        self.looked = None;
    }

    /// Looks for them when it is time to; true when it did. `is_another` says of the tunnel's index that it is the
    /// tunnel no more.
    pub(super) fn refresh(
        &mut self,
        netlink: &mut Netlink,
        is_another: impl Fn(u32) -> bool,
    ) -> io::Result<bool> {
        let known = self.tunnel().is_some_and(|device| !is_another(device.index));
        let interval = if known { LOOK_INTERVAL } else { MISSING_INTERVAL };
        if self.looked.is_some_and(|looked| looked.elapsed() < interval) {
            return Ok(false);
        }
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let mut indexes = Vec::with_capacity(MOST);
        indexes.extend(name_to_index(&socket, &self.tunnel));
        for address in FAR {
            indexes.extend(routes::of_tailscaled(netlink, address)?);
        }
        self.found.clear();
        for index in indexes {
            let Ok(name) = index_to_name(&socket, index) else { continue };
            if self.found.iter().all(|device| device.index != index) {
                self.found.push(Device { name, index });
            }
        }
        self.looked = Some(Instant::now());
        Ok(true)
    }

    /// Forgets what was sampled of devices that are gone, if there are many.
    pub(super) fn tidy(&self, into: &mut Sampled) {
        if into.qdisc_backlog.len() > MOST_KEPT {
            let is_watched = |name: &String| self.found.iter().any(|device| device.label() == *name);
            into.qdisc_backlog.retain(|(name, _)| is_watched(name));
        }
    }
}

impl Device {
    fn label(&self) -> String {
        clean::label(&self.name, "unknown")
    }

    /// The samples of its queueing discipline.
    pub(super) fn backlog<'a>(&self, into: &'a mut Sampled) -> &'a mut Distribution {
        let all = &mut into.qdisc_backlog;
        let label = self.label();
        let place = all.iter().position(|(name, _)| *name == label).unwrap_or_else(|| {
            all.push((label, Distribution::new(BYTE_BOUNDS)));
            all.len() - 1
        });
        &mut all[place].1
    }
}
