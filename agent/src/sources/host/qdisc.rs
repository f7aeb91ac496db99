//! Collector `qdisc`: root queueing disciplines by RTM_GETQDISC (`tc_fill_qdisc` in net/sched/sch_api.c).

use std::io;
use std::os::fd::OwnedFd;

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::route::Route;
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, Qdisc};
use crate::sources::clean;
use crate::sources::netlink::{Netlink, attributes};

/// `struct tcmsg`.
const HEADER_BYTES: usize = 20;
/// Devices that get series, the oldest first: a host of containers may have thousands.
const MOST: usize = 128;
/// `TC_H_ROOT` as the parent.
const ROOT: u32 = u32::MAX;
/// Attributes of an answer (include/uapi/linux/rtnetlink.h).
const TCA_KIND: u16 = 1;
const TCA_STATS2: u16 = 7;
/// Attributes of `TCA_STATS2` (include/uapi/linux/gen_stats.h).
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_QUEUE: u16 = 3;
const TCA_STATS_PKT64: u16 = 8;

/// Keeps a netlink socket, and one to ask for names.
#[derive(Default)]
pub(super) struct QdiscCollector {
    route: Route,
    names: Option<OwnedFd>,
}

impl Collector for QdiscCollector {
    const NAME: &'static str = "qdisc";
    const HELP: &'static str =
        "drops, overlimits and backlog of the first 128 queueing disciplines by netlink";
    type Output = Vec<Qdisc>;

    fn field(host: &mut Host) -> &mut Option<Vec<Qdisc>> {
        &mut host.qdiscs
    }

    fn collect(&mut self, _: &Paths) -> Result<Option<Vec<Qdisc>>, HostError> {
        let operation = "list queueing disciplines";
        let Self { route, names } = self;
        let socket = match names {
            Some(socket) => socket,
            None => names.insert(
                socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                    .map_err(|error| HostError::Netlink { operation, source: error.into() })?,
            ),
        };
        let mut found = Vec::new();
        route.dump(operation, NETLINK_ROUTE, libc::RTM_GETQDISC, &[0; HEADER_BYTES], |body| {
            let Some((index, mut qdisc)) = parse(body).filter(|_| found.len() < MOST) else { return };
            // A device that went meanwhile took its queue along.
            let Ok(name) = index_to_name(&*socket, index) else { return };
            qdisc.device = clean::label(&name, "unknown");
            if !found.iter().any(|other: &Qdisc| other.device == qdisc.device) {
                found.push(qdisc);
            }
        })?;
        Ok(Some(found))
    }
}

/// Hands the root of every device that can hold packets to `each`, with the device's number and without its name, and
/// says how many disciplines there are in all. The request for one device alone would wake everybody who listens for
/// changes (`qdisc_get_notify`).
pub(in crate::sources) fn roots(
    netlink: &mut Netlink,
    mut each: impl FnMut(u32, &Qdisc),
) -> io::Result<usize> {
    let mut disciplines = 0;
    let flags = libc::NLM_F_DUMP as u16;
    netlink.request(libc::RTM_GETQDISC, flags, &[0; HEADER_BYTES], |_, body| {
        disciplines += 1;
        if let Some((index, qdisc)) = parse(body) {
            each(index, &qdisc);
        }
    })?;
    Ok(disciplines)
}

/// Device number and figures of a root that can hold packets; `None` for any other.
fn parse(body: &[u8]) -> Option<(u32, Qdisc)> {
    let word = |bytes: &[u8], place: usize| {
        bytes.get(place * 4..).and_then(|rest| rest.first_chunk()).map(|chunk| u32::from_ne_bytes(*chunk))
    };
    let (index, parent) = (word(body, 1)?, word(body, 3)?);
    if parent != ROOT {
        return None;
    }
    let mut qdisc = Qdisc::default();
    let mut wide = None;
    for (kind, value) in attributes(body.get(HEADER_BYTES..)?) {
        match kind {
            TCA_KIND => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                qdisc.kind = clean::label(&clean::lossy(name), "unknown");
            }
            TCA_STATS2 => {
                for (kind, value) in attributes(value) {
                    match kind {
                        TCA_STATS_BASIC => {
                            qdisc.bytes = u64::from_ne_bytes(*value.first_chunk()?);
                            qdisc.packets = word(value, 2)?.into();
                        }
                        // Where 32 bits did not suffice.
                        TCA_STATS_PKT64 => wide = value.first_chunk().map(|chunk| u64::from_ne_bytes(*chunk)),
                        TCA_STATS_QUEUE => {
                            qdisc.queue_packets = word(value, 0)?;
                            qdisc.backlog_bytes = word(value, 1)?;
                            qdisc.drops = word(value, 2)?;
                            qdisc.requeues = word(value, 3)?;
                            qdisc.overlimits = word(value, 4)?;
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    qdisc.packets = wide.unwrap_or(qdisc.packets);
    (qdisc.kind != "noqueue").then_some((index, qdisc))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::netlink::push_attribute;
    use proptest::prelude::*;

    fn message(parent: u32, kind: &[u8], packets64: Option<u64>) -> Vec<u8> {
        let mut body: Vec<u8> = [0u32, 4, 0, parent, 2].iter().flat_map(|word| word.to_ne_bytes()).collect();
        push_attribute(&mut body, TCA_KIND, kind);
        let mut stats = Vec::new();
        let mut basic = 9_000_000_000u64.to_ne_bytes().to_vec();
        basic.extend(77u32.to_ne_bytes());
        push_attribute(&mut stats, TCA_STATS_BASIC, &basic);
        if let Some(packets) = packets64 {
            push_attribute(&mut stats, TCA_STATS_PKT64, &packets.to_ne_bytes());
        }
        let queue: Vec<u8> = [1u32, 1500, 3, 4, 5].iter().flat_map(|word| word.to_ne_bytes()).collect();
        push_attribute(&mut stats, TCA_STATS_QUEUE, &queue);
        push_attribute(&mut body, TCA_STATS2, &stats);
        body
    }

    #[test]
    fn a_root_with_its_figures() {
        let (index, qdisc) = parse(&message(ROOT, b"tbf\0", None)).unwrap();
        let expected = Qdisc {
            kind: "tbf".to_owned(),
            bytes: 9_000_000_000,
            packets: 77,
            queue_packets: 1,
            backlog_bytes: 1500,
            drops: 3,
            requeues: 4,
            overlimits: 5,
            ..Qdisc::default()
        };
        assert_eq!((index, qdisc), (4, expected));
        let (_, wide) = parse(&message(ROOT, b"fq\0", Some(1 << 33))).unwrap();
        assert_eq!(wide.packets, 1 << 33);
    }

    #[test]
    fn a_child_is_in_its_root_already_and_no_queue_is_nothing() {
        assert_eq!(parse(&message(0x10000, b"pfifo\0", None)), None);
        assert_eq!(parse(&message(ROOT, b"noqueue\0", None)), None);
    }

    proptest! {
        #[test]
        fn any_message_is_a_queue_or_nothing(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }
    }
}
