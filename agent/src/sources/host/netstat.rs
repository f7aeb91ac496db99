//! Collector `netstat`: /proc/net/{snmp,netstat,snmp6} (net/ipv4/proc.c, net/ipv6/proc.c; RFC 4293, 4113, 4022).
//!
//! procfs' `Snmp` is not used: 460 allocations, and a column that it does not know the kernel to have fails all.

use super::proc_file::{Bad, ProcFile, number};
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, Ip, Protocols, Tcp, Udp};

/// Keeps the three files open.
#[derive(Default)]
pub(super) struct NetstatCollector {
    snmp: ProcFile,
    netstat: ProcFile,
    snmp6: ProcFile,
}

impl Collector for NetstatCollector {
    const NAME: &'static str = "netstat";
    const HELP: &'static str = "IP, UDP and TCP counters from /proc/net/snmp, netstat and snmp6";
    type Output = Protocols;

    fn field(host: &mut Host) -> &mut Option<Protocols> {
        &mut host.protocols
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Protocols>, HostError> {
        let mut protocols = Protocols::default();
        let found = &mut protocols;
        self.snmp.parse_whole(&paths.procfs, "net/snmp", |text| {
            pairs_of_lines(text, |key, value| ipv4(found, key, value))
        })?;
        self.netstat.parse_whole(&paths.procfs, "net/netstat", |text| {
            pairs_of_lines(text, |key, value| ipv4(found, key, value))
        })?;
        match self
            .snmp6
            .parse_whole(&paths.procfs, "net/snmp6", |text| lines(text, |key, value| ipv6(found, key, value)))
        {
            Ok(()) | Err(HostError::Unavailable { .. }) => Ok(Some(protocols)),
            Err(error) => Err(error),
        }
    }
}

/// snmp and netstat: a line of names and a line of values, both begun by the protocol.
pub(super) fn pairs_of_lines(text: &str, mut found: impl FnMut((&str, &str), u64)) -> Result<(), Bad> {
    let mut lines = text.lines().enumerate();
    while let Some((index, names)) = lines.next() {
        let (at, values) = lines.next().ok_or(Bad::Line(index + 1, "a line of values after it"))?;
        let Some((protocol, names)) = names.split_once(':') else {
            return Err(Bad::Line(index + 1, "`protocol: names`"));
        };
        let values = values
            .strip_prefix(protocol)
            .and_then(|rest| rest.strip_prefix(':'))
            .ok_or(Bad::Line(at + 1, "the values of the protocol on the line before"))?;
        let mut values = values.split_ascii_whitespace();
        for name in names.split_ascii_whitespace() {
            // Signed: Tcp MaxConn is -1.
            let value: i64 = number(values.next()).ok_or(Bad::Line(at + 1, "a count for every name"))?;
            found((protocol, name), value.cast_unsigned());
        }
    }
    Ok(())
}

/// snmp6: a name and a value a line.
pub(super) fn lines(text: &str, mut found: impl FnMut(&str, u64)) -> Result<(), Bad> {
    for (index, line) in text.lines().enumerate() {
        let mut words = line.split_ascii_whitespace();
        let Some(name) = words.next() else { continue };
        found(name, number(words.next()).ok_or(Bad::Line(index + 1, "`name count`"))?);
    }
    Ok(())
}

fn ipv4(protocols: &mut Protocols, (protocol, name): (&str, &str), value: u64) {
    let Protocols { ipv4, udp, tcp, .. } = protocols;
    let place = match protocol {
        "Ip" => ip_field(ipv4, name),
        "Icmp" => (name == "OutDestUnreachs").then_some(&mut ipv4.icmp_out_destination_unreachable),
        "IpExt" => (name == "InNoRoutes").then_some(&mut ipv4.in_no_routes),
        "Udp" => udp_field(udp, name),
        "TcpExt" if name == "IPReversePathFilter" => Some(&mut ipv4.reverse_path_drops),
        "Tcp" | "TcpExt" => tcp_field(tcp, name),
        _ => None,
    };
    if let Some(place) = place {
        *place = Some(value);
    }
}

fn ipv6(protocols: &mut Protocols, name: &str, value: u64) {
    let place = if let Some(name) = name.strip_prefix("Ip6") {
        ip_field(protocols.ipv6.get_or_insert_default(), name)
    } else if let Some(name) = name.strip_prefix("Udp6") {
        udp_field(protocols.udp6.get_or_insert_default(), name)
    } else {
        let ip = protocols.ipv6.get_or_insert_default();
        match name {
            "Icmp6OutDestUnreachs" => Some(&mut ip.icmp_out_destination_unreachable),
            "Icmp6OutPktTooBigs" => Some(&mut ip.icmp_out_packet_too_big),
            _ => None,
        }
    };
    if let Some(place) = place {
        *place = Some(value);
    }
}

fn ip_field<'a>(ip: &'a mut Ip, name: &str) -> Option<&'a mut Option<u64>> {
    Some(match name {
        "InReceives" => &mut ip.in_receives,
        "InHdrErrors" => &mut ip.in_header_errors,
        "InAddrErrors" => &mut ip.in_address_errors,
        "InNoRoutes" => &mut ip.in_no_routes,
        "InDiscards" => &mut ip.in_discards,
        "ForwDatagrams" | "OutForwDatagrams" => &mut ip.forwarded,
        "OutRequests" => &mut ip.out_requests,
        "OutDiscards" => &mut ip.out_discards,
        "OutNoRoutes" => &mut ip.out_no_routes,
        "ReasmFails" => &mut ip.reassembly_failures,
        "FragFails" => &mut ip.fragmentation_failures,
        "FragCreates" => &mut ip.fragments_created,
        _ => return None,
    })
}

