//! The threads between the TUN and the underlay.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::{Packet, Tunn, TunnResult};

use super::keys::{PrivateKey, PublicKey};
use super::peers::{Peer, PeerTable, lock};
use super::socket::{MAX_BATCH, MAX_RECEIVE, MAX_SEGMENTS, UnderlaySocket};
use crate::offload::vnet::VNET_HEADER_LEN;
use crate::offload::{Coalescer, Segments, VnetHeader, ip, split};
use crate::tun::{MAX_FRAME, Tun};
use crate::wake::{Stop, Wake};

/// How often timers are looked at; WireGuard's own are in seconds.
const TICK: Duration = Duration::from_millis(100);
/// What a message may be longer than its packet, and the length of the longest handshake message.
const OVERHEAD: usize = 32;
const HANDSHAKE_LEN: usize = 148;
/// Receives of one batch; together they become as few TUN writes as possible.
const RECEIVES_PER_BATCH: usize = 64;

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
    pub(super) identity: RwLock<PrivateKey>,
    pub(super) table: RwLock<Arc<PeerTable>>,
    pub(super) hook: StateHook,
    pub(super) drops: AtomicU64,
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
struct Scratch {
    segments: Segments,
    messages: Vec<u8>,
    lengths: Vec<usize>,
    plaintext: Vec<u8>,
}

impl Scratch {
    fn new() -> Self {
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

    fn drop_packet(&self) {
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
    fn send(&self, peer: &Peer, mut messages: &[u8], mut lengths: &[usize]) {
        let Some(to) = peer.endpoint() else { return };
        let socket = &self.sockets[usize::from(to.is_ipv6())];
        while let Some(&segment) = lengths.first() {
            let most = MAX_SEGMENTS.min(MAX_BATCH / segment).max(1);
            let mut count = lengths.iter().take(most).take_while(|len| **len == segment).count();
            // The last datagram of a batch may be shorter.
            if count < most && lengths.get(count).is_some_and(|len| *len < segment) {
                count += 1;
            }
            let bytes: usize = lengths[..count].iter().sum();
            if socket.send(to, &messages[..bytes], segment).is_err() {
                self.drop_packet();
            }
            peer.sent(count, bytes);
            messages = &messages[bytes..];
            lengths = &lengths[count..];
        }
    }

    pub(super) fn receive_loop(&self, socket: &UnderlaySocket, stop: &Stop) {
        let mut buffer = vec![0; MAX_RECEIVE];
        let mut scratch = Scratch::new();
        let mut coalescer = Coalescer::default();
        while matches!(stop.wait(socket.as_fd(), None), Ok(Wake::Ready | Wake::TimedOut)) {
            let table = self.table();
            for _ in 0..RECEIVES_PER_BATCH {
                let Ok(received) = socket.receive(&mut buffer) else { break };
                for datagram in buffer[..received.len].chunks(received.segment) {
                    self.receive(&table, datagram, received.from, &mut scratch, &mut coalescer);
                }
            }
            coalescer.drain(|write| {
                if self.tun.write(write).is_err() {
                    self.drop_packet();
                }
            });
        }
    }

    fn receive(
        &self,
        table: &PeerTable,
        datagram: &[u8],
        from: SocketAddr,
        scratch: &mut Scratch,
        coalescer: &mut Coalescer,
    ) {
        let peer = match Tunn::parse_incoming_packet(datagram) {
            Ok(Packet::HandshakeInit(initiation)) => {
                let identity = self.identity.read().unwrap_or_else(PoisonError::into_inner).clone();
                let public = identity.public().point();
                parse_handshake_anon(identity.secret(), &public, &initiation)
                    .ok()
                    .and_then(|half| table.by_key(PublicKey(half.peer_static_public)))
            }
            Ok(Packet::HandshakeResponse(response)) => table.by_receiver_index(response.receiver_idx),
            Ok(Packet::PacketCookieReply(reply)) => table.by_receiver_index(reply.receiver_idx),
            Ok(Packet::PacketData(data)) => table.by_receiver_index(data.receiver_idx),
            Err(_) => None,
        };
        let Some(peer) = peer else { return self.drop_packet() };
        let mut tunnel = lock(&peer.tunnel);
        let outcome = tunnel.decapsulate(Some(from.ip()), datagram, &mut scratch.plaintext);
        if matches!(outcome, TunnResult::Err(_)) {
            return self.drop_packet();
        }
        peer.received(datagram.len());
        // Authenticated: the peer is where this came from.
        if peer.endpoint() != Some(from) {
            peer.set_endpoint(Some(from));
        }
        match outcome {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                let source = ip::endpoints(packet).map(|(source, _)| source);
                let owner = source.and_then(|source| table.route(source));
                if owner.is_some_and(|owner| Arc::ptr_eq(owner, peer)) {
                    peer.inner_received(packet.len());
                    coalescer.push(packet);
                } else {
                    self.drop_packet();
                }
            }
            TunnResult::WriteToNetwork(reply) => {
                let len = reply.len();
                scratch.messages[..len].copy_from_slice(reply);
                self.send(peer, &scratch.messages[..len], &[len]);
                self.send_queued(peer, &mut tunnel, scratch);
            }
            _ => {}
        }
        drop(tunnel);
        self.note_handshake(peer, datagram[0]);
    }

    /// Sends what waited for the handshake.
    fn send_queued(&self, peer: &Peer, tunnel: &mut Tunn, scratch: &mut Scratch) {
        while let TunnResult::WriteToNetwork(message) = tunnel.decapsulate(None, &[], &mut scratch.plaintext)
        {
            let len = message.len();
            self.send(peer, message, &[len]);
            // Without a session the library answers with an initiation and queues the packet again.
            if len == HANDSHAKE_LEN && scratch.plaintext[0] == 1 {
                break;
            }
        }
    }

    /// A handshake is complete for the initiator with the response, for the responder with the first data.
    fn note_handshake(&self, peer: &Peer, message_type: u8) {
        let complete = match message_type {
            1 => {
                peer.unconfirmed.store(true, Ordering::Relaxed);
                false
            }
            2 => true,
            4 => peer.unconfirmed.load(Ordering::Relaxed) && peer.unconfirmed.swap(false, Ordering::Relaxed),
            _ => false,
        };
        if complete {
            peer.completed_handshake();
            (self.hook)(peer.id, SessionState::Established);
        }
    }

    pub(super) fn timer_loop(&self, stop: &Stop) {
        let mut buffer = vec![0; 2048];
        while !stop.sleep(TICK) {
            for peer in self.table().iter() {
                let mut tunnel = lock(&peer.tunnel);
                let had_session = tunnel.stats().0.is_some();
                match tunnel.update_timers(&mut buffer) {
                    TunnResult::WriteToNetwork(message) => {
                        let len = message.len();
                        let initiation = message.first() == Some(&1);
                        self.send(peer, message, &[len]);
                        drop(tunnel);
                        if initiation {
                            (self.hook)(peer.id, SessionState::Handshake);
                        }
                    }
                    TunnResult::Err(_) if had_session => {
                        drop(tunnel);
                        (self.hook)(peer.id, SessionState::Expired);
                    }
                    _ => {}
                }
            }
        }
    }
}
