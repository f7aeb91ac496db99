//! What one node's LocalAPI sees: the control plane's data, its own engine, its own settings.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::Behaviour;
use super::bus::{Bus, Event, mask, notify};
use super::shapes::{self, PeerFacts};
use crate::control::{Control, Machine};
use crate::underlay::messages::GENEVE_LEN;
use crate::wireguard::{Engine, PeerStats, SessionState, StateHook, Traffic, WAY_LABELS};

/// A node's view of the tailnet.
pub struct View {
    id: u64,
    control: Arc<Mutex<Control>>,
    engine: Mutex<Weak<Engine>>,
    behaviour: Mutex<Behaviour>,
    sessions: Mutex<BTreeMap<u64, (SessionState, SystemTime)>>,
    bus: Bus,
}

impl View {
    pub(crate) fn new(id: u64, control: Arc<Mutex<Control>>) -> Self {
        Self {
            id,
            control,
            engine: Mutex::default(),
            behaviour: Mutex::default(),
            sessions: Mutex::default(),
            bus: Bus::default(),
        }
    }

    pub(crate) fn control(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }

    pub(crate) fn set_engine(&self, engine: Option<&Arc<Engine>>) {
        *lock(&self.engine) = engine.map(Arc::downgrade).unwrap_or_default();
        lock(&self.sessions).clear();
    }

    pub(crate) fn set_behaviour(&self, behaviour: Behaviour) {
        *lock(&self.behaviour) = behaviour;
    }

    pub(super) fn behaviour(&self) -> Behaviour {
        lock(&self.behaviour).clone()
    }

    pub(super) fn bus(&self) -> &Bus {
        &self.bus
    }

    pub(super) fn close_bus(&self) {
        self.bus.close();
    }

    /// Tells the IPN bus about sessions.
    pub(crate) fn session_hook(self: &Arc<Self>) -> StateHook {
        let view = Arc::downgrade(self);
        Arc::new(move |peer, state| {
            let Some(view) = view.upgrade() else { return };
            let now = SystemTime::now();
            lock(&view.sessions).insert(peer, (state, now));
            let fields = json!({ "PeerState": { peer.to_string(): session(state, now) } });
            view.bus.publish(&Event { needs: mask::WIREGUARD_STATE, silent: true, fields });
        })
    }

    /// Tells the IPN bus that a machine came or changed.
    pub(crate) fn announce_changed(&self, id: u64) {
        let control = self.control();
        let Some(machine) = control.machines.get(&id) else { return };
        let exit_node = control.exit_node_of.get(&id).copied();
        if id == self.id {
            let fields = json!({ "SelfChange": shapes::node(machine, exit_node, true) });
            drop(control);
            return self.bus.publish(&Event { needs: 0, silent: false, fields });
        }
        let fields = json!({ "PeersChanged": [shapes::node(machine, exit_node, false)] });
        drop(control);
        self.bus.publish(&Event { needs: mask::PEER_CHANGES, silent: false, fields });
    }

    /// Tells the IPN bus that a machine went online or offline.
    pub(crate) fn announce_online(&self, id: u64, online: bool) {
        let fields = json!({ "PeerChangedPatch": [{ "NodeID": id, "Online": online }] });
        let needs = mask::PEER_CHANGES | mask::PEER_PATCHES;
        self.bus.publish(&Event { needs, silent: false, fields });
    }

    /// Tells the IPN bus that a machine left the tailnet.
    pub(crate) fn announce_removed(&self, id: u64) {
        let fields = json!({ "PeersRemoved": [id] });
        self.bus.publish(&Event { needs: mask::PEER_CHANGES, silent: false, fields });
    }

    pub(super) fn first_notify(&self, wanted: u64) -> Value {
        let mut fields = Map::new();
        fields.insert("SessionID".to_owned(), json!(format!("{:016x}", rand::random::<u64>())));
        let mut on = |bit: u64, name: &str, value: &dyn Fn() -> Value| {
            if wanted & bit != 0 {
                fields.insert(name.to_owned(), value());
            }
        };
        on(mask::INITIAL_STATE, "State", &|| json!(6));
        on(mask::INITIAL_PREFS, "Prefs", &|| self.prefs());
        on(mask::INITIAL_NET_MAP, "SelfChange", &|| self.own_node());
        on(mask::INITIAL_NET_MAP, "NetMap", &|| self.network_map());
        on(mask::INITIAL_HEALTH, "Health", &|| json!({ "Warnings": null }));
        on(mask::INITIAL_STATUS, "InitialStatus", &|| self.status(true));
        on(mask::WIREGUARD_STATE, "PeerState", &|| {
            let sessions = lock(&self.sessions);
            sessions.iter().map(|(peer, (state, at))| (peer.to_string(), session(*state, *at))).collect()
        });
        notify(Value::Object(fields))
    }

