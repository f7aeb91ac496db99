//! The miniature tailnet with an agent at each end of one link.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::link::{Direction, Link};
use tailgauge_testbed::miniature::{MiniatureTailnet, Options, WEB_V4};
use tailgauge_testbed::needs;
use tailgauge_testbed::node::Node;
use tailgauge_testbed::process::wait_until;
use tailgauge_testbed::traffic::{self, Ping, Server, Udp, udp_echo};
use tailgauge_testbed::wake::be_precise;

use crate::judged::Way;

/// The device under the tunnel of every node.
pub const UNDERLAY: &str = "eth0";
/// Between two scrapes: each costs something.
pub const PAUSE: Duration = Duration::from_millis(100);
/// Loss is judged after 3 s, at one sweep a second; the machine may be busy.
pub const SETTLES: Duration = Duration::from_secs(20);
/// An echo takes less.
pub const ECHOED: Duration = Duration::from_millis(100);
/// Handshakes are at least this far apart: the clock of the nodes' WireGuard has steps of 100 ms.
const REKEYS_APART: Duration = Duration::from_millis(150);
/// A handshake without loss takes less; one that is lost is begun anew after 5 s.
const HANDSHAKE: Duration = Duration::from_secs(4);

/// A tailnet whose exit node and client c1 are looked at.
pub struct Lab {
    /// All of it.
    pub tailnet: MiniatureTailnet,
    _server: Server,
}

/// The agents of a lab.
pub struct Agents<'a> {
    /// At c1.
    pub c1: Agent<'a>,
    /// At the exit node.
    pub exit: Agent<'a>,
}

/// The value of a counter that has one sample for a peer; 0 while there is none.
pub fn count(scrape: &Exposition, name: &str, peer: u64) -> u64 {
    scrape.sum(name, &[("peer_id", &peer.to_string())]) as u64
}

/// An agent that sees what passes under the tunnel.
pub fn agent_at(node: &Node) -> Agent<'_> {
    let mut agent = Agent::start(node.namespace(), node.socket(), &[]).unwrap();
    agent.wait_ready().unwrap();
    agent
        .wait_scrape("the hooks under the tunnel", |scrape| {
            ["underlay_ingress", "underlay_egress"].iter().all(|hook| {
                let labels = [("device", UNDERLAY), ("hook", *hook)];
                scrape.sum("tailgauge_hook_attached", &labels) == 1.0
            })
        })
        .unwrap();
    agent
}

impl Lab {
    /// `None` when the test is to be skipped.
    pub fn up(test: &str) -> Option<Self> {
        needs::root_and(test, &["ip", "nft"]).ok()?;
        // For every thread from here on: what is measured shall not be what else the machine does.
        be_precise();
        let tailnet = MiniatureTailnet::up(Options { seed: 7 }).unwrap();
        let server = tailnet.serve_web().unwrap();
        Some(Self { tailnet, _server: server })
    }

    /// Starts both agents.
    pub fn unprepared_agents(&self) -> Agents<'_> {
        Agents { c1: agent_at(self.c1()), exit: agent_at(self.exit()) }
    }

    /// Starts both agents; a first session is known to them when this returns.
    pub fn agents(&self) -> Agents<'_> {
        let mut agents = self.unprepared_agents();
        self.ping();
        for (agent, peer) in [(&mut agents.c1, self.exit().id()), (&mut agents.exit, self.c1().id())] {
            let known = |scrape: &Exposition| {
                count(scrape, "tailgauge_peer_wireguard_received_packets_total", peer) > 0
            };
            agent.wait_scrape("a session", known).unwrap();
        }
        agents
    }

    /// The client.
    pub fn c1(&self) -> &Node {
        self.tailnet.c1()
    }

    /// Its exit node.
    pub fn exit(&self) -> &Node {
        self.tailnet.exit()
    }

    /// All that passes between the two passes this link; c1 is on the left.
    pub fn link(&self) -> &Link {
        self.tailnet.peer_link(self.c1())
    }

    /// Both directions of the link: to the exit node, and to c1.
    pub fn ways<'a>(&'a self, agents: &'a Agents<'_>) -> [Way<'a>; 2] {
        let (c1, exit) = ((&agents.c1, self.exit().id()), (&agents.exit, self.c1().id()));
        let way = |direction, receiver, sender| Way { link: self.link(), direction, receiver, sender };
        [way(Direction::LeftToRight, exit, c1), way(Direction::RightToLeft, c1, exit)]
    }

    /// Some packets both ways, of which none is lost.
    pub fn ping(&self) {
        let how = Ping { count: 3, ..Ping::default() };
        let report = traffic::ping(self.c1().namespace(), WEB_V4.into(), &how).unwrap();
        assert_eq!(report.round_trips.len(), 3, "{report:?}");
    }

    /// So many datagrams from c1 to the internet and back.
    pub fn flow(&self, datagrams: u32) {
        let what = Udp { datagrams, payload: 400, rate: Some(2000) };
        udp_echo(self.c1().namespace(), WEB_V4.into(), what, ECHOED).unwrap();
    }

    /// Waits until a hundred messages more have reached c1.
    pub fn wait_traffic(&self) {
        let delivered =
            || self.link().wireguard(Direction::RightToLeft).iter().map(|one| one.delivered).sum::<u64>();
        let before = delivered();
        wait_until("traffic", Duration::from_secs(5), || delivered() > before + 100).unwrap();
    }

    /// Does `work` while datagrams go from c1 to the internet and back.
    pub fn under_traffic<T>(&self, rate: u32, work: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        let few = Udp { datagrams: rate / 5, payload: 400, rate: Some(rate) };
        thread::scope(|scope| {
            let traffic = scope.spawn(|| {
                let to = IpAddr::from(WEB_V4);
                while !over.load(Ordering::Relaxed) {
                    // While a tailscaled is away there is no way to anywhere.
                    if udp_echo(self.c1().namespace(), to, few, ECHOED).is_err() {
                        thread::sleep(ECHOED);
                    }
                }
            });
            let guard = Over(&over);
            let outcome = work();
            drop(guard);
            traffic.join().unwrap();
            outcome
        })
    }

    /// A new session, begun by `from`. A handshake that is lost is begun anew.
    pub fn rekey(&self, from: &Node, to: &Node) {
        let confirmed = || {
            let handshakes = to.handshakes(from.id()).unwrap().received;
            handshakes.iter().filter(|one| one.confirmed.is_some()).count()
        };
        let before = confirmed();
        wait_until("a handshake that is not lost", Duration::from_secs(20), || {
            let started = Instant::now();
            assert!(from.rekey(to.id()));
            let made = wait_until("the handshake", HANDSHAKE, || confirmed() > before).is_ok();
            wait_until("the clock", HANDSHAKE, || started.elapsed() > REKEYS_APART).unwrap();
            made
        })
        .unwrap();
    }
}

/// Says that the work is over, also when it has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
