//! tailscaled's own metrics, read in order to be passed on (`util/usermetric` in tailscale).

mod parse;

use tokio::time::{Instant, sleep};

use super::client::{LocalApiError, get_bytes};
use super::{Backoff, Complaint, TailscaleConfig};
use crate::model::user_metrics::UserMetrics;

pub(super) use parse::Bad;
pub use parse::parse as parse_user_metrics;

/// Name of this source in the self metrics.
pub const USER_METRICS_COLLECTOR: &str = "user_metrics";

pub(super) const USER_METRICS: &str = "/localapi/v0/usermetrics";
/// A tailscaled of today says 5 kB.
const LIMIT: usize = 256 << 10;

/// Reads them as often as `/status`, for ever. `publish` gets what was read, or `None` when tailscaled does not answer
/// or what it says is not what it should be. `record` gets begin, end and success of every read.
pub async fn follow_user_metrics(
    config: TailscaleConfig,
    mut publish: impl FnMut(Option<UserMetrics>),
    mut record: impl FnMut(std::time::Instant, std::time::Instant, bool),
) {
    let mut backoff = Backoff::new(&config);
    let mut complaint = Complaint::default();
    loop {
        let started = Instant::now();
        let outcome = read(&config).await;
        record(started.into_std(), Instant::now().into_std(), outcome.is_ok());
        let wait = match &outcome {
            Ok(_) => {
                complaint.end("reads the user metrics of tailscaled again");
                backoff.reset();
                config.poll_interval
            }
            Err(error) => {
                complaint.begin(error);
                backoff.next()
            }
        };
        publish(outcome.ok());
        sleep(wait).await;
    }
}

async fn read(config: &TailscaleConfig) -> Result<UserMetrics, LocalApiError> {
    let path = USER_METRICS;
    let text = get_bytes(config, path, LIMIT.min(config.body_limit)).await?;
    parse_user_metrics(&text).map_err(|bad| LocalApiError::Text { path, bad })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::timeout;

    use super::super::fake::{Reply, Tailscaled, json};
    use super::*;

    /// How long a test waits for what must come.
    const DEADLINE: Duration = Duration::from_secs(20);
    const ONE: &str = "# TYPE tailscaled_up gauge\ntailscaled_up 1\n";

    /// What was published last, and how many reads went well and ill.
    type Seen = (Option<UserMetrics>, u32, u32);

    async fn until(seen: &mut watch::Receiver<Seen>, what: &str, is_it: impl Fn(&Seen) -> bool) {
        let found = timeout(DEADLINE, seen.wait_for(|seen| is_it(seen))).await;
        found.unwrap_or_else(|_| panic!("never: {what}")).expect("the source ended");
    }

    #[test]
    fn they_come_and_go_with_tailscaled_and_bad_ones_are_not_passed_on() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let reply = Rc::new(RefCell::new(json(ONE)));
        LocalSet::new().block_on(&runtime, async {
            let config = TailscaleConfig {
                socket: directory.path().join("tailscaled.sock"),
                poll_interval: Duration::from_millis(10),
                response_timeout: Duration::from_millis(200),
                backoff: Duration::from_millis(10),
                backoff_limit: Duration::from_millis(20),
                ..TailscaleConfig::default()
            };
            let (send, mut seen) = watch::channel(Seen::default());
            let record = send.clone();
            let task = spawn_local(follow_user_metrics(
                config,
                move |metrics| send.send_modify(|seen| seen.0 = metrics),
                move |started, ended, success| {
                    assert!(started <= ended);
                    record.send_modify(|seen| if success { seen.1 += 1 } else { seen.2 += 1 });
                },
            ));
            until(&mut seen, "a failed read", |seen| seen.2 > 0).await;
            let replies = Rc::clone(&reply);
            let tailscaled = Tailscaled::start(directory.path(), move |path| {
                assert_eq!(path, USER_METRICS);
                replies.borrow().clone()
            });
            let good = |seen: &Seen| seen.0.as_ref().is_some_and(|metrics| metrics.families.len() == 1);
            let flood = Reply::Flood(100 << 20, Rc::default());
            for bad in
                [Reply::Hang, json("tailscaled_up 1\n"), json("<html>"), flood, Reply::Truncated(ONE.into())]
            {
                *reply.borrow_mut() = json(ONE);
                until(&mut seen, "metrics", good).await;
                *reply.borrow_mut() = bad;
                until(&mut seen, "none", |seen| seen.0.is_none()).await;
            }
            *reply.borrow_mut() = json(ONE);
            until(&mut seen, "metrics again", good).await;
            drop(tailscaled);
            until(&mut seen, "none without tailscaled", |seen| seen.0.is_none()).await;
            task.abort();
        });
    }
}
