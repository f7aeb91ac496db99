//! What waits, and what found no room: tailscaled's UDP sockets, its ring on the tunnel device, queueing disciplines.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::{Elapsed, since};
use crate::model::sampled::{BYTE_BOUNDS, Distribution, Sampled};
use crate::sources::clean;
use crate::sources::host::{HostError, Paths, UdpSockets, root_qdiscs};
use crate::sources::kernel::device;
use crate::sources::netlink::Netlink;
use crate::sources::thread_time;

/// How often devices are looked for …
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// … but only after so many times the CPU time that it took, up to a minute: routing tables may hold the whole Internet.
const LOOK_FACTOR: u32 = 1000;
const LONGEST_LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Devices whose queueing disciplines are watched, the tunnel included.
const MOST_DEVICES: usize = 4;
/// Beyond so many devices, the samples of those that are watched no more are forgotten.
const MOST_KEPT: usize = 16;
/// The kernel lists all disciplines or none: where there are more, it is asked only when devices are looked for.
const MOST_DISCIPLINES: usize = 64;
/// How much of a routing table is read at a time.
const TABLE_BYTES: usize = 32 << 10;
const OPERATION: &str = "sample the queues of network devices";

/// What was read before.
#[derive(Debug)]
pub(super) struct Queues {
    tunnel: String,
    udp: UdpSockets,
    netlink: Option<Netlink>,
    devices: Vec<Device>,
    /// When devices are to be looked for again.
    next_look: Option<Instant>,
    /// Whether listing disciplines is worth it: they are few, and one is of a device that is watched.
    list_disciplines: bool,
}

#[derive(Debug)]
struct Device {
    name: String,
    index: u32,
    /// The tunnel's packets that its ring had no room for.
    dropped: Option<u64>,
}

impl Queues {
    pub(super) fn new(tunnel: String) -> Self {
        Self {
            tunnel,
            udp: UdpSockets::default(),
            netlink: None,
            devices: Vec::new(),
            next_look: None,
            list_disciplines: true,
        }
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
        if self.next_look.is_none_or(|next| Instant::now() >= next) {
            self.look(paths)?;
        }
        let mut netlink = match self.netlink.take() {
            Some(netlink) => netlink,
            None => Netlink::open(NETLINK_ROUTE)?,
        };
        if let Some(tunnel) = self.devices.iter_mut().find(|device| device.name == self.tunnel)
            && !tunnel.sample_drops(&mut netlink, elapsed, into)?
        {
            self.next_look = None;
        }
        if self.list_disciplines {
            self.backlogs(&mut netlink, elapsed, into)?;
        }
        self.netlink = Some(netlink);
        Ok(())
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
                backlog(&mut into.qdisc_backlog, &label(device)).add(elapsed.second, bytes.into());
            }
        }
        Ok(())
    }

    fn look(&mut self, paths: &Paths) -> io::Result<()> {
        let began = thread_time();
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        // A kernel without one of the protocols has no table of it.
        let table = |name| {
            File::open(paths.procfs.join(name)).map(|file| BufReader::with_capacity(TABLE_BYTES, file))
        };
        let ipv4 = table("net/route").and_then(default_ipv4).unwrap_or_default();
        let ipv6 = table("net/ipv6_route").and_then(default_ipv6).unwrap_or_default();
        let names = [&self.tunnel].into_iter().chain(&ipv4).chain(&ipv6);
        let mut devices: Vec<Device> = Vec::new();
        for name in names {
            let Ok(index) = name_to_index(&socket, name) else { continue };
            if devices.len() < MOST_DEVICES && devices.iter().all(|device| device.index != index) {
                let known = self.devices.iter().find(|device| device.index == index);
                let dropped = known.and_then(|device| device.dropped);
                devices.push(Device { name: name.clone(), index, dropped });
            }
        }
        self.devices = devices;
        self.list_disciplines = true;
        let pause = thread_time().saturating_sub(began) * LOOK_FACTOR;
        self.next_look = Some(Instant::now() + pause.clamp(LOOK_INTERVAL, LONGEST_LOOK_INTERVAL));
        Ok(())
    }
}

impl Device {
    /// False when the device is gone.
    fn sample_drops(
        &mut self,
        netlink: &mut Netlink,
        elapsed: Option<Elapsed>,
        into: &mut Sampled,
    ) -> io::Result<bool> {
        let Some(counters) = device::counters(netlink, self.index)? else { return Ok(false) };
        let dropped = since(&mut self.dropped, counters.transmit_dropped);
        if let Some((elapsed, dropped)) = elapsed.zip(dropped) {
            into.tunnel_drops.add(elapsed.second, dropped as f64);
        }
        Ok(true)
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

/// Devices of /proc/net/route (`fib_route_seq_show` in net/ipv4/fib_trie.c) whose destination and mask are zero.
fn default_ipv4(table: impl BufRead) -> io::Result<Vec<String>> {
    routes(table, [1, 7], 0)
}

/// Devices of /proc/net/ipv6_route (`rt6_info_route` in net/ipv6/route.c) whose destination and its length are zero.
/// The kernel gives the loopback a route like that, which refuses everything.
fn default_ipv6(table: impl BufRead) -> io::Result<Vec<String>> {
    let mut devices = routes(table, [0, 1], 9)?;
    devices.retain(|device| device != "lo");
    Ok(devices)
}

/// The column `device` of lines whose columns `zero` are hexadecimal zeros, each device once.
fn routes(mut table: impl BufRead, zero: [usize; 2], device: usize) -> io::Result<Vec<String>> {
    let (mut found, mut line) = (Vec::new(), Vec::new());
    while {
        line.clear();
        table.read_until(b'\n', &mut line)? > 0
    } {
        let text = clean::lossy(&line);
        let column = |place: usize| text.split_ascii_whitespace().nth(place);
        let is_zero = |place| column(place).is_some_and(|hex| hex.bytes().all(|digit| digit == b'0'));
        if let Some(device) = column(device).filter(|_| zero.into_iter().all(is_zero))
            && found.iter().all(|known| known != device)
        {
            found.push(device.to_owned());
        }
    }
    Ok(found)
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
        assert_eq!(default_ipv4(table.as_bytes()).unwrap(), ["eth0"]);

        let route = |destination: &str, length: &str, device: &str| {
            let zero = "0".repeat(32);
            format!(
                "{destination} {length} {zero} 00 {zero} 00000400 00000001 00000000 00000003 {device:>8}\n"
            )
        };
        let zero = "0".repeat(32);
        let table = [
            route(&zero, "00", "eth2"),
            route("fd00000000000000000000000000000a", "80", "eth3"),
            route(&zero, "08", "eth4"),
            route(&zero, "00", "lo"),
            "0 0\n".to_owned(),
        ];
        assert_eq!(default_ipv6(table.concat().as_bytes()).unwrap(), ["eth2"]);
    }
}
