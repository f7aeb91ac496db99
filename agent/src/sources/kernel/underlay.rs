//! The interfaces under the tunnel: which they are, the programs' places on them, and what was counted there.
//!
//! They are those by which packets leave for the internet, for the peers' current endpoints and for the subnets that
//! this node advertises. Each has a row of the counters, by name, so that a device that is made anew counts on.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tailgauge_ebpf::layout::{
    DIRECTIONS, ETHERNET_HEADER, UNDERLAY_DEVICES, Underlay as Table, UnderlayDevice, UnderlayLine,
    line_index, maps,
};

use super::attachment::Means;
use super::device::{self, Link, LinkLayer};
use super::hooks::Hooks;
use super::mmap::Rows;
use super::object::{Object, UNDERLAY};
use super::watch::Change;
use super::{AttachMode, KernelConfig, KernelError, routes};
use crate::model::kernel::{Kernel, UnderlayCounters};

/// Endpoints of peers that are looked up; the others leave by a default route anyway.
const MAX_ENDPOINTS: usize = 256;
/// A device that nothing leads to any more is kept for this long: routes go and come back with a DHCP lease.
const LINGER: Duration = Duration::from_secs(60);
/// Looking for routes may take one part in this of the time, however large their tables are.
const SHARE: u32 = 1000;

/// All interfaces of the underlay.
#[derive(Debug)]
pub(super) struct Underlay {
    mode: AttachMode,
    tunnel: String,
    /// Names that were demanded; found by routes when empty.
    demanded: Vec<String>,
    endpoints: Vec<IpAddr>,
    subnets: Vec<IpNet>,
    /// By row.
    places: Vec<Place>,
    table: Table,
    table_row: Rows<Table>,
    counters: Rows<UnderlayLine>,
    shards: u32,
    /// Something changed that routes may depend on.
    due: bool,
    not_before: Option<Instant>,
}

/// A row, and the interface that counts into it.
#[derive(Debug)]
struct Place {
    name: String,
    hooks: Hooks,
    /// The device that the hooks are on, or that they could not be put on.
    ifindex: Option<u32>,
    /// Since when nothing leads to it.
    idle_since: Option<Instant>,
}

/// How many bytes come before the IP header on a device of this kind; `None` when that is not known.
fn link_header(layer: LinkLayer) -> Option<u16> {
    match layer {
        LinkLayer::Layer3 => Some(0),
        LinkLayer::Other(libc::ARPHRD_ETHER) => Some(ETHERNET_HEADER),
        LinkLayer::Other(libc::ARPHRD_TUNNEL | libc::ARPHRD_TUNNEL6 | libc::ARPHRD_SIT) => Some(0),
        LinkLayer::Other(_) => None,
    }
}

impl Underlay {
    pub(super) fn open(object: &mut Object, config: &KernelConfig) -> Result<Self, KernelError> {
        let sizes = object.sizes();
        let mut counters = Rows::new(maps::UNDERLAY_COUNTERS, object.take_map(maps::UNDERLAY_COUNTERS)?)?;
        counters.ensure(sizes.underlay_rows())?;
        let mut table_row = Rows::new(maps::UNDERLAY, object.take_map(maps::UNDERLAY)?)?;
        table_row.ensure(1)?;
        Ok(Self {
            mode: config.attach_mode,
            tunnel: config.interface.clone(),
            demanded: config.underlay.clone(),
            endpoints: Vec::new(),
            subnets: Vec::new(),
            places: Vec::new(),
            table: Table::default(),
            table_row,
            counters,
            shards: sizes.shards,
            due: true,
            not_before: None,
        })
    }

    /// Takes over where peers are reached and what this node advertises.
    pub(super) fn want(&mut self, endpoints: impl Iterator<Item = IpAddr>, subnets: &[IpNet]) {
        let mut endpoints: Vec<_> = endpoints.collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        endpoints.truncate(MAX_ENDPOINTS);
        if endpoints != self.endpoints || subnets != self.subnets {
            self.endpoints = endpoints;
            self.subnets = subnets.to_vec();
            self.due = true;
        }
    }

