//! Packets that are too big for the way out and must not be fragmented.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::netns::Namespace;
use tailgauge_testbed::offload::checksum;
use tailgauge_testbed::offload::vnet::VNET_HEADER_LEN;
use tailgauge_testbed::stage::{Stage, TUNNEL, udp_frame};

use crate::qdisc::way_out;
use crate::{agreed, kernel, stage};

const PACKETS: u64 = 50;
const MTU: usize = 1280;
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 2);
const FAR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const FAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0, 0, 0, 0, 2);

/// Metric without prefix, and what IPv4 and IPv6 call it.
const COUNTS: [(&str, (&str, &str), &str); 4] = [
    ("fragmentation_failures", ("Ip", "FragFails"), "Ip6FragFails"),
    ("forwarded_packets", ("Ip", "ForwDatagrams"), "Ip6OutForwDatagrams"),
    ("fragments_created", ("Ip", "FragCreates"), "Ip6FragCreates"),
    ("icmp_destination_unreachable_sent", ("Icmp", "OutDestUnreachs"), "Icmp6OutDestUnreachs"),
];

fn kernel_says(namespace: &Namespace, ipv6: bool) -> [u64; 5] {
    let [a, b, c, d] = COUNTS.map(|(_, (protocol, name), name6)| match ipv6 {
        false => kernel::snmp(namespace, protocol, name),
        true => kernel::snmp6(namespace, name6),
    });
    [a, b, c, d, if ipv6 { kernel::snmp6(namespace, "Icmp6OutPktTooBigs") } else { 0 }]
}

fn same(scrape: &Exposition, kernel: &[u64; 5], ipv6: bool) -> bool {
    let labels = [("family", if ipv6 { "ipv6" } else { "ipv4" })];
    let said = |metric: &str| scrape.value(&format!("tailgauge_host_ip_{metric}_total"), &labels);
    COUNTS.into_iter().zip(kernel).all(|((metric, ..), count)| said(metric) == Some(*count as f64))
        && (!ipv6 || said("icmp_packet_too_big_sent") == Some(kernel[4] as f64))
}

/// A packet of `length` bytes from the tunnel to the way out.
fn forward(stage: &Stage, ipv6: bool, length: usize, may_fragment: bool) {
    let mut frame = match ipv6 {
        false => udp_frame(Ipv4Addr::new(100, 64, 0, 2), FAR_V4, length - 28),
        true => udp_frame(IpAddr::from(PEER_V6), IpAddr::from(FAR_V6), length - 48),
    };
    if !ipv6 && !may_fragment {
        let header = &mut frame[VNET_HEADER_LEN..VNET_HEADER_LEN + 20];
        header[6] = 0x40;
        header[10..12].fill(0);
        let sum = !checksum::sum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    assert!(stage.receive(&frame));
    stage.drain();
}

#[test]
fn packets_too_big_for_the_way_out_are_fragmentation_failures() {
    let test = "packets_too_big_for_the_way_out_are_fragmentation_failures";
    let Some(stage) = stage(test, &["ip"]) else { return };
    let namespace = &stage.namespace;
    for name in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        namespace.sysctl(name, "1").unwrap();
    }
    way_out(&stage);
    for arguments in [
        &format!("link set out0 mtu {MTU}"),
        &format!("addr add fd7a:115c:a1e0::1/64 dev {TUNNEL} nodad"),
        "addr add 2001:db8:18::1/64 dev out0 nodad",
        "neigh add 2001:db8:18::2 lladdr 02:00:00:00:00:02 dev out0 nud permanent",
    ] {
        namespace.ip(&arguments.split(' ').collect::<Vec<_>>()).unwrap();
    }
    let agent = stage.agent(&[]).unwrap();
    for ipv6 in [false, true] {
        let read = || kernel_says(namespace, ipv6);
        let right = |scrape: &Exposition, kernel: &[u64; 5]| same(scrape, kernel, ipv6);
        let send = |length, may_fragment| {
            (0..PACKETS).for_each(|_| forward(&stage, ipv6, length, may_fragment));
        };
        let (_, before) = agreed(&agent, "the counts at rest", read, right);
        send(MTU, false);
        let (_, healthy) = agreed(&agent, "healthy traffic", read, right);
        let moved = |now: [u64; 5], then: [u64; 5]| std::array::from_fn(|at| now[at] - then[at]);
        assert_eq!(moved(healthy, before), [0, PACKETS, 0, 0, 0], "still when healthy");

        send(MTU + 20, false);
        let (_, after) = agreed(&agent, "packets too big", read, right);
        let (unreachable, too_big) = if ipv6 { (0, PACKETS) } else { (PACKETS, 0) };
        let [failures, _, created, ..]: [u64; 5] = moved(after, healthy);
        assert_eq!([failures, created], [PACKETS, 0]);
        assert_eq!(moved(after, healthy)[3..], [unreachable, too_big], "the sender was told");

        if !ipv6 {
            send(MTU + 20, true);
            let (_, fragmented) = agreed(&agent, "packets that may be fragmented", read, right);
            assert_eq!(moved(fragmented, after)[0], 0);
            assert_eq!(moved(fragmented, after)[2], 2 * PACKETS);
        }
    }
}
