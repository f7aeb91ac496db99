//! The facade of this source.

use std::mem::offset_of;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::time::{ClockId, clock_gettime};
use tailgauge_ebpf::layout::{
    Control, CpuSample, Found, Health, OPENERS, Sample, Tcp, WatchedSocket, maps, programs,
};

use super::attachment::{Attachment, Means};
use super::drops::{Drops, RingDrops};
use super::log::KernelLog;
use super::mmap::{Row, Rows};
use super::object::{CLASSIFIERS, Object};
use super::own_messages::OwnMessages;
use super::ports::ListenPorts;
use super::rows::SlotRows;
use super::sampling::{Sampling, Targets};
use super::sizes::Sizes;
use super::statistics::Statistics;
use super::sweep::{Flows, Outcome};
use super::tables::Tables;
use super::types::KernelTypes;
use super::underlay::Underlay;
use super::watch::Change;
use super::{DeviceEvent, KernelConfig, KernelError, device, keys, window};
use crate::model::kernel::{Kernel, ProgramRun};
use crate::model::slots::SlotTable;
use crate::model::tailnet::{Path, Tailnet};
use crate::sources::netlink::Netlink;

/// The loaded programs, their hooks and maps. Dropping it detaches everything.
#[derive(Debug)]
pub struct KernelSource {
    // Hooks before the object: they are detached first.
    attachment: Attachment,
    underlay: Underlay,
    ports: ListenPorts,
    drops: Drops,
    sampling: Sampling,
    object: Object,
    sizes: Sizes,
    netlink: Netlink,
    slots: SlotRows,
    control: Rows<Control>,
    health: Rows<Health>,
    tables: Tables,
    messages: OwnMessages,
    flows: Flows,
    statistics: Statistics,
    log: KernelLog,
    /// Slots in use, as far as known.
    rows: u32,
    own: Vec<IpAddr>,
    advertised: Vec<IpNet>,
    host: Vec<IpAddr>,
}

impl KernelSource {
    /// Loads the programs and attaches them if the interface exists; otherwise [`Self::handle`] does when it
    /// appears, and the hooks' reason says that it is awaited.
    ///
    /// # Errors
    /// When the programs cannot be loaded, or the interface is not a layer-3 device. That a hook cannot be
    /// attached is no error: it is the hook's state in the model.
    pub fn load(config: &KernelConfig) -> Result<Self, KernelError> {
        let types = KernelTypes::of_this_kernel(config.drops, config.sampling);
        let mut object = Object::load(config.max_peers, &types)?;
        let mut netlink = Netlink::open(NETLINK_ROUTE)
            .map_err(|source| KernelError::Netlink { operation: "talk about devices", source })?;
        let mut source = Self {
            attachment: Attachment::new(config),
            underlay: Underlay::open(&mut object, config)?,
            ports: ListenPorts::open(&mut object)?,
            drops: Drops::open(&mut object, &config.interface, types.drops.as_ref(), &mut netlink)?,
            sampling: Sampling::open(&mut object, types.sampling.as_ref())?,
            sizes: object.sizes(),
            netlink,
            slots: SlotRows::open(&mut object)?,
            control: row(&mut object, maps::CONTROL)?,
            health: row(&mut object, maps::HEALTH)?,
            tables: Tables::open(&mut object)?,
            messages: OwnMessages::open(&mut object)?,
            flows: Flows::open(&mut object, config.handshake_timeout)?,
            statistics: Statistics::default(),
            log: KernelLog::open(&mut object),
            rows: 1,
            own: Vec::new(),
            advertised: Vec::new(),
            host: Vec::new(),
            object,
        };
        source.read_addresses();
        source.with_means(Attachment::follow)?;
        if source.attachment.waits() {
            tracing::info!(interface = config.interface, "waiting for the interface");
        }
        source.follow_underlay(Underlay::refresh);
        source.ports.refresh();
        Ok(source)
    }

