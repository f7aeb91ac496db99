//! What lasts 200 ms is lost in the mean, and not in the samples.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use tailgauge_testbed::agent::{Agent, binary};
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::process::wait_for;
use tailgauge_testbed::proof::device::Device;
use tailgauge_testbed::stage::{Stage, TUNNEL};

use crate::{PATIENCE, Untyped, stage, stand_in, value};

/// Samples without a scrape in between.
const PAUSE: u64 = 60;
/// The lowest bound of a histogram of packets.
const ZERO: &str = "0.0";
/// Of bursts, one must show: other work may take the CPUs meanwhile.
const BURSTS: usize = 3;
/// A peak is one of the last 15 whole seconds and the current one.
const PEAKS: Duration = Duration::from_secs(17);
const STALL: Duration = Duration::from_millis(200);

/// Number of samples of a histogram above a bound, and their sum.
fn above(scrape: &Exposition, name: &str, bound: &str) -> (f64, f64) {
    let part = |suffix: &str| scrape.sum(&format!("{name}_{suffix}"), &[]);
    let below = scrape.sum(&format!("{name}_bucket"), &[("le", bound)]);
    (part("count") - below, part("sum"))
}

fn samples(scrape: &Exposition) -> f64 {
    value(scrape, "tailgauge_sampler_samples_total", &[])
}

fn missed(scrape: &Exposition) -> f64 {
    value(scrape, "tailgauge_sampler_missed_samples_total", &[])
}

/// Sleeps in the eyes of Prometheus: the agent is left alone for [`PAUSE`] intervals.
fn pause(since: Instant, interval: f64) {
    let enough = Duration::from_secs_f64(interval * PAUSE as f64);
    wait_for("the time between two scrapes", PATIENCE, || (since.elapsed() >= enough).then_some(())).unwrap();
}

#[test]
fn a_stall_of_tailscaled_s_ring_is_a_few_samples_and_a_peak() {
    stall_of_the_ring("a_stall_of_tailscaled_s_ring_is_a_few_samples_and_a_peak", &binary().unwrap());
}

#[test]
fn so_it_is_where_no_program_counts_drops() {
    stall_of_the_ring("so_it_is_where_no_program_counts_drops", &Untyped::new().path);
}

fn stall_of_the_ring(test: &str, agent: &Path) {
    let Some(stage) = stage(test, &["ip"]) else { return };
    let mut agent = Agent::start_program(agent, &stage.namespace, &stage.socket(), &[]).unwrap();
    agent.wait_ready().unwrap();
    let name = "tailgauge_tunnel_transmit_dropped_sample_packets";
    let before = agent
        .wait_scrape("the sampler", |scrape| above(scrape, name, ZERO).0 == 0.0 && samples(scrape) > 3.0)
        .unwrap();
    let device = Device::read(&stage.namespace, TUNNEL).unwrap();
    let began = Instant::now();
    fill_ring(&stage);
    stage.drain();
    let interval = value(&before, "tailgauge_sampler_interval_seconds", &[]);
    pause(began, interval);
    let seconds = began.elapsed().as_secs_f64();

    let after = agent.scrape().unwrap();
    let dropped = Device::read(&stage.namespace, TUNNEL).unwrap().since(device).tx_dropped as f64;
    let (count, sum) = above(&after, name, ZERO);
    let all = samples(&after) - samples(&before);
    assert_eq!(sum, dropped, "every drop is in one sample");
    assert!(count >= 1.0 && count <= all / 4.0, "{count} of {all} samples");
    let peak = value(&after, "tailgauge_tunnel_transmit_dropped_peak_15s_packets", &[]);
    let mean = dropped / seconds * interval;
    assert!(peak >= dropped / count && peak > 4.0 * mean, "peak {peak}, mean {mean}, dropped {dropped}");
    // It went on sampling: the time that passed is in samples, or known to be missed, but for the last one, which a
    // machine that stands still takes late.
    let number = |scrape: &Exposition| scrape.sum(&format!("{name}_count"), &[]);
    let accounted = number(&after) + missed(&after) - number(&before) - missed(&before);
    let intervals = seconds / interval;
    assert!(accounted > intervals * 0.6, "{accounted} samples taken or missed of {intervals}");
}

/// Sends without anybody reading for as long as the stall lasts.
fn fill_ring(stage: &Stage) {
    let socket = stage.namespace.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let until = Instant::now() + STALL;
    while Instant::now() < until {
        for _ in 0..100 {
            socket.send_to(&[7; 100], (Ipv4Addr::new(100, 64, 0, 2), 9)).unwrap();
        }
    }
}

#[test]
fn a_burst_of_tailscaled_on_all_cpus_is_a_few_samples_and_a_peak() {
    let Some(stage) = stage("a_burst_of_tailscaled_on_all_cpus_is_a_few_samples_and_a_peak", &["ip"]) else {
        return;
    };
    let mut tailscaled = stand_in(&stage);
    let mut agent = Agent::start(&stage.namespace, &tailscaled.socket(), &[]).unwrap();
    let cpu = |scrape: &Exposition| scrape.sum("tailgauge_tailscaled_cpu_seconds_total", &[]);
    let cpus = std::thread::available_parallelism().unwrap().get();
    // Its threads are there, and the sampler looks for threads every second.
    tailscaled.burn(2 * cpus, Duration::from_micros(1)).unwrap();
    let first = agent.scrape().unwrap();
    agent
        .wait_scrape("the sampler", |scrape| samples(scrape) + missed(scrape) > samples(&first) + 15.0)
        .unwrap();
    let (mut seen, mut last) = (Vec::new(), None);
    for _ in 0..BURSTS {
        wait_for("the peaks of the burst before to be over", PATIENCE, || {
            last.is_none_or(|last: Instant| last.elapsed() > PEAKS).then_some(())
        })
        .unwrap();
        let before = agent.scrape().unwrap();
        let began = Instant::now();
        tailscaled.burn(2 * cpus, STALL).unwrap();
        last = Some(Instant::now());
        pause(began, value(&before, "tailgauge_sampler_interval_seconds", &[]));
        let seconds = began.elapsed().as_secs_f64();

        let after = agent.scrape().unwrap();
        let mean = (cpu(&after) - cpu(&before)) / seconds;
        let peak = value(&after, "tailgauge_tailscaled_cpu_peak_15s_ratio", &[]);
        let waited = value(&after, "tailgauge_tailscaled_run_queue_delay_peak_15s_ratio", &[]);
        // Twice as many threads as CPUs wait.
        if peak > 4.0 * mean && mean < 0.25 && waited > 0.25 {
            return;
        }
        seen.push(format!("peak {peak}, mean {mean}, waiting {waited}"));
    }
    panic!("no burst was a few samples and a peak: {seen:#?}");
}
