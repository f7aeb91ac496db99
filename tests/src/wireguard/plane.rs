//! What the threads of a data plane share, and the way from the TUN to the underlay.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use boringtun::noise::TunnResult;

use super::keys::Identity;
use super::peers::{Peer, PeerTable, lock};
use super::socket::{MAX_BATCH, MAX_RECEIVE, MAX_SEGMENTS, UnderlaySocket};
use crate::offload::vnet::VNET_HEADER_LEN;
use crate::offload::{Segments, VnetHeader, ip, split};
use crate::tun::{MAX_FRAME, Tun};
use crate::underlay::derp::Outbox;
use crate::underlay::disco::DiscoKey;
use crate::underlay::messages::{GENEVE_LEN, GENEVE_WIREGUARD};
use crate::wake::{Stop, Wake};

/// What a message may be longer than its packet, and the length of the longest handshake message.
const OVERHEAD: usize = 32;
pub(super) const HANDSHAKE_LEN: usize = 148;

/// What happened to the session with a peer, in the words of tailscaled's `PeerWireGuardState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// An initiation was sent.
    Handshake,
    /// Keys are agreed.
    Established,
    /// The keys ran out without new ones.
    Expired,
}

impl SessionState {
    /// The word on the IPN bus.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Established => "established",
            Self::Expired => "expired",
        }
    }
}

/// Told about every change of a session: the peer's node id and the new state.
pub type StateHook = Arc<dyn Fn(u64, SessionState) + Send + Sync>;

/// What the threads share.
pub(super) struct Plane {
    pub(super) tun: Tun,
    pub(super) sockets: [UnderlaySocket; 2],
    pub(super) identity: RwLock<Identity>,
    pub(super) table: RwLock<Arc<PeerTable>>,
    pub(super) hook: StateHook,
    pub(super) drops: AtomicU64,
    /// Addresses of who answers STUN and serves DERP.
    pub(super) hub: Vec<IpAddr>,
    /// What goes to peers through DERP; `None` while no peer is reached that way.
    pub(super) derp: RwLock<Option<Arc<Outbox>>>,
    pub(super) stun_sent: AtomicU64,
    pub(super) stun_received: AtomicU64,
    /// Nanoseconds that every pong is held back, as by a busy tailscaled.
    pub(super) reaction: AtomicU64,
}

/// Multicast and link-local packets never leave a node (`wgengine/filter`).
fn stays_local(to: IpAddr) -> bool {
    to.is_multicast()
        || match to {
            IpAddr::V4(to) => to.is_link_local(),
            IpAddr::V6(to) => to.is_unicast_link_local(),
        }
}

/// Buffers of one thread.
pub(super) struct Scratch {
    segments: Segments,
    pub(super) messages: Vec<u8>,
    lengths: Vec<usize>,
    pub(super) plaintext: Vec<u8>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            segments: Segments::default(),
            messages: vec![0; MAX_RECEIVE],
            lengths: Vec::new(),
            plaintext: vec![0; MAX_RECEIVE],
        }
    }
}

impl Plane {
    pub(super) fn table(&self) -> Arc<PeerTable> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn own(&self) -> Identity {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn disco_key(&self) -> DiscoKey {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).disco
    }

    pub(super) fn drop_packet(&self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn transmit_loop(&self, stop: &Stop) {
        let mut frame = vec![0; MAX_FRAME];
        let mut scratch = Scratch::new();
        loop {
            match self.tun.read(&mut frame) {
                Ok(len) => self.transmit(&frame[..len], &mut scratch),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !matches!(stop.wait(self.tun.as_fd(), None), Ok(Wake::Ready | Wake::TimedOut)) {
                        return;
                    }
                }
                // The device is DOWN: nothing to read until it is UP again.
                Err(_) => {
                    if stop.sleep(Duration::from_millis(2)) {
                        return;
                    }
                }
            }
        }
    }

    /// Encrypts what one read of the TUN brought and sends it.
    fn transmit(&self, frame: &[u8], scratch: &mut Scratch) {
        let table = self.table();
        let Some(header) = VnetHeader::parse(frame) else { return };
        let packet = &frame[VNET_HEADER_LEN..];
        let to = ip::endpoints(packet).map(|(_, to)| to).filter(|to| !stays_local(*to));
        let Some(peer) = to.and_then(|to| table.route(to)) else { return self.drop_packet() };
        scratch.segments.clear();
        if split(header, packet, &mut scratch.segments).is_err() {
            return self.drop_packet();
        }
        peer.inner_sent(scratch.segments.iter());
        let room: usize = scratch.segments.padded().map(|packet| packet.len() + OVERHEAD).sum();
        if scratch.messages.len() < room + HANDSHAKE_LEN {
            scratch.messages.resize(room + HANDSHAKE_LEN, 0);
        }
        scratch.lengths.clear();
        let mut used = 0;
        let mut initiated = false;
        {
            let mut tunnel = lock(&peer.tunnel);
            for packet in scratch.segments.padded() {
                match tunnel.encapsulate(packet, &mut scratch.messages[used..]) {
                    TunnResult::WriteToNetwork(message) => {
                        initiated |= message.first() == Some(&1);
                        used += message.len();
                        scratch.lengths.push(message.len());
                    }
                    TunnResult::Err(_) => self.drop_packet(),
                    // Queued until the handshake is over.
                    _ => {}
                }
            }
        }
        self.send(peer, &scratch.messages[..used], &scratch.lengths);
        if initiated {
            (self.hook)(peer.id, SessionState::Handshake);
        }
    }

    /// Sends messages that lie one after the other, as many at once as have the same length.
    ///
    /// Whether all of them left.
    pub(super) fn send(&self, peer: &Peer, mut messages: &[u8], mut lengths: &[usize]) -> bool {
        let Some(way) = peer.way() else { return false };
        let mut all = true;
        while let Some(&segment) = lengths.first() {
            let most = MAX_SEGMENTS.min(MAX_BATCH / (segment + GENEVE_LEN)).max(1);
            let mut count = lengths.iter().take(most).take_while(|len| **len == segment).count();
            // The last datagram of a batch may be shorter.
            if count < most && lengths.get(count).is_some_and(|len| *len < segment) {
                count += 1;
            }
            let bytes: usize = lengths[..count].iter().sum();
            peer.handshakes.sending(&messages[..bytes]);
            if !self.send_batch(peer, way, GENEVE_WIREGUARD, &messages[..bytes], segment) {
                peer.handshakes.not_sent(&messages[..bytes]);
                self.drop_packet();
                all = false;
            }
            if peer.sent(way, count, bytes) {
                self.heartbeat(peer);
            }
            messages = &messages[bytes..];
            lengths = &lengths[count..];
        }
        all
    }
    /// Starts a new handshake although there may be a session; whether the initiation left.
    pub(super) fn rekey(&self, peer: &Peer) -> bool {
        let mut buffer = [0; HANDSHAKE_LEN];
        let mut tunnel = lock(&peer.tunnel);
        let TunnResult::WriteToNetwork(message) = tunnel.format_handshake_initiation(&mut buffer, true)
        else {
            return false;
        };
        let len = message.len();
        let left = self.send(peer, message, &[len]);
        drop(tunnel);
        (self.hook)(peer.id, SessionState::Handshake);
        left
    }
}
