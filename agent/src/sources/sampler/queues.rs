//! What waits, and what found no room: tailscaled's UDP sockets, its ring on the tunnel device, queueing disciplines.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::{Elapsed, since};
use crate::model::sampled::{BYTE_BOUNDS, Distribution, Sampled};
use crate::sources::clean;
use crate::sources::host::{HostError, UdpSockets, root_qdiscs};
use crate::sources::kernel::{RingDrops, device, routes};
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
/// Devices whose queueing disciplines are watched: the tunnel, and one for each address of [`FAR`].
const MOST_DEVICES: usize = 1 + FAR.len();
/// Beyond so many devices, the samples of those that are watched no more are forgotten.
const MOST_KEPT: usize = 16;
/// The kernel lists all disciplines or none: where there are more, it is asked only when devices are looked for.
const MOST_DISCIPLINES: usize = 64;
const OPERATION: &str = "sample the queues of network devices";

/// What was read before.
#[derive(Debug)]
pub(super) struct Queues {
    tunnel: String,
    /// Where drops of the tunnel's ring are read for nothing; netlink is asked where there is none.
    ring: Option<RingDrops>,
    dropped: Option<u64>,
    udp: UdpSockets,
    netlink: Option<Netlink>,
    devices: Vec<Device>,
    looked: Option<Instant>,
    /// Whether listing disciplines is worth it: they are few, and one is of a device that is watched.
    list_disciplines: bool,
    /// Whether something waited, or found no room, when it was last looked at.
    filled: bool,
}

#[derive(Debug)]
struct Device {
    name: String,
    index: u32,
    /// The tunnel's packets that its ring had no room for, by netlink.
    dropped: Option<u64>,
}

impl Queues {
    pub(super) fn new(tunnel: String, ring: Option<RingDrops>) -> Self {
        Self {
            tunnel,
            ring,
            dropped: None,
            udp: UdpSockets::default(),
            netlink: None,
            devices: Vec::new(),
            looked: None,
            list_disciplines: true,
            filled: false,
        }
    }

    pub(super) fn sample(&mut self, elapsed: Option<Elapsed>, into: &mut Sampled) -> Result<(), HostError> {
        self.filled = false;
        let udp = self.sockets(elapsed, into);
        let devices = self.all_devices(elapsed, into);
        udp.and(devices.map_err(|source| HostError::Netlink { operation: OPERATION, source }))
    }

    /// Whether nothing waited, and nothing was dropped.
    pub(super) const fn is_quiet(&self) -> bool {
        !self.filled
    }

    fn sockets(&mut self, elapsed: Option<Elapsed>, into: &mut Sampled) -> Result<(), HostError> {
        self.udp.read()?;
        let fill = self.udp.iter().map(|socket| {
            f64::from(socket.memory.receive_queue) / f64::from(socket.memory.receive_buffer.max(1))
        });
        if let Some((elapsed, fill)) = elapsed.zip(fill.reduce(f64::max)) {
            self.filled |= fill > 0.0;
            into.udp_receive_queue.add_times(elapsed.second, fill, elapsed.intervals);
        }
        Ok(())
    }

    fn all_devices(&mut self, elapsed: Option<Elapsed>, into: &mut Sampled) -> io::Result<()> {
        let mut netlink = match self.netlink.take() {
            Some(netlink) => netlink,
            None => Netlink::open(NETLINK_ROUTE)?,
        };
        let is_another = |index: u32| self.ring.as_ref().is_some_and(|ring| ring.tunnel() != Some(index));
        let known = self.devices.iter().any(|device| device.name == self.tunnel && !is_another(device.index));
        let interval = if known { LOOK_INTERVAL } else { MISSING_INTERVAL };
        if self.looked.is_none_or(|looked| looked.elapsed() >= interval) {
            self.look(&mut netlink)?;
        }
        if let Some(packets) = self.drops(&mut netlink)? {
            self.filled |= packets > 0;
            if let Some(elapsed) = elapsed {
                // It is not known in which of them they were.
                into.tunnel_drops.add_times(elapsed.second, 0.0, elapsed.intervals - 1);
                into.tunnel_drops.add(elapsed.second, packets as f64);
            }
        }
        if self.list_disciplines {
            self.backlogs(&mut netlink, elapsed, into)?;
        }
        self.netlink = Some(netlink);
        Ok(())
    }

    /// Packets that the tunnel's ring had no room for since the look before; `None` while that is not known.
    fn drops(&mut self, netlink: &mut Netlink) -> io::Result<Option<u64>> {
        if let Some(ring) = &self.ring {
            return Ok(ring.packets().and_then(|packets| since(&mut self.dropped, packets)));
        }
        let tunnel = self.devices.iter_mut().find(|device| device.name == self.tunnel);
        let Some(tunnel) = tunnel else { return Ok(None) };
        let Some(counters) = device::counters(netlink, tunnel.index)? else {
            // It is gone; perhaps there is another one.
            self.looked = None;
            return Ok(None);
        };
        Ok(since(&mut tunnel.dropped, counters.transmit_dropped))
    }

    fn backlogs(
        &mut self,
        netlink: &mut Netlink,
        elapsed: Option<Elapsed>,
        into: &mut Sampled,
    ) -> io::Result<()> {
        let mut found = [None; MOST_DEVICES];
        let disciplines = root_qdiscs(netlink, |index, qdisc| {
            if let Some(place) = self.devices.iter().position(|device| device.index == index) {
                found[place] = Some(qdisc.backlog_bytes);
            }
        });
        let disciplines = match disciplines {
            // A device came or went meanwhile; the next sample will do.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        };
        self.list_disciplines = disciplines <= MOST_DISCIPLINES && found.iter().any(Option::is_some);
        let Some(elapsed) = elapsed else { return Ok(()) };
        if into.qdisc_backlog.len() > MOST_KEPT {
            let is_watched = |name: &String| self.devices.iter().any(|device| label(device) == *name);
            into.qdisc_backlog.retain(|(name, _)| is_watched(name));
        }
        for (device, bytes) in self.devices.iter().zip(found) {
            if let Some(bytes) = bytes {
                self.filled |= bytes > 0;
                backlog(&mut into.qdisc_backlog, &label(device)).add_times(
                    elapsed.second,
                    bytes.into(),
                    elapsed.intervals,
                );
            }
        }
        Ok(())
    }

    fn look(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let mut indexes = Vec::with_capacity(MOST_DEVICES);
        indexes.extend(name_to_index(&socket, &self.tunnel));
        for address in FAR {
            indexes.extend(routes::of_tailscaled(netlink, address)?);
        }
        let mut devices: Vec<Device> = Vec::with_capacity(indexes.len());
        for index in indexes {
            let Ok(name) = index_to_name(&socket, index) else { continue };
            if devices.iter().all(|device| device.index != index) {
                let known = self.devices.iter().find(|device| device.index == index);
                devices.push(Device { name, index, dropped: known.and_then(|device| device.dropped) });
            }
        }
        self.devices = devices;
        self.list_disciplines = true;
        self.looked = Some(Instant::now());
        Ok(())
    }
}

fn label(device: &Device) -> String {
    clean::label(&device.name, "unknown")
}

fn backlog<'a>(all: &'a mut Vec<(String, Distribution)>, device: &str) -> &'a mut Distribution {
    let place = all.iter().position(|(name, _)| name == device).unwrap_or_else(|| {
        all.push((device.to_owned(), Distribution::new(BYTE_BOUNDS)));
        all.len() - 1
    });
    &mut all[place].1
}
