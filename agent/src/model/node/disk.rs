//! Block devices and what is mounted from them.

use super::Recycled;

/// A line of /proc/diskstats (Documentation/admin-guide/iostats.rst).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockDevice {
    /// Name.
    pub name: String,
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// The columns after the name, as many as this kernel has: counts, sectors of 512 bytes, milliseconds.
    pub counts: Vec<u64>,
    /// Whether the disk turns (/sys/block/NAME/queue/rotational).
    pub rotational: bool,
    /// What udev knows.
    pub udev: UdevProperties,
}

impl Recycled for BlockDevice {
    fn recycle(&mut self) {
        let Self { name, major: _, minor: _, counts, rotational, udev } = self;
        name.clear();
        counts.clear();
        *rotational = false;
        *udev = UdevProperties::default();
    }
}

/// Properties of a device in udev's database; empty where udev does not know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UdevProperties {
    /// `ID_PATH`.
    pub path: String,
    /// `ID_WWN`.
    pub wwn: String,
    /// `ID_MODEL`.
    pub model: String,
    /// `SCSI_IDENT_SERIAL`, else `ID_SERIAL_SHORT`, else `ID_SERIAL`.
    pub serial: String,
    /// `ID_REVISION`.
    pub revision: String,
    /// What is on it, when `ID_FS_TYPE` says so.
    pub filesystem: Option<DiskFilesystem>,
    /// The mapped device that it is, when `DM_NAME` says so.
    pub mapper: Option<DeviceMapper>,
    /// Of an ATA disk.
    pub ata: AtaProperties,
}

/// The file system on a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskFilesystem {
    /// `ID_FS_TYPE`.
    pub fstype: String,
    /// `ID_FS_USAGE`.
    pub usage: String,
    /// `ID_FS_UUID`.
    pub uuid: String,
    /// `ID_FS_VERSION`.
    pub version: String,
}

/// A device of the device mapper.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceMapper {
    /// `DM_NAME`.
    pub name: String,
    /// `DM_UUID`.
    pub uuid: String,
    /// `DM_VG_NAME`.
    pub volume_group: String,
    /// `DM_LV_NAME`.
    pub logical_volume: String,
    /// `DM_LV_LAYER`.
    pub layer: String,
}

/// Of a disk with `ID_ATA`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AtaProperties {
    /// `ID_ATA_WRITE_CACHE`.
    pub write_cache: Option<f64>,
    /// `ID_ATA_WRITE_CACHE_ENABLED`.
    pub write_cache_enabled: Option<f64>,
    /// `ID_ATA_ROTATION_RATE_RPM`.
    pub rotation_rate: Option<f64>,
}

/// A line of the mount table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub device: String,
    /// Where, as seen below --path.rootfs.
    pub mount_point: String,
    /// Type.
    pub fstype: String,
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// Whether it was mounted read-only or turned so after an error.
    pub read_only: bool,
    /// Its space; `None` with an error.
    pub space: Option<Space>,
    /// Why it could not be asked; empty when it could.
    pub error: String,
}

impl Recycled for Mount {
    fn recycle(&mut self) {
        let Self { device, mount_point, fstype, major: _, minor: _, read_only, space, error } = self;
        [device, mount_point, fstype, error].into_iter().for_each(String::clear);
        *read_only = false;
        *space = None;
    }
}

/// statvfs(3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub size: u64,
    /// Bytes that nothing occupies.
    pub free: u64,
    /// Bytes that programs without privileges can still take.
    pub available: u64,
    /// Inodes.
    pub files: u64,
    /// Inodes that nothing occupies.
    pub files_free: u64,
}
