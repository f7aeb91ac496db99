//! CPU, memory and load of the host.

use std::time::Duration;

use super::{Family, Section, View};
use crate::model::host::{Cpu, Load, Memory, Paging, Pressure, Processes, Stall};
use crate::outputs::prometheus::family::{Header, Kind};
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "Host",
    about: "The small set that explains a slow node, at the resolution of the scrape. A collector that is off, or \
            that failed, has no series: a frozen value would look like an idle host. The same goes for a CPU that is \
            offline. Idle time, which the kernel computes at each reading and may turn back by some hundredths of a \
            second, stands still until it is made good; where it turns back by 3 s or more, as when a CPU comes back on \
            an older kernel, the counter begins anew.",
    families: &[
        Family {
            header: Header {
                name: "tailgauge_host_info",
                kind: Kind::Info,
                labels: &["hostname", "kernel_release"],
                help: "Host name and kernel release.",
            },
            samples: |view, samples| {
                if let Some(boot) = &view.model.host.boot {
                    let line = samples.sample().label("hostname", &boot.hostname);
                    line.label("kernel_release", &boot.kernel_release).integer(1);
                }
            },
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_boot_timestamp_seconds",
                &[],
                "Unix time of the last boot, by the clock as it is set now.",
            ),
            samples: |view, samples| {
                timestamp(samples, view.model.host.boot_time());
            },
        },
        Family {
            header: Header::gauge("tailgauge_host_cpus", &[], "Logical CPUs that are online."),
            samples: |view, samples| {
                let online = view.model.host.cpu.as_ref().map(|cpu| cpu.per_cpu.len() as u64);
                samples.plain(online.filter(|cpus| *cpus > 0));
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_host_cpu_seconds_total",
                &["cpu", "mode"],
                "Time that each CPU spent in each mode; the modes add up to the time since boot. softirq is most of \
                 packet processing, steal was taken by the hypervisor.",
            ),
            samples: |view, samples| {
                let Some(cpu) = &view.model.host.cpu else { return };
                for (number, time) in &cpu.per_cpu {
                    for (mode, seconds) in time.modes() {
                        samples.sample().number_label("cpu", *number).label("mode", mode).float(seconds);
                    }
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_host_cpu_guest_seconds_total",
                &["cpu"],
                "Time that each CPU ran guests of this host; user and nice contain it.",
            ),
            samples: |view, samples| {
                let Some(cpu) = &view.model.host.cpu else { return };
                for (number, time) in &cpu.per_cpu {
                    samples.sample().number_label("cpu", *number).float(time.guest + time.guest_nice);
                }
            },
        },
        Family {
            header: Header::counter(
                "tailgauge_host_softirqs_total",
                &["cpu", "vector"],
                "Times that each soft interrupt ran on each CPU; NET_RX and NET_TX are packets.",
            ),
            samples: |view, samples| {
                let Some(softirqs) = &view.model.host.softirqs else { return };
                for vector in &softirqs.vectors {
                    for (cpu, runs) in softirqs.cpus.iter().zip(&vector.runs) {
                        samples
                            .sample()
                            .number_label("cpu", *cpu)
                            .label("vector", &vector.name)
                            .integer(*runs);
                    }
                }
            },
        },
        Family {
            header: Header::counter("tailgauge_host_context_switches_total", &[], "Context switches."),
            samples: |view, samples| cpu(view, samples, |cpu| cpu.context_switches),
        },
        Family {
            header: Header::counter("tailgauge_host_interrupts_total", &[], "Interrupts served."),
            samples: |view, samples| cpu(view, samples, |cpu| cpu.interrupts),
        },
        Family {
            header: Header::counter("tailgauge_host_forks_total", &[], "Processes and threads created."),
            samples: |view, samples| cpu(view, samples, |cpu| cpu.forks),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_tasks_running",
                &[],
                "Tasks that run or are ready to run now.",
            ),
            samples: |view, samples| cpu(view, samples, |cpu| cpu.running),
        },
        Family {
            header: Header::gauge("tailgauge_host_tasks_blocked", &[], "Tasks that wait for a disk now."),
            samples: |view, samples| cpu(view, samples, |cpu| cpu.blocked),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_threads",
                &[],
                "Threads of all processes and of the kernel.",
            ),
            samples: |view, samples| processes(view, samples, |processes| processes.threads),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_threads_limit",
                &[],
                "Most threads that there may be (kernel.threads-max).",
            ),
            samples: |view, samples| processes(view, samples, |processes| processes.threads_limit),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_pids_limit",
                &[],
                "Highest process id (kernel.pid_max): a thread takes one, too.",
            ),
            samples: |view, samples| processes(view, samples, |processes| processes.pids_limit),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_load1",
                &[],
                "Mean number of tasks that run or wait for CPU or disk, over one minute.",
            ),
            samples: |view, samples| load(view, samples, |load| load.one),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_load5",
                &[],
                "Mean number of tasks that run or wait for CPU or disk, over five minutes.",
            ),
            samples: |view, samples| load(view, samples, |load| load.five),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_load15",
                &[],
                "Mean number of tasks that run or wait for CPU or disk, over fifteen minutes.",
            ),
            samples: |view, samples| load(view, samples, |load| load.fifteen),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_memory_total_bytes",
                &[],
                "Memory that the kernel manages.",
            ),
            samples: |view, samples| memory(view, samples, |memory| Some(memory.total)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_memory_available_bytes",
                &[],
                "Memory that programs could get without swapping; absent on kernels that do not say.",
            ),
            samples: |view, samples| memory(view, samples, |memory| memory.available),
        },
        Family {
            header: Header::gauge("tailgauge_host_memory_free_bytes", &[], "Memory that nothing uses."),
            samples: |view, samples| memory(view, samples, |memory| Some(memory.free)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_memory_cached_bytes",
                &[],
                "Memory that holds file contents.",
            ),
            samples: |view, samples| memory(view, samples, |memory| Some(memory.cached)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_memory_slab_bytes",
                &[],
                "Memory of kernel objects, connection tracking among them.",
            ),
            samples: |view, samples| memory(view, samples, |memory| Some(memory.slab)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_memory_slab_reclaimable_bytes",
                &[],
                "Part of the memory of kernel objects that can be freed.",
            ),
            samples: |view, samples| memory(view, samples, |memory| memory.slab_reclaimable),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_memory_anonymous_bytes",
                &[],
                "Memory of programs that holds no file contents.",
            ),
            samples: |view, samples| memory(view, samples, |memory| memory.anonymous),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_memory_dirty_bytes",
                &[],
                "Memory that waits to be written to disk.",
            ),
            samples: |view, samples| memory(view, samples, |memory| Some(memory.dirty)),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_memory_committed_bytes",
                &[],
                "Memory promised to programs.",
            ),
            samples: |view, samples| memory(view, samples, |memory| Some(memory.committed)),
        },
        Family {
            header: Header::gauge("tailgauge_host_memory_swap_total_bytes", &[], "Size of swap."),
            samples: |view, samples| memory(view, samples, |memory| Some(memory.swap_total)),
        },
        Family {
            header: Header::gauge("tailgauge_host_memory_swap_free_bytes", &[], "Swap that nothing uses."),
            samples: |view, samples| memory(view, samples, |memory| Some(memory.swap_free)),
        },
        Family {
            header: Header::counter("tailgauge_host_swap_in_pages_total", &[], "Pages read from swap."),
            samples: |view, samples| paging(view, samples, |paging| paging.swap_in_pages),
        },
        Family {
            header: Header::counter("tailgauge_host_swap_out_pages_total", &[], "Pages written to swap."),
            samples: |view, samples| paging(view, samples, |paging| paging.swap_out_pages),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_major_page_faults_total",
                &[],
                "Page faults that had to read from a disk.",
            ),
            samples: |view, samples| paging(view, samples, |paging| paging.major_faults),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_direct_reclaim_scanned_pages_total",
                &[],
                "Pages that tasks looked at to free memory for themselves, which makes them slow.",
            ),
            samples: |view, samples| paging(view, samples, |paging| paging.direct_reclaim_scanned_pages),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_background_reclaim_scanned_pages_total",
                &[],
                "Pages that the kernel looked at to free memory in time.",
            ),
            samples: |view, samples| paging(view, samples, |paging| paging.background_reclaim_scanned_pages),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_allocation_stalls_total",
                &[],
                "Times that a task had to free memory before it got some.",
            ),
            samples: |view, samples| paging(view, samples, |paging| paging.allocation_stalls),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_oom_kills_total",
                &[],
                "Processes killed for want of memory.",
            ),
            samples: |view, samples| paging(view, samples, |paging| paging.oom_kills),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_pressure_waiting_seconds_total",
                &["resource"],
                "Time during which at least one task waited for the resource: cpu, memory or io.",
            ),
            samples: |view, samples| waiting(view.model.host.pressure.as_ref(), samples),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_pressure_stalled_seconds_total",
                &["resource"],
                "Time during which all tasks waited for the resource at once: cpu, memory or io; irq is the time that \
                 interrupts took from all tasks of a CPU.",
            ),
            samples: |view, samples| stalled(view.model.host.pressure.as_ref(), samples),
        },
    ],
};