    /// Acts on a change of devices, addresses or routes.
    pub(super) fn handle(&mut self, change: &Change, means: &mut Means<'_>) -> Result<(), KernelError> {
        match change {
            Change::Link(link) => {
                self.leave_renamed(link);
                // What was counted before is counted again at once, without waiting for its routes.
                if self.is_known(&link.name) {
                    self.adopt(link, true, means)?;
                }
            }
            Change::LinkGone(link) => {
                if let Some(row) = self.places.iter().position(|place| place.ifindex == Some(link.index)) {
                    self.leave(row, "the interface is gone");
                }
            }
            Change::Addresses | Change::Routes => {}
            Change::Resync => {
                for row in 0..self.places.len() {
                    let place = &self.places[row];
                    let found = means.find(&place.name)?;
                    if place.ifindex.is_some() && found.map(|link| link.index) != place.ifindex {
                        self.leave(row, "the interface is gone");
                    }
                }
            }
        }
        self.due = true;
        self.refresh(means)
    }

    /// Looks for the interfaces if anything changed, unless that was done a moment ago.
    pub(super) fn refresh(&mut self, means: &mut Means<'_>) -> Result<(), KernelError> {
        let started = Instant::now();
        let idle = self.places.iter().any(|place| {
            place.ifindex.is_some()
                && place.idle_since.is_some_and(|since| started.duration_since(since) >= LINGER)
        });
        if !(self.due || idle) || self.not_before.is_some_and(|moment| started < moment) {
            return Ok(());
        }
        self.due = false;
        let wanted = self.find(means);
        self.not_before = Some(started + started.elapsed() * SHARE);
        self.follow(&wanted?, started, means)
    }

    fn follow(&mut self, wanted: &[Link], now: Instant, means: &mut Means<'_>) -> Result<(), KernelError> {
        for name in self.demanded.clone() {
            self.row_for(&name);
        }
        for place in &mut self.places {
            let leads =
                self.demanded.contains(&place.name) || wanted.iter().any(|link| link.name == place.name);
            place.idle_since = if leads { None } else { place.idle_since.or(Some(now)) };
        }
        for row in 0..self.places.len() {
            let place = &self.places[row];
            let idle = place.idle_since.is_some_and(|since| now.duration_since(since) >= LINGER);
            if place.ifindex.is_some() && idle {
                self.leave(row, "no route leads there any more");
            }
        }
        for link in wanted {
            self.adopt(link, false, means)?;
        }
        Ok(())
    }

    /// The interfaces to be counted.
    fn find(&self, means: &mut Means<'_>) -> Result<Vec<Link>, KernelError> {
        let error = |source| KernelError::Netlink { operation: "look for the ways out of this host", source };
        let mut found = Vec::new();
        if !self.demanded.is_empty() {
            for name in &self.demanded {
                found.extend(means.find(name)?);
            }
            return Ok(found);
        }
        let mut indexes = Vec::new();
        routes::by_table(means.netlink, &self.subnets, &mut indexes).map_err(error)?;
        for endpoint in &self.endpoints {
            if let Some(index) = routes::of_tailscaled(means.netlink, *endpoint).map_err(error)?
                && !indexes.contains(&index)
            {
                indexes.push(index);
            }
        }
        for subnet in &self.subnets {
            routes::to_subnet(means.netlink, subnet, &mut indexes).map_err(error)?;
        }
        for index in indexes {
            let link = device::by_index(means.netlink, index).map_err(error)?;
            found.extend(link.filter(|link| {
                link.name != self.tunnel && link.layer != LinkLayer::Other(libc::ARPHRD_LOOPBACK)
            }));
        }
        Ok(found)
    }

    /// Whether a device of this name is to be counted before any route leads to it.
    fn is_known(&self, name: &str) -> bool {
        self.demanded.iter().any(|demanded| demanded == name)
            || self.places.iter().any(|place| {
                place.name == name && place.idle_since.is_none_or(|since| since.elapsed() < LINGER)
            })
    }

    /// Sees to it that the hooks are on a device. A device that they could not be put on is tried `again` only when
    /// it has changed.
    fn adopt(&mut self, link: &Link, again: bool, means: &mut Means<'_>) -> Result<(), KernelError> {
        let Some(row) = self.row_for(&link.name) else {
            tracing::warn!(
                device = link.name,
                limit = UNDERLAY_DEVICES,
                "not counted: too many interfaces; name the ones that matter with --underlay.interface"
            );
            return Ok(());
        };
        let place = &self.places[row];
        if place.ifindex == Some(link.index) && (!again || place.hooks.attached() == [true; 2]) {
            return Ok(());
        }
        if place.ifindex.is_some_and(|index| index != link.index) {
            self.leave(row, "the interface was made anew");
        }
        let place = &mut self.places[row];
        place.ifindex = Some(link.index);
        let refusal = match link_header(link.layer) {
            _ if link.name == self.tunnel => Some("this is the tunnel, not what it runs over".to_owned()),
            None => Some(format!("interfaces of type {} are not supported", link.layer.describe())),
            Some(header) => {
                self.set_row(
                    row,
                    UnderlayDevice { ifindex: link.index, link_header: header, row: row as u16 },
                );
                None
            }
        };
        let place = &mut self.places[row];
        if let Some(reason) = refusal {
            place.hooks.detach(&reason);
            return Ok(());
        }
        place.hooks.attach(means.object, &link.name);
        // The programs are attached by name: make sure that it was still this device's.
        if means.find(&link.name)?.is_none_or(|now| now.index != link.index) {
            self.leave(row, "the interface went while the programs were attached");
            self.due = true;
        }
        Ok(())
    }

