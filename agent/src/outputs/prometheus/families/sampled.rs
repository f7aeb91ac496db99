//! What was sampled ten times a second.

use super::{Family, Section, View};
use crate::model::sampled::{Distribution, Sampled, SampledCpu};
use crate::outputs::prometheus::buckets::{
    Labels, SAMPLED_BYTES, SAMPLED_PACKETS, SAMPLED_PART, SAMPLED_RATE,
};
use crate::outputs::prometheus::family::{Header, Kind};
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "Samples, ten a second",
    about: "A stall of 200 ms is lost in the mean over a scrape interval of 15 s. Here it is two samples in the upper \
            buckets of a cumulative histogram, and a peak. Samples are taken every `--sampler.interval` (100 ms), each \
            over the time since the one before. The peaks cover the running second and the 15 aligned seconds before \
            it; reading does not reset them. The kernel accounts CPU time by the tick, so shares of a CPU are good to \
            a tenth. The kernel takes the samples itself (`tailgauge_hook_attached{hook=\"sampling\"}`), a few \
            microseconds each. Where it cannot, `tailgauge check` says why; then a thread reads files, and takes one \
            sample over two intervals, which counts twice, while nothing is up (no CPU half busy, next to nobody waits \
            for one, queues empty), and once a thousandth of a CPU is used up. What threads of tailscaled waited has no \
            sample when one of them ended, nor has any of its parts while it is not known which process it is.",
    families: &[
        Family {
            header: histogram(
                "tailgauge_host_cpu_busy_sample_ratio",
                &["cpu"],
                "Part of each sample that the CPU had something to do: all modes but idle and iowait.",
            ),
            samples: |view, samples| cpu_histograms(view, samples, |cpu| &cpu.busy),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_cpu_busy_peak_15s_ratio",
                &["cpu"],
                "Busiest sample of the CPU within the last 15 s.",
            ),
            samples: |view, samples| cpu_peaks(view, samples, |cpu| &cpu.busy),
        },
        Family {
            header: histogram(
                "tailgauge_host_cpu_softirq_sample_ratio",
                &["cpu"],
                "Part of each sample that the CPU spent in soft interrupts, mostly packets.",
            ),
            samples: |view, samples| cpu_histograms(view, samples, |cpu| &cpu.softirq),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_cpu_softirq_peak_15s_ratio",
                &["cpu"],
                "Sample with most soft interrupts of the CPU within the last 15 s.",
            ),
            samples: |view, samples| cpu_peaks(view, samples, |cpu| &cpu.softirq),
        },
        Family {
            header: histogram(
                "tailgauge_host_cpu_waiting_sample_ratio",
                &[],
                "Part of each sample that some task waited for a CPU (pressure, some).",
            ),
            samples: |view, samples| all(samples, &view.model.sampled.cpu_waiting, &SAMPLED_PART),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_cpu_waiting_peak_15s_ratio",
                &[],
                "Sample with most waiting for a CPU within the last 15 s.",
            ),
            samples: |view, samples| peak(view, samples, |sampled| &sampled.cpu_waiting),
        },
        Family {
            header: histogram(
                "tailgauge_host_qdisc_backlog_sample_bytes",
                &["device"],
                "Bytes that waited in the root queueing discipline at each sample: of the tunnel, and of the devices on \
                 the way to the internet.",
            ),
            samples: |view, samples| {
                for (device, backlog) in &view.model.sampled.qdisc_backlog {
                    samples.distribution(Some(("device", device)), backlog, &SAMPLED_BYTES);
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_qdisc_backlog_peak_15s_bytes",
                &["device"],
                "Most bytes that waited in the root queueing discipline at a sample within the last 15 s.",
            ),
            samples: |view, samples| {
                let sampled = &view.model.sampled;
                for (device, backlog) in &sampled.qdisc_backlog {
                    if let Some(bytes) = backlog.peak(sampled.second(view.now)) {
                        samples.sample().label("device", device).float(bytes);
                    }
                }
            },
        },
        Family {
            header: histogram(
                "tailgauge_tailscaled_cpu_sample_ratio",
                &[],
                "CPU seconds a second of tailscaled in each sample; 2 is two CPUs.",
            ),
            samples: |view, samples| all(samples, &view.model.sampled.tailscaled_cpu, &SAMPLED_RATE),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_cpu_peak_15s_ratio",
                &[],
                "Busiest sample of tailscaled within the last 15 s, CPU seconds a second.",
            ),
            samples: |view, samples| peak(view, samples, |sampled| &sampled.tailscaled_cpu),
        },
        Family {
            header: histogram(
                "tailgauge_tailscaled_run_queue_delay_sample_ratio",
                &[],
                "Seconds a second that threads of tailscaled were ready and had to wait for a CPU in each sample, \
                 added up over threads.",
            ),
            samples: |view, samples| all(samples, &view.model.sampled.tailscaled_delay, &SAMPLED_RATE),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_run_queue_delay_peak_15s_ratio",
                &[],
                "Sample with most waiting of tailscaled's threads for a CPU within the last 15 s.",
            ),
            samples: |view, samples| peak(view, samples, |sampled| &sampled.tailscaled_delay),
        },
        Family {
            header: histogram(
                "tailgauge_tailscaled_udp_receive_queue_sample_ratio",
                &[],
                "How full the fullest receive buffer of tailscaled's UDP sockets was at each sample.",
            ),
            samples: |view, samples| all(samples, &view.model.sampled.udp_receive_queue, &SAMPLED_PART),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tailscaled_udp_receive_queue_peak_15s_ratio",
                &[],
                "Fullest receive buffer of tailscaled's UDP sockets at a sample within the last 15 s.",
            ),
            samples: |view, samples| peak(view, samples, |sampled| &sampled.udp_receive_queue),
        },
        Family {
            header: histogram(
                "tailgauge_tunnel_transmit_dropped_sample_packets",
                &["device"],
                "Packets that the tunnel device dropped in each sample, as tailscaled did not take them fast enough. \
                 Absent where the kernel takes the samples and drops are not counted (`--no-collector.drops`).",
            ),
            samples: |view, samples| {
                let drops = &view.model.sampled.tunnel_drops;
                if drops.count() > 0 {
                    let device = Some(("device", view.model.kernel.device.as_str()));
                    samples.distribution(device, drops, &SAMPLED_PACKETS);
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_tunnel_transmit_dropped_peak_15s_packets",
                &["device"],
                "Most packets that the tunnel device dropped in one sample within the last 15 s.",
            ),
            samples: |view, samples| {
                let sampled = &view.model.sampled;
                if let Some(packets) = sampled.tunnel_drops.peak(sampled.second(view.now)) {
                    samples.sample().rendered(view.labels.device()).float(packets);
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_sampler_interval_seconds",
                &[],
                "Time between two samples, as it should be.",
            ),
            samples: |view, samples| {
                when_on(view, samples, |sampled, samples| {
                    samples.sample().float(sampled.interval.as_secs_f64());
                });
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_sampler_samples_total",
                &[],
                "Samples taken; one over two intervals is one.",
            ),
            samples: |view, samples| {
                when_on(view, samples, |sampled, samples| samples.plain(Some(sampled.samples)));
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_sampler_missed_samples_total",
                &[],
                "Samples that were not taken, as the one before came too late.",
            ),
            samples: |view, samples| {
                when_on(view, samples, |sampled, samples| samples.plain(Some(sampled.missed)));
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_sampler_cpu_seconds_total",
                &[],
                "CPU time that sampling took: in the kernel, and to read what was sampled and look whether it is still the \
                 same; or all of the thread that reads files.",
            ),
            samples: |view, samples| {
                when_on(view, samples, |sampled, samples| {
                    samples.sample().float(sampled.cpu_time.as_secs_f64());
                });
            },
        },
    ],
};

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Header {
    Header { name, kind: Kind::Histogram, labels, help }
}