/// A moment since the Unix epoch; none that no clock will ever say.
pub(super) fn timestamp(samples: &mut Samples<'_>, time: Option<Duration>) {
    if let Some(milliseconds) = time.and_then(|time| u64::try_from(time.as_millis()).ok()) {
        samples.sample().decimal(milliseconds, 3);
    }
}

fn cpu(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Cpu) -> u64) {
    samples.plain(view.model.host.cpu.as_ref().map(value));
}

fn processes(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Processes) -> u64) {
    samples.plain(view.model.host.processes.as_ref().map(value));
}

fn load(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Load) -> f64) {
    if let Some(load) = &view.model.host.load {
        samples.sample().float(value(load));
    }
}

fn memory(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Memory) -> Option<u64>) {
    samples.plain(view.model.host.memory.as_ref().and_then(value));
}

fn paging(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Paging) -> Option<u64>) {
    samples.plain(view.model.host.paging.as_ref().and_then(value));
}

/// Of the machine or of a control group.
pub(super) fn waiting(pressure: Option<&Pressure>, samples: &mut Samples<'_>) {
    stalls(pressure, samples, |stall| Some(stall.some_seconds));
}

/// As [`waiting`].
pub(super) fn stalled(pressure: Option<&Pressure>, samples: &mut Samples<'_>) {
    stalls(pressure, samples, |stall| stall.full_seconds);
    if let Some(seconds) = pressure.and_then(|pressure| pressure.irq) {
        samples.sample().label("resource", "irq").float(seconds);
    }
}

fn stalls(pressure: Option<&Pressure>, samples: &mut Samples<'_>, value: fn(&Stall) -> Option<f64>) {
    let Some(pressure) = pressure else { return };
    for (resource, stall) in [("cpu", pressure.cpu), ("memory", pressure.memory), ("io", pressure.io)] {
        if let Some(seconds) = stall.as_ref().and_then(value) {
            samples.sample().label("resource", resource).float(seconds);
        }
    }
}
