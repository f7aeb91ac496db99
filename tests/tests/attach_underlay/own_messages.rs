//! The tunnel's own messages: whose they are, what becomes of their counters, and which path they show.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use tailgauge::model::kernel::{Kernel, SessionTotals};
use tailgauge::model::slots::SlotTable;
use tailgauge::model::tailnet::{Path, Peer, Tailnet};
use tailgauge_ebpf::layout::{
    Kind, MARK_TAILSCALED, PATH_DIRECT_IPV4, PATH_PEER_RELAY_IPV4, PeerUnderlayLine, RECEIVE, TRANSMIT, maps,
};
use tailgauge_testbed::underlay::disco::{self, DiscoKey};
use tailgauge_testbed::underlay::messages::{
    GENEVE_WIREGUARD, geneve, initiation, keepalive, response, stun_request, transport,
};

use super::{DEADLINE, FAR, Following, OWN, Pair, config, is_attached, marked, within};

const A: u32 = 1;
const B: u32 = 2;
const RELAY: u16 = 7000;
const NETWORK: u32 = 7;

/// A socket of the far side.
fn far(pair: &Pair) -> UdpSocket {
    pair.far.run(|| UdpSocket::bind((FAR, 0)).unwrap()).unwrap()
}

fn say(socket: &UdpSocket, to: SocketAddr, messages: impl IntoIterator<Item = Vec<u8>>) {
    for message in messages {
        socket.send_to(&message, to).unwrap();
    }
}

/// Peers `a` and `b`: `a` is at `endpoint`, `b` on a peer relay; the disco key of `a` is all ones.
fn tailnet(endpoint: SocketAddr) -> Tailnet {
    let a = Peer {
        id: "a".to_owned(),
        endpoint: Some(endpoint),
        endpoints: vec!["192.168.1.1:41641".parse().unwrap()],
        disco_key: Some([1; 32]),
        ..Peer::default()
    };
    let b = Peer {
        id: "b".to_owned(),
        relay: Some(((FAR, RELAY).into(), NETWORK)),
        endpoints: vec!["192.168.1.1:41641".parse().unwrap()],
        ..Peer::default()
    };
    Tailnet { peers: vec![a.into(), b.into()], ..Tailnet::default() }
}

/// The source with two peers, and the socket of tailscaled.
async fn started(tailnet: &Tailnet) -> (Following, SlotTable, UdpSocket) {
    let mut following = Following::start(&config());
    following.until("hooks on eth0", |kernel| is_attached(kernel, "eth0")).await;
    let wireguard = marked(MARK_TAILSCALED, 0);
    following.source.sweep();
    let mut slots = SlotTable::new(following.source.slots());
    slots.update(&tailnet.peers, Instant::now());
    following.source.sync(tailnet, &slots);
    following.rows = slots.rows();
    (following, slots, wireguard)
}

fn data(kernel: &Kernel, slot: u32, direction: u32, path: usize) -> u64 {
    kernel.peer_underlay[slot as usize][direction as usize].path[path].data
}

fn entries(kernel: &Kernel, map: &str) -> Option<u64> {
    kernel.maps.iter().find(|used| used.name == map).map(|used| used.entries)
}

#[test]
fn data_is_its_peers_and_shows_its_path_and_what_never_came() {
    let Some(pair) = Pair::up("data_is_its_peers_and_shows_its_path") else { return };
    let peer = far(&pair);
    let relay = pair.far.run(|| UdpSocket::bind((FAR, RELAY)).unwrap()).unwrap();
    let tailnet = tailnet(peer.local_addr().unwrap());
    within(&pair.own, async || {
        let (mut following, _, wireguard) = started(&tailnet).await;
        let here = (OWN, wireguard.local_addr().unwrap().port()).into();
        let own_relay = |message: &[u8]| geneve(GENEVE_WIREGUARD, NETWORK, message);
        say(&peer, here, (0..10).filter(|counter| *counter != 4).map(|counter| transport(77, counter, 100)));
        say(&relay, here, (0..5).map(|counter| own_relay(&keepalive(78, counter))));
        say(&wireguard, peer.local_addr().unwrap(), (0..3).map(|counter| keepalive(5, counter)));
        say(&wireguard, (FAR, RELAY).into(), (0..2).map(|counter| own_relay(&keepalive(6, counter))));

        following.source.sweep();
        let paths = [(A, Path::DirectIpv4), (B, Path::PeerRelayIpv4)];
        assert_eq!(following.source.paths(), paths);
        following.source.sweep();
        assert_eq!(following.source.paths(), [], "nothing since");

        following.read();
        let kernel = &following.kernel;
        assert_eq!(data(kernel, A, RECEIVE, PATH_DIRECT_IPV4), 9);
        assert_eq!(data(kernel, A, TRANSMIT, PATH_DIRECT_IPV4), 3);
        assert_eq!(data(kernel, B, RECEIVE, PATH_PEER_RELAY_IPV4), 5);
        assert_eq!(data(kernel, B, TRANSMIT, PATH_PEER_RELAY_IPV4), 2);
        assert_eq!(kernel.peer_underlay[0], [PeerUnderlayLine::default(); 2], "nothing is nobody's");
        let sessions: Vec<_> = kernel.sessions.iter().map(|totals| totals.received).collect();
        assert_eq!(sessions, [0, 9, 5]);
        assert_eq!(entries(kernel, maps::SESSIONS), Some(2));
        assert_eq!(entries(kernel, maps::ENDPOINTS), Some(2), "a candidate of both is nobody's");
        assert_eq!(kernel.control.endpoints_generation, 1);

        following.until("a counter that never came", |kernel| kernel.sessions[A as usize].lost == 1).await;
        say(&peer, here, [transport(77, 4, 100)]);
        following.read();
        let totals = SessionTotals { received: 9, lost: 1, unjudged: 1, ..SessionTotals::default() };
        assert_eq!(following.kernel.sessions[A as usize], totals, "too late to be judged again");
        assert_eq!(following.kernel.sessions[B as usize].lost, 0);
    });
}

