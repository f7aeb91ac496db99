//! How fast the CPUs run.

use super::{Family, Section, View};
use crate::model::host::CpuFrequency;
use crate::outputs::prometheus::family::Header;
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "CPU frequency of the host",
    about: "Read every 10 seconds. Virtual machines have none of it; throttling is told by Intel's CPUs alone.",
    families: &[
        Family {
            header: Header::gauge(
                "tailgauge_host_cpu_frequency_hertz",
                &["cpu"],
                "Frequency of the CPU now.",
            ),
            samples: |view, samples| cpu(view, samples, |cpu| cpu.hertz),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_cpu_frequency_limit_hertz",
                &["cpu"],
                "The highest frequency of the CPU.",
            ),
            samples: |view, samples| cpu(view, samples, |cpu| cpu.limit_hertz),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_cpu_core_throttles_total",
                &["cpu"],
                "Times that heat slowed the core of the CPU down.",
            ),
            samples: |view, samples| cpu(view, samples, |cpu| cpu.core_throttles),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_cpu_package_throttles_total",
                &["cpu"],
                "Times that heat slowed the whole package down, as each of its CPUs saw it.",
            ),
            samples: |view, samples| cpu(view, samples, |cpu| cpu.package_throttles),
        },
    ],
};

fn cpu(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&CpuFrequency) -> Option<u64>) {
    for cpu in view.model.host.cpu_frequencies.iter().flatten() {
        if let Some(value) = value(cpu) {
            samples.sample().number_label("cpu", cpu.cpu).integer(value);
        }
    }
}
