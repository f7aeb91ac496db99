//! Looks through a linked list of the kernel.

use super::repeat;
use crate::programs::{
    forget::forgotten,
    peek::{follow, peek},
};

/// A list, and what is looked for in it.
pub(super) struct List {
    /// Node that comes next: the first one, at the beginning.
    pub(super) node: u64,
    /// What follows the last node, besides nothing at all.
    pub(super) end: u64,
    /// Where the node is in an entry.
    pub(super) node_at: u32,
    /// Where the number is by which an entry is known, 32 bits.
    pub(super) number_at: u32,
    /// The number that is looked for.
    pub(super) number: u32,
}

struct Search {
    list: List,
    found: u64,
}

/// The first entry with the number, among so many; 0 when there is none.
#[inline(always)]
pub(super) fn search(list: List, most: u32) -> u64 {
    let mut search = Search { list, found: forgotten(0) };
    repeat(most, entry, &mut search);
    search.found
}

unsafe extern "C" fn entry(_: u32, search: *mut Search) -> i64 {
    // SAFETY: what `search` passed.
    let Search { list, found } = unsafe { &mut *search };
    if list.node == list.end || list.node == 0 {
        return 1;
    }
    let entry = list.node - u64::from(list.node_at);
    if peek(entry, list.number_at) == Some(list.number) {
        *found = entry;
        return 1;
    }
    list.node = follow(list.node, 0);
    0
}
