//! From the underlay to the TUN.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::{Packet, Tunn, TunnResult};

use super::keys::PublicKey;
use super::paths::Way;
use super::peers::{Peer, PeerTable, lock};
use super::plane::{HANDSHAKE_LEN, Plane, Scratch, SessionState};
use super::socket::{MAX_RECEIVE, UnderlaySocket};
use crate::offload::{Coalescer, ip};
use crate::underlay::disco::Disco;
use crate::underlay::messages::{is_stun, unwrap_geneve};
use crate::wake::{Stop, Wake};

/// Receives of one batch; together they become as few TUN writes as possible.
const RECEIVES_PER_BATCH: usize = 64;

/// Where a datagram came from, and when it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) way: Way,
    pub(super) since: Instant,
}

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
                    let (way, datagram) = match unwrap_geneve(datagram) {
                        Some((_, network, message)) => (Way::PeerRelay(received.from, network), message),
                        None => (Way::Direct(received.from), datagram),
                    };
                    let arrival = Arrival { way, since };
                    if let Some(message) = Disco::parse(datagram) {
                        self.receive_disco(&table, message, arrival);
                    } else if is_stun(datagram) {
                        self.stun_received.fetch_add(1, Ordering::Relaxed);
                    } else {
                        self.receive(&table, datagram, arrival, &mut scratch, &mut coalescer);
                    }
                }
            }
            self.write(&mut coalescer);
        }
    }

    /// Takes what came through DERP: one message at a time, written to the TUN when no `more` have come already.
    pub(super) fn receive_derp(&self, message: &[u8], more: bool, batch: &mut (Scratch, Coalescer)) {
        let arrival = Arrival { way: Way::Derp, since: Instant::now() };
        self.receive(&self.table(), message, arrival, &mut batch.0, &mut batch.1);
        if !more {
            self.write(&mut batch.1);
        }
    }

    fn write(&self, coalescer: &mut Coalescer) {
        coalescer.drain(|write| {
            if self.tun.write(write).is_err() {
                self.drop_packet();
            }
        });
    }

    fn receive(
        &self,
        table: &PeerTable,
        datagram: &[u8],
        arrival: Arrival,
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
        let outcome =
            tunnel.decapsulate(arrival.way.address().map(|from| from.ip()), datagram, &mut scratch.plaintext);
        if matches!(outcome, TunnResult::Err(_)) {
            return self.drop_packet();
        }
        peer.received(arrival.way, datagram.len());
        let completes = peer.handshakes.read(datagram, arrival.since);
        // Authenticated: the peer is where this came from.
        if let Way::Direct(from) = arrival.way
            && peer.endpoint() != Some(from)
        {
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
        if completes {
            peer.completed_handshake();
            (self.hook)(peer.id, SessionState::Established);
        }
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
}
