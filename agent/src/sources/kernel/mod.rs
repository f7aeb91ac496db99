//! The kernel programs and their maps. The only code that touches aya.
//!
//! [`KernelSource`] loads the programs, keeps them attached to the tunnel device and to the interfaces below it,
//! counts dropped packets, writes the keys that say which peer owns which slot, and copies what was counted into
//! [`model::kernel::Kernel`]. [`DeviceWatch`] reports what happens to devices, addresses and routes; open it
//! before loading, so that no change falls between.
//!
//! ```text
//! let mut watch = DeviceWatch::open()?;
//! let mut kernel = KernelSource::load(KernelConfig::new("tailscale0", 1000))?;
//! loop { select! { event = watch.next() => kernel.handle(&event), _ = second.tick() => kernel.sweep() } }
//! // on change of the tailnet: kernel.sync(&tailnet, &slots); on scrape: kernel.read(&mut model.kernel, rows)
//! ```
//!
//! [`model::kernel::Kernel`]: crate::model::kernel::Kernel

mod attachment;
mod attention;
mod batch;
mod btf;
mod changes;
mod coverage;
mod description;
pub(super) mod device;
mod drop_types;
mod drops;
mod endpoint_tables;
mod endpoints;
mod error;
mod evidence;
mod filters;
mod hooks;
mod initiations;
mod keys;
mod loader;
mod log;
mod lru;
mod mmap;
mod object;
mod own_messages;
mod parallel;
mod ports;
pub(super) mod routes;
mod rows;
mod sampling;
mod sampling_types;
mod session;
mod sessions;
mod sizes;
mod source;
mod statistics;
mod sweep;
mod tables;
#[cfg(test)]
mod test_tailnet;
mod types;
mod underlay;
mod underlay_rows;
mod watch;
mod window;

pub mod probe;

use std::time::Duration;

pub use drops::RingDrops;
pub use error::KernelError;
pub(in crate::sources) use hooks::chain;
pub(in crate::sources) use sampling::{Targets, missing};
pub use source::KernelSource;
pub(in crate::sources) use source::monotonic;
pub use watch::{DeviceEvent, DeviceWatch};

/// How the programs are put on their hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// tcx, and clsact where that fails.
    #[default]
    Auto,
    /// tcx links only (kernel 6.6 and later).
    Tcx,
    /// clsact filters only.
    Clsact,
}

/// What the kernel source is to do.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Name of the tunnel device.
    pub interface: String,
    /// Peers that get a slot of their own.
    pub max_peers: u32,
    /// How the programs are attached.
    pub attach_mode: AttachMode,
    /// A SYN without an answer counts as timed out after this long.
    pub handshake_timeout: Duration,
    /// Interfaces of the underlay; found by their routes when there is none here.
    pub underlay: Vec<String>,
    /// Whether dropped packets are counted.
    pub drops: bool,
    /// Whether the kernel is to take samples; it begins when somebody says what to sample.
    pub sampling: bool,
}

impl KernelConfig {
    /// Defaults for everything but the name and the number of peers.
    #[must_use]
    pub fn new(interface: impl Into<String>, max_peers: u32) -> Self {
        Self {
            interface: interface.into(),
            max_peers,
            attach_mode: AttachMode::Auto,
            handshake_timeout: Duration::from_secs(30),
            underlay: Vec::new(),
            drops: true,
            sampling: true,
        }
    }
}
