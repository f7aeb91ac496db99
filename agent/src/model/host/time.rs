//! Clocks.

use std::time::Duration;

/// What time it is here, and how well that is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Time {
    /// Wall clock, since the Unix epoch.
    pub now: Duration,
    /// Time since boot, in which the host slept included (`CLOCK_BOOTTIME`).
    pub uptime: Duration,
    /// How the wall clock is kept right; `None` where a sandbox forbids to ask.
    pub discipline: Option<Discipline>,
    /// Names of the clocks that the kernel could count time by; cleaned.
    pub sources: Vec<String>,
    /// The one that it does count by; empty when the kernel does not say.
    pub source: String,
}

/// adjtimex(2).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Discipline {
    /// Somebody keeps the clock right, and not too long ago.
    pub synchronized: bool,
    /// Seconds that the clock is still to be moved by.
    pub offset_seconds: f64,
    /// Bound on how wrong it is, in seconds; grows while nobody corrects it.
    pub max_error_seconds: f64,
    /// How wrong it is by the estimate of who keeps it, in seconds.
    pub estimated_error_seconds: f64,
    /// By how much the clock is made to run fast (above 1) or slow.
    pub frequency_ratio: f64,
}
