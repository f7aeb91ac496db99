//! Disks and file systems of the host.

use super::{Family, Section, View};
use crate::model::host::{Disk, Filesystem};
use crate::outputs::prometheus::family::Header;
use crate::outputs::prometheus::text::Samples;

/// Labels of file systems, as node_exporter has them.
const FILESYSTEM: &[&str] = &["device", "mountpoint", "fstype"];

pub(super) const SECTION: Section = Section {
    title: "Disks",
    about: "Whole disks, and local file systems that hold data: up to 1,024 of each. File systems are as the host sees \
            them, without --path.rootfs before the mount point, and one that another mount hides is left out.",
    families: &[
        Family {
            header: Header::counter(
                "tailgauge_host_disk_reads_total",
                &["device"],
                "Reads that a disk completed.",
            ),
            samples: |view, samples| disk(view, samples, |disk| disk.reads),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_disk_writes_total",
                &["device"],
                "Writes that a disk completed.",
            ),
            samples: |view, samples| disk(view, samples, |disk| disk.writes),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_disk_read_bytes_total",
                &["device"],
                "Bytes read from a disk.",
            ),
            samples: |view, samples| disk(view, samples, |disk| disk.read_bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_disk_written_bytes_total",
                &["device"],
                "Bytes written to a disk.",
            ),
            samples: |view, samples| disk(view, samples, |disk| disk.written_bytes),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_disk_read_seconds_total",
                &["device"],
                "Time that all reads of a disk took together.",
            ),
            samples: |view, samples| disk_seconds(view, samples, |disk| disk.read_seconds),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_disk_write_seconds_total",
                &["device"],
                "Time that all writes of a disk took together.",
            ),
            samples: |view, samples| disk_seconds(view, samples, |disk| disk.write_seconds),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_disk_io_seconds_total",
                &["device"],
                "Time during which a disk had at least one operation under way: its utilisation.",
            ),
            samples: |view, samples| disk_seconds(view, samples, |disk| disk.io_seconds),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_disk_io_weighted_seconds_total",
                &["device"],
                "Time weighted by the number of operations under way: its rate is the mean queue length.",
            ),
            samples: |view, samples| disk_seconds(view, samples, |disk| disk.io_weighted_seconds),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_disk_io_now",
                &["device"],
                "Operations that a disk has under way.",
            ),
            samples: |view, samples| disk(view, samples, |disk| disk.io_now),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_filesystem_size_bytes",
                FILESYSTEM,
                "Size of a file system.",
            ),
            samples: |view, samples| filesystem(view, samples, |fs| fs.size_bytes),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_filesystem_available_bytes",
                FILESYSTEM,
                "Space of a file system that is free for everyone.",
            ),
            samples: |view, samples| filesystem(view, samples, |fs| fs.available_bytes),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_filesystem_files",
                FILESYSTEM,
                "Inodes of a file system; 0 where their number is not fixed.",
            ),
            samples: |view, samples| filesystem(view, samples, |fs| fs.files),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_filesystem_files_free",
                FILESYSTEM,
                "Free inodes of a file system.",
            ),
            samples: |view, samples| filesystem(view, samples, |fs| fs.files_free),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_filesystem_readonly",
                FILESYSTEM,
                "1 if a file system is mounted read-only.",
            ),
            samples: |view, samples| filesystem(view, samples, |fs| fs.read_only.into()),
        },
    ],
};

fn disk(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Disk) -> u64) {
    for disk in view.model.host.disks.iter().flatten() {
        samples.sample().label("device", &disk.name).integer(value(disk));
    }
}

fn disk_seconds(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Disk) -> f64) {
    for disk in view.model.host.disks.iter().flatten() {
        samples.sample().label("device", &disk.name).float(value(disk));
    }
}

fn filesystem(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Filesystem) -> u64) {
    for filesystem in view.model.host.filesystems.iter().flatten() {
        let mut line = samples.sample();
        let Filesystem { device, mount_point, fstype, .. } = filesystem;
        for (name, value) in FILESYSTEM.iter().zip([device, mount_point, fstype]) {
            line = line.label(name, value);
        }
        line.integer(value(filesystem));
    }
}
