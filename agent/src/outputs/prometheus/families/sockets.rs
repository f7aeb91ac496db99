//! Sockets and tracked connections.

use super::{Family, Section, View};
use crate::model::host::{Conntrack, ConntrackStatistics, SocketUse};
use crate::outputs::prometheus::family::Header;
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "Sockets and connection tracking of the host",
    about: "Of the network namespace that the agent runs in; the memory of buffers, the conntrack limit and its \
            buckets are shared by all namespaces. Every forwarded connection of an exit node takes a conntrack entry.",
    families: &[
        Family {
            header: Header::gauge("tailgauge_host_sockets", &[], "Sockets of every kind in use."),
            samples: |view, samples| sockets(view, samples, |used| used.sockets),
        },
        Family {
            header: Header::gauge("tailgauge_host_tcp_sockets", &["family"], "TCP sockets in use."),
            samples: |view, samples| by_family(view, samples, |used| (used.tcp, used.tcp6)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_tcp_state_sockets",
                &["state"],
                "TCP sockets in each state but TIME-WAIT: many in close_wait belong to a program that forgets to close \
                 them, many in syn_sent to a server that does not answer.",
            ),
            samples: |view, samples| {
                let Some(tcp) = &view.model.host.tcp else { return };
                for (state, count) in tcp.states.counts() {
                    if let Some(count) = count {
                        samples.sample().label("state", state).integer(count);
                    }
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_tcp_orphaned_sockets",
                &[],
                "TCP sockets that no process owns any more.",
            ),
            samples: |view, samples| sockets(view, samples, |used| used.tcp_orphans),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_tcp_time_wait_sockets",
                &[],
                "TCP connections in TIME-WAIT.",
            ),
            samples: |view, samples| sockets(view, samples, |used| used.tcp_time_wait),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_tcp_memory_bytes",
                &[],
                "Memory of all TCP buffers; net.ipv4.tcp_mem limits it.",
            ),
            samples: |view, samples| sockets(view, samples, |used| used.tcp_memory_bytes),
        },
        Family {
            header: Header::gauge("tailgauge_host_udp_sockets", &["family"], "UDP sockets in use."),
            samples: |view, samples| by_family(view, samples, |used| (used.udp, used.udp6)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_udp_memory_bytes",
                &[],
                "Memory of all UDP buffers; net.ipv4.udp_mem limits it.",
            ),
            samples: |view, samples| sockets(view, samples, |used| used.udp_memory_bytes),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_ip_fragment_memory_bytes",
                &[],
                "Memory of IPv4 fragments that wait for the rest of their packet.",
            ),
            samples: |view, samples| sockets(view, samples, |used| used.fragment_memory_bytes),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_conntrack_entries",
                &[],
                "Tracked connections; absent while the kernel tracks nothing.",
            ),
            samples: |view, samples| conntrack(view, samples, |conntrack| Some(conntrack.entries)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_conntrack_entries_limit",
                &[],
                "Most connections that may be tracked: new ones are dropped beyond it.",
            ),
            samples: |view, samples| conntrack(view, samples, |conntrack| Some(conntrack.limit)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_conntrack_buckets",
                &[],
                "Rows of the hash table: look-ups get slow when there are many more entries.",
            ),
            samples: |view, samples| conntrack(view, samples, |conntrack| conntrack.buckets),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_conntrack_drops_total",
                &[],
                "Packets that connection tracking dropped: because the table was full, which takes entries near their \
                 limit, or because two entries of one connection clashed beyond repair, which is an insert failure, too.",
            ),
            samples: |view, samples| statistic(view, samples, |sum| sum.drop),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_conntrack_early_drops_total",
                &[],
                "Entries removed before their time because the table was full.",
            ),
            samples: |view, samples| statistic(view, samples, |sum| sum.early_drop),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_conntrack_insert_failures_total",
                &[],
                "Entries that could not be inserted, mostly because another packet of the connection was first.",
            ),
            samples: |view, samples| statistic(view, samples, |sum| sum.insert_failed),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_conntrack_invalid_packets_total",
                &[],
                "Packets that fit no connection.",
            ),
            samples: |view, samples| statistic(view, samples, |sum| sum.invalid),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_conntrack_search_restarts_total",
                &[],
                "Look-ups that began anew because an entry moved while they ran.",
            ),
            samples: |view, samples| statistic(view, samples, |sum| sum.search_restart),
        },
    ],
};

fn sockets(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&SocketUse) -> u64) {
    samples.plain(view.model.host.sockets.as_ref().map(value));
}

fn by_family(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&SocketUse) -> (u64, Option<u64>)) {
    let Some(used) = &view.model.host.sockets else { return };
    let (ipv4, ipv6) = value(used);
    samples.sample().label("family", "ipv4").integer(ipv4);
    if let Some(ipv6) = ipv6 {
        samples.sample().label("family", "ipv6").integer(ipv6);
    }
}

fn conntrack(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Conntrack) -> Option<u64>) {
    samples.plain(view.model.host.conntrack.as_ref().and_then(value));
}

fn statistic(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&ConntrackStatistics) -> u64) {
    let conntrack = view.model.host.conntrack.as_ref();
    samples.plain(conntrack.and_then(|conntrack| conntrack.statistics.as_ref()).map(value));
}
