//! tailscaled's LocalAPI: who is in the tailnet and how each peer is reached.
//!
//! Two loops share one table. `/status` is read every ten seconds and replaces everything: it alone knows the
//! paths, and it is enough where there is no bus. `/watch-ipn-bus` brings changes at once in between. Neither
//! needs root: every local user may read.

mod api;
mod client;
mod convert;
mod reach;
mod table;
mod user_metrics;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod recorded_paths;
#[cfg(test)]
mod recorded_reach;
#[cfg(test)]
mod recordings;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::model::tailnet::Tailnet;
use api::{Notify, Prefs};
pub use client::LocalApiError;
use client::{Lines, get_json};
use convert::Report;
use table::{DOUBT, Table};
pub use user_metrics::{USER_METRICS_COLLECTOR, follow_user_metrics, parse_user_metrics};

/// Name of this source in the self metrics.
pub const COLLECTOR: &str = "tailscale";

const STATUS: &str = "/localapi/v0/status";
const PREFS: &str = "/localapi/v0/prefs";
const BUS: &str = "/localapi/v0/watch-ipn-bus";

/// EngineUpdates, InitialState, InitialNetMap, InitialHealthState, PeerChanges, InitialStatus, PeerPatches and
/// PeerWireGuardState (`NotifyWatchOpt` in ipn/backend.go). The map is there for disco keys and endpoints, which
/// `/status` does not know; tailscaled builds it once a connection.
const MASK: u32 = 1 | 2 | 1 << 3 | 1 << 7 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 18;
/// EngineUpdates, InitialState, InitialNetMap and InitialHealthState, for tailscaled before 1.100.
const OLD_MASK: u32 = 1 | 2 | 1 << 3 | 1 << 7;

/// A read of `/status` that the bus asks for waits at least so long after the last one …
const PAUSE: Duration = Duration::from_secs(1);
/// … and so many times as long as that took: tailscaled holds its lock meanwhile.
const PAUSE_FACTOR: u32 = 20;

/// Where tailscaled is, how long it may take and how much it may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailscaleConfig {
    /// Its socket (`--tailscale.socket`).
    pub socket: PathBuf,
    /// Time between two reads of `/status`.
    pub poll_interval: Duration,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time from the request to the head of the answer.
    pub response_timeout: Duration,
    /// Time for a whole body, and for a line of the bus once it has begun.
    pub body_timeout: Duration,
    /// Bytes of a body at most.
    pub body_limit: usize,
    /// Bytes of a line of the bus at most.
    pub line_limit: usize,
    /// First wait after a failure; it doubles up to `backoff_limit`.
    pub backoff: Duration,
    /// Longest wait after a failure.
    pub backoff_limit: Duration,
}

impl Default for TailscaleConfig {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/var/run/tailscale/tailscaled.sock"),
            poll_interval: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            // A peer takes about 1.6 kB, and 2.2 kB in the first line of the bus: both hold more than 10,000 of them.
            body_limit: 64 << 20,
            line_limit: 32 << 20,
            backoff: Duration::from_millis(200),
            backoff_limit: Duration::from_secs(10),
        }
    }
}

/// Follows tailscaled for ever, from before it runs and across its restarts. `publish` gets the tailnet each
/// time something in it changed; while tailscaled does not answer, the last known state with `up` false.
/// `record` gets begin, end and success of every read of `/status`. Needs a tokio runtime of any kind.
pub async fn run(
    config: TailscaleConfig,
    publish: impl FnMut(Arc<Tailnet>),
    record: impl FnMut(std::time::Instant, std::time::Instant, bool),
) {
    let shared = Shared {
        config,
        state: RefCell::new(State { table: Table::default(), publish }),
        status_wanted: tokio::sync::Notify::new(),
        back_again: tokio::sync::Notify::new(),
    };
    tokio::join!(poll_status(&shared, record), follow_bus(&shared));
}

/// What both loops work on.
struct Shared<P> {
    config: TailscaleConfig,
    state: RefCell<State<P>>,
    /// The bus has seen something that only `/status` tells.
    status_wanted: tokio::sync::Notify,
    /// `/status` was read for the first time, or works again: the bus need not wait.
    back_again: tokio::sync::Notify,
}

struct State<P> {
    table: Table,
    publish: P,
}

impl<P: FnMut(Arc<Tailnet>)> Shared<P> {
    /// Changes the table and publishes what came of it.
    fn update<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let State { table, publish } = &mut *self.state.borrow_mut();
        let result = change(table);
        if let Some(tailnet) = table.take_changed() {
            publish(tailnet);
        }
        result
    }
}

