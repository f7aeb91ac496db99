//! tailscaled: whether it answers, and what its process takes.

use super::{Family, Section, View};
use crate::model::host::Tailscaled;
use crate::outputs::prometheus::family::{Header, Kind};
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "tailscaled",
    about: "While tailscaled does not answer, traffic is counted on under the last known names.",
    families: &[
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_up",
                &[],
                "1 if tailscaled answered the last request on its local API.",
            ),
            samples: |view, samples| samples.plain(Some(view.model.tailnet.up.into())),
        },
        Family {
            header: Header {
                name: "tailgauge_tailscaled_info",
                kind: Kind::Info,
                labels: &["version", "backend_state"],
                help: "Version of tailscaled and the state of its engine (Running, NeedsLogin, ...); absent until \
                       it answered once.",
            },
            samples: |view, samples| {
                let tailnet = &view.model.tailnet;
                if !tailnet.version.is_empty() {
                    let line = samples.sample().label("version", &tailnet.version);
                    line.label("backend_state", &tailnet.backend_state).integer(1);
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_health_messages",
                &[],
                "Health messages of tailscaled now.",
            ),
            samples: |view, samples| samples.plain(Some(view.model.tailnet.health.len() as u64)),
        },
        Family {
            header: Header::counter(
                "tailgauge_tailscaled_cpu_seconds_total",
                &["mode"],
                "CPU time of tailscaled, all threads: user or system.",
            ),
            samples: |view, samples| {
                let Some(process) = &view.model.host.tailscaled else { return };
                for (mode, seconds) in [("user", process.user_seconds), ("system", process.system_seconds)] {
                    samples.sample().label("mode", mode).float(seconds);
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_tailscaled_run_queue_delay_seconds_total",
                &[],
                "Time that threads of tailscaled were ready to run but had to wait for a CPU.",
            ),
            samples: |view, samples| {
                let delay = view.model.host.tailscaled.and_then(|process| process.run_queue_delay_seconds);
                if let Some(seconds) = delay {
                    samples.sample().float(seconds);
                }
            },
        },
        Family {
            header: Header::gauge("tailgauge_tailscaled_threads", &[], "Threads of tailscaled."),
            samples: |view, samples| process(view, samples, |process| Some(process.threads)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_resident_memory_bytes",
                &[],
                "Resident memory of tailscaled.",
            ),
            samples: |view, samples| process(view, samples, |process| Some(process.resident_bytes)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_virtual_memory_bytes",
                &[],
                "Address space of tailscaled.",
            ),
            samples: |view, samples| process(view, samples, |process| Some(process.virtual_bytes)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_open_fds",
                &[],
                "Open file descriptors of tailscaled; absent without the right to look.",
            ),
            samples: |view, samples| process(view, samples, |process| process.open_fds),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_start_timestamp_seconds",
                &[],
                "Unix time at which tailscaled was started.",
            ),
            samples: |view, samples| {
                if let Some(process) = &view.model.host.tailscaled {
                    samples.sample().decimal(process.start_time.as_millis() as u64, 3);
                }
            },
        },
    ],
};

fn process(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Tailscaled) -> Option<u64>) {
    samples.plain(view.model.host.tailscaled.as_ref().and_then(value));
}
