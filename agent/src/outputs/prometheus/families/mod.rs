//! The table of all families of the model, by section of docs/METRICS.md.

mod agent;
mod connections;
mod devices;
mod disco;
mod disk;
mod drops;
mod ethtool;
mod frequency;
mod host;
mod network;
mod peer;
mod peer_underlay;
mod sampled;
mod settings;
mod sockets;
mod softnet;
mod tailscaled;
mod tcp;
mod time;
mod tunnel;
mod underlay;
mod window;
mod wireguard;

use std::time::Instant;

use tailgauge_ebpf::layout::Line;

use super::build::Build;
use super::family::Header;
use super::labels::{Labels, Rendered};
use super::text::Samples;
use crate::model::Model;
use crate::model::slots::Slot;

/// A family and the function that writes its samples. Everything that is exported is a row here, so nothing can
/// be exported that the documentation does not know.
#[derive(Debug)]
pub(super) struct Family {
    /// What a reader must know.
    pub(super) header: Header,
    /// Writes the samples.
    pub(super) samples: fn(&View<'_>, &mut Samples<'_>),
}

/// Families that are documented together.
#[derive(Debug)]
pub(super) struct Section {
    /// Heading.
    pub(super) title: &'static str,
    /// What holds for all of them.
    pub(super) about: &'static str,
    /// The families, in the order of output.
    pub(super) families: &'static [Family],
}

/// Every section, in the order of output.
pub(super) const SECTIONS: &[Section] = &[
    peer::SECTION,
    tcp::SECTION,
    window::SECTION,
    tunnel::SECTION,
    underlay::SECTION,
    peer_underlay::SECTION,
    wireguard::SECTION,
    disco::SECTION,
    drops::SECTION,
    tailscaled::SECTION,
    host::SECTION,
    sampled::SECTION,
    frequency::SECTION,
    time::SECTION,
    disk::SECTION,
    devices::SECTION,
    ethtool::SECTION,
    network::SECTION,
    softnet::SECTION,
    sockets::SECTION,
    connections::SECTION,
    settings::SECTION,
    agent::SECTION,
];

/// What families are written from.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) model: &'a Model,
    pub(super) labels: &'a Labels,
    pub(super) build: &'a Build,
    /// Ages are counted to this moment.
    pub(super) now: Instant,
}

impl<'a> View<'a> {
    /// Peers that own a slot, those that left the tailnet within the grace period included.
    #[inline]
    fn peers(&self) -> impl Iterator<Item = (u32, &'a Slot, &'a Rendered)> {
        let labels = self.labels;
        self.model
            .slots
            .iter()
            .filter_map(move |(index, slot)| labels.get(index).map(|rendered| (index, slot, rendered)))
    }

    /// Counters of one slot and direction; zero for a slot that the kernel source has not read yet.
    #[inline]
    fn line(&self, slot: u32, direction: u32) -> Line {
        let counters = self.model.kernel.slots.get(slot as usize);
        counters.map_or_else(Line::default, |counters| counters.direction[direction as usize])
    }
}
