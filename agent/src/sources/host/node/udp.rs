//! /proc/net/udp and udp6 (`udp4_format_sock` in net/ipv4/udp.c), for kernels that cannot be asked by sock_diag.

use super::super::proc_file::Bad;
use crate::model::node::QueuedBytes;

/// Adds up the column `tx_queue:rx_queue`, hexadecimal, below a line of names.
pub(super) fn parse(text: &str) -> Result<QueuedBytes, Bad> {
    let mut sum = QueuedBytes::default();
    for (index, line) in text.lines().enumerate().skip(1) {
        let bad = Bad::Line(index + 1, "`tx_queue:rx_queue` in hexadecimal as the fifth column");
        let (transmit, receive) = queues(line).ok_or(bad)?;
        sum.transmit += u64::from(transmit);
        sum.receive += u64::from(receive);
    }
    Ok(sum)
}

fn queues(line: &str) -> Option<(u32, u32)> {
    let (transmit, receive) = line.split_ascii_whitespace().nth(4)?.split_once(':')?;
    Some((u32::from_str_radix(transmit, 16).ok()?, u32::from_str_radix(receive, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use proptest::prelude::*;

    const NAMES: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
    const SOCKET: &str = "  482: 0100007F:A0B1 00000000:0000 07 00000010:00000900 00:00000000 00000000     0        0 21 2 0 0\n";

    #[test]
    fn queues_are_added_up() {
        let sum = parse(&format!("{NAMES}{SOCKET}{SOCKET}")).unwrap();
        assert_eq!(sum, QueuedBytes { receive: 0x1200, transmit: 0x20 });
        assert_eq!(parse(NAMES), Ok(QueuedBytes::default()));
        assert!(matches!(parse(&format!("{NAMES}{SOCKET}1: a b 07 0 0\n")), Err(Bad::Line(3, _))));
    }

    #[test]
    fn a_datagram_that_waits_is_seen_on_this_host() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.send_to(&[1; 1000], receiver.local_addr().unwrap()).unwrap();
        let text = std::fs::read_to_string("/proc/net/udp").unwrap();
        assert!(parse(&text).unwrap().receive >= 1000, "{text}");
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "x\n([0-9a-f: ]{0,30}\n){0,3}|\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