    pub(super) fn status(&self, with_peers: bool) -> Value {
        let control = self.control();
        let Some(own) = control.machines.get(&self.id) else { return Value::Null };
        let exit_node = control.exit_node_of.get(&self.id);
        let peers: Map<String, Value> = control
            .peers_of(self.id)
            .map(|peer| {
                let facts =
                    PeerFacts { stats: self.stats(peer.id), is_exit_node: exit_node == Some(&peer.id) };
                (peer.key.public().to_string(), shapes::peer_status(peer, facts))
            })
            .collect();
        let peers = if with_peers && !peers.is_empty() { Value::Object(peers) } else { Value::Null };
        shapes::status(own, exit_node.and_then(|id| control.machines.get(id)), &peers)
    }

    pub(super) fn prefs(&self) -> Value {
        let control = self.control();
        let exit_node = control.exit_node_of.get(&self.id).copied();
        control.machines.get(&self.id).map_or(Value::Null, |own| shapes::prefs(own, exit_node))
    }

    fn own_node(&self) -> Value {
        let control = self.control();
        let exit_node = control.exit_node_of.get(&self.id).copied();
        control.machines.get(&self.id).map_or(Value::Null, |own| shapes::node(own, exit_node, true))
    }

    fn network_map(&self) -> Value {
        let control = self.control();
        let exit_of = |id: u64| control.exit_node_of.get(&id).copied();
        let peers: Vec<Value> =
            control.peers_of(self.id).map(|peer| shapes::node(peer, exit_of(peer.id), false)).collect();
        let own = control.machines.get(&self.id);
        own.map_or(Value::Null, |own| shapes::network_map(own, exit_of(self.id), &peers))
    }

    /// By address, or by node key in text.
    pub(super) fn whois(&self, ip: Option<IpAddr>, key: &str) -> Option<Value> {
        let control = self.control();
        let found = control.machines.values().find(|machine| {
            ip.map_or_else(|| machine.key.public().to_string() == key, |ip| machine.ips().contains(&ip))
        })?;
        Some(shapes::whois(found, control.exit_node_of.get(&found.id).copied()))
    }

    /// `ipn.EngineStatus`.
    pub(super) fn engine_status(&self) -> Value {
        let control = self.control();
        let mut live = Map::new();
        let (mut received, mut sent) = (0, 0);
        for peer in control.peers_of(self.id) {
            let Some(stats) = self.stats(peer.id).filter(|stats| stats.last_handshake.is_some()) else {
                continue;
            };
            received += stats.rx_bytes;
            sent += stats.tx_bytes;
            let key = peer.key.public().to_string();
            let entry = json!({
                "NodeKey": key,
                "TxBytes": stats.tx_bytes,
                "RxBytes": stats.rx_bytes,
                "LastHandshake": shapes::time(stats.last_handshake),
            });
            live.insert(key, entry);
        }
        json!({ "RBytes": received, "WBytes": sent, "NumLive": live.len(), "LiveDERPs": 1, "LivePeers": live })
    }

    /// tailscaled's labels of paths, each with its traffic; a relay's header counts.
    pub(super) fn traffic_by_path(&self) -> [(&'static str, Traffic); 5] {
        let mut totals = WAY_LABELS.map(|label| (label, Traffic::default()));
        let control = self.control();
        for stats in control.peers_of(self.id).filter_map(|peer| self.stats(peer.id)) {
            for ((label, total), way) in totals.iter_mut().zip(stats.by_way) {
                let header = if label.starts_with("peer_relay") { GENEVE_LEN as u64 } else { 0 };
                total.rx_packets += way.rx_packets;
                total.rx_bytes += way.rx_bytes + way.rx_packets * header;
                total.tx_packets += way.tx_packets;
                total.tx_bytes += way.tx_bytes + way.tx_packets * header;
            }
        }
        totals
    }

    /// Routes advertised and approved, which are the same here; /0 counts as in tailscaled.
    pub(super) fn route_counts(&self) -> [u64; 2] {
        let count = self.control().machines.get(&self.id).map_or(0, |own: &Machine| own.routes.len());
        [count as u64; 2]
    }

    pub(super) fn drops(&self) -> u64 {
        lock(&self.engine).upgrade().map_or(0, |engine| engine.drops())
    }

    fn stats(&self, peer: u64) -> Option<PeerStats> {
        lock(&self.engine).upgrade()?.peer_stats(peer)
    }
}

fn session(state: SessionState, at: SystemTime) -> Value {
    json!({ "PeerWireGuardState": state.as_str(), "PeerWireGuardStateAt": shapes::time(Some(at)) })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
