//! Rows of the table that the output is written from.

use crate::model::host::Softnet;
use crate::model::node::{BlockDevice, LinkCounter, NetClass, Node, NodeCollector, Space};
use crate::outputs::prometheus::{Header, Kind, Samples};

/// A family with a fixed name.
pub(super) struct Family {
    pub(super) collector: NodeCollector,
    pub(super) header: Header,
    pub(super) values: Values,
}

impl Family {
    pub(super) const fn new(collector: NodeCollector, header: Header, values: Values) -> Self {
        Self { collector, header, values }
    }

    /// A family that has one sample a device, or one a CPU, and no other label.
    pub(super) const fn by(
        (collector, kind): (NodeCollector, Kind),
        labels: &'static [&'static str],
        name: &'static str,
        help: &'static str,
        values: Values,
    ) -> Self {
        Self { collector, header: Header { name, kind, labels, help }, values }
    }
}

/// Labels of a file system.
pub(super) const MOUNT_LABELS: &[&str] = &["device", "mountpoint", "fstype", "device_error"];

/// Where the samples come from.
pub(super) enum Values {
    /// Anywhere.
    Samples(fn(&Node, &mut Samples<'_>)),
    /// One number without labels.
    Plain(fn(&Node) -> Option<u64>),
    /// One of each CPU's backlog.
    Softnet(fn(&Softnet) -> Option<u64>),
    /// One of each network device: the sum of these counters.
    Counters(&'static [LinkCounter]),
    /// One attribute of each network device.
    Attribute(fn(&NetClass) -> Option<i64>),
    /// One column of each block device.
    Column(usize, Unit),
    /// Something that udev knows of block devices.
    Udev(fn(&BlockDevice) -> Option<f64>),
    /// One of each file system that could be asked.
    Space(fn(&Space) -> u64),
}

/// What a column of /proc/diskstats counts.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    One,
    /// 512 bytes, whatever the device's own are.
    Sectors,
    Milliseconds,
}

impl Values {
    pub(super) fn write(&self, node: &Node, samples: &mut Samples<'_>) {
        match self {
            Self::Samples(write) => write(node, samples),
            Self::Plain(value) => samples.plain(value(node)),
            Self::Softnet(value) => {
                for row in &node.softnet {
                    if let Some(value) = value(row) {
                        samples.sample().number_label("cpu", row.cpu).integer(value);
                    }
                }
            }
            Self::Counters(places) => {
                for device in node.netdev.iter() {
                    samples.sample().label("device", &device.name).integer(device.sum(places));
                }
            }
            Self::Attribute(value) => {
                for device in node.netclass.iter() {
                    if let Some(value) = value(device) {
                        samples.sample().label("device", &device.name).signed(value);
                    }
                }
            }
            Self::Column(column, unit) => {
                for disk in node.disks.iter() {
                    let Some(count) = disk.counts.get(*column).copied() else { continue };
                    let line = samples.sample().label("device", &disk.name);
                    match unit {
                        Unit::One => line.integer(count),
                        Unit::Sectors => line.integer(count.saturating_mul(512)),
                        Unit::Milliseconds => line.decimal(count, 3),
                    }
                }
            }
            Self::Udev(value) => {
                for disk in node.disks.iter() {
                    if let Some(value) = value(disk) {
                        samples.sample().label("device", &disk.name).float(value);
                    }
                }
            }
            Self::Space(value) => {
                for mount in node.mounts.iter() {
                    if let Some(space) = &mount.space {
                        let line = samples.sample().label("device", &mount.device);
                        let line =
                            line.label("mountpoint", &mount.mount_point).label("fstype", &mount.fstype);
                        line.label("device_error", &mount.error).integer(value(space));
                    }
                }
            }
        }
    }
}
