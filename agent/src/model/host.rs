//! What the host says about itself.

/// Filled by `sources::host`, one field a collector.
#[derive(Clone, Debug, Default)]
pub struct Host {}
