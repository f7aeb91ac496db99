//! What must be true of the agent on every tailnet, the miniature one and the real one.

pub mod device;
pub mod drops;
pub mod iperf;
pub mod legs;
pub mod outcomes;
pub mod scraped;
pub mod tcp;
pub mod totals;
pub mod underlay;

/// A proof ends with the first thing that went wrong, whatever it was.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;
