//! Follows one device by name: attaches to each new one that bears it, accounts for those that went.

use super::coverage::{Baseline, Counted, Ledger, Reading};
use super::device::{self, Link, LinkLayer};
use super::hooks::Hooks;
use super::object::{Object, TUNNEL};
use super::rows::SlotRows;
use super::watch::Change;
use super::{KernelConfig, KernelError};
use crate::model::kernel::{DeviceCounters, Kernel};
use crate::sources::netlink::Netlink;

/// Attempts when the device is replaced while we attach to it.
const TRIES: usize = 3;

/// The programs' place on the device called `name`.
#[derive(Debug)]
pub(super) struct Attachment {
    name: String,
    hooks: Hooks,
    /// Index of the device that the hooks are on, or that was refused.
    ifindex: Option<u32>,
    ledger: Ledger,
    attachments: u64,
}

/// What is needed to attach, beside the place.
pub(super) struct Means<'a> {
    pub(super) netlink: &'a mut Netlink,
    pub(super) object: &'a mut Object,
    pub(super) slots: &'a mut SlotRows,
    /// Rows in use.
    pub(super) rows: u32,
}

impl Means<'_> {
    fn counted(&mut self) -> Result<[Counted; 2], KernelError> {
        self.slots.counted(self.rows)
    }

    fn counters(&mut self, index: u32) -> Result<Option<DeviceCounters>, KernelError> {
        device::counters(self.netlink, index)
            .map_err(|source| KernelError::Netlink { operation: "read the counters of the device", source })
    }

    pub(super) fn find(&mut self, name: &str) -> Result<Option<Link>, KernelError> {
        device::find(self.netlink, name)
            .map_err(|source| KernelError::Netlink { operation: "look for the device", source })
    }
}

impl Attachment {
    pub(super) fn new(config: &KernelConfig) -> Self {
        let hooks = Hooks::new(config.attach_mode, TUNNEL, &awaited(&config.interface));
        Self {
            name: config.interface.clone(),
            hooks,
            ifindex: None,
            ledger: Ledger::default(),
            attachments: 0,
        }
    }

    /// Whether there is no device of that name.
    pub(super) const fn waits(&self) -> bool {
        self.ifindex.is_none()
    }

    /// Acts on a change that concerns the device.
    pub(super) fn handle(&mut self, change: &Change, means: &mut Means<'_>) -> Result<(), KernelError> {
        let (link, gone) = match change {
            Change::Link(link) => (link, false),
            Change::LinkGone(link) => (link, true),
            Change::Resync => {
                self.ledger.settle_all();
                return self.follow(means);
            }
            Change::Addresses | Change::Routes => return Ok(()),
        };
        // Messages are older than what is found by looking: a device may be left before its last word comes.
        if self.ledger.settle(link.index, link.counters, gone) {
            return Ok(());
        }
        if self.ifindex != Some(link.index) {
            return if link.name == self.name && !gone { self.follow(means) } else { Ok(()) };
        }
        if gone {
            self.leave(link.counters);
        }
        self.follow(means)
    }

    /// Sees to it that the hooks are on the device that bears the name now, whatever happened before.
    pub(super) fn follow(&mut self, means: &mut Means<'_>) -> Result<(), KernelError> {
        for _ in 0..TRIES {
            let link = means.find(&self.name)?;
            if let Some(index) = self.ifindex
                && link.as_ref().is_none_or(|link| link.index != index)
            {
                // Renamed, or gone: then there is nothing to read.
                let last = means.counters(index).ok().flatten();
                self.leave(last);
            }
            let Some(link) = link else { return Ok(()) };
            if self.ifindex.is_some() && self.hooks.attached() == [true; 2] {
                return Ok(());
            }
            self.attach(&link, means)?;
            // The programs are attached by name: make sure that it was still this device's.
            if means.find(&self.name)?.is_some_and(|now| now.index == link.index) {
                return Ok(());
            }
            let last = means.counters(link.index).ok().flatten();
            self.leave(last);
        }
        Ok(())
    }

    fn attach(&mut self, link: &Link, means: &mut Means<'_>) -> Result<(), KernelError> {
        if let LinkLayer::Other(_) = link.layer {
            // Remembered, so that it is refused once, and no longer the reason once it is gone.
            if self.ifindex.replace(link.index) == Some(link.index) {
                return Ok(());
            }
            let error = KernelError::NotLayer3 { interface: self.name.clone(), kind: link.layer.describe() };
            self.hooks.detach(&error.to_string());
            return Err(error);
        }
        let before = Reading { device: link.counters.unwrap_or_default(), counted: means.counted()? };
        let earlier = self.hooks.attached();
        let later = self.hooks.attach(means.object, &self.name);
        self.ifindex = Some(link.index);
        // A hook that failed is tried again on the next change of the device, beside one that counts.
        let new = [0, 1].map(|direction: usize| later[direction] && !earlier[direction]);
        if !new.contains(&true) {
            return Ok(());
        }
        self.attachments += u64::from(!earlier.contains(&true));
        let baseline = Baseline::find(&before, || {
            let Some(device) = means.counters(link.index)? else { return Ok(None) };
            Ok::<_, KernelError>(Some(Reading { device, counted: means.counted()? }))
        });
        let baseline = baseline.unwrap_or_else(|error| {
            tracing::warn!(%error, "the coverage ratio may be off by the packets of this moment");
            Baseline::at(&before.device)
        });
        self.ledger.begin(new, baseline);
        Ok(())
    }

    fn leave(&mut self, last: Option<DeviceCounters>) {
        let Some(index) = self.ifindex.take() else { return };
        tracing::info!(device = self.name, ifindex = index, "left the device; waiting for the next one");
        self.ledger.finish(index, last);
        self.hooks.detach(&awaited(&self.name));
    }

    /// Reads the device's counters; before the programs', so that a ratio below one is never an artefact.
    pub(super) fn observe(&mut self, netlink: &mut Netlink) -> Result<(), KernelError> {
        if let Some(index) = self.ifindex.filter(|_| self.ledger.counting()) {
            let counters = device::counters(netlink, index).map_err(|source| KernelError::Netlink {
                operation: "read the counters of the device",
                source,
            })?;
            if let Some(counters) = counters {
                self.ledger.observe(counters);
            }
        }
        Ok(())
    }

    /// Describes the place in the model; returns the number of hooks.
    pub(super) fn describe(&self, kernel: &mut Kernel, counted: [Counted; 2]) -> usize {
        if kernel.device != self.name {
            kernel.device.clone_from(&self.name);
        }
        kernel.ifindex = self.ifindex;
        kernel.reattached_total = self.attachments.saturating_sub(1);
        kernel.coverage = (self.attachments > 0).then(|| self.ledger.coverage(counted));
        self.hooks.describe(&self.name, &mut kernel.hooks, 0)
    }
}

/// Why hooks on a tunnel device that does not exist are not attached.
fn awaited(name: &str) -> String {
    format!("there is no interface {name} yet: is tailscaled running, with a tunnel device of that name?")
}
