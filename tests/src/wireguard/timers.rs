//! What a data plane does by the clock.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use boringtun::noise::TunnResult;

use super::peers::{Peer, lock};
use super::plane::{Plane, SessionState};
use crate::underlay::{messages, stun};
use crate::wake::Stop;

/// How often timers are looked at; WireGuard's own are in seconds.
const TICK: Duration = Duration::from_millis(100);
/// A node asks where it is seen from so often: `periodicReSTUNTimer` (`wgengine/magicsock`), 20 to 26 s.
const STUN_PERIOD: Duration = Duration::from_secs(20);

impl Plane {
    pub(super) fn timer_loop(&self, stop: &Stop) {
        let mut buffer = vec![0; 2048];
        let mut next_stun = Instant::now();
        loop {
            if Instant::now() >= next_stun {
                next_stun += STUN_PERIOD;
                self.ask_stun();
            }
            if stop.sleep(TICK) {
                return;
            }
            for peer in self.table().iter() {
                self.wireguard_timers(peer, &mut buffer);
                if peer.is_active() {
                    self.heartbeat(peer);
                }
            }
        }
    }

    fn wireguard_timers(&self, peer: &Peer, buffer: &mut [u8]) {
        let mut tunnel = lock(&peer.tunnel);
        let had_session = tunnel.stats().0.is_some();
        match tunnel.update_timers(buffer) {
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

    /// Asks over every address family that the node has.
    fn ask_stun(&self) {
        for server in &self.hub {
            let request = messages::stun_request(rand::random());
            let socket = &self.sockets[usize::from(server.is_ipv6())];
            if socket.send(SocketAddr::new(*server, stun::PORT), &request, request.len()).is_ok() {
                self.stun_sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
