//! What tailscaled measures itself (its "user metrics"), passed on as it is.

/// Families in the order of tailscaled. Every part was checked: written as it is, it is well-formed text, cannot belong
/// to any family but its own, and all names begin with `tailscaled_`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserMetrics {
    /// Each with at least one sample; no two share a name, `_total` left out or not.
    pub families: Vec<UserMetric>,
}

/// One family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserMetric {
    /// Full name, `_total` included.
    pub name: String,
    /// Type.
    pub kind: UserMetricKind,
    /// Text of the HELP line, not escaped.
    pub help: String,
    /// Whole lines, escaped, each with its end.
    pub samples: String,
}

/// Type of a family: tailscaled has no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserMetricKind {
    /// Only rises until tailscaled starts anew.
    Counter,
    /// Any value now.
    Gauge,
}
