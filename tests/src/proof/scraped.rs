//! A real Prometheus takes everything that the agent says, and computes with it.

use std::time::Duration;

use crate::agent::{ADDRESS, Agent};
use crate::process::wait_every;
use crate::prometheus::{Prometheus, check_metrics};
use crate::proof::Outcome;
use crate::proof::iperf::Server;
use crate::proof::totals::Counted;
use crate::tailnet::Tailnet;

/// For Prometheus to have what it should have after one or two scrapes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Scrapes the agent every second while a client receives and sends for `seconds` each, and asks Prometheus whether
/// scrapes succeeded, whether names join and whether its totals are the agent's.
///
/// # Errors
/// `promtool` remarked on something, more than one scrape failed, or a query gave another value than the agent.
pub fn by_prometheus(tailnet: &impl Tailnet, agent: &Agent<'_>, seconds: u32) -> Outcome {
    check_metrics(&agent.get("/metrics")?.text())?;
    let exit = tailnet.exit_node();
    let clients = tailnet.clients();
    let client = clients.first().ok_or("the tailnet has no client")?;
    let folder = tempfile::tempdir()?;
    let prometheus = Prometheus::start(exit.namespace, &[ADDRESS])?;

    let server = Server::start(tailnet.server(), tailnet.server_addresses().internet_v4, folder.path())?;
    let time = seconds.to_string();
    let up = server.run(client, &["--bitrate", "50M", "--time", &time])?;
    let down = server.run(client, &["--bitrate", "50M", "--time", &time, "--reverse"])?;

    let pause = Duration::from_millis(300);
    // There is nothing for a moment after a scrape that failed.
    let ask = |query: &str| -> Result<f64, Box<dyn std::error::Error>> {
        let what = format!("one element of {query}");
        let value = wait_every(pause, &what, PATIENCE, || prometheus.value(query).transpose())??;
        println!("{value:>16} {query}");
        Ok(value)
    };
    // Nothing moves any more, so that a scrape soon has the very numbers that the agent gives now.
    wait_every(pause, "Prometheus to have the agent's totals", PATIENCE, || {
        let counted = Counted::read(&agent.scrape().ok()?);
        let total = |direction| {
            prometheus.value(&format!("sum(tailgauge_tunnel_{direction}_bytes_total)")).ok().flatten()
        };
        ([total("receive"), total("transmit")] == counted.bytes.map(Some)).then_some(())
    })?;
    let window = 2 * seconds;
    let scrapes = ask(&format!("count_over_time(up[{window}s])"))?;
    let failed = ask(&format!("count_over_time(up[{window}s]) - sum_over_time(up[{window}s])"))?;
    // Prometheus gives up a scrape after 1 s, and begins none late: on a machine that stands still for as long, one
    // fails and some are left out.
    if scrapes < f64::from(window) / 2.0 || failed > 1.0 {
        return Err(format!("{scrapes} scrapes in {window} s, of which {failed} failed").into());
    }
    same("coverage", ask("min(tailgauge_tunnel_coverage_ratio)")?, 1.0)?;
    for (direction, payload) in [("receive", up.received_bytes), ("transmit", down.received_bytes)] {
        let metric = format!("tailgauge_peer_{direction}_bytes_total");
        let counted = ask(&format!("sum({metric})"))?;
        if counted < payload as f64 {
            return Err(format!("{metric} is {counted}, iperf3 moved {payload}").into());
        }
        let join = "* on (instance, peer_id) group_left (peer_name) tailgauge_peer_info";
        same("the sum with names", ask(&format!("sum({metric} {join})"))?, counted)?;
        let others = ask(&format!("sum(tailgauge_unattributed_{direction}_bytes_total)"))?;
        same(
            "peers and unattributed",
            ask(&format!("sum(tailgauge_tunnel_{direction}_bytes_total)"))?,
            counted + others,
        )?;
    }
    // 50 Mbit/s are 62,500 bytes a 10 ms window.
    let bursts = ask(&format!(
        "histogram_quantile(0.99, sum by (le) (rate(tailgauge_tunnel_receive_window_bytes_bucket[{window}s])))"
    ))?;
    if !(bursts > 10_000.0 && bursts.is_finite()) {
        return Err(format!("the 99th percentile of bytes per 10 ms is {bursts}").into());
    }
    ask("scrape_samples_scraped")?;
    ask(&format!("max_over_time(scrape_duration_seconds[{window}s])"))?;
    let complaints: Vec<_> =
        prometheus.log().lines().filter(|line| complains(line)).map(str::to_owned).collect();
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n").into()) }
}

/// A line about duplicate, late or unreadable samples.
fn complains(line: &str) -> bool {
    // Prometheus 3 writes WARN, and 2 wrote warn.
    let line = line.to_lowercase();
    (line.contains("level=warn") || line.contains("level=error")) && line.contains("scrape")
}

fn same(what: &str, found: f64, wanted: f64) -> Outcome {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found}, not {wanted}").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_found_in_the_words_of_either_version() {
        for level in ["warn", "WARN", "error", "ERROR"] {
            let line =
                format!("level={level} component=\"scrape manager\" msg=\"Error on ingesting samples\"");
            assert!(complains(&line), "{line}");
        }
        for line in ["level=INFO component=\"scrape manager\"", "level=WARN component=tsdb"] {
            assert!(!complains(line), "{line}");
        }
    }
}
