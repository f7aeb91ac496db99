//! Which network device has which interrupts: by sysfs where its bus has message-signalled ones (PCI, and virtio on
//! PCI), else by its name in the name that the driver gave.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::table::Table;
use crate::sources::clean;
use crate::sources::host::proc_file::number;

/// Devices that get series, one for each CPU.
const MOST_DEVICES: usize = 16;
/// Devices that are looked at: a host of containers may have thousands.
const MOST_NAMES: usize = 1024;
/// Messages of one device (PCI Express allows 2,048).
const MOST_MESSAGES: usize = 2048;

/// Devices by name, with the numbers of their interrupts. A number that two devices share is the first one's.
pub(super) fn list(class: &Path, table: &Table<'_>) -> Vec<(String, Vec<u32>)> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten().take(MOST_NAMES);
    let names: BTreeSet<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let mut found = Vec::new();
    let mut taken = BTreeSet::new();
    for name in names {
        let device = class.join(&name).join("device");
        // Bridges, tunnels and the like are no hardware.
        if !device.exists() {
            continue;
        }
        let mut numbers = messages(&device);
        if numbers.is_empty() {
            numbers = named(&name, table);
        }
        numbers.retain(|number| taken.insert(*number));
        let name = clean::label(&name, "unknown");
        // Two names can be the same once they are cleaned, and two series must not.
        if !numbers.is_empty() && found.iter().all(|(other, _)| *other != name) {
            found.push((name, numbers));
        }
        if found.len() == MOST_DEVICES {
            break;
        }
    }
    found
}

/// Message-signalled interrupts of a device, or of the PCI device that a virtio device is a part of.
fn messages(device: &Path) -> Vec<u32> {
    let bus = fs::read_link(device.join("subsystem")).unwrap_or_default();
    let device = if bus.ends_with("virtio") { device.join("..") } else { device.to_owned() };
    let entries = fs::read_dir(device.join("msi_irqs")).into_iter().flatten().flatten().take(MOST_MESSAGES);
    entries.filter_map(|entry| number(entry.file_name().to_str())).collect()
}

/// Interrupts whose name has the device's name in it: `eth0`, `eth0-TxRx-0`, `i40e-eth0-TxRx-0`.
fn named(device: &str, table: &Table<'_>) -> Vec<u32> {
    let rows = table.rows();
    let rows = rows.filter(|row| row.names(table.cpus.len()).any(|name| has_word(name, device)));
    rows.map(|row| row.number).take(MOST_MESSAGES).collect()
}

fn has_word(text: &str, word: &str) -> bool {
    let part = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !part(before.chars().next_back()) && !part(after.chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word_of_its_own() {
        for (text, expected) in [
            ("eth1", true),
            ("eth1-TxRx-0", true),
            ("i40e-eth1-TxRx-3", true),
            ("eth1,", true),
            ("eth11", false),
            ("veth1", false),
            ("eth11-eth1", true),
            ("", false),
        ] {
            assert_eq!(has_word(text, "eth1"), expected, "{text}");
        }
    }

    #[test]
    fn a_host_without_devices_has_none() {
        let root = tempfile::tempdir().unwrap();
        let table = Table::parse("CPU0\n 1: 5 eth0\n").unwrap();
        assert!(list(&root.path().join("none"), &table).is_empty());
    }
}
