//! Which agent this is.

/// Labels of `tailgauge_build_info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Version of the package.
    pub version: &'static str,
    /// Revision of the sources; `unknown` unless TAILGAUGE_REVISION was set while building.
    pub revision: &'static str,
    /// Compiler version.
    pub rustc: &'static str,
    /// Target triple.
    pub target: &'static str,
}

impl Build {
    /// This agent.
    #[must_use]
    pub const fn current() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            revision: match option_env!("TAILGAUGE_REVISION") {
                Some(revision) => revision,
                None => "unknown",
            },
            rustc: env!("TAILGAUGE_RUSTC"),
            target: env!("TAILGAUGE_TARGET"),
        }
    }
}
