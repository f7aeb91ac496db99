use std::collections::HashSet;
use std::time::Duration;

use super::*;
use crate::model::host::{Conntrack, CpuTime, Softnet};
use crate::model::node::{QueuedBytes, Run, Space};

const RUN: Run = Run { duration: Duration::from_micros(250), success: true, shown: true };

fn text(node: &Node) -> String {
    let mut out = BytesMut::new();
    render(node, &mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

/// Samples of a family.
fn samples<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .collect()
}

#[test]
fn nothing_is_shown_of_what_was_not_asked_for_or_failed() {
    let mut node = Node::default();
    node.vmstat.push(&["pgfault"], 7);
    assert_eq!(text(&node), "");
    node.record(NodeCollector::Vmstat, Run { success: false, shown: false, ..RUN });
    assert_eq!(
        text(&node),
        "# HELP node_scrape_collector_duration_seconds How long a collector took in this scrape.\n\
         # TYPE node_scrape_collector_duration_seconds gauge\n\
         node_scrape_collector_duration_seconds{collector=\"vmstat\"} 0.00025\n\
         # HELP node_scrape_collector_success 1 if a collector succeeded in this scrape; 0, too, where there is nothing to \
         collect.\n\
         # TYPE node_scrape_collector_success gauge\n\
         node_scrape_collector_success{collector=\"vmstat\"} 0\n"
    );
    node.record(NodeCollector::Vmstat, RUN);
    assert!(text(&node).starts_with(
        "# HELP node_vmstat_pgfault A line of /proc/vmstat.\n# TYPE node_vmstat_pgfault untyped\n\
         node_vmstat_pgfault 7\n"
    ));
    node.begin();
    assert_eq!(text(&node), "");
}

#[test]
fn a_hostile_name_stays_in_its_label() {
    let mut node = Node::default();
    let mount = node.mounts.push();
    mount.mount_point.push_str("/a\"} 1\nevil{x=\"\\");
    mount.device.push('d');
    mount.error.push_str("permission denied");
    node.record(NodeCollector::Filesystem, RUN);
    let text = text(&node);
    assert_eq!(
        samples(&text, "node_filesystem_device_error"),
        [
            "node_filesystem_device_error{device=\"d\",mountpoint=\"/a\\\"} 1\\nevil{x=\\\"\\\\\",fstype=\"\",device_error=\"permission denied\"} 1"
        ]
    );
    assert!(samples(&text, "evil").is_empty() && samples(&text, "node_filesystem_size_bytes").is_empty());
}

#[test]
fn two_types_on_one_mount_point_have_one_mount_info() {
    let mut node = Node::default();
    for fstype in ["ext4", "xfs"] {
        let mount = node.mounts.push();
        mount.fstype.push_str(fstype);
        mount.space = Some(Space { size: 5, ..Space::default() });
    }
    node.record(NodeCollector::Filesystem, RUN);
    let text = text(&node);
    assert_eq!(samples(&text, "node_filesystem_size_bytes").len(), 2);
    assert_eq!(samples(&text, "node_filesystem_mount_info").len(), 1);
}

#[test]
fn units_signs_and_what_is_not_known() {
    let mut node = Node::default();
    let disk = node.disks.push();
    disk.name.push_str("sda");
    disk.counts.extend(1..=11);
    let device = node.netclass.push();
    device.name.push_str("eth0");
    (device.speed, device.flags) = (Some(-1), Some(0x1002));
    node.softnet = vec![Softnet { cpu: 3, processed: 9, ..Softnet::default() }];
    node.cpus.time = vec![(2, CpuTime { idle: 0.5, ..CpuTime::default() })];
    node.conntrack = Some(Conntrack { entries: 1, limit: 2, ..Conntrack::default() });
    node.udp.ipv4 = Some(QueuedBytes { receive: 3, transmit: 4 });
    node.clock.now = Duration::new(1_790_000_000, 250_000_000);
    NodeCollector::ALL.into_iter().for_each(|collector| node.record(collector, RUN));
    let text = text(&node);
    for (name, expected) in [
        ("node_disk_read_bytes_total", vec!["node_disk_read_bytes_total{device=\"sda\"} 1536"]),
        ("node_disk_io_time_seconds_total", vec!["node_disk_io_time_seconds_total{device=\"sda\"} 0.01"]),
        ("node_disk_flush_requests_total", vec![]),
        ("node_network_speed_bytes", vec!["node_network_speed_bytes{device=\"eth0\"} -125000"]),
        ("node_network_carrier", vec![]),
        (
            "node_network_info",
            vec![
                "node_network_info{device=\"eth0\",address=\"\",broadcast=\"\",duplex=\"\",operstate=\"\",adminstate=\"down\",ifalias=\"\"} 1",
            ],
        ),
        ("node_softnet_processed_total", vec!["node_softnet_processed_total{cpu=\"3\"} 9"]),
        ("node_softnet_backlog_len", vec![]),
        ("node_nf_conntrack_entries_limit", vec!["node_nf_conntrack_entries_limit 2"]),
        ("node_nf_conntrack_stat_drop", vec![]),
        (
            "node_udp_queues",
            vec!["node_udp_queues{queue=\"tx\",ip=\"v4\"} 4", "node_udp_queues{queue=\"rx\",ip=\"v4\"} 3"],
        ),
        ("node_tcp_connection_states", vec![]),
        ("node_time_seconds", vec!["node_time_seconds 1790000000.25"]),
        ("node_os_version", vec![]),
        ("node_boot_time_seconds", vec![]),
    ] {
        assert_eq!(samples(&text, name), expected, "{name}");
    }
    assert_eq!(samples(&text, "node_cpu_seconds_total").len(), 8);
}

#[test]
fn names_come_once_and_texts_are_plain() {
    let mut names = HashSet::new();
    for Header { name, labels, help, .. } in headers() {
        assert!(name.starts_with("node_") && names.insert(name), "{name}");
        assert!(help.ends_with('.') && !help.contains(['\n', '"', '\\', '|']), "{name}: HELP is plain");
        assert_eq!(labels.iter().collect::<HashSet<_>>().len(), labels.len(), "{name}");
    }
}
