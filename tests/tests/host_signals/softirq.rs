//! CPUs spend their time on packets.

use std::fs;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::process::wait_for;

use crate::{PATIENCE, between, kernel, stage, value};

/// What is enough to tell: seconds in soft interrupts.
const ENOUGH: f64 = 0.3;
/// Seconds that samples at either end may hold more.
const ENDS: f64 = 0.2;
/// The sampler's interval is much shorter.
const SAMPLED: Duration = Duration::from_secs(3);

/// Of the kernel: by CPU, seconds in soft interrupts and packets processed; of all CPUs, runs of NET_RX.
type Kernel = (Vec<(u32, f64, f64)>, Vec<u64>, u64);

fn kernel_says() -> Kernel {
    let text = fs::read_to_string("/proc/softirqs").unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("NET_RX:")).unwrap();
    let runs = line.split_whitespace().map(|count| count.parse::<u64>().unwrap()).sum();
    (kernel::cpus(), kernel::softnet(), runs)
}

fn softirq(scrape: &Exposition, cpu: &str) -> Option<f64> {
    scrape.value("tailgauge_host_cpu_seconds_total", &[("cpu", cpu), ("mode", "softirq")])
}

/// Others use the same CPUs: what the agent says lies between what the kernel said before and after.
fn within(scrape: &Exposition, before: &Kernel, after: &Kernel) -> bool {
    let runs = scrape.sum("tailgauge_host_softirqs_total", &[("vector", "NET_RX")]) as u64;
    let mut good = (before.2..=after.2).contains(&runs);
    for (place, ((cpu, first, _), (_, last, _))) in before.0.iter().zip(&after.0).enumerate() {
        let label = cpu.to_string();
        let seconds = softirq(scrape, &label).unwrap();
        good &= (*first - 1e-9..=*last + 1e-9).contains(&seconds);
        let processed = value(scrape, "tailgauge_host_softnet_processed_packets_total", &[("cpu", &label)]);
        good &= (before.1[place] as f64..=after.1[place] as f64).contains(&processed);
    }
    good
}

/// Seconds in soft interrupts, and in all modes.
fn times(scrape: &Exposition) -> (f64, f64) {
    let softirq = scrape.sum("tailgauge_host_cpu_seconds_total", &[("mode", "softirq")]);
    (softirq, scrape.sum("tailgauge_host_cpu_seconds_total", &[]))
}

fn processed(scrape: &Exposition) -> f64 {
    scrape.sum("tailgauge_host_softnet_processed_packets_total", &[])
}

#[test]
fn packets_are_soft_interrupts_and_their_time() {
    let Some(stage) = stage("packets_are_soft_interrupts_and_their_time", &["ip"]) else { return };
    let agent = stage.agent(&[]).unwrap();
    let socket = stage.namespace.run(|| UdpSocket::bind("127.0.0.1:0")).unwrap().unwrap();
    let own = socket.local_addr().unwrap();
    socket.set_nonblocking(true).unwrap();
    let scrape = |agent: &Agent<'_>| between(agent, "a scrape", kernel_says, within).0;

    let before = scrape(&agent);
    let started = Instant::now();
    let mut sent = 0;
    let loaded = loop {
        for _ in 0..5000 {
            // Nobody reads: what does not fit has been processed all the same.
            sent += u64::from(socket.send_to(&[7; 64], own).is_ok());
        }
        let now = agent.scrape().unwrap();
        if times(&now).0 - times(&before).0 >= ENOUGH {
            break scrape(&agent);
        }
        assert!(started.elapsed() < PATIENCE, "{sent} packets took no time");
    };
    assert!(processed(&loaded) - processed(&before) >= sent as f64, "{sent} packets");
    let share =
        |from: &Exposition, to: &Exposition| (times(to).0 - times(from).0) / (times(to).1 - times(from).1);
    let load = share(&before, &loaded);
    // Samples hold the same time, and the busiest one more than its part of it. The last ones come a little later; those
    // that a busy machine misses are left out.
    let sampled = |scrape: &Exposition| {
        let interval = value(scrape, "tailgauge_sampler_interval_seconds", &[]);
        scrape.sum("tailgauge_host_cpu_softirq_sample_ratio_sum", &[]) * interval
    };
    let counted = times(&loaded).0 - times(&before).0;
    let after = wait_for("samples of soft interrupts", SAMPLED, || {
        Some(agent.scrape().unwrap()).filter(|scrape| sampled(scrape) - sampled(&before) > counted / 2.0)
    })
    .unwrap();
    let (in_samples, most) = (sampled(&after) - sampled(&before), times(&after).0 - times(&before).0);
    assert!(in_samples < most + ENDS, "{in_samples} s of {most}");
    let peaks = after.matching("tailgauge_host_cpu_softirq_peak_15s_ratio", &[]);
    let peak = peaks.map(|sample| sample.value).fold(0.0, f64::max);
    assert!(peak >= load && peak <= 1.0, "the busiest sample of the busiest CPU: {peak} {load}");

    // Others may have packets, too: a while without ours must show.
    let mut from = scrape(&agent);
    wait_for("soft interrupts that take little time", PATIENCE, || {
        let now = agent.scrape().unwrap();
        if times(&now).1 - times(&from).1 < 1.0 {
            return None;
        }
        let still = share(&from, &now) < load / 3.0;
        from = now;
        still.then_some(())
    })
    .unwrap();
}