    /// The row of a name: its own, a free one, or that of an interface that nothing leads to any more.
    fn row_for(&mut self, name: &str) -> Option<usize> {
        if let Some(row) = self.places.iter().position(|place| place.name == name) {
            return Some(row);
        }
        let place = Place {
            name: name.to_owned(),
            hooks: Hooks::new(self.mode, UNDERLAY, &format!("there is no interface {name} yet")),
            ifindex: None,
            idle_since: None,
        };
        if self.places.len() < UNDERLAY_DEVICES {
            self.places.push(place);
            return Some(self.places.len() - 1);
        }
        let row = self.places.iter().position(|place| place.idle_since.is_some())?;
        self.leave(row, "");
        for line in self.lines(row as u32) {
            self.counters.take(line, &mut UnderlayLine::default());
        }
        self.places[row] = place;
        Some(row)
    }

    /// Takes the hooks off a device that has another name now.
    fn leave_renamed(&mut self, link: &Link) {
        let renamed = |place: &Place| place.ifindex == Some(link.index) && place.name != link.name;
        if let Some(row) = self.places.iter().position(renamed) {
            self.leave(row, "the interface has another name now");
        }
    }

    fn leave(&mut self, row: usize, reason: &str) {
        let place = &mut self.places[row];
        if let Some(index) = place.ifindex.take() {
            tracing::info!(device = place.name, ifindex = index, reason, "left the interface");
        }
        place.hooks.detach(reason);
        self.set_row(row, UnderlayDevice::default());
    }

    fn set_row(&mut self, row: usize, device: UnderlayDevice) {
        self.table.devices[row] = device;
        self.table_row.store(0, &self.table);
    }

    fn lines(&self, row: u32) -> impl Iterator<Item = u32> + use<> {
        let shards = self.shards;
        let index = move |shard, direction| line_index(row, shard, shards, direction);
        (0..shards).flat_map(move |shard| (0..DIRECTIONS).map(move |direction| index(shard, direction)))
    }

    /// Describes the interfaces in the model, their hooks from place `first` of the list on; returns the place after
    /// them.
    pub(super) fn describe(&self, kernel: &mut Kernel, first: usize) -> usize {
        let mut next = first;
        kernel.underlay.truncate(self.places.len());
        for (row, place) in self.places.iter().enumerate() {
            if kernel.underlay.len() == row {
                kernel.underlay.push(UnderlayCounters::default());
            }
            let counters = &mut kernel.underlay[row];
            if counters.device != place.name {
                counters.device.clone_from(&place.name);
            }
            counters.direction = Default::default();
            for (index, line) in self.lines(row as u32).enumerate() {
                let mut read = UnderlayLine::default();
                self.counters.load(line, &mut read);
                add(&mut counters.direction[index % DIRECTIONS as usize], &read);
            }
            // Interfaces that were left for another are history, not a hook that fails.
            if place.ifindex.is_some() || place.idle_since.is_none() {
                next = place.hooks.describe(&place.name, &mut kernel.hooks, next);
            }
        }
        next
    }
}

fn add(into: &mut UnderlayLine, line: &UnderlayLine) {
    for (into, carried) in into.kind.iter_mut().zip(&line.kind) {
        into.wire.packets += carried.wire.packets;
        into.wire.bytes += carried.wire.bytes;
        into.skbs += carried.skbs;
        into.skb_bytes += carried.skb_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_device_says_where_the_ip_header_is() {
        assert_eq!(link_header(LinkLayer::Layer3), Some(0));
        assert_eq!(link_header(LinkLayer::Other(1)), Some(14), "Ethernet");
        assert_eq!(link_header(LinkLayer::Other(768)), Some(0), "IP in IP");
        assert_eq!(link_header(LinkLayer::Other(32)), None, "InfiniBand");
    }
}
