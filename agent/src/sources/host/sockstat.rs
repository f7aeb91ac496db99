//! Collector `sockstat`: /proc/net/sockstat and sockstat6 (`sockstat_seq_show` in net/ipv4/proc.c).

use super::proc_file::{Bad, ProcFile, number};
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, SocketUse};

/// Keeps both files open.
#[derive(Default)]
pub(super) struct SockstatCollector {
    ipv4: ProcFile,
    ipv6: ProcFile,
}

impl Collector for SockstatCollector {
    const NAME: &'static str = "sockstat";
    const HELP: &'static str = "sockets in use and the memory of their buffers from /proc/net/sockstat";
    type Output = SocketUse;

    fn field(host: &mut Host) -> &mut Option<SocketUse> {
        &mut host.sockets
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<SocketUse>, HostError> {
        let page_bytes = rustix::param::page_size() as u64;
        let mut used =
            self.ipv4.parse_whole(&paths.procfs, "net/sockstat", |text| parse(text, page_bytes))?;
        match self.ipv6.parse_whole(&paths.procfs, "net/sockstat6", parse_v6) {
            Ok((tcp, udp)) => (used.tcp6, used.udp6) = (tcp, udp),
            // A kernel that runs without IPv6.
            Err(HostError::Unavailable { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(Some(used))
    }
}

/// The value after `key` in a line of keys and values.
fn value(line: &str, key: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == key)?;
    number(words.next())
}

fn parse(text: &str, page_bytes: u64) -> Result<SocketUse, Bad> {
    let mut used = SocketUse::default();
    let (mut all, mut tcp, mut udp) = (false, false, false);
    for (index, line) in text.lines().enumerate() {
        let (protocol, rest) = line.split_once(':').unwrap_or((line, ""));
        let get = |key, expected| value(rest, key).ok_or(Bad::Line(index + 1, expected));
        match protocol {
            "sockets" => {
                used.sockets = get("used", "`used` and a count")?;
                all = true;
            }
            "TCP" => {
                used.tcp = get("inuse", "`inuse` and a count")?;
                used.tcp_orphans = get("orphan", "`orphan` and a count")?;
                used.tcp_time_wait = get("tw", "`tw` and a count")?;
                used.tcp_memory_bytes = get("mem", "`mem` and pages")?.saturating_mul(page_bytes);
                tcp = true;
            }
            "UDP" => {
                used.udp = get("inuse", "`inuse` and a count")?;
                used.udp_memory_bytes = get("mem", "`mem` and pages")?.saturating_mul(page_bytes);
                udp = true;
            }
            "FRAG" => used.fragment_memory_bytes = get("memory", "`memory` and bytes")?,
            _ => {}
        }
    }
    match (all, tcp, udp) {
        (false, ..) => Err(Bad::Missing("sockets:")),
        (_, false, _) => Err(Bad::Missing("TCP:")),
        (.., false) => Err(Bad::Missing("UDP:")),
        _ => Ok(used),
    }
}

/// TCP and UDP sockets.
fn parse_v6(text: &str) -> Result<(Option<u64>, Option<u64>), Bad> {
    let in_use = |prefix| {
        let found = text.lines().enumerate().find(|(_, line)| line.starts_with(prefix));
        found
            .map(|(index, line)| value(line, "inuse").ok_or(Bad::Line(index + 1, "`inuse` and a count")))
            .transpose()
    };
    Ok((in_use("TCP6:")?, in_use("UDP6:")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOCKSTAT: &str = "sockets: used 12\nTCP: inuse 5 orphan 1 tw 2 alloc 7 mem 29\nUDP: inuse 3 mem 147\n\
                            UDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 4096\n";

    #[test]
    fn pages_become_bytes() {
        let used = parse(SOCKSTAT, 4096).unwrap();
        assert_eq!((used.sockets, used.tcp, used.tcp_orphans, used.tcp_time_wait), (12, 5, 1, 2));
        assert_eq!((used.tcp_memory_bytes, used.udp_memory_bytes), (29 * 4096, 147 * 4096));
        assert_eq!((used.udp, used.fragment_memory_bytes), (3, 4096));
        assert_eq!(parse_v6("TCP6: inuse 4\nUDP6: inuse 2\n"), Ok((Some(4), Some(2))));
    }

    #[test]
    fn a_kernel_without_ipv6_says_nothing_of_it() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("net")).unwrap();
        std::fs::write(root.path().join("net/sockstat"), SOCKSTAT).unwrap();
        let paths = Paths { procfs: root.path().to_owned(), ..Paths::default() };
        let used = SockstatCollector::default().collect(&paths).unwrap().unwrap();
        assert_eq!((used.tcp, used.tcp6, used.udp6), (5, None, None));
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(parse("TCP: inuse 5\n", 1), Err(Bad::Line(1, "`orphan` and a count")));
        assert_eq!(parse("sockets: used 1\n", 1), Err(Bad::Missing("TCP:")));
        assert_eq!(parse_v6("TCP6: inuse x\n"), Err(Bad::Line(1, "`inuse` and a count")));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "((TCP|UDP|FRAG|sockets): ?)?[ a-z0-9:\\PC\n]{0,80}") {
            let _ = (parse(&text, 4096), parse_v6(&text));
        }
    }
}
