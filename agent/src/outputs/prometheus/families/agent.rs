//! How the agent's own measuring goes.

use super::{Family, Section, View};
use crate::model::collector::CollectorStatus;
use crate::outputs::prometheus::family::{Header, Kind};
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "Measuring itself",
    about: "Whether the programs are attached, the maps have room and the sources answer.",
    families: &[
        Family {
            header: Header {
                name: "tailgauge_build_info",
                kind: Kind::Info,
                labels: &["version", "revision", "rustc", "target"],
                help: "Version of the agent, revision of its sources, compiler and target.",
            },
            samples: |view, samples| {
                let build = view.build;
                let line = samples.sample().label("version", build.version).label("revision", build.revision);
                line.label("rustc", build.rustc).label("target", build.target).integer(1);
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_hook_attached",
                &["device", "hook", "mode"],
                "1 for the way in which a program is attached to its hook now (tcx or clsact; raw_tracepoint for drops, \
                 which are on no device), 0 for another; all 0 while it is not attached.",
            ),
            samples: |view, samples| {
                for hook in &view.model.kernel.hooks {
                    for mode in hook.modes() {
                        let line = samples.sample().label("device", &hook.device).label("hook", hook.hook);
                        line.label("mode", mode.as_str()).flag(hook.mode == *mode);
                    }
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_hook_reattachments_total",
                &[],
                "Times that the hooks were attached again, after tailscaled made the device anew.",
            ),
            samples: |view, samples| samples.plain(Some(view.model.kernel.reattached_total)),
        },
        Family {
            header: Header::counter(
                "tailgauge_program_run_seconds_total",
                &["program"],
                "Time spent in each BPF program; advances only while BPF statistics are on: for a minute after \
                 /metrics?program_stats=1, if the agent has CAP_SYS_ADMIN, or with kernel.bpf_stats_enabled=1.",
            ),
            samples: |view, samples| {
                for program in &view.model.kernel.programs {
                    samples.sample().label("program", program.name).decimal(program.nanoseconds, 9);
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_program_run_count_total",
                &["program"],
                "Runs of each BPF program; advances only while BPF statistics are on.",
            ),
            samples: |view, samples| {
                for program in &view.model.kernel.programs {
                    samples.sample().label("program", program.name).integer(program.count);
                }
            },
        },
        Family {
            header: Header::gauge("tailgauge_map_entries", &["map"], "Entries in use in a BPF map."),
            samples: |view, samples| {
                for map in &view.model.kernel.maps {
                    samples.sample().label("map", map.name).integer(map.entries);
                }
            },
        },
        Family {
            header: Header::gauge("tailgauge_map_capacity", &["map"], "Entries that a BPF map can hold."),
            samples: |view, samples| {
                for map in &view.model.kernel.maps {
                    samples.sample().label("map", map.name).integer(map.capacity);
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_map_update_errors_total",
                &[],
                "Updates of BPF maps by the agent that failed; traffic of the peer in question is unattributed.",
            ),
            samples: |view, samples| samples.plain(Some(view.model.kernel.map_update_errors_total)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_keys_without_room",
                &[],
                "Addresses and routes that found no room in the BPF maps; their traffic falls to a wider route or is \
                 unattributed.",
            ),
            samples: |view, samples| samples.plain(Some(view.model.kernel.keys_without_room)),
        },
        Family {
            header: Header::counter(
                "tailgauge_map_insert_failures_total",
                &["map"],
                "New entries that a BPF program found no room for: handshakes and connections that are not timed, \
                 WireGuard sessions that are not judged, endpoints whose disco is not timed.",
            ),
            samples: |view, samples| {
                let health = &view.model.kernel.health;
                for (map, count) in [
                    ("HANDSHAKES", health.handshake_insert_failures),
                    ("CONNECTIONS", health.connection_insert_failures),
                    ("SESSIONS", health.sessions_without_room),
                    ("DISCO", health.disco_insert_failures),
                ] {
                    samples.sample().label("map", map).integer(count);
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_peers",
                &[],
                "Peers that have a slot of their own, those that left within the grace period included.",
            ),
            samples: |view, samples| samples.plain(Some(view.peers().count() as u64)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peers_without_slot",
                &[],
                "Peers beyond --max-peers: they have no series, their traffic is unattributed.",
            ),
            samples: |view, samples| samples.plain(Some(view.model.slots.overflow() as u64)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_scrape_collector_duration_seconds",
                &["collector"],
                "How long the last run of a collector took.",
            ),
            samples: |view, samples| {
                by_collector(view, samples, |status, _| Some(status.duration.as_secs_f64()));
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_scrape_collector_success",
                &["collector"],
                "1 if the last run of a collector succeeded.",
            ),
            samples: |view, samples| {
                for (name, status) in view.model.collectors.iter() {
                    samples.sample().label("collector", name).flag(status.success);
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_scrape_collector_age_seconds",
                &["collector"],
                "Time since a run of a collector succeeded; absent before the first one.",
            ),
            samples: |view, samples| {
                by_collector(view, samples, |status, view| {
                    let age = view.now.saturating_duration_since(status.last_success?);
                    Some(age.as_secs_f64())
                });
            },
        },
    ],
};

fn by_collector(
    view: &View<'_>,
    samples: &mut Samples<'_>,
    value: fn(&CollectorStatus, &View<'_>) -> Option<f64>,
) {
    for (name, status) in view.model.collectors.iter() {
        if let Some(value) = value(status, view) {
            samples.sample().label("collector", name).float(value);
        }
    }
}
