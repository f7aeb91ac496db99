//! Kernel settings.

use super::{Family, Section};
use crate::outputs::prometheus::family::{Header, Kind};

pub(super) const SECTION: Section = Section {
    title: "Kernel settings of the host",
    about: "Those that decide how well a node forwards, by the names that sysctl knows. A setting that this kernel \
            does not have is absent.",
    families: &[
        Family {
            header: Header::gauge(
                "tailgauge_host_sysctl",
                &["name"],
                "Value of a setting below /proc/sys, read every 10 seconds. The three numbers of udp_mem (pages) are named \
                 min, pressure and max, those of tcp_rmem (bytes) min, default and max.",
            ),
            samples: |view, samples| {
                let Some(settings) = &view.model.host.settings else { return };
                for (name, value) in &settings.numbers {
                    samples.sample().label("name", name).float(*value as f64);
                }
            },
        },
        Family {
            header: Header {
                name: "tailgauge_host_network_settings_info",
                kind: Kind::Info,
                labels: &["congestion_control", "default_qdisc"],
                help: "TCP congestion control of new connections and queueing discipline of new devices.",
            },
            samples: |view, samples| {
                let Some(settings) = &view.model.host.settings else { return };
                let mut line = samples.sample();
                if let Some(name) = &settings.congestion_control {
                    line = line.label("congestion_control", name);
                }
                if let Some(name) = &settings.default_qdisc {
                    line = line.label("default_qdisc", name);
                }
                line.integer(1);
            },
        },
    ],
};
