//! Collector `diskstats`.

use super::family::{Family, Unit, Values};
use crate::model::node::NodeCollector::{self, Diskstats};
use crate::outputs::prometheus::{Header, Kind};

const COUNTER: (NodeCollector, Kind) = (Diskstats, Kind::Counter);
const GAUGE: (NodeCollector, Kind) = (Diskstats, Kind::Gauge);
const DEVICE: &[&str] = &["device"];

pub(super) const FAMILIES: &[Family] = &[
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_reads_completed_total",
        "Reads completed.",
        Values::Column(0, Unit::One),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_reads_merged_total",
        "Reads that were joined to another.",
        Values::Column(1, Unit::One),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_read_bytes_total",
        "Bytes read.",
        Values::Column(2, Unit::Sectors),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_read_time_seconds_total",
        "Time that reads took, added up.",
        Values::Column(3, Unit::Milliseconds),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_writes_completed_total",
        "Writes completed.",
        Values::Column(4, Unit::One),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_writes_merged_total",
        "Writes that were joined to another.",
        Values::Column(5, Unit::One),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_written_bytes_total",
        "Bytes written.",
        Values::Column(6, Unit::Sectors),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_write_time_seconds_total",
        "Time that writes took, added up.",
        Values::Column(7, Unit::Milliseconds),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_disk_io_now",
        "Requests that a device works on.",
        Values::Column(8, Unit::One),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_io_time_seconds_total",
        "Time during which a device had something to do.",
        Values::Column(9, Unit::Milliseconds),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_io_time_weighted_seconds_total",
        "Time that requests waited and were worked on, added up.",
        Values::Column(10, Unit::Milliseconds),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_discards_completed_total",
        "Discards completed.",
        Values::Column(11, Unit::One),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_discards_merged_total",
        "Discards that were joined to another.",
        Values::Column(12, Unit::One),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_discarded_sectors_total",
        "Sectors of 512 bytes discarded.",
        Values::Column(13, Unit::One),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_discard_time_seconds_total",
        "Time that discards took, added up.",
        Values::Column(14, Unit::Milliseconds),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_flush_requests_total",
        "Flushes completed.",
        Values::Column(15, Unit::One),
    ),
    Family::by(
        COUNTER,
        DEVICE,
        "node_disk_flush_requests_time_seconds_total",
        "Time that flushes took, added up.",
        Values::Column(16, Unit::Milliseconds),
    ),
    Family::new(
        Diskstats,
        Header::gauge(
            "node_disk_info",
            &["device", "major", "minor", "path", "wwn", "model", "serial", "revision", "rotational"],
            "Always 1; number of a block device, and what udev and the kernel know of it.",
        ),
        Values::Samples(|node, samples| {
            for disk in node.disks.iter() {
                let line = samples.sample().label("device", &disk.name).number_label("major", disk.major);
                let line = line.number_label("minor", disk.minor).label("path", &disk.udev.path);
                let line = line.label("wwn", &disk.udev.wwn).label("model", &disk.udev.model);
                let line = line.label("serial", &disk.udev.serial).label("revision", &disk.udev.revision);
                line.label("rotational", if disk.rotational { "1" } else { "0" }).integer(1);
            }
        }),
    ),
    Family::new(
        Diskstats,
        Header::gauge(
            "node_disk_filesystem_info",
            &["device", "type", "usage", "uuid", "version"],
            "Always 1; what udev found on a block device.",
        ),
        Values::Samples(|node, samples| {
            for disk in node.disks.iter() {
                let Some(found) = &disk.udev.filesystem else { continue };
                let line = samples.sample().label("device", &disk.name).label("type", &found.fstype);
                let line = line.label("usage", &found.usage).label("uuid", &found.uuid);
                line.label("version", &found.version).integer(1);
            }
        }),
    ),
    Family::new(
        Diskstats,
        Header::gauge(
            "node_disk_device_mapper_info",
            &["device", "name", "uuid", "vg_name", "lv_name", "lv_layer"],
            "Always 1; name and volume of a mapped device.",
        ),
        Values::Samples(|node, samples| {
            for disk in node.disks.iter() {
                let Some(mapper) = &disk.udev.mapper else { continue };
                let line = samples.sample().label("device", &disk.name).label("name", &mapper.name);
                let line = line.label("uuid", &mapper.uuid).label("vg_name", &mapper.volume_group);
                line.label("lv_name", &mapper.logical_volume).label("lv_layer", &mapper.layer).integer(1);
            }
        }),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_disk_ata_write_cache",
        "1 if an ATA disk has a write cache.",
        Values::Udev(|disk| disk.udev.ata.write_cache),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_disk_ata_write_cache_enabled",
        "1 if an ATA disk uses its write cache.",
        Values::Udev(|disk| disk.udev.ata.write_cache_enabled),
    ),
    Family::by(
        GAUGE,
        DEVICE,
        "node_disk_ata_rotation_rate_rpm",
        "Turns a minute of an ATA disk; 0 if nothing turns.",
        Values::Udev(|disk| disk.udev.ata.rotation_rate),
    ),
];
