//! What CPUs do with packets before the network stack sees them.

use super::{Family, Section, View};
use crate::model::host::Softnet;
use crate::outputs::prometheus::family::Header;
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "Packet processing of the CPUs",
    about: "Of every CPU that is online, for all network namespaces together.",
    families: &[
        Family {
            header: Header::counter(
                "tailgauge_host_softnet_processed_packets_total",
                &["cpu"],
                "Packets that a CPU passed to the network stack, from whatever device or queue.",
            ),
            samples: |view, samples| softnet(view, samples, |row| Some(row.processed)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_softnet_dropped_packets_total",
                &["cpu"],
                "Packets dropped because the backlog was full (net.core.netdev_max_backlog).",
            ),
            samples: |view, samples| softnet(view, samples, |row| Some(row.dropped)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_softnet_squeezed_total",
                &["cpu"],
                "Times that the budget of packet processing ran out with work left (net.core.netdev_budget).",
            ),
            samples: |view, samples| softnet(view, samples, |row| Some(row.squeezed)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_softnet_steered_wakeups_total",
                &["cpu"],
                "Times that a CPU was woken up for packets that another one steered to it (RPS).",
            ),
            samples: |view, samples| softnet(view, samples, |row| Some(row.received_rps)),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_softnet_flow_limited_packets_total",
                &["cpu"],
                "Packets dropped by the flow limit.",
            ),
            samples: |view, samples| softnet(view, samples, |row| Some(row.flow_limited)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_softnet_backlog_packets",
                &["cpu"],
                "Packets that wait in the receive backlog of a CPU now; absent before kernel 5.14.",
            ),
            samples: |view, samples| softnet(view, samples, |row| row.backlog),
        },
    ],
};

fn softnet(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Softnet) -> Option<u64>) {
    for row in view.model.host.softnet.iter().flatten() {
        if let Some(value) = value(row) {
            samples.sample().number_label("cpu", row.cpu).integer(value);
        }
    }
}
