//! Which features of a device are on.

use std::io;

use super::genetlink::{Family, push_nested, word};
use crate::sources::netlink::{attributes, push_attribute};

const STRSET_GET: u8 = 1;
const FEATURES_GET: u8 = 11;
/// `ETH_SS_FEATURES`: names of the bits, which differ from kernel to kernel.
const FEATURE_NAMES: u32 = 4;
/// Attributes down to one name: `STRSET_STRINGSETS`, `STRINGSETS_STRINGSET`, `STRINGSET_STRINGS`, `STRINGS_STRING`,
/// and `STRINGSET_ID` beside the third.
const STRING_SETS: u16 = 2;
const STRING_SET: u16 = 1;
const STRING_SET_ID: u16 = 1;
const STRING_SET_STRINGS: u16 = 3;
const STRINGS_STRING: u16 = 1;
const STRING_INDEX: u16 = 1;
const STRING_VALUE: u16 = 2;
/// `ETHTOOL_A_FEATURES_ACTIVE` and what a bitset of it holds.
const ACTIVE: u16 = 4;
const BITSET_VALUE: u16 = 4;
/// More bits than any kernel has features.
const MOST_BITS: u32 = 1024;

/// Features that decide how fast a node forwards: the kernel's name, and the one that ethtool(8) prints and takes.
const FEATURES: [(&str, &str); 14] = [
    ("rx-checksum", "rx-checksumming"),
    ("rx-gro", "generic-receive-offload"),
    ("rx-gro-hw", "rx-gro-hw"),
    ("rx-gro-list", "rx-gro-list"),
    ("rx-lro", "large-receive-offload"),
    ("rx-udp-gro-forwarding", "rx-udp-gro-forwarding"),
    ("tx-checksum-ip-generic", "tx-checksumming"),
    ("tx-checksum-ipv4", "tx-checksumming"),
    ("tx-checksum-ipv6", "tx-checksumming"),
    ("tx-generic-segmentation", "generic-segmentation-offload"),
    ("tx-scatter-gather", "tx-scatter-gather"),
    ("tx-tcp-segmentation", "tx-tcp-segmentation"),
    ("tx-tcp6-segmentation", "tx-tcp6-segmentation"),
    ("tx-udp-segmentation", "tx-udp-segmentation"),
];

/// Which bits this kernel has for [`FEATURES`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bits(Vec<(u32, &'static str)>);

impl Bits {
    /// Asks the kernel.
    pub(super) fn ask(family: &mut Family) -> io::Result<Self> {
        let (mut id, mut set, mut sets) = (Vec::new(), Vec::new(), Vec::new());
        push_attribute(&mut id, STRING_SET_ID, &FEATURE_NAMES.to_ne_bytes());
        push_nested(&mut set, STRING_SET, &id);
        push_nested(&mut sets, STRING_SETS, &set);
        family.ask(STRSET_GET, &[], &sets, Self::parse)
    }

    fn parse(answer: &[u8]) -> Self {
        let mut bits = Vec::new();
        let inside =
            |body, wanted| attributes(body).filter(move |(kind, _)| *kind == wanted).map(|(_, value)| value);
        let strings = inside(answer, STRING_SETS)
            .flat_map(|sets| inside(sets, STRING_SET))
            .flat_map(|set| inside(set, STRING_SET_STRINGS))
            .flat_map(|strings| inside(strings, STRINGS_STRING));
        for string in strings {
            let (mut index, mut name) = (None, None);
            for (kind, value) in attributes(string) {
                match kind {
                    STRING_INDEX => index = word(value),
                    STRING_VALUE => name = value.split(|byte| *byte == 0).next(),
                    _ => {}
                }
            }
            let known = FEATURES.iter().find(|(kernel, _)| name == Some(kernel.as_bytes()));
            if let (Some(index), Some((_, feature))) = (index.filter(|index| *index < MOST_BITS), known) {
                bits.push((index, *feature));
            }
        }
        bits.sort_by_key(|(index, feature)| (*feature, *index));
        Self(bits)
    }

    /// Features of a device by name; `None` when the device is gone.
    pub(super) fn of_device(
        &self,
        family: &mut Family,
        index: u32,
    ) -> io::Result<Option<Vec<(&'static str, bool)>>> {
        family.ask_device(FEATURES_GET, index, |answer| self.active(answer))
    }

