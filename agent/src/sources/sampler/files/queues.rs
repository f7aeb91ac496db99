//! What waits, and what found no room: tailscaled's UDP sockets, its ring on the tunnel device, queueing disciplines.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;

use super::{Elapsed, since};
use crate::model::sampled::Sampled;
use crate::sources::host::{HostError, UdpSockets, root_qdiscs};
use crate::sources::kernel::{RingDrops, device};
use crate::sources::netlink::Netlink;
use crate::sources::sampler::devices::{self, Devices};

/// The kernel lists all disciplines or none: where there are more, it is asked only when devices are looked for.
const MOST_DISCIPLINES: usize = 64;
const OPERATION: &str = "sample the queues of network devices";

/// What was read before.
#[derive(Debug)]
pub(super) struct Queues {
    /// Where drops of the tunnel's ring are read for nothing; netlink is asked where there is none.
    ring: Option<RingDrops>,
    /// Packets that the ring had no room for, and by netlink of which device.
    dropped: Option<u64>,
    dropped_by: Option<u32>,
    udp: UdpSockets,
    netlink: Option<Netlink>,
    devices: Devices,
    /// Whether listing disciplines is worth it: they are few, and one is of a device that is watched.
    list_disciplines: bool,
    /// Whether something waited, or found no room, when it was last looked at.
    filled: bool,
}

impl Queues {
    pub(super) fn new(tunnel: String, ring: Option<RingDrops>) -> Self {
        Self {
            ring,
            dropped: None,
            dropped_by: None,
            udp: UdpSockets::default(),
            netlink: None,
            devices: Devices::new(tunnel),
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
        let ring = self.ring.as_ref();
        let is_another = |index: u32| ring.is_some_and(|ring| ring.tunnel() != Some(index));
        self.list_disciplines |= self.devices.refresh(&mut netlink, is_another)?;
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
        let Some(tunnel) = self.devices.tunnel().map(|device| device.index) else { return Ok(None) };
        let Some(counters) = device::counters(netlink, tunnel)? else {
            // It is gone; perhaps there is another one.
            self.devices.forget();
            return Ok(None);
        };
        if self.dropped_by.replace(tunnel) != Some(tunnel) {
            self.dropped = None;
        }
        Ok(since(&mut self.dropped, counters.transmit_dropped))
    }

    fn backlogs(
        &mut self,
        netlink: &mut Netlink,
        elapsed: Option<Elapsed>,
        into: &mut Sampled,
    ) -> io::Result<()> {
        let mut found = [None; devices::MOST];
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
        self.devices.tidy(into);
        for (device, bytes) in self.devices.iter().zip(found) {
            if let Some(bytes) = bytes {
                self.filled |= bytes > 0;
                device.backlog(into).add_times(elapsed.second, bytes.into(), elapsed.intervals);
            }
        }
        Ok(())
    }
}
