//! What udev knows of a block device: /run/udev/data/bMAJOR:MINOR, lines of `E:NAME=value`
//! (`device_update_db` in systemd's sd-device).

use std::path::Path;

use super::super::Paths;
use super::super::proc_file::read_once;
use crate::model::node::{AtaProperties, DeviceMapper, DiskFilesystem, UdevProperties};
use crate::sources::clean;

/// Where the database is below --path.rootfs.
const FOLDER: &str = "run/udev/data";

/// Nothing when udev does not know the device, or does not run.
pub(super) fn properties(paths: &Paths, major: u32, minor: u32) -> UdevProperties {
    read(&paths.rootfs.join(FOLDER).join(format!("b{major}:{minor}")))
}

fn read(path: &Path) -> UdevProperties {
    // Written by udev alone and replaced as a whole; a device that goes meanwhile takes its file along.
    read_once(path).map(|bytes| parse(&String::from_utf8_lossy(&bytes))).unwrap_or_default()
}

fn parse(text: &str) -> UdevProperties {
    let get = |name: &str| {
        let value =
            text.lines().find_map(|line| line.strip_prefix("E:")?.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| clean::text(value, "")).unwrap_or_default()
    };
    let number = |name: &str| get(name).parse().ok().filter(|number: &f64| number.is_finite());
    let serial = ["SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"].into_iter().map(get);
    let is_ata = !get("ID_ATA").is_empty();
    UdevProperties {
        path: get("ID_PATH"),
        wwn: get("ID_WWN"),
        model: get("ID_MODEL"),
        serial: serial.into_iter().find(|serial| !serial.is_empty()).unwrap_or_default(),
        revision: get("ID_REVISION"),
        filesystem: Some(DiskFilesystem {
            fstype: get("ID_FS_TYPE"),
            usage: get("ID_FS_USAGE"),
            uuid: get("ID_FS_UUID"),
            version: get("ID_FS_VERSION"),
        })
        .filter(|filesystem| !filesystem.fstype.is_empty()),
        mapper: Some(DeviceMapper {
            name: get("DM_NAME"),
            uuid: get("DM_UUID"),
            volume_group: get("DM_VG_NAME"),
            logical_volume: get("DM_LV_NAME"),
            layer: get("DM_LV_LAYER"),
        })
        .filter(|mapper| !mapper.name.is_empty()),
        ata: match is_ata {
            true => AtaProperties {
                write_cache: number("ID_ATA_WRITE_CACHE"),
                write_cache_enabled: number("ID_ATA_WRITE_CACHE_ENABLED"),
                rotation_rate: number("ID_ATA_ROTATION_RATE_RPM"),
            },
            false => AtaProperties::default(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use proptest::prelude::*;

    const DISK: &str = "S:disk/by-id/ata-X\nI:1\nE:ID_ATA=1\nE:ID_ATA_WRITE_CACHE=1\nE:ID_ATA_ROTATION_RATE_RPM=7200\n\
                        E:ID_MODEL=X Y\nE:ID_SERIAL=long\nE:ID_SERIAL_SHORT=short\nE:ID_PATH=pci-0\nG:systemd\n";

    #[test]
    fn properties_of_a_disk() {
        let disk = parse(DISK);
        assert_eq!(
            (disk.model.as_str(), disk.serial.as_str(), disk.path.as_str()),
            ("X Y", "short", "pci-0")
        );
        let expected =
            AtaProperties { write_cache: Some(1.0), write_cache_enabled: None, rotation_rate: Some(7200.0) };
        assert_eq!(disk.ata, expected);
        assert_eq!((disk.filesystem, disk.mapper), (None, None));
    }

    #[test]
    fn properties_of_a_logical_volume() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER);
        fs::create_dir_all(&folder).unwrap();
        let text = "E:DM_NAME=vg-lv\nE:DM_VG_NAME=vg\nE:ID_FS_TYPE=ext4\nE:ID_FS_USAGE=filesystem\nE:ID_ATA_WRITE_CACHE=1\n";
        fs::write(folder.join("b253:0"), text).unwrap();
        let paths = Paths { rootfs: root.path().to_owned(), ..Paths::default() };
        let volume = properties(&paths, 253, 0);
        assert_eq!(volume.mapper.unwrap().volume_group, "vg");
        assert_eq!(volume.filesystem.unwrap().fstype, "ext4");
        assert_eq!(volume.ata, AtaProperties::default(), "no ATA disk");
        assert_eq!(properties(&paths, 253, 1), UdevProperties::default());
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer(text in "(E:(ID|DM)_[A-Z]{0,5}=[^\n]{0,8}\n){0,4}|\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
