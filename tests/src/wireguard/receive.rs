//! From the underlay to the TUN.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::{Packet, Tunn, TunnResult};

use super::keys::PublicKey;
use super::peers::{Peer, PeerTable, lock};
use super::plane::{HANDSHAKE_LEN, Plane, Scratch, SessionState};
use super::socket::{MAX_RECEIVE, UnderlaySocket};
use crate::offload::{Coalescer, ip};
use crate::underlay::disco::Disco;
use crate::underlay::messages;
use crate::wake::{Stop, Wake};

/// Receives of one batch; together they become as few TUN writes as possible.
const RECEIVES_PER_BATCH: usize = 64;

impl Plane {
    pub(super) fn receive_loop(&self, socket: &UnderlaySocket, stop: &Stop) {
        let mut buffer = vec![0; MAX_RECEIVE];
        let mut scratch = Scratch::new();
        let mut coalescer = Coalescer::default();
        while matches!(stop.wait(socket.as_fd(), None), Ok(Wake::Ready | Wake::TimedOut)) {
            let table = self.table();
            for _ in 0..RECEIVES_PER_BATCH {
                let Ok(received) = socket.receive(&mut buffer) else { break };
                let since = Instant::now();
                for datagram in buffer[..received.len].chunks(received.segment) {
                    if let Some(message) = Disco::parse(datagram) {
                        self.receive_disco(&table, message, received.from, since);
                    } else if messages::is_stun(datagram) {
                        self.stun_received.fetch_add(1, Ordering::Relaxed);
                    } else {
                        self.receive(&table, datagram, received.from, &mut scratch, &mut coalescer);
                    }
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
                let own = self.own().key;
                let public = own.public().point();
                parse_handshake_anon(own.secret(), &public, &initiation)
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
}