    /// Rows of the per-slot maps: peers that fit, and slot 0. The capacity that the slot table must have.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.sizes.slots
    }

    /// What the tunnel's ring drops, for who looks more often than [`Self::read`]; `None` when it is not counted.
    #[must_use]
    pub fn ring_drops(&self) -> Option<RingDrops> {
        self.drops.ring()
    }

    /// Why the kernel cannot take samples; `None` when it can.
    pub(in crate::sources) fn sampling_obstacle(&self) -> Option<String> {
        self.sampling.obstacle()
    }

    /// The kernel takes a sample every so many nanoseconds from now on, on this CPU.
    pub(in crate::sources) fn start_sampling(&mut self, cpu: u32, period: u64) -> Result<(), KernelError> {
        self.sampling.start(&mut self.object, cpu, period)
    }

    /// Ends that, and says why in the state of the hook.
    pub(in crate::sources) fn stop_sampling(&mut self, reason: &str) {
        self.sampling.stop(reason);
    }

    /// Tells the kernel what to sample; what it found of it.
    pub(in crate::sources) fn watch(&mut self, targets: &Targets) -> Result<Found, KernelError> {
        self.sampling.watch(&mut self.object, targets)
    }

    /// Hands every sample since the last call to `each`, with its CPUs, and whether it is of what is watched now.
    pub(in crate::sources) fn read_samples(&mut self, each: impl FnMut(&Sample, &[CpuSample], bool)) {
        self.sampling.read(each);
    }

    /// tailscaled's UDP sockets.
    pub(in crate::sources) fn udp_sockets(&self) -> impl Iterator<Item = WatchedSocket> {
        self.ports.sockets()
    }

    /// Acts on a change of devices or addresses: attaches, re-attaches, updates the routes.
    pub fn handle(&mut self, event: &DeviceEvent) {
        let DeviceEvent(change) = event;
        if matches!(change, Change::Addresses | Change::Resync) {
            self.read_addresses();
        }
        if let Err(error) = self.with_means(|attachment, means| attachment.handle(change, means)) {
            tracing::error!(error = super::hooks::chain(&error), "cannot follow the device");
        }
        self.follow_underlay(|underlay, means| underlay.handle(change, means));
        self.drops.handle(change, &mut self.netlink);
    }

    fn follow_underlay(
        &mut self,
        act: impl FnOnce(&mut Underlay, &mut Means<'_>) -> Result<(), KernelError>,
    ) {
        let Self { underlay, netlink, object, slots, rows, .. } = self;
        if let Err(error) = act(underlay, &mut Means { netlink, object, slots, rows: *rows }) {
            tracing::warn!(error = super::hooks::chain(&error), "cannot follow the underlay");
        }
    }

    /// Makes the keys in the maps agree with the tailnet and the slots.
    pub fn sync(&mut self, tailnet: &Tailnet, slots: &SlotTable) {
        self.rows = self.rows.max(slots.rows()).min(self.sizes.slots);
        self.tables.install_peers(keys::peers(tailnet, slots, &self.sizes));
        self.messages.sync(tailnet, slots, &self.sizes, monotonic());
        let own = tailnet.own.as_deref().map_or(&[][..], |own| &own.addresses);
        self.own.clear();
        self.own.extend_from_slice(own);
        self.advertised.clone_from(&tailnet.own_routes);
        self.install_routes();
        self.ports.hear(tailnet.own.as_deref().map_or(&[], |own| &own.endpoints), &self.host);
        let endpoints = tailnet.peers.iter().filter_map(|peer| peer.endpoint);
        self.underlay.want(endpoints.map(|endpoint| endpoint.ip()), &tailnet.own_routes);
        self.follow_underlay(Underlay::refresh);
    }

    /// Copies everything that was counted into `kernel`: `rows` slots from slot 0 (see `SlotTable::rows`).
    /// Pass the same `kernel` each time: its buffers are reused and rows without change are not copied.
    ///
    /// # Errors
    /// When the maps cannot be mapped or the device cannot be asked; what was read before stays.
    pub fn read(&mut self, kernel: &mut Kernel, rows: u32) -> Result<(), KernelError> {
        self.rows = self.rows.max(rows).min(self.sizes.slots);
        self.statistics.expire();
        self.attachment.observe(&mut self.netlink)?;
        let now = monotonic();
        let counted = self.slots.read(kernel, self.rows, window::number(now))?;
        kernel.monotonic_second = now / 1_000_000_000;
        let hooks = self.attachment.describe(kernel, counted);
        let hooks = self.underlay.describe(kernel, hooks);
        let hooks = self.drops.describe(kernel, hooks);
        let hooks = self.sampling.describe(kernel, hooks);
        kernel.hooks.truncate(hooks);
        self.control.load(0, &mut kernel.control);
        self.health.load(0, &mut kernel.health);
        kernel.map_update_errors_total = self.tables.errors();
        kernel.keys_without_room = self.tables.refused();
        kernel.maps.clear();
        kernel.maps.extend(self.tables.fill());
        kernel.maps.extend(self.flows.fill());
        let Self { messages, slots, .. } = self;
        messages.read(kernel, self.rows, now, |slot| slots.is_active(slot))?;
        kernel.programs.clear();
        for name in CLASSIFIERS.into_iter().chain([programs::DROPS, programs::SAMPLING]) {
            let run = self.object.run(name);
            kernel.programs.extend(run.map(|(nanoseconds, count)| ProgramRun { name, nanoseconds, count }));
        }
        Ok(())
    }

    /// Counts handshakes that stayed without an answer, judges WireGuard sessions, hands on what the programs logged, and looks for tailscaled's
    /// ports. Call it about once a second.
    pub fn sweep(&mut self) {
        self.statistics.expire();
        self.log.flush();
        self.ports.refresh();
        self.follow_underlay(Underlay::refresh);
        let now = monotonic();
        let Self { flows, slots, .. } = self;
        let result = flows.sweep(now, |slot, outcome| {
            let offset = match outcome {
                Outcome::TimedOut(opener) => {
                    let opener = usize::from(opener).min(OPENERS - 1);
                    offset_of!(Tcp, timed_out) + opener * size_of::<u64>()
                }
                Outcome::Lost => offset_of!(Tcp, lost),
            };
            if let Err(error) = slots.count_tcp(slot, offset) {
                tracing::warn!(%error, slot, "cannot count the end of a handshake");
            }
        });
        if let Err(error) = result {
            tracing::warn!(%error, "cannot look for handshakes that timed out");
        }
        self.messages.sweep(self.rows, now);
    }

    /// Slots that data was sent to by UDP between the last two sweeps, and by which path.
    #[must_use]
    pub fn paths(&self) -> &[(u32, Path)] {
        self.messages.paths()
    }

    /// Takes over the totals of slots and zeroes their rows, so that other peers may use them. Their keys must be gone
    /// already: they are after [`Self::sync`] with the peers missing. `done` hears what became of each: with an error its
    /// rows cannot be mapped, and the slot must not be reused.
    pub fn retire(&mut self, slots: &[u32], mut done: impl FnMut(u32, Result<(), KernelError>)) {
        if slots.is_empty() {
            return;
        }
        // First of all, so that nothing counts in rows that were zeroed.
        self.messages.disown(slots, monotonic());
        self.store_control();
        if let Err(error) = self.flows.disown(slots) {
            tracing::warn!(%error, "cannot look for connections of peers that left");
        }
        for slot in slots {
            done(*slot, self.slots.retire(*slot).and_then(|()| self.messages.retire(*slot)));
        }
    }

    /// Keeps BPF run-time statistics on for `duration` from now (about 100 ns per packet).
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn enable_statistics(&mut self, duration: Duration) -> Result<(), KernelError> {
        self.statistics.enable(duration)
    }

    fn with_means<T>(&mut self, act: impl FnOnce(&mut Attachment, &mut Means<'_>) -> T) -> T {
        let Self { attachment, netlink, object, slots, rows, .. } = self;
        act(attachment, &mut Means { netlink, object, slots, rows: *rows })
    }

    fn read_addresses(&mut self) {
        match device::addresses(&mut self.netlink) {
            Ok(addresses) if addresses == self.host => {}
            Ok(addresses) => {
                self.host = addresses;
                self.install_routes();
            }
            Err(error) => tracing::warn!(%error, "cannot read the addresses of this host"),
        }
    }

    fn install_routes(&mut self) {
        let keys = keys::routes(&self.own, &self.advertised, &self.host, &self.sizes);
        self.tables.install_routes(keys);
        self.store_control();
    }

    fn store_control(&self) {
        self.control.store(0, &self.messages.control(self.tables.control()));
    }
}

/// A map of one row, mapped.
fn row<T: Row>(object: &mut Object, name: &'static str) -> Result<Rows<T>, KernelError> {
    let mut rows = Rows::new(name, object.take_map(name)?)?;
    rows.ensure(1)?;
    Ok(rows)
}

/// Nanoseconds of CLOCK_MONOTONIC, the programs' clock.
pub(in crate::sources) fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
