//! Labels that many samples share, rendered once.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;

use super::text::label;
use crate::model::Model;
use crate::model::tailnet::Peer;

/// Rendered labels of the peers, by slot, and of the tunnel device.
#[derive(Debug, Default)]
pub(super) struct Labels {
    peers: Vec<Option<Rendered>>,
    device_name: String,
    device: BytesMut,
}

/// Rendered labels of one peer.
#[derive(Debug)]
pub(super) struct Rendered {
    /// What they were made from.
    peer: Arc<Peer>,
    /// `peer_id="…"`.
    pub(super) id: Box<[u8]>,
    /// All labels of `tailgauge_peer_info`.
    pub(super) info: Box<[u8]>,
}

impl Labels {
    /// Follows the model; renders only what changed.
    pub(super) fn refresh(&mut self, model: &Model) {
        if self.device.is_empty() || self.device_name != model.kernel.device {
            self.device_name.clone_from(&model.kernel.device);
            self.device.clear();
            label(&mut self.device, "device", &self.device_name);
        }
        let slots = &model.slots;
        self.peers.resize_with(slots.rows() as usize, || None);
        for (index, entry) in self.peers.iter_mut().enumerate() {
            match (slots.get(index as u32), entry.as_mut()) {
                (None, _) => *entry = None,
                (Some(slot), Some(rendered)) if Arc::ptr_eq(&slot.peer, &rendered.peer) => {}
                (Some(slot), Some(rendered)) if same_labels(&slot.peer, &rendered.peer) => {
                    rendered.peer = Arc::clone(&slot.peer);
                }
                (Some(slot), _) => *entry = Some(Rendered::new(&slot.peer)),
            }
        }
    }

    /// `device="…"`.
    pub(super) fn device(&self) -> &[u8] {
        &self.device
    }

    /// Labels of the peer in a slot.
    #[inline]
    pub(super) fn get(&self, slot: u32) -> Option<&Rendered> {
        self.peers.get(slot as usize).and_then(Option::as_ref)
    }
}

impl Rendered {
    fn new(peer: &Arc<Peer>) -> Self {
        let mut id = BytesMut::new();
        label(&mut id, "peer_id", &peer.id);
        let mut info = id.clone();
        let tags = peer.tags.join(",");
        let [ipv4, ipv6] = [IpAddr::is_ipv4, IpAddr::is_ipv6].map(|family| {
            peer.addresses.iter().find(|a| family(a)).map(IpAddr::to_string).unwrap_or_default()
        });
        for (name, value) in [
            ("peer_name", peer.name.as_str()),
            ("ip", &ipv4),
            ("ipv6", &ipv6),
            ("os", &peer.os),
            ("user", &peer.user),
            ("tags", &tags),
            ("node_key", &peer.node_key),
            ("home_derp", &peer.derp_region),
        ] {
            info.extend_from_slice(b",");
            label(&mut info, name, value);
        }
        Self { peer: Arc::clone(peer), id: Box::from(&id[..]), info: Box::from(&info[..]) }
    }
}

fn same_labels(a: &Peer, b: &Peer) -> bool {
    (&a.id, &a.name, &a.os, &a.user, &a.node_key, &a.tags, &a.addresses, &a.derp_region)
        == (&b.id, &b.name, &b.os, &b.user, &b.node_key, &b.tags, &b.addresses, &b.derp_region)
}
