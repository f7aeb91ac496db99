//! What two objects of different toolchains have in common: the names that the loader looks for.

use std::collections::BTreeSet;

/// Names of the global functions and objects of a 64-bit little-endian ELF file: programs, maps, globals.
/// `None` when it is no such file.
pub(super) fn symbols(object: &[u8]) -> Option<BTreeSet<String>> {
    const SYMBOL_TABLE: u32 = 2;
    const GLOBAL: u8 = 1;
    const HIDDEN: u8 = 2;
    if !object.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (headers, size, count) = (word(object, 40)?, half(object, 58)?, half(object, 60)?);
    let header = |index: usize| object.get(headers + index * size..);
    let mut names = BTreeSet::new();
    for index in 0..count {
        let table = header(index)?;
        if u32::from_le_bytes(table.get(4..8)?.try_into().ok()?) != SYMBOL_TABLE {
            continue;
        }
        let strings = header(u32::from_le_bytes(table.get(40..44)?.try_into().ok()?) as usize)?;
        let strings = object.get(word(strings, 24)?..)?;
        let entries = object.get(word(table, 24)?..)?.get(..word(table, 32)?)?;
        for entry in entries.chunks_exact(24) {
            let (binding, visibility) = (entry[4] >> 4, entry[5] & 3);
            if binding == GLOBAL && visibility != HIDDEN {
                let name = strings.get(u32::from_le_bytes(entry[..4].try_into().ok()?) as usize..)?;
                let end = name.iter().position(|byte| *byte == 0)?;
                names.insert(String::from_utf8_lossy(&name[..end]).into_owned());
            }
        }
    }
    Some(names)
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)).ok()
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_object_has_the_programs() {
        let object = include_bytes!("../../../ebpf/object/tailgauge.bpf.o");
        let names = symbols(object).unwrap();
        for name in ["tunnel_ingress", "tunnel_egress", "COUNTERS", "SLOTS"] {
            assert!(names.contains(name), "{name} in {names:?}");
        }
        assert!(!names.contains("memcpy"));
    }

    #[test]
    fn what_is_cut_off_or_no_object_has_no_names() {
        let object = include_bytes!("../../../ebpf/object/tailgauge.bpf.o");
        assert_eq!(symbols(b"#!/bin/sh"), None);
        assert_eq!(symbols(&object[..object.len() / 2]), None);
    }
}
