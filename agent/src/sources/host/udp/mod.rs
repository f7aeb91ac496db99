//! Collector `udp`: UDP sockets of tailscaled, known by their mark.

mod diag;
mod sockets;

pub(in crate::sources) use sockets::Sockets;

use super::{Collector, HostError, Paths};
use crate::model::host::{Host, TailscaledUdp, UdpBuffers};

/// Remembers the sockets.
#[derive(Default)]
pub(super) struct UdpCollector(Sockets);

impl Collector for UdpCollector {
    const NAME: &'static str = "udp";
    const HELP: &'static str = "receive queue, buffer and drops of tailscaled's UDP sockets by sock_diag";
    type Output = TailscaledUdp;

    fn field(host: &mut Host) -> &mut Option<TailscaledUdp> {
        &mut host.udp
    }

    fn collect(&mut self, _: &Paths) -> Result<Option<TailscaledUdp>, HostError> {
        self.0.read()?;
        if self.0.is_blind() {
            return Ok(None);
        }
        let mut found = TailscaledUdp::default();
        if let Some([ipv4, ipv6]) = self.0.drops() {
            for (sum, drops) in [(&mut found.ipv4, ipv4), (&mut found.ipv6, ipv6)] {
                sum.buffers = Some(UdpBuffers { drops, ..UdpBuffers::default() });
            }
        }
        for socket in self.0.iter() {
            let sum = if socket.is_ipv6() { &mut found.ipv6 } else { &mut found.ipv4 };
            sum.sockets += 1;
            let memory = socket.memory;
            let sum = sum.buffers.get_or_insert_default();
            sum.receive_queue_bytes += u64::from(memory.receive_queue);
            sum.receive_buffer_bytes += u64::from(memory.receive_buffer);
            sum.transmit_queue_bytes += u64::from(memory.transmit_queue);
            sum.transmit_buffer_bytes += u64::from(memory.transmit_buffer);
        }
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::thread;

    use caps::{CapSet, Capability};
    use netlink_sys::protocols::NETLINK_ROUTE;
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;
    use crate::sources::netlink::Netlink;

    /// Runs where there are no sockets but those of `run`, and no device but the loopback; not at all without the right to.
    #[expect(unsafe_code, reason = "a thread takes a network namespace of its own")]
    pub(super) fn alone(run: impl FnOnce() + Send) {
        thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: only what this thread asks of the network changes, and it ends with `run`.
                if unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.is_err() {
                    eprintln!("skipped: a network namespace needs CAP_SYS_ADMIN");
                    return;
                }
                // `struct ifinfomsg` of the first device, with `IFF_UP` as flag and as mask.
                let up = [0, 1, 1, 1].map(u32::to_ne_bytes).concat();
                let mut netlink = Netlink::open(NETLINK_ROUTE).unwrap();
                netlink.request(libc::RTM_NEWLINK, libc::NLM_F_ACK as u16, &up, |_, _| {}).unwrap();
                run();
            });
        });
    }

    fn collect(collector: &mut UdpCollector) -> Option<[(u64, Option<u64>); 2]> {
        collector.0.forget_list();
        let found = collector.collect(&Paths::default()).unwrap()?;
        Some([found.ipv4, found.ipv6].map(|sum| (sum.sockets, sum.buffers.map(|buffers| buffers.drops))))
    }

    #[test]
    fn nothing_is_said_of_drops_until_a_socket_was_marked() {
        alone(|| {
            let mut collector = UdpCollector::default();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            assert_eq!(collect(&mut collector), Some([(0, None); 2]), "it may be tailscaled's");
            socket2::SockRef::from(&socket).set_mark(0x8_0000).unwrap();
            assert_eq!(collect(&mut collector), Some([(1, Some(0)), (0, Some(0))]));
            drop(socket);
            assert_eq!(collect(&mut collector), Some([(0, Some(0)); 2]));
        });
    }

    #[test]
    fn nothing_is_said_at_all_without_the_right_to_see_marks() {
        thread::scope(|scope| {
            scope.spawn(|| {
                // Of this thread alone.
                caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap();
                let mut collector = UdpCollector::default();
                assert_eq!(collect(&mut collector), None);
                assert_eq!(collect(&mut collector), None);
            });
        });
    }
}
