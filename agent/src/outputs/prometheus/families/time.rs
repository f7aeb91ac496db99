//! Clocks.

use super::{Family, Section, View};
use crate::model::host::{Discipline, Time};
use crate::outputs::prometheus::family::Header;
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "Clocks of the host",
    about: "Certificates, handshakes and whoever compares the logs of two nodes need the right time. What adjtimex(2) \
            says is absent where a sandbox forbids to ask.",
    families: &[
        Family {
            header: Header::gauge(
                "tailgauge_host_clock_timestamp_seconds",
                &[],
                "Wall clock of the host, in Unix time; less the time of the scrape it is how wrong one of the two is.",
            ),
            samples: |view, samples| {
                if let Some(time) = &view.model.host.time {
                    samples.sample().decimal(time.now.as_millis() as u64, 3);
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_uptime_seconds",
                &[],
                "Time since boot, that in which the host slept included.",
            ),
            samples: |view, samples| {
                if let Some(time) = &view.model.host.time {
                    samples.sample().decimal(time.uptime.as_millis() as u64, 3);
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_clock_synchronized",
                &[],
                "1 while somebody, such as chrony, keeps the clock right.",
            ),
            samples: |view, samples| samples.plain(discipline(view).map(|clock| clock.synchronized.into())),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_clock_offset_seconds",
                &[],
                "By how much the clock is still to be moved.",
            ),
            samples: |view, samples| float(view, samples, |clock| clock.offset_seconds),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_clock_max_error_seconds",
                &[],
                "Bound on how wrong the clock is; grows while nobody corrects it, up to 16.",
            ),
            samples: |view, samples| float(view, samples, |clock| clock.max_error_seconds),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_clock_estimated_error_seconds",
                &[],
                "How wrong the clock is by the estimate of whoever keeps it.",
            ),
            samples: |view, samples| float(view, samples, |clock| clock.estimated_error_seconds),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_clock_frequency_ratio",
                &[],
                "Speed that the clock is set to: above 1 where it would be slow by itself.",
            ),
            samples: |view, samples| float(view, samples, |clock| clock.frequency_ratio),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_clocksource",
                &["clocksource"],
                "1 for the hardware that the kernel counts time by, 0 for others that it could use; a host that lost tsc \
                 to hpet or acpi_pm is slow in everything.",
            ),
            samples: |view, samples| {
                let Some(Time { sources, source, .. }) = &view.model.host.time else { return };
                for name in sources {
                    samples.sample().label("clocksource", name).flag(name == source);
                }
            },
        },
    ],
};

fn discipline(view: &View<'_>) -> Option<Discipline> {
    view.model.host.time.as_ref().and_then(|time| time.discipline)
}

fn float(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Discipline) -> f64) {
    if let Some(clock) = discipline(view) {
        samples.sample().float(value(&clock));
    }
}
