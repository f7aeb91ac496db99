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

/// All collectors of one scrape together.
pub fn rows(bodies: &[String]) -> Outcome {
    let scrapes = bodies.iter().map(|body| Exposition::parse(body)).collect::<Result<Vec<_>, _>>()?;
    let milliseconds = scrapes.iter().map(collection).collect::<Result<Vec<_>, _>>()?;
    // Collectors that read every 5 or 10 s are in some scrapes only.
    let mean = milliseconds.iter().sum::<f64>() / milliseconds.len().max(1) as f64;
    let most = milliseconds.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        Row::new(
            format!("all {} host collectors, mean of scrapes a second apart", COLLECTORS.len()),
            format!("{} ms (at most {})", digits(mean), digits(most)),
        )
        .target(format!("≤ {COLLECTION} ms"), mean <= COLLECTION),
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
