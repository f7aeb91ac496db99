//! Collector `udp`: UDP sockets of tailscaled, known by their mark.

mod diag;
mod sockets;

pub(in crate::sources) use sockets::Sockets;

use super::{Collector, HostError, Paths};
use crate::model::host::{Host, TailscaledUdp};

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
        let mut found = TailscaledUdp::default();
        self.0.read()?;
        for socket in self.0.iter() {
            let sum = if socket.is_ipv6() { &mut found.ipv6 } else { &mut found.ipv4 };
            let memory = socket.memory;
            sum.sockets += 1;
            sum.receive_queue_bytes += u64::from(memory.receive_queue);
            sum.receive_buffer_bytes += u64::from(memory.receive_buffer);
            sum.transmit_queue_bytes += u64::from(memory.transmit_queue);
            sum.transmit_buffer_bytes += u64::from(memory.transmit_buffer);
        }
        let [ipv4, ipv6] = self.0.drops();
        (found.ipv4.drops, found.ipv6.drops) = (ipv4, ipv6);
        Ok(Some(found))
    }
}