async fn poll_status<P: FnMut(Arc<Tailnet>)>(
    shared: &Shared<P>,
    mut record: impl FnMut(std::time::Instant, std::time::Instant, bool),
) {
    let config = &shared.config;
    let mut backoff = Backoff::new(config);
    let mut complaint = Complaint::default();
    let mut up = None;
    loop {
        let started = Instant::now();
        let outcome = read_status(shared).await;
        let ended = Instant::now();
        record(started.into_std(), ended.into_std(), outcome.is_ok());
        let before = up.replace(outcome.is_ok());
        if before.is_none() || (before == Some(false) && outcome.is_ok()) {
            shared.back_again.notify_one();
        }
        if let Err(error) = outcome {
            complaint.begin(&error);
            shared.update(|table| table.set_up(false));
            sleep(backoff.next()).await;
            continue;
        }
        complaint.end("reads /status again");
        backoff.reset();
        let pause = PAUSE.max((ended - started) * PAUSE_FACTOR);
        let in_doubt = shared.state.borrow().table.in_doubt();
        let rest = if in_doubt { pause.max(DOUBT).min(config.poll_interval) } else { config.poll_interval };
        let wanted = async {
            shared.status_wanted.notified().await;
            sleep_until(ended + pause).await;
        };
        tokio::select! {
            () = sleep_until(ended + rest) => {}
            () = wanted => {}
        }
    }
}

async fn read_status<P: FnMut(Arc<Tailnet>)>(shared: &Shared<P>) -> Result<(), LocalApiError> {
    let asked = std::time::Instant::now();
    let report: Report = get_json(&shared.config, STATUS).await?;
    // Without them the last known routes stay; peers and paths are worth more.
    let prefs: Option<Prefs> =
        get_json(&shared.config, PREFS).await.inspect_err(|error| tracing::debug!("{error}")).ok();
    shared.update(|table| {
        table.set_up(true);
        table.apply_status(report, asked);
        if let Some(prefs) = &prefs {
            table.apply_prefs(prefs);
        }
    });
    Ok(())
}

/// How a session on the bus ended.
enum End {
    /// This tailscaled does not know the mask; what it said, if it said so.
    Old(Option<LocalApiError>),
    /// It broke.
    Failed(LocalApiError),
}

impl From<LocalApiError> for End {
    fn from(error: LocalApiError) -> Self {
        match error {
            LocalApiError::Refused { status: 400, .. } => Self::Old(Some(error)),
            _ => Self::Failed(error),
        }
    }
}

async fn follow_bus<P: FnMut(Arc<Tailnet>)>(shared: &Shared<P>) {
    let mut backoff = Backoff::new(&shared.config);
    let mut complaint = Complaint::default();
    let mut mask = MASK;
    // The bus alone knows too little to begin with.
    shared.back_again.notified().await;
    loop {
        let started = Instant::now();
        let Err(end) = session(shared, mask, &mut complaint).await;
        shared.update(Table::lose_bus);
        if matches!(end, End::Old(_)) && mask == MASK {
            mask = OLD_MASK;
            continue;
        }
        // Whoever comes back may be another version.
        mask = MASK;
        match end {
            // `/status` fails the same way and says so.
            End::Failed(LocalApiError::Connect { .. }) | End::Old(None) => {}
            End::Failed(error) | End::Old(Some(error)) => complaint.begin(&error),
        }
        shared.status_wanted.notify_one();
        if started.elapsed() > shared.config.backoff_limit {
            backoff.reset();
        }
        tokio::select! {
            () = sleep(backoff.next()) => {}
            () = shared.back_again.notified() => {}
        }
    }
}

/// Reads the bus until it breaks.
async fn session<P: FnMut(Arc<Tailnet>)>(
    shared: &Shared<P>,
    mask: u32,
    complaint: &mut Complaint,
) -> Result<std::convert::Infallible, End> {
    let asked = std::time::Instant::now();
    let mut lines = Lines::open(&shared.config, BUS, &format!("?mask={mask}")).await?;
    let mut first = true;
    loop {
        let notify: Notify = lines.next(first).await?;
        if first && mask == MASK && notify.initial_status.is_none() {
            return Err(End::Old(None));
        }
        if let Some(message) = &notify.err_message {
            tracing::warn!(
                message = crate::sources::clean::text(message, "none"),
                "tailscaled reports an error"
            );
        }
        if std::mem::take(&mut first) {
            complaint.end("follows the IPN bus again");
        }
        if shared.update(|table| table.apply_notify(notify, asked)) {
            shared.status_wanted.notify_one();
        }
    }
}

/// Waits that double.
struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    fn new(config: &TailscaleConfig) -> Self {
        Self { first: config.backoff, limit: config.backoff_limit, next: config.backoff }
    }

    fn reset(&mut self) {
        self.next = self.first;
    }

    fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.limit);
        wait
    }
}

/// Logs a trouble when it begins or changes, and its end.
#[derive(Default)]
struct Complaint(Option<String>);

impl Complaint {
    fn begin(&mut self, error: &LocalApiError) {
        let text = error.to_string();
        if self.0.as_ref() != Some(&text) {
            tracing::warn!("{text}");
            self.0 = Some(text);
        }
    }

    fn end(&mut self, what: &'static str) {
        if self.0.take().is_some() {
            tracing::info!("{what}");
        }
    }
}
