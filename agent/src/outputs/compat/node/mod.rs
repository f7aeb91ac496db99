//! `/compat/node`: node_exporter's families, for nodes that run one agent only.
//!
//! Names, types, labels and values are those of node_exporter 1.12; where 1.5 (Debian 12) has fewer labels, a query by
//! name and label finds the same in both. HELP is in our own words. What says that it is node_exporter, such as
//! `node_exporter_build_info`, is left out: this is not that program, and a version of it would be made up. Nor are
//! the metrics of a Go process.

mod cpu;
mod disk;
mod family;
mod filesystem;
mod netclass;
mod network;
mod system;

use bytes::BytesMut;

use crate::model::node::{Named, Node, NodeCollector};
use crate::outputs::prometheus::{Format, Header, Kind, family, single};
use family::Family;

/// Heading in docs/METRICS.md.
pub(in crate::outputs) const TITLE: &str = "/compat/node";
/// What holds for all of them.
pub(in crate::outputs) const ABOUT: &str = "On their own path, for dashboards and alerts of node_exporter on nodes that do not run it: names, types, labels \
     and values are its own (1.12), always text 0.0.4. Do not scrape this beside node_exporter, or everything counts \
     twice. `collect[]=NAME` reads only the named collectors and `exclude[]=NAME` all but those; there are conntrack, \
     cpu, diskstats, filesystem, loadavg, meminfo, netclass, netdev, netstat, os, pressure, sockstat, softnet, stat, \
     time, udp_queues, uname and vmstat, and, only when they are named, processes and tcpstat. These two walk all \
     processes and TCP sockets, and rest after a run for 100 times the CPU time that it took, at most 10 s: until then \
     they show what they read last. Filters are node_exporter's defaults; of disks, mounts and \
     network devices the first 1,024 are shown. A file system whose server does not answer within a \
     tenth of a second is shown with `node_filesystem_device_error`. `node_exporter_build_info`, `go_…` and `process_…` \
     are not there: this is another program. Names do not follow the conventions of the rest.";

/// Families whose names the kernel makes: one sample each, without labels.
struct Pattern {
    collector: NodeCollector,
    /// The name ends in a word in capitals that stands for the kernel's.
    header: Header,
    /// What all their names begin with.
    prefix: &'static str,
    table: fn(&Node) -> &Named,
}

const FAMILIES: [&[Family]; 6] = [
    cpu::FAMILIES,
    disk::FAMILIES,
    filesystem::FAMILIES,
    netclass::FAMILIES,
    network::FAMILIES,
    system::FAMILIES,
];

const PATTERNS: [Pattern; 4] = [
    Pattern {
        collector: NodeCollector::Meminfo,
        header: Header::gauge(
            "node_memory_FIELD",
            &[],
            "A line of /proc/meminfo, in bytes if the name says so.",
        ),
        prefix: "node_memory_",
        table: |node| &node.meminfo,
    },
    Pattern {
        collector: NodeCollector::Netstat,
        header: Header {
            name: "node_netstat_PROTOCOL_FIELD",
            kind: Kind::Untyped,
            labels: &[],
            help: "A field of /proc/net/netstat, snmp or snmp6.",
        },
        prefix: "node_netstat_",
        table: |node| &node.netstat,
    },
    Pattern {
        collector: NodeCollector::Sockstat,
        header: Header::gauge(
            "node_sockstat_PROTOCOL_FIELD",
            &[],
            "A field of /proc/net/sockstat or sockstat6: sockets, or their memory in pages or bytes.",
        ),
        prefix: "node_sockstat_",
        table: |node| &node.sockstat,
    },
    Pattern {
        collector: NodeCollector::Vmstat,
        header: Header {
            name: "node_vmstat_FIELD",
            kind: Kind::Untyped,
            labels: &[],
            help: "A line of /proc/vmstat.",
        },
        prefix: "node_vmstat_",
        table: |node| &node.vmstat,
    },
];

const DURATION: Header = Header::gauge(
    "node_scrape_collector_duration_seconds",
    &["collector"],
    "How long a collector took in this scrape.",
);
const SUCCESS: Header = Header::gauge(
    "node_scrape_collector_success",
    &["collector"],
    "1 if a collector succeeded in this scrape; 0, too, where there is nothing to collect.",
);

/// Every family, for the page.
pub(in crate::outputs) fn headers() -> impl Iterator<Item = &'static Header> {
    let fixed = FAMILIES.into_iter().flatten().map(|family| &family.header);
    let patterns = const { &PATTERNS }.iter().map(|pattern| &pattern.header);
    fixed.chain(patterns).chain(const { [&DURATION, &SUCCESS] })
}

/// Appends what the scrape's collectors found, in text 0.0.4.
pub fn render(node: &Node, out: &mut BytesMut) {
    for Family { collector, header, values } in FAMILIES.into_iter().flatten() {
        if node.shown(*collector) {
            family(header, Format::Text, out, |samples| values.write(node, samples));
        }
    }
    for Pattern { collector, header, prefix, table } in &PATTERNS {
        if node.shown(*collector) {
            for (name, value) in table(node).iter() {
                single(out, [prefix, name], header.kind, header.help, value);
            }
        }
    }
    let runs =
        || NodeCollector::ALL.into_iter().filter_map(|collector| Some((collector, node.run(collector)?)));
    family(&DURATION, Format::Text, out, |samples| {
        for (collector, run) in runs() {
            samples.sample().label("collector", collector.name()).float(run.duration.as_secs_f64());
        }
    });
    family(&SUCCESS, Format::Text, out, |samples| {
        for (collector, run) in runs() {
            samples.sample().label("collector", collector.name()).flag(run.success);
        }
    });
}

#[cfg(test)]
mod tests;
