//! What waits, and what found no room: tailscaled's UDP sockets, its ring on the tunnel device, queueing disciplines.

use std::io;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::{Elapsed, routes, since};
use crate::model::sampled::{BYTE_BOUNDS, Distribution, Sampled};
use crate::sources::clean;
use crate::sources::host::{HostError, Paths, UdpSockets, read_once, root_qdisc};
use crate::sources::kernel::device;
use crate::sources::netlink::Netlink;

/// How often devices are looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Devices whose queueing disciplines are watched, the tunnel included.
const MOST_DEVICES: usize = 4;
const OPERATION: &str = "sample the queues of network devices";

/// What was read before.
#[derive(Debug)]
pub(super) struct Queues {
    tunnel: String,
    udp: UdpSockets,
    netlink: Option<Netlink>,
    devices: Vec<Device>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Device {
    name: String,
    index: u32,
    /// The tunnel's packets that its ring had no room for.
    dropped: Option<u64>,
    /// Devices without a queue have nothing to wait in.
    queues: bool,
}

impl Queues {
    pub(super) fn new(tunnel: String) -> Self {
        Self { tunnel, udp: UdpSockets::default(), netlink: None, devices: Vec::new(), looked: None }
    }

    pub(super) fn sample(
        &mut self,
        paths: &Paths,
        elapsed: Option<Elapsed>,
        into: &mut Sampled,
    ) -> Result<(), HostError> {
        let udp = self.sockets(elapsed, into);
        let devices = self.all_devices(paths, elapsed, into);
        udp.and(devices.map_err(|source| HostError::Netlink { operation: OPERATION, source }))
    }

    fn sockets(&mut self, elapsed: Option<Elapsed>, into: &mut Sampled) -> Result<(), HostError> {
        self.udp.read()?;
        let fill = self.udp.iter().map(|socket| {
            f64::from(socket.memory.receive_queue) / f64::from(socket.memory.receive_buffer.max(1))
        });
        if let Some((elapsed, fill)) = elapsed.zip(fill.reduce(f64::max)) {
            into.udp_receive_queue.add(elapsed.second, fill);
        }
        Ok(())
    }

    fn all_devices(&mut self, paths: &Paths, elapsed: Option<Elapsed>, into: &mut Sampled) -> io::Result<()> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
            self.look(paths)?;
        }
        let mut netlink = match self.netlink.take() {
            Some(netlink) => netlink,
            None => Netlink::open(NETLINK_ROUTE)?,
        };
        let mut gone = false;
        for device in &mut self.devices {
            gone |= !device.sample(&mut netlink, &self.tunnel, elapsed, into)?;
        }
        if gone {
            self.looked = None;
        }
        self.netlink = Some(netlink);
        Ok(())
    }

    fn look(&mut self, paths: &Paths) -> io::Result<()> {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let table = read_once(&routes(paths)).unwrap_or_default();
        let table = clean::lossy(&table);
        let names = std::iter::once(self.tunnel.as_str()).chain(default_routes(&table));
        let mut devices: Vec<Device> = Vec::new();
        for name in names {
            let Ok(index) = name_to_index(&socket, name) else { continue };
            if devices.len() < MOST_DEVICES && devices.iter().all(|device| device.index != index) {
                let known = self.devices.iter().find(|device| device.index == index);
                let dropped = known.and_then(|device| device.dropped);
                devices.push(Device { name: name.to_owned(), index, dropped, queues: true });
            }
        }
        self.devices = devices;
        self.looked = Some(Instant::now());
        Ok(())
    }
}

impl Device {
    /// False when the device is gone.
    fn sample(
        &mut self,
        netlink: &mut Netlink,
        tunnel: &str,
        elapsed: Option<Elapsed>,
        into: &mut Sampled,
    ) -> io::Result<bool> {
        if self.name == tunnel {
            let Some(counters) = device::counters(netlink, self.index)? else { return Ok(false) };
            let dropped = since(&mut self.dropped, counters.transmit_dropped);
            if let Some((elapsed, dropped)) = elapsed.zip(dropped) {
                into.tunnel_drops.add(elapsed.second, dropped as f64);
            }
        }
        if !self.queues {
            return Ok(true);
        }
        match root_qdisc(netlink, self.index)? {
            Some(qdisc) => {
                if let Some(elapsed) = elapsed {
                    let backlog = backlog(&mut into.qdisc_backlog, &clean::label(&self.name, "unknown"));
                    backlog.add(elapsed.second, qdisc.backlog_bytes.into());
                }
            }
            None => self.queues = false,
        }
        Ok(true)
    }
}

fn backlog<'a>(all: &'a mut Vec<(String, Distribution)>, device: &str) -> &'a mut Distribution {
    let place = all.iter().position(|(name, _)| name == device).unwrap_or_else(|| {
        all.push((device.to_owned(), Distribution::new(BYTE_BOUNDS)));
        all.len() - 1
    });
    &mut all[place].1
}

/// Devices of /proc/net/route (`fib_route_seq_show` in net/ipv4/fib_trie.c) whose destination and mask are zero.
fn default_routes(table: &str) -> impl Iterator<Item = &str> {
    table.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let all = |place: usize| columns.get(place).is_some_and(|hex| hex.bytes().all(|digit| digit == b'0'));
        (all(1) && all(7)).then(|| columns[0])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_told_from_others() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                     half\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\nbad\n";
        assert_eq!(default_routes(table).collect::<Vec<_>>(), ["eth0"]);
    }
}
