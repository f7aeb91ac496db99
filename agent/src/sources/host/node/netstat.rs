//! Collector `netstat`: /proc/net/{netstat,snmp,snmp6}, the fields that node_exporter takes by default.

use super::super::netstat::{lines, pairs_of_lines};
use super::super::proc_file::ProcFile;
use super::super::{HostError, Paths};
use crate::model::node::Named;

/// Keeps the three files open.
#[derive(Default)]
pub(super) struct Reader {
    netstat: ProcFile,
    snmp: ProcFile,
    snmp6: ProcFile,
}

impl Reader {
    pub(super) fn read(&mut self, paths: &Paths, counts: &mut Named) -> Result<(), HostError> {
        counts.clear();
        for (file, name) in [(&mut self.netstat, "net/netstat"), (&mut self.snmp, "net/snmp")] {
            file.parse_whole(&paths.procfs, name, |text| {
                pairs_of_lines(text, |(protocol, name), value| keep(counts, protocol, name, value))
            })?;
        }
        let outcome = self.snmp6.parse_whole(&paths.procfs, "net/snmp6", |text| {
            lines(text, |name, value| {
                // `Ip6InReceives`: the protocol ends with the 6.
                if let Some(at) = name.find('6') {
                    let (protocol, name) = name.split_at(at + 1);
                    keep(counts, protocol, name, value);
                }
            })
        });
        match outcome {
            // A kernel that runs without IPv6.
            Ok(()) | Err(HostError::Unavailable { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn keep(counts: &mut Named, protocol: &str, name: &str, value: u64) {
    if is_kept(protocol, name) {
        counts.push(&[protocol, "_", name], value);
    }
}

/// node_exporter's default.
fn is_kept(protocol: &str, name: &str) -> bool {
    let listed = match protocol {
        "Ip" => name == "Forwarding",
        "Ip6" | "IpExt" => matches!(name, "InOctets" | "OutOctets"),
        "Icmp" | "Icmp6" => matches!(name, "InMsgs" | "OutMsgs"),
        "Tcp" => matches!(
            name,
            "ActiveOpens" | "InSegs" | "OutSegs" | "OutRsts" | "PassiveOpens" | "RetransSegs" | "CurrEstab"
        ),
        "TcpExt" => {
            name.starts_with("Listen")
                || name.starts_with("Syncookies")
                || matches!(name, "TCPSynRetrans" | "TCPTimeouts" | "TCPOFOQueue" | "TCPRcvQDrop")
        }
        "Udp" | "Udp6" => {
            matches!(name, "InDatagrams" | "OutDatagrams" | "NoPorts" | "RcvbufErrors" | "SndbufErrors")
        }
        _ => false,
    };
    listed || matches!(name, "InErrors" | "InErrs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_fields_of_all_three_files() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("net")).unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(root.path().join("net").join(name), text).unwrap();
        write("netstat", "TcpExt: SyncookiesSent TW ListenDrops\nTcpExt: 1 2 3\nIpExt: InOctets\nIpExt: 4\n");
        write("snmp", "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: MaxConn InErrs\nTcp: -1 5\n");
        let paths = Paths { procfs: root.path().to_owned(), ..Paths::default() };
        let (mut reader, mut counts) = (Reader::default(), Named::default());
        let mut read = || {
            reader.read(&paths, &mut counts).unwrap();
            counts.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
        };
        let ipv4 =
            "TcpExt_SyncookiesSent 1, TcpExt_ListenDrops 3, IpExt_InOctets 4, Ip_Forwarding 1, Tcp_InErrs 5";
        assert_eq!(read(), ipv4, "without IPv6");
        write("snmp6", "Ip6InOctets 6\nIp6InDelivers 7\nUdpLite6InErrors 8\nnonsense 9\n");
        assert_eq!(read(), format!("{ipv4}, Ip6_InOctets 6, UdpLite6_InErrors 8"));
    }
}