#[test]
fn handshakes_and_disco_are_counted_and_a_retired_slot_leaves_nothing_behind() {
    let Some(pair) = Pair::up("handshakes_and_disco_are_counted") else { return };
    let peer = far(&pair);
    let elsewhere = far(&pair);
    let endpoint = peer.local_addr().unwrap();
    let tailnet = tailnet(endpoint);
    within(&pair.own, async || {
        let (mut following, mut slots, wireguard) = started(&tailnet).await;
        let here = (OWN, wireguard.local_addr().unwrap().port()).into();
        say(&wireguard, endpoint, [initiation(100)]);
        say(&peer, here, [response(200, 100), transport(100, 0, 0)]);
        say(&wireguard, endpoint, [stun_request([1; 12])]);
        // The key says whose it is, wherever it comes from.
        say(&elsewhere, here, [disco::ping(DiscoKey([1; 32]), [1; 12])]);
        say(&wireguard, elsewhere.local_addr().unwrap(), [disco::pong(DiscoKey([2; 32]), [1; 12])]);
        following.read();
        let kernel = &following.kernel;
        let (slot, row) = kernel.wireguard[0];
        assert_eq!((slot, row.completed, row.initiations, row.responses), (A, [1, 0], [0, 1], [1, 0]));
        assert_eq!((row.handshake.count, row.pings, row.pongs), (1, [1, 0], [0, 1]));
        assert_eq!(kernel.wireguard.len(), 1);
        let messages = kernel.messages.as_ref().unwrap();
        assert_eq!(messages.seen[TRANSMIT as usize][Kind::Stun as usize], 1);
        assert_eq!(messages.disco_response.count, 1);
        assert_eq!(kernel.sessions[A as usize].received, 1);
        let packets = |lines: &[PeerUnderlayLine; 2]| lines.map(|line| line.path[PATH_DIRECT_IPV4].packets());
        let before = packets(&kernel.peer_underlay[A as usize]);
        assert_eq!(before[TRANSMIT as usize], 3, "initiation, STUN and pong");

        let left = Tailnet { peers: tailnet.peers[1..].to_vec(), ..Tailnet::default() };
        slots.update(&left.peers, Instant::now());
        following.source.sync(&left, &slots);
        following.source.retire(&[A], |_, outcome| outcome.unwrap());
        slots.release(A);
        following.read();
        let kernel = &following.kernel;
        assert_eq!(packets(&kernel.peer_underlay[A as usize]), [0, 0]);
        assert_eq!(packets(&kernel.retired_underlay), before);
        assert_eq!(kernel.sessions[A as usize], SessionTotals::default());
        assert_eq!(kernel.retired_sessions.received, 1);
        assert_eq!(kernel.wireguard, []);
        assert_eq!(entries(kernel, maps::LEARNED_ENDPOINTS), Some(0));
        assert_eq!(entries(kernel, maps::DISCO_KEYS), Some(0));

        // Whoever gets the slot begins with nothing, and what the one before still says is nobody's.
        say(&elsewhere, here, [transport(100, 1, 0)]);
        say(&peer, here, [transport(100, 2, 0)]);
        following.read();
        let received: Vec<_> = following.kernel.sessions.iter().map(|totals| totals.received).collect();
        assert_eq!(received, [2, 0, 0]);
        assert_eq!(data(&following.kernel, 0, RECEIVE, PATH_DIRECT_IPV4), 2);
    });
}

#[test]
fn an_initiation_that_nobody_answers_fails_once_tailscaled_was_asked() {
    let Some(pair) = Pair::up("an_initiation_that_nobody_answers_fails") else { return };
    let peer = far(&pair);
    let endpoint = peer.local_addr().unwrap();
    let mut tailnet = tailnet(endpoint);
    within(&pair.own, async || {
        let (mut following, slots, wireguard) = started(&tailnet).await;
        say(&wireguard, endpoint, [initiation(100)]);
        let failures = |kernel: &Kernel| kernel.wireguard.first().map_or(0, |(_, row)| row.failures);
        let started = Instant::now();
        while failures(&following.kernel) == 0 {
            assert!(started.elapsed() < DEADLINE, "never failed: {:?}", following.kernel.wireguard);
            tailnet.paths_asked = Some(Instant::now());
            following.source.sync(&tailnet, &slots);
            following.source.sweep();
            following.read();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(started.elapsed() > Duration::from_secs(6), "an answer might still have come");
        following.source.sweep();
        following.read();
        assert_eq!(failures(&following.kernel), 1);
    });
}
