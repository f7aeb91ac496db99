//! What the agent uses while nothing happens, by part: with nobody who scrapes, with a scrape a second, and without the
//! host's collectors. All of it runs side by side and takes turns within each second, as does another agent, if one is
//! given. What samples is another measurement and left out here, thread and time.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tailgauge::sources::host::COLLECTORS;
use tailgauge::sources::sampler::COLLECTOR as SAMPLER;
use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::exposition::Exposition;

use crate::device::Device;
use crate::footprint::Crowd;
use crate::table::{Row, Spread, digits};
use crate::{Outcome, Plan};

/// Seconds before it is measured: files are opened, lists are made.
const WARM_UP: usize = 3;

pub fn measure(plan: &Plan) -> Outcome {
    let crowd = Crowd::ask()?;
    let without: Vec<_> =
        COLLECTORS.iter().map(|collector| format!("--no-collector.{}", collector.name)).collect();
    let without: Vec<&str> = without.iter().map(String::as_str).collect();
    let parts: [(&str, &[&str], bool); 3] = [
        ("with nobody who scrapes", &[], false),
        ("a scrape a second", &[], true),
        ("a scrape a second without collectors of the host", &without, true),
    ];
    let programs = std::iter::once(&plan.agent).chain(&plan.other_agent);
    let subjects: Vec<_> = programs.flat_map(|program| parts.map(|part| (program, part))).collect();
    let devices: Vec<_> =
        subjects.iter().map(|_| Device::create("idle", crowd.own)).collect::<Result<_, _>>()?;
    let tailscaled = crowd.tailscaled(devices.first().ok_or("nothing to measure")?.namespace())?;
    let mut measured = Vec::new();
    for ((program, (_, flags, scraped)), device) in subjects.iter().zip(&devices) {
        let mut agent = Agent::start_program(program, device.namespace(), &tailscaled.socket(), flags)?;
        agent.wait_ready()?;
        device
            .namespace()
            .run(|| device.knock(crowd.peers.iter().copied()).map_err(|error| error.to_string()))??;
        measured.push(Measured { agent, scraped: *scraped, seconds: Vec::new() });
    }
    take_turns(&mut measured, WARM_UP)?;
    measured.iter_mut().for_each(|measured| measured.seconds.clear());
    take_turns(&mut measured, plan.rounds(30, 8))?;
    let (own, other) = measured.split_at(parts.len());
    let mut rows = Vec::new();
    for (index, (what, ..)) in parts.iter().enumerate() {
        let row = Row::new(format!("agent but for sampling, {what}"), own[index].show());
        rows.push(match other.get(index) {
            Some(base) => {
                row.against(format!("the other agent {}", base.show()), own[index].mean() / base.mean())
            }
            None => row,
        });
    }
    rows.extend(collectors(&own[1], other.get(1))?);
    Ok(rows)
}

fn show(microseconds: f64) -> String {
    format!("{} µs a second", digits(microseconds))
}

struct Measured<'a> {
    agent: Agent<'a>,
    scraped: bool,
    /// Microseconds of CPU in each second, and what it answered.
    seconds: Vec<(f64, Option<Exposition>)>,
}

impl Measured<'_> {
    fn mean(&self) -> f64 {
        self.seconds.iter().map(|(used, _)| used).sum::<f64>() / self.seconds.len().max(1) as f64
    }

    /// Mean and median: what is done every some seconds is in the first only, other load on the machine hardly in the
    /// second.
    fn show(&self) -> String {
        let median = Spread::of(self.seconds.iter().map(|(used, _)| *used).collect()).median;
        format!("{}, median {}", show(self.mean()), digits(median))
    }

    /// Microseconds a second that a collector took, by the agent's own account; 0 for a second in which it rested.
    fn collector(&self, name: &str) -> f64 {
        let labels = [("collector", name)];
        let took = self.seconds.iter().filter_map(|(_, scrape)| {
            let scrape = scrape.as_ref()?;
            let age = scrape.value("tailgauge_scrape_collector_age_seconds", &labels)?;
            let duration = scrape.value("tailgauge_scrape_collector_duration_seconds", &labels)?;
            (age < 0.2).then_some(duration * 1e6)
        });
        took.sum::<f64>() / self.seconds.len().max(1) as f64
    }
}

/// Scrapes each of those that are to be scraped once a second, one after the other.
fn take_turns(all: &mut [Measured<'_>], seconds: usize) -> Result<(), Box<dyn Error>> {
    let turn = Duration::from_secs(1) / all.len().max(1) as u32;
    let started = Instant::now();
    let mut before = all.iter().map(|measured| used(measured.agent.id())).collect::<Result<Vec<_>, _>>()?;
    for index in 0..seconds * all.len() {
        let place = index % all.len();
        let measured = &mut all[place];
        let scrape = measured.scraped.then(|| measured.agent.scrape()).transpose()?;
        thread::sleep((turn * (index as u32 + 1)).saturating_sub(started.elapsed()));
        let now = used(measured.agent.id())?;
        let spent = now.saturating_sub(std::mem::replace(&mut before[place], now));
        measured.seconds.push((spent.as_secs_f64() * 1e6, scrape));
    }
    Ok(())
}

/// CPU time of all threads of the agent but the one that samples; what a thread used goes with it, and these all stay.
fn used(pid: u32) -> io::Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.trim() != SAMPLER {
            let text = fs::read_to_string(task.join("schedstat"))?;
            sum += text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// The dearest collectors.
fn collectors(own: &Measured<'_>, other: Option<&Measured<'_>>) -> Outcome {
    let mut all: Vec<_> = ["kernel"]
        .into_iter()
        .chain(COLLECTORS.iter().map(|collector| collector.name))
        .map(|name| (own.collector(name), other.map(|other| other.collector(name)), name))
        .collect();
    all.sort_by(|a, b| b.1.unwrap_or(b.0).total_cmp(&a.1.unwrap_or(a.0)));
    let sum = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>();
    let total = sum(&mut all.iter().map(|(own, ..)| *own));
    let other_total = other.map(|_| sum(&mut all.iter().filter_map(|(_, other, _)| *other)));
    all.insert(0, (total, other_total, "all"));
    let row = |(own, other, name): (f64, Option<f64>, &str)| {
        let row = Row::new(format!("  collector {name}, mean"), show(own));
        match other {
            Some(other) => row.against(format!("the other agent {}", show(other)), own / other),
            None => row,
        }
    };
    Ok(all.into_iter().map(row).collect())
}
