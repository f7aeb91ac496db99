//! BTF of the running kernel, and of nobody.

use proptest::prelude::*;

use super::*;
use crate::sources::kernel::description::{self, Description};

impl ReadAt for Vec<u8> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// A description with these types, as bytes, and these strings.
fn description(types: &[u8], strings: &[&str]) -> Vec<u8> {
    let strings: Vec<u8> = strings.iter().flat_map(|string| [string.as_bytes(), &[0]].concat()).collect();
    let mut bytes = MAGIC.to_ne_bytes().to_vec();
    bytes.extend([1, 0]);
    let length = types.len() as u32;
    for word in [HEADER_BYTES as u32, 0, length, length, strings.len() as u32] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(types);
    bytes.extend(strings);
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn members_are_found_within_anonymous_unions_and_behind_qualifiers() {
    let types = words(&[
        // 1: struct "outer" (string 1) of 2 members, packed: "flag" (13), a bit field; an anonymous one at byte 8.
        1,
        1 << 31 | kind::STRUCT << 24 | 2,
        24,
        13,
        3,
        1 << 24 | 5,
        0,
        2,
        64, //
        // 2: const of 4.
        0,
        10 << 24,
        4, //
        // 3: int.
        0,
        1 << 24,
        4,
        32, //
        // 4: union of 1 member, an anonymous 5 at byte 0.
        0,
        kind::UNION << 24 | 1,
        16,
        0,
        5,
        0, //
        // 5: struct with "other" (18) at 0 and "inner" (7) at byte 4.
        0,
        kind::STRUCT << 24 | 2,
        16,
        18,
        3,
        0,
        7,
        3,
        32,
    ]);
    let bytes = description(&types, &["", "outer", "inner", "flag", "other"]);
    let mut btf = Btf::open(bytes).unwrap();
    let numbers = btf.strings(&["outer", "inner", "flag", "absent"]).unwrap();
    assert_eq!(numbers, [Some(1), Some(7), Some(13), None]);
    let found =
        btf.find(&[(Wanted::Struct, Some(1)), (Wanted::Enum, Some(1)), (Wanted::Struct, None)]).unwrap();
    assert!(found[1].is_none() && found[2].is_none());
    let found = found[0].unwrap();
    assert_eq!(found.bytes(), 24);
    assert_eq!(btf.path(&found, &[7]).unwrap(), Some(12));
    assert_eq!(btf.path(&found, &[13]).unwrap(), None, "a bit field has no byte of its own");
    assert_eq!(btf.path(&found, &[99]).unwrap(), None);
    assert_eq!(btf.path(&found, &[7, 7]).unwrap(), None, "a number has no members");
}

#[test]
fn a_structure_that_contains_itself_ends() {
    let types = words(&[1, kind::STRUCT << 24 | 1, 8, 0, 1, 0]);
    let mut btf = Btf::open(description(&types, &["", "loop"])).unwrap();
    let found = btf.find(&[(Wanted::Struct, Some(1))]).unwrap();
    assert_eq!(btf.path(&found[0].unwrap(), &[77]).unwrap(), None);
    let types = words(&[1, kind::TYPEDEF << 24, 1]);
    let mut btf = Btf::open(description(&types, &["", "loop"])).unwrap();
    let found = btf.find(&[(Wanted::Typedef, Some(1))]).unwrap();
    assert_eq!(btf.parameters(&found[0].unwrap()).unwrap(), None);
}

#[test]
fn types_of_this_kernel_are_read() {
    let members = [
        ("sk_buff", "dev"),
        ("sk_buff", "sk"),
        ("list_head", "next"),
        ("list_head", "prev"),
        ("task_struct", "se.run_node"),
        ("task_struct", "se"),
        ("sched_entity", "run_node"),
        ("sk_buff", "absent"),
    ];
    let others = [(Wanted::Enum, "skb_drop_reason")];
    if description::is_absent() {
        return;
    }
    let mut kernel = Description::of_this_kernel(&members, &others).unwrap();
    let mut offset = |place: usize| kernel.offset(members[place]).map_err(|error| error.to_string());
    let word = size_of::<usize>() as u32;
    // Where they have been since 4.16 (include/linux/skbuff.h, include/linux/types.h).
    assert_eq!([0, 1, 2, 3].map(&mut offset), [Ok(2 * word), Ok(3 * word), Ok(0), Ok(word)]);
    let [inner, outer, rest] = [4, 5, 6].map(|place| offset(place).unwrap());
    assert_eq!(inner, outer + rest, "a member of a member");
    let missing = offset(7).unwrap_err();
    assert!(missing.contains("no sk_buff.absent"), "{missing}");
    if let Ok(values) = kernel.values("skb_drop_reason", 100) {
        assert!(values.contains(&("SKB_NOT_DROPPED_YET".to_owned(), 0)), "{values:?}");
        assert_eq!(kernel.value("skb_drop_reason", "SKB_NOT_DROPPED_YET").unwrap(), 0);
    }
    assert!(kernel.bytes("sk_buff").unwrap() > 3 * word);
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer_or_an_error(
        types in prop::collection::vec(any::<u32>(), 0..200),
        kinds in prop::collection::vec(0u32..20, 1..40),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert!(Btf::open(bytes).is_err());
        // Plausible headers, random contents.
        let mut sane = types;
        for (place, kind) in kinds.iter().enumerate() {
            if let Some(info) = sane.get_mut(place * 3 + 1) {
                *info = kind << 24 | *info & 0x8000_0003;
            }
        }
        let mut btf = Btf::open(description(&words(&sane), &["", "a", "b"])).unwrap();
        if let Ok(found) = btf.find(&[(Wanted::Struct, Some(1)), (Wanted::Enum, Some(1)), (Wanted::Typedef, Some(1))]) {
            for found in found.iter().flatten() {
                let _ = btf.path(found, &[3, 1]);
                let _ = btf.values(found, 10);
                let _ = btf.parameters(found);
            }
        }
    }
}
