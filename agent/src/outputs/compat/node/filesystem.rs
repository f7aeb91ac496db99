//! Collector `filesystem`.

use super::family::{Family, MOUNT_LABELS, Values};
use crate::model::node::NodeCollector::{self, Filesystem};
use crate::model::node::{Mount, Node};
use crate::outputs::prometheus::{Header, Kind, Samples};

const GAUGE: (NodeCollector, Kind) = (Filesystem, Kind::Gauge);

fn flags(node: &Node, samples: &mut Samples<'_>, flag: fn(&Mount) -> bool) {
    for mount in node.mounts.iter() {
        let line = samples.sample().label("device", &mount.device).label("mountpoint", &mount.mount_point);
        line.label("fstype", &mount.fstype).label("device_error", &mount.error).flag(flag(mount));
    }
}

pub(super) const FAMILIES: &[Family] = &[
    Family::by(
        GAUGE,
        MOUNT_LABELS,
        "node_filesystem_size_bytes",
        "Size of a file system.",
        Values::Space(|space| space.size),
    ),
    Family::by(
        GAUGE,
        MOUNT_LABELS,
        "node_filesystem_free_bytes",
        "Space that nothing occupies.",
        Values::Space(|space| space.free),
    ),
    Family::by(
        GAUGE,
        MOUNT_LABELS,
        "node_filesystem_avail_bytes",
        "Space that programs without privileges can still take.",
        Values::Space(|space| space.available),
    ),
    Family::by(
        GAUGE,
        MOUNT_LABELS,
        "node_filesystem_files",
        "Inodes of a file system.",
        Values::Space(|space| space.files),
    ),
    Family::by(
        GAUGE,
        MOUNT_LABELS,
        "node_filesystem_files_free",
        "Inodes that nothing occupies.",
        Values::Space(|space| space.files_free),
    ),
    Family::by(
        GAUGE,
        MOUNT_LABELS,
        "node_filesystem_readonly",
        "1 if nothing can be written.",
        Values::Samples(|node, samples| flags(node, samples, |mount| mount.read_only)),
    ),
    Family::by(
        GAUGE,
        MOUNT_LABELS,
        "node_filesystem_device_error",
        "1 if a file system could not be asked; the label of that name says why.",
        Values::Samples(|node, samples| flags(node, samples, |mount| mount.space.is_none())),
    ),
    Family::new(
        Filesystem,
        Header::gauge(
            "node_filesystem_mount_info",
            &["device", "major", "minor", "mountpoint"],
            "Always 1; number of the device behind a mount.",
        ),
        Values::Samples(|node, samples| {
            for (index, mount) in node.mounts.iter().enumerate() {
                let same = |other: &Mount| {
                    (&other.device, &other.mount_point, other.major, other.minor)
                        == (&mount.device, &mount.mount_point, mount.major, mount.minor)
                };
                // Types are no label here.
                if mount.space.is_some() && !node.mounts[..index].iter().any(same) {
                    let line = samples.sample().label("device", &mount.device);
                    let line = line.number_label("major", mount.major).number_label("minor", mount.minor);
                    line.label("mountpoint", &mount.mount_point).integer(1);
                }
            }
        }),
    ),
];
