//! Collector `netclass`: attributes of network devices below /sys/class/net.
//!
//! Not by netlink, which lacks some, tells others of devices that are down, and knows the agent's own network
//! namespace whatever --path.sysfs says.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Dir, DirEntry, FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use super::super::{HostError, Paths};
use super::netdev::MOST;
use super::sysfs::{self, Buffer};
use crate::model::node::{NetClass, Rows};
use crate::sources::clean;

/// Where a number goes.
type Place = fn(&mut NetClass) -> &mut Option<i64>;
/// Where a text goes.
type Text = fn(&mut NetClass) -> &mut String;

const NUMBERS: [(&CStr, Place); 17] = [
    (c"addr_assign_type", |device| &mut device.addr_assign_type),
    (c"carrier", |device| &mut device.carrier),
    (c"carrier_changes", |device| &mut device.carrier_changes),
    (c"carrier_down_count", |device| &mut device.carrier_down_count),
    (c"carrier_up_count", |device| &mut device.carrier_up_count),
    (c"dev_id", |device| &mut device.dev_id),
    (c"dormant", |device| &mut device.dormant),
    (c"flags", |device| &mut device.flags),
    (c"ifindex", |device| &mut device.ifindex),
    (c"iflink", |device| &mut device.iflink),
    (c"link_mode", |device| &mut device.link_mode),
    (c"mtu", |device| &mut device.mtu),
    (c"name_assign_type", |device| &mut device.name_assign_type),
    (c"netdev_group", |device| &mut device.netdev_group),
    (c"speed", |device| &mut device.speed),
    (c"tx_queue_len", |device| &mut device.tx_queue_len),
    (c"type", |device| &mut device.r#type),
];
const TEXTS: [(&CStr, Text); 5] = [
    (c"address", |device| &mut device.address),
    (c"broadcast", |device| &mut device.broadcast),
    (c"duplex", |device| &mut device.duplex),
    (c"ifalias", |device| &mut device.ifalias),
    (c"operstate", |device| &mut device.operstate),
];

/// Devices whose attributes stay open: opening one takes longer than reading it, and a node has few. Those of other
/// devices are opened for each scrape.
const MOST_OPEN: usize = 8;

/// Keeps attributes open.
#[derive(Default)]
pub(super) struct Reader {
    open: Vec<Attributes>,
    name: String,
}

impl Reader {
    pub(super) fn read(&mut self, paths: &Paths, devices: &mut Rows<NetClass>) -> Result<(), HostError> {
        devices.clear();
        let class = paths.sysfs.join("class/net");
        self.list(&class, devices).map_err(|errno| match errno {
            Errno::NOENT | Errno::ACCESS => HostError::Unavailable { path: class },
            errno => HostError::Read { path: class, source: io::Error::from(errno) },
        })
    }

    fn list(&mut self, class: &Path, devices: &mut Rows<NetClass>) -> Result<(), Errno> {
        let class = openat(CWD, class, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut entries = Dir::read_from(&class)?;
        self.open.iter_mut().for_each(|device| device.seen = false);
        while let Some(entry) = entries.read() {
            let entry = entry?;
            // A file, such as bonding_masters, is no device.
            let hidden = entry.file_name().to_bytes().starts_with(b".");
            if hidden || entry.file_type() == FileType::RegularFile || devices.len() == MOST {
                continue;
            }
            clean::refill(&mut self.name, &clean::lossy(entry.file_name().to_bytes()));
            // Two names can be the same once they are cleaned, and two series must not.
            if self.name.is_empty() || devices.iter().any(|device| device.name == self.name) {
                continue;
            }
            let device = devices.push();
            match self.device(&class, &entry, device) {
                Ok(()) => device.name.push_str(&self.name),
                // It went while it was read.
                Err(Errno::NOENT | Errno::NODEV) => devices.pop(),
                Err(errno) => return Err(errno),
            }
        }
        self.open.retain(|device| device.seen);
        Ok(())
    }

    fn device(&mut self, class: &OwnedFd, entry: &DirEntry, device: &mut NetClass) -> Result<(), Errno> {
        if let Some(known) = self.open.iter_mut().find(|known| known.inode == entry.ino()) {
            // One that fails is opened anew next time.
            known.read(device)?;
            known.seen = true;
            return Ok(());
        }
        let found = Attributes::open(class, entry)?;
        found.read(device)?;
        if self.open.len() < MOST_OPEN {
            self.open.push(found);
        }
        Ok(())
    }
}

/// The open attributes of a device.
struct Attributes {
    /// Of its link in the class: stays with the device when that is renamed, and is never another's.
    inode: u64,
    seen: bool,
    numbers: [Option<OwnedFd>; NUMBERS.len()],
    texts: [Option<OwnedFd>; TEXTS.len()],
}

impl Attributes {
    fn open(class: &OwnedFd, entry: &DirEntry) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(class, entry.file_name(), flags, Mode::empty())?;
        let mut found = Self {
            inode: entry.ino(),
            seen: true,
            numbers: [const { None }; NUMBERS.len()],
            texts: [const { None }; TEXTS.len()],
        };
        let names = NUMBERS.iter().map(|(name, _)| name).chain(TEXTS.iter().map(|(name, _)| name));
        for (name, file) in names.zip(found.numbers.iter_mut().chain(&mut found.texts)) {
            *file = sysfs::unless_silent(sysfs::open(&folder, *name))?;
        }
        Ok(found)
    }

    fn read(&self, device: &mut NetClass) -> Result<(), Errno> {
        let mut buffer: Buffer = [0; _];
        for ((_, place), file) in NUMBERS.iter().zip(&self.numbers) {
            let Some(file) = file else { continue };
            *place(device) = sysfs::attribute(file, &mut buffer)?.and_then(integer);
        }
        for ((_, place), file) in TEXTS.iter().zip(&self.texts) {
            let Some(file) = file else { continue };
            clean::refill(place(device), sysfs::attribute(file, &mut buffer)?.unwrap_or_default());
        }
        Ok(())
    }
}

/// Decimal, or hexadecimal after `0x`.
fn integer(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_read_and_those_that_are_not_told_are_none() {
        let root = tempfile::tempdir().unwrap();
        let class = root.path().join("class/net");
        let device = class.join("eth0");
        fs::create_dir_all(&device).unwrap();
        fs::write(class.join("bonding_masters"), "\n").unwrap();
        for (name, text) in [
            ("mtu", "1500\n"),
            ("flags", "0x1003\n"),
            ("speed", "-1\n"),
            ("carrier", "x\n"),
            ("address", "02:00\n"),
        ] {
            fs::write(device.join(name), text).unwrap();
        }
        let paths = Paths { sysfs: root.path().to_owned(), ..Paths::default() };
        let (mut reader, mut devices) = (Reader::default(), Rows::default());
        reader.read(&paths, &mut devices).unwrap();
        let expected = NetClass {
            name: "eth0".to_owned(),
            address: "02:00".to_owned(),
            mtu: Some(1500),
            flags: Some(0x1003),
            speed: Some(-1),
            ..NetClass::default()
        };
        assert_eq!(&devices[..], [expected]);
        fs::write(device.join("mtu"), "9000\n").unwrap();
        reader.read(&paths, &mut devices).unwrap();
        assert_eq!(devices[0].mtu, Some(9000), "read anew");
        fs::rename(&device, class.join("wan")).unwrap();
        reader.read(&paths, &mut devices).unwrap();
        assert_eq!((devices[0].name.as_str(), devices[0].mtu), ("wan", Some(9000)));
        fs::remove_dir_all(class.join("wan")).unwrap();
        reader.read(&paths, &mut devices).unwrap();
        assert!(devices.is_empty() && reader.open.is_empty(), "it is gone");
        fs::remove_dir_all(&class).unwrap();
        let error = reader.read(&paths, &mut devices).unwrap_err();
        assert!(matches!(error, HostError::Unavailable { .. }), "{error}");
    }

    #[test]
    fn more_devices_than_stay_open_are_read_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..MOST_OPEN + 3 {
            let device = root.path().join(format!("class/net/d{number}"));
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("ifindex"), format!("{number}\n")).unwrap();
        }
        let paths = Paths { sysfs: root.path().to_owned(), ..Paths::default() };
        let (mut reader, mut devices) = (Reader::default(), Rows::default());
        for _ in 0..2 {
            reader.read(&paths, &mut devices).unwrap();
            assert_eq!((devices.len(), reader.open.len()), (MOST_OPEN + 3, MOST_OPEN));
            for device in devices.iter() {
                assert_eq!(device.name, format!("d{}", device.ifindex.unwrap()));
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_number_or_none(text in "(0x)?[0-9a-fx-]{0,20}|\\PC{0,10}") {
            let _ = integer(&text);
        }
    }
}
