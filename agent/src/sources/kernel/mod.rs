//! The kernel programs and their maps. The only code that touches aya.
//!
//! [`KernelSource`] loads the programs, keeps them attached to the tunnel device, writes the keys that say
//! which peer owns which slot, and copies what was counted into [`model::kernel::Kernel`]. [`DeviceWatch`]
//! reports what happens to devices and addresses; open it before loading, so that no change falls between.
//!
//! ```text
//! let mut watch = DeviceWatch::open()?;
//! let mut kernel = KernelSource::load(KernelConfig::new("tailscale0", 1000))?;
//! loop { select! { event = watch.next() => kernel.handle(&event), _ = second.tick() => kernel.sweep() } }
//! // on change of the tailnet: kernel.sync(&tailnet, &slots); on scrape: kernel.read(&mut model.kernel, rows)
//! ```
//!
//! [`model::kernel::Kernel`]: crate::model::kernel::Kernel

mod error;

use std::time::Duration;

pub use error::KernelError;

use crate::model::kernel::Kernel;
use crate::model::slots::SlotTable;
use crate::model::tailnet::Tailnet;

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
    /// A handshake without an answer counts as timed out after this long.
    pub handshake_timeout: Duration,
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
        }
    }
}

/// Something happened to a device or an address; [`KernelSource::handle`] knows what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceEvent {
    /// Messages were lost: everything may have changed.
    Resync,
}

/// Follows devices and addresses of this network namespace.
#[derive(Debug)]
pub struct DeviceWatch {}

impl DeviceWatch {
    /// Subscribes. Must be called within a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// When the kernel refuses the netlink socket.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self {})
    }

    /// The next change. Cancel-safe.
    pub async fn next(&mut self) -> DeviceEvent {
        std::future::pending().await
    }
}

/// The loaded programs, their hooks and maps. Dropping it detaches everything.
#[derive(Debug)]
pub struct KernelSource {
    config: KernelConfig,
}

impl KernelSource {
    /// Loads the programs and attaches them if the interface exists; otherwise [`Self::handle`] does when it
    /// appears, and the hooks' reason says that it is awaited.
    ///
    /// # Errors
    /// When the programs cannot be loaded, or the interface is not a layer-3 device. That a hook cannot be
    /// attached is no error: it is the hook's state in the model.
    pub fn load(config: KernelConfig) -> Result<Self, KernelError> {
        Ok(Self { config })
    }

    /// Rows of the per-slot maps: `max_peers` + 1. The capacity that the slot table must have.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.config.max_peers + 1
    }

    /// Acts on a change of devices or addresses: attaches, re-attaches, updates the routes.
    pub fn handle(&mut self, _event: &DeviceEvent) {}

    /// Makes the keys in the maps agree with the tailnet and the slots.
    pub fn sync(&mut self, _tailnet: &Tailnet, _slots: &SlotTable) {}

    /// Copies everything that was counted into `kernel`: `rows` slots from slot 0 (see `SlotTable::rows`).
    /// Pass the same `kernel` each time: its buffers are reused and rows without change are not copied.
    ///
    /// # Errors
    /// When the maps cannot be mapped or the device cannot be asked; what was read before stays.
    pub fn read(&mut self, _kernel: &mut Kernel, _rows: u32) -> Result<(), KernelError> {
        Ok(())
    }

    /// Counts handshakes that stayed without an answer. Call it about once a second.
    pub fn sweep(&mut self) {}

    /// Takes over a slot's totals and zeroes its rows, so that another peer may use it. Its keys must be gone
    /// already: they are after [`Self::sync`] with the peer missing.
    ///
    /// # Errors
    /// When the slot's rows cannot be mapped; then the slot must not be reused.
    pub fn retire(&mut self, _slot: u32) -> Result<(), KernelError> {
        Ok(())
    }

    /// Keeps BPF run-time statistics on for `duration` from now (about 100 ns per packet).
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn enable_statistics(&mut self, _duration: Duration) -> Result<(), KernelError> {
        Ok(())
    }
}
