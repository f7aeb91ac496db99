//! tailscaled: whether it answers, and what its process takes.

use super::host::{stalled, timestamp, waiting};
use super::{Family, Section, View};
use crate::model::host::{Cgroup, Pressure, Tailscaled, Throttling, UdpBuffers, UdpSockets};
use crate::outputs::prometheus::family::{Header, Kind};
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "tailscaled",
    about: "While tailscaled does not answer, traffic is counted on under the last known names. Counters of its process \
            and control group begin at 0 when it restarts.",
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
            header: Header {
                name: "tailgauge_tailscaled_home_derp_info",
                kind: Kind::Info,
                labels: &["region"],
                help: "Code of the DERP region that this node calls its home; absent while it has none.",
            },
            samples: |view, samples| {
                let own = view.model.tailnet.own.as_ref();
                if let Some(own) = own.filter(|own| !own.derp_region.is_empty()) {
                    samples.sample().label("region", &own.derp_region).integer(1);
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_tailscaled_home_derp_changes_total",
                &[],
                "Times that another DERP region became the home of this node.",
            ),
            samples: |view, samples| {
                let tailnet = &view.model.tailnet;
                samples.plain(tailnet.own.as_ref().map(|_| tailnet.home_derp_changes));
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
                "Time that threads of tailscaled, up to 256 of them, were ready to run but had to wait for a CPU.",
            ),
            samples: |view, samples| {
                let delay = view.model.host.tailscaled.and_then(|process| process.run_queue_delay_seconds);
                if let Some(seconds) = delay {
                    samples.sample().float(seconds);
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_tailscaled_context_switches_total",
                &["kind"],
                "Times that threads of tailscaled, up to 256 of them, gave their CPU up, as of the last 5 s: voluntary, or involuntary because \
                 others wanted it.",
            ),
            samples: |view, samples| {
                let Some(process) = &view.model.host.tailscaled else { return };
                for (kind, switches) in [
                    ("voluntary", process.voluntary_context_switches),
                    ("involuntary", process.involuntary_context_switches),
                ] {
                    if let Some(switches) = switches {
                        samples.sample().label("kind", kind).integer(switches);
                    }
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_usable_cpus",
                &[],
                "CPUs that tailscaled may use at once, by its affinity and the tightest quota of its control groups; \
                 may be a fraction. Absent while one of them is not known.",
            ),
            samples: |view, samples| {
                let allowed = view.model.host.tailscaled.and_then(|process| process.allowed_cpus);
                let quota = view.model.host.cgroup.and_then(|cgroup| cgroup.cpu_quota);
                if let Some((allowed, quota)) = allowed.map(f64::from).zip(quota) {
                    samples.sample().float(quota.min(allowed));
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_tailscaled_cgroup_periods_total",
                &[],
                "Periods in which the control groups of tailscaled wanted CPU; those with a quota only.",
            ),
            samples: |view, samples| samples.plain(throttling(view).map(|sum| sum.periods)),
        },
        Family {
            header: Header::counter(
                "tailgauge_tailscaled_cgroup_throttled_periods_total",
                &[],
                "Periods in which the CPU quota of a control group of tailscaled ran out.",
            ),
            samples: |view, samples| samples.plain(throttling(view).map(|sum| sum.throttled_periods)),
        },
        Family {
            header: Header::counter(
                "tailgauge_tailscaled_cgroup_throttled_seconds_total",
                &[],
                "Time that a CPU quota kept the run queues of tailscaled waiting, added up over CPUs.",
            ),
            samples: |view, samples| {
                if let Some(sum) = throttling(view) {
                    samples.sample().float(sum.throttled_seconds);
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_cgroup_memory_bytes",
                &[],
                "Memory of the control group of tailscaled, page cache included.",
            ),
            samples: |view, samples| cgroup(view, samples, |cgroup| cgroup.memory_bytes),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_cgroup_memory_limit_bytes",
                &[],
                "Tightest memory limit of the control groups of tailscaled; absent without a limit.",
            ),
            samples: |view, samples| cgroup(view, samples, |cgroup| cgroup.memory_limit_bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_tailscaled_cgroup_oom_kills_total",
                &[],
                "Processes in the control group of tailscaled that were killed for want of memory.",
            ),
            samples: |view, samples| cgroup(view, samples, |cgroup| cgroup.oom_kills),
        },
        Family {
            header: Header::counter(
                "tailgauge_tailscaled_cgroup_pressure_waiting_seconds_total",
                &["resource"],
                "Time during which at least one task in the control group of tailscaled waited for the resource: cpu, \
                 memory or io. Needs version 2 of control groups.",
            ),
            samples: |view, samples| waiting(pressure(view), samples),
        },
        Family {
            header: Header::counter(
                "tailgauge_tailscaled_cgroup_pressure_stalled_seconds_total",
                &["resource"],
                "Time during which all tasks in the control group of tailscaled waited for the resource at once: cpu, \
                 memory or io; irq is the time that interrupts took from them.",
            ),
            samples: |view, samples| stalled(pressure(view), samples),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_udp_sockets",
                &["family"],
                "UDP sockets of tailscaled that wait for datagrams of anybody, known by their mark; 0 where it may not mark \
                 them. Until there was one, what UDP sockets hold and drop is absent.",
            ),
            samples: |view, samples| udp(view, samples, |sum| Some(sum.sockets)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_udp_receive_queue_bytes",
                &["family"],
                "Memory of datagrams that tailscaled has not read yet.",
            ),
            samples: |view, samples| buffers(view, samples, |sum| sum.receive_queue_bytes),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_udp_receive_buffer_bytes",
                &["family"],
                "Memory that datagrams may take until tailscaled reads them.",
            ),
            samples: |view, samples| buffers(view, samples, |sum| sum.receive_buffer_bytes),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_udp_transmit_queue_bytes",
                &["family"],
                "Memory of datagrams that wait to be sent.",
            ),
            samples: |view, samples| buffers(view, samples, |sum| sum.transmit_queue_bytes),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_udp_transmit_buffer_bytes",
                &["family"],
                "Memory that datagrams to be sent may take.",
            ),
            samples: |view, samples| buffers(view, samples, |sum| sum.transmit_buffer_bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_tailscaled_udp_drops_total",
                &["family"],
                "Datagrams dropped because tailscaled did not read fast enough, since the agent first looked.",
            ),
            samples: |view, samples| buffers(view, samples, |sum| sum.drops),
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
                "tailgauge_tailscaled_swapped_memory_bytes",
                &[],
                "Memory of tailscaled that was swapped out.",
            ),
            samples: |view, samples| process(view, samples, |process| process.swapped_bytes),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_max_fds",
                &[],
                "Most file descriptors that tailscaled may have open; absent without a limit.",
            ),
            samples: |view, samples| process(view, samples, |process| process.max_fds),
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
                "Unix time at which tailscaled was started, by the clock as it is set now. Needs collector cpu, which reads \
                 when the host booted.",
            ),
            samples: |view, samples| {
                let started = view.model.host.tailscaled.map(|process| process.started);
                let boot = view.model.host.boot_time();
                timestamp(samples, boot.zip(started).map(|(boot, started)| boot.saturating_add(started)));
            },
        },
    ],
};

fn process(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Tailscaled) -> Option<u64>) {
    samples.plain(view.model.host.tailscaled.as_ref().and_then(value));
}

fn cgroup(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Cgroup) -> Option<u64>) {
    samples.plain(view.model.host.cgroup.as_ref().and_then(value));
}

fn throttling(view: &View<'_>) -> Option<Throttling> {
    view.model.host.cgroup.and_then(|cgroup| cgroup.throttling)
}

fn pressure<'a>(view: &'a View<'_>) -> Option<&'a Pressure> {
    view.model.host.cgroup.as_ref().and_then(|cgroup| cgroup.pressure.as_ref())
}

fn udp(view: &View<'_>, samples: &mut Samples<'_>, value: impl Fn(&UdpSockets) -> Option<u64>) {
    let Some(found) = &view.model.host.udp else { return };
    for (family, sum) in [("ipv4", &found.ipv4), ("ipv6", &found.ipv6)] {
        if let Some(value) = value(sum) {
            samples.sample().label("family", family).integer(value);
        }
    }
}

fn buffers(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&UdpBuffers) -> u64) {
    udp(view, samples, |sum| sum.buffers.as_ref().map(value));
}
