//! Who is in the tailnet: `/status` replaces the whole, the bus changes parts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::api::{EngineStatus, Map, NetworkMap, Notify, PeerChange, PeerState, Prefs};
use super::convert::{
    Member, Report, Users, advertised_routes, count, from_node, moment, network, owner, parsed, users,
    wireguard_session,
};
use super::reach;
use crate::model::tailnet::{Path, Peer, Tailnet, WireGuardState};
use crate::sources::clean;

/// `ipn.State` by number (ipn/backend.go).
const STATES: [&str; 7] =
    ["NoState", "InUseOtherUser", "NeedsLogin", "NeedsMachineAuth", "Stopped", "Starting", "Running"];

/// DERP instead of another path is believed when `/status` still says so after this time. It says DERP whenever it
/// names no address, and it names none until a pong confirms the one of before (`addrForSendLocked` in
/// wgengine/magicsock/endpoint.go): for a round trip when traffic begins again after a rest, and from one heartbeat
/// to the next, 3 s, when pongs were late (2.7 s seen on tailscaled 1.102.3).
pub(super) const DOUBT: Duration = Duration::from_millis(3_500);

/// The last known state, and whether anybody was told.
#[derive(Debug, Default)]
pub(super) struct Table {
    tailnet: Tailnet,
    own: Option<Member>,
    peers: BTreeMap<String, Member>,
    by_node_id: HashMap<i64, String>,
    by_key: HashMap<String, String>,
    users: Users,
    /// Routes in this node's preferences, approved or not.
    advertised: Vec<IpNet>,
    /// Peers that are said to be on DERP, not believed yet, and since when.
    doubted: HashMap<String, Instant>,
    /// The last home DERP region of this node that was said.
    home_derp: String,
    changed: bool,
}

