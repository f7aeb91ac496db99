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
/// A machine that stands still loses samples, and with them the time that they would have stood for; a sampler that is
/// wrong is so each time.
const ATTEMPTS: usize = 5;

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
    let mut before = agent.wait_scrape("samples of tailscaled", |scrape| count(scrape) > 15.0).unwrap();
    assert_eq!(before.sum("tailgauge_hook_attached", &hook), attached, "by the kernel, or by files");
    let mut wrong = Vec::new();
    for _ in 0..ATTEMPTS {
        tailscaled.burn(2 * cpus, WORK).unwrap();
        let after = agent.scrape().unwrap();
        let differences = differences(&before, &after, cpus);
        if differences.is_empty() {
            return;
        }
        let missed = |scrape| value(scrape, "tailgauge_sampler_missed_samples_total", &[]);
        wrong.push((missed(&after) - missed(&before), differences));
        before = after;
    }
    panic!("in no attempt do samples add up; samples missed in each, and what differs: {wrong:#?}");
}

/// What the samples between two scrapes do not add up to.
fn differences(before: &Exposition, after: &Exposition, cpus: usize) -> Vec<String> {
    let moved = |read: &dyn Fn(&Exposition) -> f64| read(after) - read(before);
    // What is held against each other: what it is, seconds in samples, seconds counted.
    let mut compared = Vec::new();
    let used = moved(&|scrape| scrape.sum("tailgauge_tailscaled_cpu_seconds_total", &[]));
    let samples = moved(&|scrape| sampled(scrape, "tailgauge_tailscaled_cpu_sample_ratio", &[]));
    compared.push(("tailscaled".to_owned(), samples, used));
    let mut least = vec![("tailscaled", used)];
    for cpu in 0..cpus {
        let cpu = cpu.to_string();
        let labels = [("cpu", cpu.as_str())];
        let busy = moved(&|scrape| {
            let time = |labels: &[(&str, &str)]| scrape.sum("tailgauge_host_cpu_seconds_total", labels);
            let of = |mode| time(&[labels[0], ("mode", mode)]);
            time(&labels) - of("idle") - of("iowait")
        });
        let samples = moved(&|scrape| sampled(scrape, "tailgauge_host_cpu_busy_sample_ratio", &labels));
        compared.push((format!("CPU {cpu}"), samples, busy));
    }
    if kernel::pressure("cpu").is_some() {
        let waiting = moved(&|scrape| {
            value(scrape, "tailgauge_host_pressure_waiting_seconds_total", &[("resource", "cpu")])
        });
        let samples = moved(&|scrape| sampled(scrape, "tailgauge_host_cpu_waiting_sample_ratio", &[]));
        compared.push(("pressure".to_owned(), samples, waiting));
        least.push(("pressure", waiting));
    }
    let differs =
        |(_, samples, counted): &(String, f64, f64)| (samples - counted).abs() > ENDS + counted / 20.0;
    let apart = compared.into_iter().filter(differs);
    let apart = apart.map(|(what, samples, counted)| format!("{what}: {samples} s and {counted} s"));
    let idle = least.into_iter().filter(|(_, counted)| *counted <= WORK.as_secs_f64() / 2.0);
    apart.chain(idle.map(|(what, counted)| format!("{what}: only {counted} s"))).collect()
}
