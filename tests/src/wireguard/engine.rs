//! A running data plane: its start, its configuration, its end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::PORT;
use super::disco::DiscoTruth;
use super::handshakes::HandshakeTruth;
use super::keys::Identity;
use super::paths::Path;
use super::peers::{PeerConfig, PeerStats, PeerTable, lock};
use super::plane::{Plane, Scratch, StateHook};
use super::socket::UnderlaySocket;
use crate::netns::{Namespace, NamespaceError};
use crate::offload::Coalescer;
use crate::tun::Tun;
use crate::underlay::derp::{self, DerpClient};
use crate::wake::{Stop, Threads, be_prompt};

/// Why an engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The namespace was not to be had.
    #[error("WireGuard engine")]
    Namespace(#[from] NamespaceError),
    /// The underlay socket.
    #[error("WireGuard engine: cannot open UDP port {PORT}")]
    Socket(#[source] io::Error),
    /// The connection to DERP.
    #[error("WireGuard engine: cannot open a socket for DERP")]
    Derp(#[source] io::Error),
    /// A thread.
    #[error("WireGuard engine: cannot start a thread")]
    Thread(#[source] io::Error),
}

/// A running data plane; dropped, its TUN and sockets are closed.
pub struct Engine {
    // Joined before the plane goes, because fields drop in order.
    _threads: Threads,
    derp: Mutex<Option<DerpClient>>,
    plane: Arc<Plane>,
    id: u64,
    namespace: Arc<Namespace>,
}

impl Engine {
    /// Opens the underlay sockets in the namespace and starts moving packets.
    pub fn start(
        id: u64,
        namespace: &Arc<Namespace>,
        tun: Tun,
        identity: Identity,
        peers: &[PeerConfig],
        hub: Vec<IpAddr>,
        hook: StateHook,
    ) -> Result<Self, EngineError> {
        let sockets = namespace
            .run(|| Ok([UnderlaySocket::bind(PORT, false)?, UnderlaySocket::bind(PORT, true)?]))?
            .map_err(EngineError::Socket)?;
        let table = PeerTable::new(&identity.key, peers, &PeerTable::default());
        let plane = Arc::new(Plane {
            tun,
            sockets,
            identity: RwLock::new(identity),
            table: RwLock::new(Arc::new(table)),
            hook,
            drops: AtomicU64::new(0),
            hub,
            derp: RwLock::new(None),
            stun_sent: AtomicU64::new(0),
            stun_received: AtomicU64::new(0),
            reaction: AtomicU64::new(0),
        });
        let mut threads = Threads::new().map_err(EngineError::Thread)?;
        let mut spawn = |name: &str, work: fn(&Plane, &Stop)| {
            let plane = Arc::clone(&plane);
            let run = move |stop: &Stop| {
                be_prompt();
                work(&plane, stop);
            };
            threads.spawn(name, run).map_err(EngineError::Thread)
        };
        spawn("wg-tun", Plane::transmit_loop)?;
        spawn("wg-udp4", |plane, stop| plane.receive_loop(&plane.sockets[0], stop))?;
        spawn("wg-udp6", |plane, stop| plane.receive_loop(&plane.sockets[1], stop))?;
        spawn("wg-timers", Plane::timer_loop)?;
        let derp = Mutex::new(None);
        let engine = Self { _threads: threads, derp, plane, id, namespace: Arc::clone(namespace) };
        if peers.iter().any(|peer| peer.path == Path::Derp) {
            engine.connect_derp()?;
        }
        Ok(engine)
    }

    /// Connects to DERP, for good; nothing happens when it is connected or connecting, or when there is no hub.
    ///
    /// A real tailscaled always has this connection. Here it is made when a peer is reached that way for the first time.
    pub fn connect_derp(&self) -> Result<(), EngineError> {
        let mut derp = lock(&self.derp);
        let Some(server) = self.plane.hub.first().filter(|_| derp.as_ref().is_none_or(DerpClient::is_over))
        else {
            return Ok(());
        };
        let server = SocketAddr::new(*server, derp::PORT);
        let plane = Arc::clone(&self.plane);
        let mut batch = (Scratch::new(), Coalescer::default());
        let receive = move |_, message: &[u8], more: bool| plane.receive_derp(message, more, &mut batch);
        let client =
            self.namespace.run(|| DerpClient::start(server, self.id, receive))?.map_err(EngineError::Derp)?;
        *self.plane.derp.write().unwrap_or_else(PoisonError::into_inner) = Some(client.outbox());
        *derp = Some(client);
        Ok(())
    }

    /// Takes over what the control plane says now. A new node key ends all sessions; `None` keeps the old identity.
    pub fn configure(&self, identity: Option<&Identity>, peers: &[PeerConfig]) {
        let mut own = self.plane.identity.write().unwrap_or_else(PoisonError::into_inner);
        let mut table = self.plane.table.write().unwrap_or_else(PoisonError::into_inner);
        let mut kept = Arc::clone(&table);
        if let Some(identity) = identity {
            if identity.key.public() != own.key.public() {
                kept = Arc::default();
            }
            own.clone_from(identity);
        }
        *table = Arc::new(PeerTable::new(&own.key, peers, &kept));
    }

    /// What is known about a peer; `None` for one that the engine does not have.
    #[must_use]
    pub fn peer_stats(&self, id: u64) -> Option<PeerStats> {
        self.plane.table().by_id(id).map(|peer| peer.stats())
    }

    /// The disco messages with a peer; `None` for one that the engine does not have.
    #[must_use]
    pub fn disco(&self, id: u64) -> Option<DiscoTruth> {
        self.plane.table().by_id(id).map(|peer| peer.disco.truth())
    }

    /// The handshakes with a peer; `None` for one that the engine does not have.
    #[must_use]
    pub fn handshakes(&self, id: u64) -> Option<HandshakeTruth> {
        self.plane.table().by_id(id).map(|peer| peer.handshakes.truth())
    }

    /// Starts a new handshake with a peer, as WireGuard does every 120 s; whether the initiation left.
    pub fn rekey(&self, id: u64) -> bool {
        self.plane.table().by_id(id).is_some_and(|peer| self.plane.rekey(peer))
    }

    /// STUN requests sent and answers received.
    #[must_use]
    pub fn stun(&self) -> (u64, u64) {
        (self.plane.stun_sent.load(Ordering::Relaxed), self.plane.stun_received.load(Ordering::Relaxed))
    }

    /// Holds back every pong, and all that is received after the ping, for so long: a tailscaled that is busy.
    pub fn set_reaction(&self, time: Duration) {
        self.plane.reaction.store(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Packets that were thrown away: no peer for them, from an address the sender may not use, not decryptable, or too
    /// many for DERP.
    #[must_use]
    pub fn drops(&self) -> u64 {
        let derp = self.plane.derp.read().unwrap_or_else(PoisonError::into_inner);
        self.plane.drops.load(Ordering::Relaxed) + derp.as_ref().map_or(0, |outbox| outbox.lost())
    }
}