impl Table {
    /// The tailnet, if something changed since the last call.
    pub(super) fn take_changed(&mut self) -> Option<Arc<Tailnet>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        Some(Arc::new(Tailnet {
            own: self.own.as_ref().map(|member| Arc::clone(&member.peer)),
            own_routes: self.own_routes(),
            peers: self.peers.values().map(|member| Arc::clone(&member.peer)).collect(),
            ..self.tailnet.clone()
        }))
    }

    /// Notes whether tailscaled answers.
    pub(super) fn set_up(&mut self, up: bool) {
        set(&mut self.tailnet.up, up, &mut self.changed);
        let asked = self.tailnet.paths_asked.filter(|_| up);
        set(&mut self.tailnet.paths_asked, asked, &mut self.changed);
    }

    /// Approved routes as the control plane says them, and those that the node offers: headscale tells a node its
    /// own approvals late or never. A route that is offered but not approved does no harm, as nobody is routed here.
    fn own_routes(&self) -> Vec<IpNet> {
        let approved = self.own.iter().flat_map(|own| &own.routes);
        let all: BTreeSet<IpNet> = approved.chain(&self.advertised).copied().collect();
        all.into_iter().collect()
    }

    /// Takes over this node's preferences.
    pub(super) fn apply_prefs(&mut self, prefs: &Prefs) {
        let own = self.own.as_ref().map(|own| own.peer.addresses.as_slice()).unwrap_or_default();
        let routes = advertised_routes(parsed(&prefs.advertise_routes, network), own);
        set(&mut self.advertised, routes, &mut self.changed);
        // 0 lets tailscaled pick the port, and it tells nobody which.
        let port = prefs.relay_server_port.and_then(|port| u16::try_from(port).ok());
        set(&mut self.tailnet.relay_port, port.filter(|port| *port != 0), &mut self.changed);
    }

    /// True when the path of some peer is to be asked for again after [`DOUBT`].
    pub(super) fn in_doubt(&self) -> bool {
        !self.doubted.is_empty()
    }

    /// Takes over everything that `/status` said when it was asked. While tailscaled starts and knows nobody yet, the
    /// last known peers stay.
    pub(super) fn apply_status(&mut self, report: Report, asked: Instant) {
        set(&mut self.tailnet.backend_state, report.backend_state, &mut self.changed);
        set(&mut self.tailnet.version, report.version, &mut self.changed);
        set(&mut self.tailnet.health, report.health, &mut self.changed);
        set(&mut self.tailnet.tun, report.tun, &mut self.changed);
        let knew_paths = self.tailnet.paths_asked.is_some();
        set(&mut self.tailnet.paths_asked, report.knows_map.then_some(asked), &mut self.changed);
        if !report.knows_map {
            return;
        }
        self.apply_users(report.users);
        self.put_own(report.own);
        let mut members = report.peers;
        let doubted = std::mem::take(&mut self.doubted);
        for member in &mut members {
            let Some(Member { peer: before, .. }) = self.peers.get(&member.peer.id) else { continue };
            let peer = Arc::make_mut(&mut member.peer);
            peer.wireguard = before.wireguard;
            peer.disco_key = before.disco_key;
            peer.endpoints.clone_from(&before.endpoints);
            if knew_paths && peer.path == Path::Derp && before.path != Path::Derp {
                let since = doubted.get(&peer.id).copied().unwrap_or(asked);
                if asked.saturating_duration_since(since) < DOUBT {
                    self.doubted.insert(peer.id.clone(), since);
                    peer.path = before.path;
                    peer.endpoint = before.endpoint;
                    peer.relay = before.relay;
                }
            }
        }
        self.replace(members);
    }

    /// Takes over a line of the bus, which was asked for its first one at `asked`. True when `/status` has news that the
    /// bus does not carry.
    pub(super) fn apply_notify(&mut self, notify: Notify, asked: Instant) -> bool {
        let mut stale = notify.prefs.is_some() || notify.health.is_some();
        if let Some(version) = notify.version.as_deref().filter(|version| !version.is_empty()) {
            set(&mut self.tailnet.version, clean::text(version, ""), &mut self.changed);
        }
        let has_status = notify.initial_status.is_some();
        if let Some(report) = notify.initial_status {
            self.apply_status(*report, asked);
            stale |= self.in_doubt();
            self.forget_wireguard(&notify.peer_state);
        }
        if let Some(state) = notify.state.and_then(|state| STATES.get(usize::try_from(state).ok()?)) {
            set(&mut self.tailnet.backend_state, (*state).to_owned(), &mut self.changed);
            stale = true;
        }
        self.apply_users(users(&notify.user_profiles));
        match &notify.net_map {
            Some(map) if has_status => self.apply_reach(map),
            Some(map) => {
                self.apply_map(map);
                stale = true;
            }
            None => {}
        }
        if let Some(node) = &notify.self_change {
            self.put_own_node(node);
            stale = true;
        }
        for node in notify.peers_changed.iter().flatten().flatten() {
            if let Some(member) = from_node(node, &self.users, |id| self.peers.get(id)) {
                self.put(member);
            }
            stale = true;
        }
        for node_id in notify.peers_removed.iter().flatten().flatten() {
            if let Some(id) = self.by_node_id.get(node_id).cloned() {
                self.remove(&id);
            }
            stale = true;
        }
        for patch in notify.peer_changed_patch.iter().flatten().flatten() {
            stale |= self.apply_patch(patch);
        }
        stale |= self.apply_wireguard(&notify.peer_state);
        if let Some(engine) = &notify.engine {
            self.apply_engine(engine);
        }
        stale
    }

    fn apply_map(&mut self, map: &NetworkMap) {
        self.apply_users(users(&map.user_profiles));
        if let Some(node) = &map.self_node {
            self.put_own_node(node);
        }
        let members = map.peers.iter().flatten().flatten();
        let members =
            members.filter_map(|node| from_node(node, &self.users, |id| self.peers.get(id))).collect();
        self.replace(members);
    }

    /// Of a map that came with a status, only what that does not know: converting thousands of nodes twice takes a while.
    fn apply_reach(&mut self, map: &NetworkMap) {
        for node in map.peers.iter().flatten().flatten() {
            let id = node.id.and_then(|node_id| self.by_node_id.get(&node_id));
            let Some(member) = id.and_then(|id| self.peers.get_mut(id)) else { continue };
            let disco_key = node.disco_key.as_deref().and_then(reach::disco_key);
            let endpoints = reach::endpoints(&node.endpoints);
            if member.peer.disco_key != disco_key || member.peer.endpoints != endpoints {
                let peer = Arc::make_mut(&mut member.peer);
                peer.disco_key = disco_key;
                peer.endpoints = endpoints;
                self.changed = true;
            }
        }
    }

    /// True when the patch names a node or a region that only `/status` can explain.
    fn apply_patch(&mut self, patch: &PeerChange) -> bool {
        let id = patch.node_id.and_then(|node_id| self.by_node_id.get(&node_id)).cloned();
        let Some(id) = id else {
            // Patches of this node itself come the same way.
            return patch.node_id != self.own.as_ref().and_then(|own| own.node_id);
        };
        self.edit(&id, |peer| {
            peer.online = patch.online.unwrap_or(peer.online);
            if let Some(key) = &patch.key {
                peer.node_key = clean::text(key, "");
            }
            if let Some(key) = &patch.disco_key {
                peer.disco_key = reach::disco_key(key);
            }
            if patch.endpoints.is_some() {
                peer.endpoints = reach::endpoints(&patch.endpoints);
            }
        });
        patch.derp_region.is_some()
    }

    /// The bus broke: what becomes of the sessions stays unseen.
    pub(super) fn lose_bus(&mut self) {
        self.forget_wireguard(&None);
    }

    /// The first line of the bus lists every session there is: one that is not in it ended unseen.
    fn forget_wireguard(&mut self, listed: &Map<PeerState>) {
        let listed: HashSet<String> = listed.iter().flatten().map(|(id, _)| clean::text(id, "")).collect();
        let sessions = self.peers.iter().filter(|(_, member)| member.peer.wireguard.is_some());
        let ended: Vec<String> =
            sessions.filter(|(id, _)| !listed.contains(*id)).map(|(id, _)| id.clone()).collect();
        for id in ended {
            self.edit(&id, |peer| peer.wireguard = None);
        }
    }

    /// True when a session came about: the peer has a path now.
    fn apply_wireguard(&mut self, states: &Map<PeerState>) -> bool {
        let mut established = false;
        for (id, state) in states.iter().flatten() {
            let session = state.as_ref().and_then(wireguard_session);
            self.edit(&clean::text(id, ""), |peer| {
                let [was, is] = [peer.wireguard, session].map(|session| session.map(|session| session.state));
                established |= is == Some(WireGuardState::Established) && was != is;
                peer.wireguard = session;
            });
        }
        established
    }

    fn apply_engine(&mut self, engine: &EngineStatus) {
        for (key, counters) in engine.live_peers.iter().flatten() {
            let Some((id, counters)) = self.by_key.get(key).cloned().zip(counters.as_ref()) else { continue };
            self.edit(&id, |peer| {
                peer.engine_receive_bytes = count(counters.rx_bytes);
                peer.engine_transmit_bytes = count(counters.tx_bytes);
                let handshake = counters.last_handshake.as_deref().and_then(moment);
                peer.last_handshake = handshake.or(peer.last_handshake);
            });
        }
    }

    /// Adds and renames users; their nodes follow.
    fn apply_users(&mut self, users: Users) {
        let mut renamed = HashSet::new();
        for (number, login) in users {
            if self.users.get(&number) != Some(&login) {
                self.users.insert(number, login);
                renamed.insert(number);
            }
        }
        if renamed.is_empty() {
            return;
        }
        let belongs = |member: &&mut Member| member.user_id.is_some_and(|user| renamed.contains(&user));
        for member in self.peers.values_mut().chain(&mut self.own).filter(belongs) {
            let login = owner(member.user_id, &self.users);
            edit_peer(&mut member.peer, &mut self.changed, |peer| peer.user = login);
        }
    }

    fn put_own_node(&mut self, node: &super::api::Node) {
        let own = from_node(node, &self.users, |_| self.own.as_ref());
        self.put_own(own);
    }

    fn put_own(&mut self, own: Option<Member>) {
        let region = own.as_ref().map(|own| own.peer.derp_region.as_str()).unwrap_or_default();
        if !region.is_empty() && region != self.home_derp {
            let before = std::mem::replace(&mut self.home_derp, region.to_owned());
            self.tailnet.home_derp_changes += u64::from(!before.is_empty());
        }
        set(&mut self.own, own, &mut self.changed);
    }

    fn replace(&mut self, members: Vec<Member>) {
        let current: HashSet<&str> = members.iter().map(|member| member.peer.id.as_str()).collect();
        let gone: Vec<String> =
            self.peers.keys().filter(|id| !current.contains(id.as_str())).cloned().collect();
        for id in gone {
            self.remove(&id);
        }
        for member in members {
            self.put(member);
        }
    }

    fn put(&mut self, member: Member) {
        let id = member.peer.id.clone();
        if self.peers.get(&id) == Some(&member) {
            return;
        }
        self.remove(&id);
        if let Some(node_id) = member.node_id {
            self.by_node_id.insert(node_id, id.clone());
        }
        self.by_key.insert(member.peer.node_key.clone(), id.clone());
        self.peers.insert(id, member);
        self.changed = true;
    }

    fn remove(&mut self, id: &str) {
        let Some(member) = self.peers.remove(id) else { return };
        // Another peer may have taken the number or key over in the meantime.
        if let Some(node_id) =
            member.node_id.filter(|node_id| self.by_node_id.get(node_id).is_some_and(|of| of == id))
        {
            self.by_node_id.remove(&node_id);
        }
        if self.by_key.get(&member.peer.node_key).is_some_and(|of| of == id) {
            self.by_key.remove(&member.peer.node_key);
        }
        self.changed = true;
    }

    /// Changes a peer in place; the index by key follows.
    fn edit(&mut self, id: &str, change: impl FnOnce(&mut Peer)) {
        let Some(member) = self.peers.get_mut(id) else { return };
        let key = member.peer.node_key.clone();
        edit_peer(&mut member.peer, &mut self.changed, change);
        if member.peer.node_key != key {
            self.by_key.remove(&key);
            self.by_key.insert(member.peer.node_key.clone(), id.to_owned());
        }
    }
}

fn edit_peer(shared: &mut Arc<Peer>, changed: &mut bool, change: impl FnOnce(&mut Peer)) {
    let mut peer = Peer::clone(shared);
    change(&mut peer);
    if peer != **shared {
        *shared = Arc::new(peer);
        *changed = true;
    }
}

fn set<T: PartialEq>(place: &mut T, value: T, changed: &mut bool) {
    if *place != value {
        *place = value;
        *changed = true;
    }
}
