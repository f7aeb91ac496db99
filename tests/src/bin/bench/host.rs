//! What the host beside the traffic costs, as the agent itself says it, from scrapes a second apart.

use std::error::Error;

use tailgauge::sources::host::COLLECTORS;
use tailgauge_testbed::exposition::Exposition;

use crate::Outcome;
use crate::table::{Row, digits};

/// Milliseconds of all collectors together.
const COLLECTION: f64 = 1.5;
/// Age in seconds of what was read for the scrape that says so.
const RECENT: f64 = 0.2;
/// Of one CPU.
const SAMPLING: f64 = 0.001;

/// All collectors of one scrape together, and the share of a CPU that sampling takes.
pub fn rows(bodies: &[String]) -> Outcome {
    let scrapes = bodies.iter().map(|body| Exposition::parse(body)).collect::<Result<Vec<_>, _>>()?;
    let milliseconds = scrapes.iter().map(collection).collect::<Result<Vec<_>, _>>()?;
    // Collectors that read every 5 or 10 s are in some scrapes only.
    let mean = milliseconds.iter().sum::<f64>() / milliseconds.len().max(1) as f64;
    let most = milliseconds.iter().copied().fold(0.0, f64::max);
    let (Some(first), Some(last)) = (scrapes.first(), scrapes.last()) else {
        return Err("there was no scrape".into());
    };
    let grown = |name: &str| match (first.value(name, &[]), last.value(name, &[])) {
        (Some(first), Some(last)) => Ok(last - first),
        _ => Err(format!("the agent does not export {name}")),
    };
    let cpu = grown("tailgauge_sampler_cpu_seconds_total")?;
    let each = cpu / grown("tailgauge_sampler_samples_total")?.max(1.0);
    let share = cpu / (scrapes.len() - 1).max(1) as f64;
    let threads = last.value("tailgauge_tailscaled_threads", &[]).unwrap_or_default();
    Ok(vec![
        Row::new(
            format!("all {} host collectors, mean of scrapes a second apart", COLLECTORS.len()),
            format!("{} ms (at most {})", digits(mean), digits(most)),
        )
        .target(format!("≤ {COLLECTION} ms"), mean <= COLLECTION),
        Row::new("sampling, ten times a second", format!("{} % of a CPU", digits(share * 100.0)))
            .beside(format!("{} µs a sample, {threads} threads of tailscaled", digits(each * 1e6)))
            .target(format!("≤ {} %", SAMPLING * 100.0), share <= SAMPLING),
    ])
}

/// Milliseconds that the collectors of the host took for one scrape: those that ran for it, and do not rest.
fn collection(scrape: &Exposition) -> Result<f64, Box<dyn Error>> {
    let mut sum = 0.0;
    for collector in COLLECTORS {
        let labels = [("collector", collector.name)];
        let seconds = scrape.value("tailgauge_scrape_collector_duration_seconds", &labels);
        let seconds =
            seconds.ok_or_else(|| format!("the agent does not say how long {} took", collector.name))?;
        // One that has never succeeded has no age.
        let age = scrape.value("tailgauge_scrape_collector_age_seconds", &labels);
        if age.is_none_or(|age| age < RECENT) {
            sum += seconds;
        }
    }
    Ok(sum * 1e3)
}