    /// A feature of several bits is on when one of them is: a device needs one way to compute checksums.
    fn active(&self, answer: &[u8]) -> Vec<(&'static str, bool)> {
        let mut features: Vec<(&str, bool)> = Vec::with_capacity(self.0.len());
        let active = attributes(answer).find(|(kind, _)| *kind == ACTIVE);
        let value = active
            .and_then(|(_, bitset)| attributes(bitset).find(|(kind, _)| *kind == BITSET_VALUE))
            .map_or(&[][..], |(_, value)| value);
        for (index, feature) in &self.0 {
            let Some(bits) = value.get(*index as usize / 32 * 4..).and_then(word) else { continue };
            let on = bits >> (index % 32) & 1 != 0;
            match features.last_mut().filter(|(last, _)| last == feature) {
                Some((_, before)) => *before |= on,
                None => features.push((feature, on)),
            }
        }
        features
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strings(names: &[(u32, &str)]) -> Vec<u8> {
        let mut list = Vec::new();
        for (index, name) in names {
            let mut string = Vec::new();
            push_attribute(&mut string, STRING_INDEX, &index.to_ne_bytes());
            push_attribute(&mut string, STRING_VALUE, format!("{name}\0").as_bytes());
            push_nested(&mut list, STRINGS_STRING, &string);
        }
        let (mut set, mut sets, mut answer) = (Vec::new(), Vec::new(), Vec::new());
        push_nested(&mut set, STRING_SET_STRINGS, &list);
        push_nested(&mut sets, STRING_SET, &set);
        push_nested(&mut answer, STRING_SETS, &sets);
        answer
    }

    fn active(words: &[u32]) -> Vec<u8> {
        let value: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let (mut bitset, mut answer) = (Vec::new(), Vec::new());
        push_attribute(&mut bitset, BITSET_VALUE, &value);
        push_nested(&mut answer, ACTIVE, &bitset);
        answer
    }

    /// What kernel 6.18 answered to STRSET_GET, and virtio_net to FEATURES_GET.
    const NAMES: &[u8] = include_bytes!("recordings/names.bin");
    const ACTIVE_OF_A_DEVICE: &[u8] = include_bytes!("recordings/features.bin");

    #[test]
    fn a_recorded_device_has_the_features_that_ethtool_printed() {
        let expected = [
            ("generic-receive-offload", true),
            ("generic-segmentation-offload", true),
            ("large-receive-offload", false),
            ("rx-checksumming", true),
            ("rx-gro-hw", true),
            ("rx-gro-list", false),
            ("rx-udp-gro-forwarding", false),
            ("tx-checksumming", true),
            ("tx-scatter-gather", true),
            ("tx-tcp-segmentation", true),
            ("tx-tcp6-segmentation", true),
            ("tx-udp-segmentation", false),
        ];
        assert_eq!(Bits::parse(NAMES).active(ACTIVE_OF_A_DEVICE), expected);
    }

    #[test]
    fn bits_are_found_by_name_and_a_checksum_of_any_kind_is_one() {
        let names = [
            (0, "tx-scatter-gather"),
            (1, "tx-checksum-ipv4"),
            (3, "tx-checksum-ip-generic"),
            (5, "highdma"),
            (40, "rx-udp-gro-forwarding"),
        ];
        let bits = Bits::parse(&strings(&names));
        let expected =
            [("rx-udp-gro-forwarding", true), ("tx-checksumming", true), ("tx-scatter-gather", false)];
        assert_eq!(bits.active(&active(&[1 << 3, 1 << 8])), expected);
        assert_eq!(bits.active(&active(&[1 << 5, 0]))[1], ("tx-checksumming", false));
        assert_eq!(
            bits.active(&active(&[1]))[1],
            ("tx-scatter-gather", true),
            "a bit that is missing is absent"
        );
        assert_eq!(bits.active(&[]), []);
    }

    #[test]
    fn this_kernel_knows_every_feature() {
        let mut family = Family::open().unwrap();
        let bits = Bits::ask(&mut family).unwrap();
        assert_eq!(bits.0.len(), FEATURES.len());
        assert_eq!(bits.of_device(&mut family, u32::MAX >> 1).unwrap(), None, "there is no such device");
    }

    proptest! {
        #[test]
        fn any_answer_is_features_or_nothing(
            names in prop::collection::vec(any::<u8>(), 0..200),
            bits in prop::collection::vec(any::<u8>(), 0..80),
            index in 0..4000u32,
        ) {
            let _ = Bits::parse(&names);
            let known = Bits::parse(&strings(&[(index, "rx-gro")]));
            let _ = (known.active(&bits), Bits(vec![(index, "rx-gro")]).active(&active(&[1, 2])));
        }
    }
}
