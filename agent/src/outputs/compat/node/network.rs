//! Collectors `netdev`, `conntrack`, `tcpstat` and `udp_queues`.

use super::family::{Family, Values};
use crate::model::host::ConntrackStatistics;
use crate::model::node::LinkCounter::{
    Collisions, Multicast, RxBytes, RxCompressed, RxCrcErrors, RxDropped, RxErrors, RxFifoErrors,
    RxFrameErrors, RxLengthErrors, RxMissedErrors, RxNohandler, RxOverErrors, RxPackets, TxAbortedErrors,
    TxBytes, TxCarrierErrors, TxCompressed, TxDropped, TxErrors, TxFifoErrors, TxHeartbeatErrors, TxPackets,
    TxWindowErrors,
};
use crate::model::node::Node;
use crate::model::node::NodeCollector::{self, Conntrack, Netdev, Tcpstat, UdpQueues};
use crate::outputs::prometheus::{Header, Kind};

const COUNTER: (NodeCollector, Kind) = (Netdev, Kind::Counter);
/// node_exporter calls them gauges, though they only rise.
const TRACKED: (NodeCollector, Kind) = (Conntrack, Kind::Gauge);
const DEVICE: &[&str] = &["device"];
/// Label values by the kernel's number (include/net/tcp_states.h).
const TCP_STATES: [&str; 12] = [
    "unknown",
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
];

fn tracked(node: &Node, count: fn(&ConntrackStatistics) -> u64) -> Option<u64> {
    node.conntrack?.statistics.as_ref().map(count)
}

pub(super) const FAMILIES: &[Family] = &[
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_receive_bytes_total",
        "Bytes received.",
        Values::Counters(&[RxBytes]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_receive_packets_total",
        "Packets received.",
        Values::Counters(&[RxPackets]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_receive_errs_total",
        "Packets received with errors.",
        Values::Counters(&[RxErrors]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_receive_drop_total",
        "Packets received and dropped, or missed for want of room.",
        Values::Counters(&[RxDropped, RxMissedErrors]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_receive_fifo_total",
        "Packets lost as the device's queue overflowed.",
        Values::Counters(&[RxFifoErrors]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_receive_frame_total",
        "Frames received that were malformed.",
        Values::Counters(&[RxFrameErrors, RxLengthErrors, RxOverErrors, RxCrcErrors]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_receive_compressed_total",
        "Compressed packets received.",
        Values::Counters(&[RxCompressed]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_receive_multicast_total",
        "Packets received that were sent to groups.",
        Values::Counters(&[Multicast]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_receive_nohandler_total",
        "Packets received that nobody wanted.",
        Values::Counters(&[RxNohandler]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_transmit_bytes_total",
        "Bytes transmitted.",
        Values::Counters(&[TxBytes]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_transmit_packets_total",
        "Packets transmitted.",
        Values::Counters(&[TxPackets]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_transmit_errs_total",
        "Packets that could not be transmitted.",
        Values::Counters(&[TxErrors]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_transmit_drop_total",
        "Packets dropped instead of being transmitted.",
        Values::Counters(&[TxDropped]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_transmit_fifo_total",
        "Packets lost as the device's queue ran empty.",
        Values::Counters(&[TxFifoErrors]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_transmit_colls_total",
        "Collisions.",
        Values::Counters(&[Collisions]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_transmit_carrier_total",
        "Packets lost for want of a link.",
        Values::Counters(&[TxCarrierErrors, TxAbortedErrors, TxHeartbeatErrors, TxWindowErrors]),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_network_transmit_compressed_total",
        "Compressed packets transmitted.",
        Values::Counters(&[TxCompressed]),
    ),
    Family::by(
        TRACKED,
        &[],
        "node_nf_conntrack_entries",
        "Connections that are tracked.",
        Values::Plain(|node| Some(node.conntrack?.entries)),
    ),
    Family::by(
        TRACKED,
        &[],
        "node_nf_conntrack_entries_limit",
        "Connections that may be tracked.",
        Values::Plain(|node| Some(node.conntrack?.limit)),
    ),
    Family::by(
        TRACKED,
        &[],
        "node_nf_conntrack_stat_found",
        "Look-ups that found a connection.",
        Values::Plain(|node| tracked(node, |counts| counts.found)),
    ),
    Family::by(
        TRACKED,
        &[],
        "node_nf_conntrack_stat_invalid",
        "Packets that fit no connection.",
        Values::Plain(|node| tracked(node, |counts| counts.invalid)),
    ),
    Family::by(
        TRACKED,
        &[],
        "node_nf_conntrack_stat_ignore",
        "Packets that are not tracked; 0 on current kernels.",
        Values::Plain(|node| tracked(node, |counts| counts.ignore)),
    ),
    Family::by(
        TRACKED,
        &[],
        "node_nf_conntrack_stat_insert",
        "Connections inserted; 0 on current kernels.",
        Values::Plain(|node| tracked(node, |counts| counts.insert)),
    ),
    Family::by(
        TRACKED,
        &[],
        "node_nf_conntrack_stat_insert_failed",
        "Connections that could not be inserted.",
        Values::Plain(|node| tracked(node, |counts| counts.insert_failed)),
    ),
    Family::by(
        TRACKED,
        &[],
        "node_nf_conntrack_stat_drop",
        "Packets dropped: the table was full, or two entries of one connection clashed.",
        Values::Plain(|node| tracked(node, |counts| counts.drop)),
    ),
    Family::by(
        TRACKED,
        &[],
        "node_nf_conntrack_stat_early_drop",
        "Connections removed to make room for new ones.",
        Values::Plain(|node| tracked(node, |counts| counts.early_drop)),
    ),
    Family::by(
        TRACKED,
        &[],
        "node_nf_conntrack_stat_search_restart",
        "Look-ups that began anew.",
        Values::Plain(|node| tracked(node, |counts| counts.search_restart)),
    ),
    Family::new(
        Tcpstat,
        Header::gauge(
            "node_tcp_connection_states",
            &["state"],
            "TCP sockets by state, and the bytes that wait in all of them.",
        ),
        Values::Samples(|node, samples| {
            let mut any = false;
            for (state, count) in TCP_STATES.into_iter().zip(node.tcp.sockets) {
                if count > 0 {
                    samples.sample().label("state", state).integer(count);
                    any = true;
                }
            }
            if any {
                samples.sample().label("state", "rx_queued_bytes").integer(node.tcp.queued.receive);
                samples.sample().label("state", "tx_queued_bytes").integer(node.tcp.queued.transmit);
            }
        }),
    ),
    Family::new(
        UdpQueues,
        Header::gauge(
            "node_udp_queues",
            &["queue", "ip"],
            "Memory that datagrams take in the queues of all UDP sockets, in bytes.",
        ),
        Values::Samples(|node, samples| {
            for (ip, queued) in [("v4", node.udp.ipv4), ("v6", node.udp.ipv6)] {
                let Some(queued) = queued else { continue };
                samples.sample().label("queue", "tx").label("ip", ip).integer(queued.transmit);
                samples.sample().label("queue", "rx").label("ip", ip).integer(queued.receive);
            }
        }),
    ),
];
