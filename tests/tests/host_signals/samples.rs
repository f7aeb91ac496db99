//! Samples add up to what is counted.

use std::path::Path;
use std::time::Duration;

use tailgauge_testbed::agent::{Agent, binary};
use tailgauge_testbed::exposition::Exposition;

use crate::{Untyped, kernel, stage, stand_in, value};

/// How long tailscaled works.
const WORK: Duration = Duration::from_secs(3);
/// Seconds that one sample at either end may hold more or less, and ticks that are not accounted for yet.
const ENDS: f64 = 0.3;

#[test]
fn samples_of_the_kernel_add_up_to_what_files_count() {
    add_up("samples_of_the_kernel_add_up_to_what_files_count", &binary().unwrap(), &[], 1.0);
}

#[test]
fn they_do_where_drops_are_not_counted() {
    let flags = ["--no-collector.drops"];
    add_up("they_do_where_drops_are_not_counted", &binary().unwrap(), &flags, 1.0);
}

#[test]
fn so_do_those_by_files() {
    let agent = Untyped::new();
    add_up("so_do_those_by_files", &agent.path, &[], 0.0);
}

/// Seconds that the samples of a ratio stand for.
fn sampled(scrape: &Exposition, name: &str, labels: &[(&str, &str)]) -> f64 {
    let interval = value(scrape, "tailgauge_sampler_interval_seconds", &[]);
    scrape.sum(&format!("{name}_sum"), labels) * interval
}

fn add_up(test: &str, agent: &Path, flags: &[&str], attached: f64) {
    let Some(stage) = stage(test, &["ip"]) else { return };
    let mut tailscaled = stand_in(&stage);
    let mut agent = Agent::start_program(agent, &stage.namespace, &tailscaled.socket(), flags).unwrap();
    let hook = [("hook", "sampling"), ("mode", "perf_event")];
    let cpus = std::thread::available_parallelism().unwrap().get();
    // Its threads are there before, as files show only from the second look on what a thread waited.
    tailscaled.burn(2 * cpus, Duration::from_micros(1)).unwrap();
    let count = |scrape: &Exposition| scrape.sum("tailgauge_tailscaled_cpu_sample_ratio_count", &[]);
    let before = agent.wait_scrape("samples of tailscaled", |scrape| count(scrape) > 15.0).unwrap();
    assert_eq!(before.sum("tailgauge_hook_attached", &hook), attached, "by the kernel, or by files");
    tailscaled.burn(2 * cpus, WORK).unwrap();
    let after = agent.scrape().unwrap();

    let agrees = |what: &str, samples: f64, counted: f64| {
        assert!((samples - counted).abs() <= ENDS + counted / 20.0, "{what}: {samples} s and {counted} s");
    };
    let moved = |read: &dyn Fn(&Exposition) -> f64| read(&after) - read(&before);
    let used = moved(&|scrape| scrape.sum("tailgauge_tailscaled_cpu_seconds_total", &[]));
    assert!(used > WORK.as_secs_f64() / 2.0, "{used}");
    agrees(
        "tailscaled",
        moved(&|scrape| sampled(scrape, "tailgauge_tailscaled_cpu_sample_ratio", &[])),
        used,
    );
    for cpu in 0..cpus {
        let cpu = cpu.to_string();
        let labels = [("cpu", cpu.as_str())];
        let busy = moved(&|scrape| {
            let time = |labels: &[(&str, &str)]| scrape.sum("tailgauge_host_cpu_seconds_total", labels);
            let of = |mode| time(&[labels[0], ("mode", mode)]);
            time(&labels) - of("idle") - of("iowait")
        });
        agrees(&cpu, moved(&|scrape| sampled(scrape, "tailgauge_host_cpu_busy_sample_ratio", &labels)), busy);
    }
    if kernel::pressure("cpu").is_some() {
        let waiting = moved(&|scrape| {
            value(scrape, "tailgauge_host_pressure_waiting_seconds_total", &[("resource", "cpu")])
        });
        assert!(waiting > WORK.as_secs_f64() / 2.0, "{waiting}");
        let samples = moved(&|scrape| sampled(scrape, "tailgauge_host_cpu_waiting_sample_ratio", &[]));
        agrees("pressure", samples, waiting);
    }
}
