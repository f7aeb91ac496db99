//! What tests of keys share.

use std::sync::Arc;
use std::time::Instant;

use super::sizes::Sizes;
use crate::model::slots::SlotTable;
use crate::model::tailnet::{Peer, Tailnet};

/// Sizes for 100 peers on two CPUs.
pub(super) fn sizes() -> Sizes {
    Sizes::new(100, 2).unwrap()
}

/// A tailnet of these peers.
pub(super) fn tailnet(peers: Vec<Peer>) -> Tailnet {
    Tailnet { peers: peers.into_iter().map(Arc::new).collect(), ..Tailnet::default() }
}

/// Slots for its peers, so many.
pub(super) fn slots(tailnet: &Tailnet, capacity: u32) -> SlotTable {
    let mut slots = SlotTable::new(capacity);
    slots.update(&tailnet.peers, Instant::now());
    slots
}
