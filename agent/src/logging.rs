//! Log lines on standard error, in logfmt or JSON. A call site that repeats itself is held back and the
//! lines it would have written are counted.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{LogFormat, LogLevel};

/// Lines that one call site may write per [`PERIOD`].
const BURST: u32 = 10;
/// Length of the interval.
const PERIOD: Duration = Duration::from_secs(10);

/// Sends log lines to standard error from now on and counts those held back in `suppressed`. A second call
/// changes nothing.
pub fn init(level: LogLevel, format: LogFormat, suppressed: IntCounter) {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let layer = match format {
        LogFormat::Logfmt => tracing_logfmt::builder()
            .with_target(false)
            .with_span_name(false)
            .with_span_path(false)
            .layer()
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Json => {
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
        }
    };
    let limited = layer.with_filter(Limit { sites: Mutex::default(), suppressed }).with_filter(level);
    // Fails only when a subscriber is there already, which then stays.
    let _ = tracing_subscriber::registry().with(limited).try_init();
}

/// Lets each call site write [`BURST`] lines per [`PERIOD`].
struct Limit {
    sites: Mutex<HashMap<Identifier, (Instant, u32)>>,
    suppressed: IntCounter,
}

impl Limit {
    fn admits(&self, site: Identifier, now: Instant) -> bool {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, written) = sites.entry(site).or_insert((now, 0));
        if now.saturating_duration_since(*since) >= PERIOD {
            (*since, *written) = (now, 0);
        }
        *written += 1;
        *written <= BURST
    }
}

impl<S: Subscriber> Filter<S> for Limit {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let admitted = self.admits(event.metadata().callsite(), Instant::now());
        if !admitted {
            self.suppressed.inc();
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Site;

    impl tracing::callsite::Callsite for Site {
        fn set_interest(&self, _interest: tracing::subscriber::Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            static METADATA: Metadata<'static> = tracing::metadata! {
                name: "test", target: "test", level: tracing::Level::INFO, fields: &[],
                callsite: &Site, kind: tracing::metadata::Kind::EVENT
            };
            &METADATA
        }
    }

    #[test]
    fn a_call_site_is_held_back_and_let_through_again() {
        let suppressed = IntCounter::new("suppressed", "held back").unwrap();
        let limit = Limit { sites: Mutex::default(), suppressed };
        let site = || Identifier(&Site);
        let start = Instant::now();
        let admitted = (0..100).filter(|_| limit.admits(site(), start)).count();
        assert_eq!(admitted, BURST as usize);
        assert!(limit.admits(site(), start + PERIOD));
    }
}
