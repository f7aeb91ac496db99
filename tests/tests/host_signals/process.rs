//! tailscaled's threads want more CPU than there is, and its memory grows.

use std::fs;
use std::time::{Duration, Instant};

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::process::wait_for;
use tailgauge_testbed::standin::StandIn;

use crate::{PATIENCE, between, kernel, stage, stand_in, value};

fn file(process: &StandIn, name: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{name}", process.id())).unwrap()
}

/// CPU seconds, user and system (columns 14 and 15 of proc_pid_stat(5)).
fn cpu_seconds(process: &StandIn) -> f64 {
    let stat = file(process, "stat");
    let columns = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
    let ticks: f64 = columns.map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// Resident bytes (column 24).
fn resident(process: &StandIn) -> f64 {
    let stat = file(process, "stat");
    let pages: f64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(21).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as f64
}

fn delay(scrape: &Exposition) -> f64 {
    value(scrape, "tailgauge_tailscaled_run_queue_delay_seconds_total", &[])
}

#[test]
fn more_threads_than_cpus_are_cpu_time_waiting_and_pressure() {
    let Some(stage) = stage("more_threads_than_cpus_are_cpu_time_waiting_and_pressure", &["ip"]) else {
        return;
    };
    let mut tailscaled = stand_in(&stage);
    let agent = Agent::start(&stage.namespace, &tailscaled.socket(), &[]).unwrap();
    let scrape = |what: &str, tailscaled: &StandIn| {
        let read = || (cpu_seconds(tailscaled), kernel::pressure("cpu"));
        between(&agent, what, read, |scrape, before, after| {
            let cpu = scrape.sum("tailgauge_tailscaled_cpu_seconds_total", &[]);
            let waiting =
                scrape.value("tailgauge_host_pressure_waiting_seconds_total", &[("resource", "cpu")]);
            let waiting = waiting.map(|seconds| (seconds * 1e6).round() as u64);
            (before.0 - 1e-9..=after.0 + 1e-9).contains(&cpu) && before.1 <= waiting && waiting <= after.1
        })
    };
    let (quiet, _) = scrape("a quiet tailscaled", &tailscaled);
    let (still, _) = wait_for("half a second of quiet", PATIENCE, || {
        let next = scrape("a quiet tailscaled", &tailscaled);
        let time = |scrape: &Exposition| scrape.sum("tailgauge_host_cpu_seconds_total", &[]);
        (time(&next.0) - time(&quiet) > 1.0).then_some(next)
    })
    .unwrap();
    let cpus = std::thread::available_parallelism().unwrap().get();
    let time = Duration::from_millis(600);
    let began = Instant::now();
    tailscaled.burn(2 * cpus, time).unwrap();
    let most = cpus as f64 * began.elapsed().as_secs_f64();
    let (busy, (kernel_cpu, _)) = scrape("a busy tailscaled", &tailscaled);

    // Twice as many threads as CPUs: they run for no longer than there are CPUs, and the rest of their time is waiting.
    let wanted = 2.0 * cpus as f64 * time.as_secs_f64();
    let ran = busy.sum("tailgauge_tailscaled_cpu_seconds_total", &[])
        - still.sum("tailgauge_tailscaled_cpu_seconds_total", &[]);
    let idle_delay = delay(&still) - delay(&quiet);
    assert!(ran > 0.0 && ran <= most * 1.1, "{ran} s of {most}, the kernel says {kernel_cpu}");
    assert!(idle_delay < wanted / 10.0, "still when healthy: {idle_delay}");
    // Threads that ended before the agent looked again are not in the sum; the sampler's view has no such gap.
    let peak = value(&busy, "tailgauge_tailscaled_run_queue_delay_peak_15s_ratio", &[]);
    assert!(peak > 0.5, "{peak}");
    if kernel::pressure("cpu").is_some() {
        let waiting = |scrape: &Exposition| {
            value(scrape, "tailgauge_host_pressure_waiting_seconds_total", &[("resource", "cpu")])
        };
        assert!(waiting(&busy) - waiting(&still) > time.as_secs_f64() / 2.0);
    }
}

#[test]
fn memory_that_tailscaled_takes_is_resident() {
    let Some(stage) = stage("memory_that_tailscaled_takes_is_resident", &["ip"]) else { return };
    let mut tailscaled = stand_in(&stage);
    let agent = Agent::start(&stage.namespace, &tailscaled.socket(), &[]).unwrap();
    let memory = |scrape: &Exposition| value(scrape, "tailgauge_tailscaled_resident_memory_bytes", &[]);
    let scrape = |what: &str, tailscaled: &StandIn| {
        between(
            &agent,
            what,
            || resident(tailscaled),
            |scrape, before, after| (*before..=*after).contains(&memory(scrape)),
        )
        .0
    };
    let first = memory(&scrape("memory at first", &tailscaled));
    let still = memory(&scrape("memory at rest", &tailscaled));
    const TAKEN: usize = 64 << 20;
    tailscaled.hold(TAKEN).unwrap();
    let after = memory(&scrape("memory that was taken", &tailscaled));
    assert!((still - first).abs() < 1e6, "still when healthy: {first} {still}");
    assert!(after - still >= TAKEN as f64 * 0.99, "{after} after {still}");
}