fn udp_field<'a>(udp: &'a mut Udp, name: &str) -> Option<&'a mut Option<u64>> {
    Some(match name {
        "InDatagrams" => &mut udp.in_datagrams,
        "OutDatagrams" => &mut udp.out_datagrams,
        "NoPorts" => &mut udp.no_ports,
        "InErrors" => &mut udp.in_errors,
        "RcvbufErrors" => &mut udp.receive_buffer_errors,
        "SndbufErrors" => &mut udp.send_buffer_errors,
        "InCsumErrors" => &mut udp.checksum_errors,
        "MemErrors" => &mut udp.memory_errors,
        _ => return None,
    })
}

fn tcp_field<'a>(tcp: &'a mut Tcp, name: &str) -> Option<&'a mut Option<u64>> {
    Some(match name {
        "ActiveOpens" => &mut tcp.active_opens,
        "PassiveOpens" => &mut tcp.passive_opens,
        "AttemptFails" => &mut tcp.attempt_fails,
        "EstabResets" => &mut tcp.established_resets,
        "CurrEstab" => &mut tcp.established,
        "InSegs" => &mut tcp.in_segments,
        "OutSegs" => &mut tcp.out_segments,
        "RetransSegs" => &mut tcp.retransmitted_segments,
        "InErrs" => &mut tcp.in_errors,
        "TCPTimeouts" => &mut tcp.timeouts,
        "TCPLostRetransmit" => &mut tcp.lost_retransmits,
        "TCPSynRetrans" => &mut tcp.syn_retransmits,
        "TCPSackRecovery" => &mut tcp.sack_recoveries,
        "ListenOverflows" => &mut tcp.listen_overflows,
        "ListenDrops" => &mut tcp.listen_drops,
        "PruneCalled" => &mut tcp.prunes,
        "TCPBacklogDrop" => &mut tcp.backlog_drops,
        "TCPMemoryPressures" => &mut tcp.memory_pressures,
        "TCPMTUPFail" => &mut tcp.mtu_probe_failures,
        "TCPMTUPSuccess" => &mut tcp.mtu_probe_successes,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SNMP: &str = "Ip: Forwarding InReceives ForwDatagrams FragFails\nIp: 2 35824 7 3\n\
                        Icmp: InMsgs OutDestUnreachs\nIcmp: 1 9\n\
                        Tcp: MaxConn CurrEstab RetransSegs InCsumErrors\nTcp: -1 4 12 0\n\
                        TcpExt: ListenDrops IPReversePathFilter\nTcpExt: 0 31\nIpExt: InNoRoutes InOctets\nIpExt: 17 9\n\
                        Udp: InDatagrams RcvbufErrors\nUdp: 203 5\nUdpLite: RcvbufErrors\nUdpLite: 99\n";

    fn read(text: &str) -> Result<Protocols, Bad> {
        let mut protocols = Protocols::default();
        pairs_of_lines(text, |key, value| ipv4(&mut protocols, key, value))?;
        Ok(protocols)
    }

    #[test]
    fn columns_are_found_by_name() {
        let protocols = read(SNMP).unwrap();
        assert_eq!(protocols.ipv4.in_receives, Some(35_824));
        assert_eq!(protocols.ipv4.forwarded, Some(7));
        assert_eq!(protocols.ipv4.icmp_out_destination_unreachable, Some(9));
        assert_eq!((protocols.tcp.established, protocols.tcp.retransmitted_segments), (Some(4), Some(12)));
        assert_eq!((protocols.ipv4.reverse_path_drops, protocols.ipv4.in_no_routes), (Some(31), Some(17)));
        assert_eq!(protocols.udp.receive_buffer_errors, Some(5), "UdpLite is another protocol");
        assert_eq!(protocols.udp.memory_errors, None, "not said is not zero");
    }

    #[test]
    fn ipv6_is_absent_until_a_line_says_otherwise() {
        let mut protocols = Protocols::default();
        lines("", |name, value| ipv6(&mut protocols, name, value)).unwrap();
        assert_eq!((protocols.ipv6, protocols.udp6), (None, None));
        let text = "Ip6OutForwDatagrams \t8\nIcmp6OutPktTooBigs 2\nUdp6RcvbufErrors 6\nUdpLite6InErrors 1\n";
        lines(text, |name, value| ipv6(&mut protocols, name, value)).unwrap();
        assert_eq!(protocols.ipv6.unwrap().forwarded, Some(8));
        assert_eq!(protocols.ipv6.unwrap().icmp_out_packet_too_big, Some(2));
        assert_eq!(protocols.udp6.unwrap().receive_buffer_errors, Some(6));
    }

    #[test]
    fn every_field_is_there_on_this_kernel() {
        let protocols = NetstatCollector::default().collect(&Paths::default()).unwrap().unwrap();
        let mut said = format!("{protocols:?}");
        said = said
            .replace("icmp_out_packet_too_big: None", "")
            .replacen("reverse_path_drops: None", "", usize::from(protocols.ipv6.is_some()))
            .replace("ipv6: None", "")
            .replace("udp6: None", "");
        assert!(!said.contains("None"), "{said}");
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(read("Ip: A B\nIp: 1\n"), Err(Bad::Line(2, "a count for every name")));
        assert_eq!(
            read("Ip: A\nTcp: 1\n"),
            Err(Bad::Line(2, "the values of the protocol on the line before"))
        );
        assert_eq!(read("Ip: A\n"), Err(Bad::Line(1, "a line of values after it")));
        assert_eq!(read("nonsense\n1\n"), Err(Bad::Line(1, "`protocol: names`")));
        assert_eq!(lines("Ip6InReceives x", |_, _| {}), Err(Bad::Line(1, "`name count`")));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "(Ip|Tcp)?:?[ a-z0-9\\PC\n:-]{0,80}") {
            let _ = read(&text);
            let _ = lines(&text, |_, _| {});
        }
    }
}
