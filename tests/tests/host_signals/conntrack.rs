//! A full table of connections: new ones are dropped, old ones live.

use std::net::Ipv4Addr;

use tailgauge_testbed::conntrack::{FIRST, SERVER, fill, flush};
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::needs;
use tailgauge_testbed::netns::Namespace;
use tailgauge_testbed::stage::{HOST, Stage, udp_frame};

use crate::{agreed, kernel, stage, value};

const FLOWS: u64 = 100;
/// Entries take some 300 bytes each.
const MOST: u64 = 1 << 20;
/// Somebody must ask for the state, or nothing is tracked. Scrapes are let alone, or a full table would drop them, too.
const TRACK: &str = "table ip track {
    chain input {
        type filter hook input priority filter
        ct state new counter
    }
    chain prerouting {
        type filter hook prerouting priority raw
        iif lo notrack
    }
    chain output {
        type filter hook output priority raw
        oif lo notrack
    }
}
";

/// Entries, the limit, and packets dropped as well as entries given up for want of room.
fn kernel_says(namespace: &Namespace) -> [u64; 4] {
    let number = |name: &str| -> u64 {
        let text = kernel::read(namespace, &format!("/proc/sys/net/netfilter/{name}"));
        text.trim().parse().unwrap()
    };
    let text = kernel::read(namespace, "/proc/thread-self/net/stat/nf_conntrack");
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let rows: Vec<Vec<u64>> = lines
        .map(|line| line.split_whitespace().map(|word| u64::from_str_radix(word, 16).unwrap()).collect())
        .collect();
    let sum = |name: &str| -> u64 {
        let place = names.iter().position(|other| *other == name).unwrap();
        rows.iter().map(|row| row[place]).sum()
    };
    [number("nf_conntrack_count"), number("nf_conntrack_max"), sum("drop"), sum("early_drop")]
}

fn same(scrape: &Exposition, kernel: &[u64; 4]) -> bool {
    ["entries", "entries_limit", "drops_total", "early_drops_total"].into_iter().zip(kernel).all(
        |(metric, said)| {
            scrape.value(&format!("tailgauge_host_conntrack_{metric}"), &[]) == Some(*said as f64)
        },
    )
}

/// Packets of so many flows.
fn flows(stage: &Stage, first: Ipv4Addr, to: Ipv4Addr) {
    for number in 0..FLOWS {
        let from = Ipv4Addr::from_bits(first.to_bits() + number as u32);
        assert!(stage.receive(&udp_frame(from, to, 10)));
        stage.drain();
    }
}

#[test]
fn a_full_table_drops_new_flows_and_no_old_ones() {
    let test = "a_full_table_drops_new_flows_and_no_old_ones";
    let Some(stage) = stage(test, &["ip", "nft"]) else { return };
    let namespace = &stage.namespace;
    namespace.nft(TRACK).unwrap();
    let agent = stage.agent(&[]).unwrap();
    let read = || kernel_says(namespace);
    let limit = read()[1];
    if limit > MOST {
        needs::skip(test, &format!("a conntrack table of at most {MOST} entries, not {limit}"));
        return;
    }

    if let Err(error) = flush(namespace) {
        needs::skip(test, &format!("connection tracking by netlink: {error}"));
        return;
    }
    let (_, before) = agreed(&agent, "an empty table", read, same);
    assert_eq!(before, [0, limit, 0, 0]);
    flows(&stage, Ipv4Addr::new(100, 64, 1, 0), HOST);
    let (_, healthy) = agreed(&agent, "healthy traffic", read, same);
    assert_eq!(healthy[0], FLOWS, "an entry for each flow");
    assert_eq!(healthy[2..], [0, 0], "still when healthy");

    // The limit is that of all namespaces and stays what it is; this namespace alone reaches it. Entries that nobody
    // answered would be given up for new ones.
    flush(namespace).unwrap();
    fill(namespace, u32::try_from(limit).unwrap()).unwrap();
    let (scrape, full) = agreed(&agent, "a full table", read, same);
    assert_eq!(full, [limit, limit, 0, 0]);
    let ratio = value(&scrape, "tailgauge_host_conntrack_entries", &[])
        / value(&scrape, "tailgauge_host_conntrack_entries_limit", &[]);
    assert_eq!(ratio, 1.0);

    flows(&stage, FIRST, SERVER);
    let (_, old) = agreed(&agent, "old flows through a full table", read, same);
    assert_eq!(old, full, "old flows live");
    flows(&stage, Ipv4Addr::new(100, 64, 2, 0), HOST);
    let (_, after) = agreed(&agent, "new flows into a full table", read, same);
    assert_eq!(after[2..], [FLOWS, 0]);
}
