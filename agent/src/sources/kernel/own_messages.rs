//! The tunnel's own messages, WireGuard and disco on the underlay: whose they are, what was counted of them, and what
//! the agent finds out beside the programs.

use std::time::SystemTime;

use tailgauge_ebpf::layout::Control;

use super::endpoint_tables::EndpointTables;
use super::initiations::Initiations;
use super::object::Object;
use super::sessions::Sessions;
use super::sizes::Sizes;
use super::underlay_rows::UnderlayRows;
use super::{KernelError, endpoints};
use crate::model::kernel::Kernel;
use crate::model::slots::SlotTable;
use crate::model::tailnet::{Path, Tailnet};

/// Everything that is known of them.
#[derive(Debug)]
pub(super) struct OwnMessages {
    endpoints: EndpointTables,
    rows: UnderlayRows,
    sessions: Sessions,
    initiations: Initiations,
    paths: Vec<(u32, Path)>,
}

impl OwnMessages {
    pub(super) fn open(object: &mut Object) -> Result<Self, KernelError> {
        Ok(Self {
            endpoints: EndpointTables::open(object)?,
            rows: UnderlayRows::open(object)?,
            sessions: Sessions::open(object)?,
            initiations: Initiations::default(),
            paths: Vec::new(),
        })
    }

    /// Makes the keys in the maps agree with the tailnet and the slots at `now`, nanoseconds of CLOCK_MONOTONIC. They are in force when [`Self::control`] is
    /// stored.
    pub(super) fn sync(&mut self, tailnet: &Tailnet, slots: &SlotTable, sizes: &Sizes, now: u64) {
        self.endpoints.install(endpoints::members(tailnet, slots), tailnet.relay_port, sizes);
        self.initiations.hear(slots, tailnet.paths_asked, now);
    }

    /// Adds to the settings what goes with the keys.
    pub(super) fn control(&self, control: Control) -> Control {
        self.endpoints.control(control)
    }

    /// Copies what was counted of `rows` slots at `now`, nanoseconds of CLOCK_MONOTONIC, into the model. `is_active` says
    /// of which slots the traffic in the tunnel moved.
    pub(super) fn read(
        &mut self,
        kernel: &mut Kernel,
        rows: u32,
        now: u64,
        is_active: impl Fn(u32) -> bool,
    ) -> Result<(), KernelError> {
        let Self { sessions, rows: counters, .. } = self;
        sessions.read(kernel, rows, now, |slot| counters.touch(slot));
        counters.read(kernel, rows, is_active)?;
        kernel.map_update_errors_total += self.endpoints.errors();
        kernel.keys_without_room += self.endpoints.refused();
        kernel.maps.extend(self.endpoints.fill());
        kernel.maps.push(self.sessions.fill());
        Ok(())
    }

    /// Judges sessions and handshakes, and looks by which paths the first `rows` slots were sent to. Call it about once
    /// a second.
    pub(super) fn sweep(&mut self, rows: u32, now: u64) {
        let Self { rows: counters, sessions, initiations, paths, .. } = self;
        sessions.sweep(now, initiations.open());
        initiations.settle(SystemTime::now(), now, |slot| {
            if let Err(error) = counters.count_failure(slot) {
                tracing::warn!(%error, slot, "cannot count a handshake that failed");
            }
        });
        paths.clear();
        if let Err(error) = counters.sweep(rows, paths) {
            tracing::warn!(%error, "cannot look for the paths of peers");
        }
        if let Err(error) = self.endpoints.count() {
            tracing::warn!(%error, "cannot count the endpoints that were learned");
        }
    }

    /// Slots that data was sent to by UDP between the last two sweeps, and by which path.
    pub(super) fn paths(&self) -> &[(u32, Path)] {
        &self.paths
    }

    /// Makes the sessions and endpoints of slots nobody's at `now`. That is in force when [`Self::control`] is stored.
    pub(super) fn disown(&mut self, slots: &[u32], now: u64) {
        for slot in slots {
            self.sessions.retire(*slot, now);
            self.initiations.retire(*slot);
        }
        // After the sessions, which endpoints are learned from.
        self.endpoints.retire(slots);
    }

    /// Takes over a slot's totals and zeroes its rows.
    pub(super) fn retire(&mut self, slot: u32) -> Result<(), KernelError> {
        self.rows.retire(slot)
    }
}