/// Nothing while sampling is off.
fn when_on(view: &View<'_>, samples: &mut Samples<'_>, write: fn(&Sampled, &mut Samples<'_>)) {
    if !view.model.sampled.interval.is_zero() {
        write(&view.model.sampled, samples);
    }
}

fn all(samples: &mut Samples<'_>, distribution: &Distribution, bounds: &Labels) {
    if distribution.count() > 0 {
        samples.distribution(None, distribution, bounds);
    }
}

fn peak(view: &View<'_>, samples: &mut Samples<'_>, of: fn(&Sampled) -> &Distribution) {
    let sampled = &view.model.sampled;
    if let Some(value) = of(sampled).peak(sampled.second(view.now)) {
        samples.sample().float(value);
    }
}

fn cpu_histograms(view: &View<'_>, samples: &mut Samples<'_>, of: fn(&SampledCpu) -> &Distribution) {
    for cpu in &view.model.sampled.cpus {
        let mut number = itoa::Buffer::new();
        samples.distribution(Some(("cpu", number.format(cpu.cpu))), of(cpu), &SAMPLED_PART);
    }
}

fn cpu_peaks(view: &View<'_>, samples: &mut Samples<'_>, of: fn(&SampledCpu) -> &Distribution) {
    let sampled = &view.model.sampled;
    for cpu in &sampled.cpus {
        if let Some(value) = of(cpu).peak(sampled.second(view.now)) {
            samples.sample().number_label("cpu", cpu.cpu).float(value);
        }
    }
}
