//! Peers that come, go, claim each other's addresses, are too many or have too many routes, while packets flow.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::process::wait_for;
use tailgauge_testbed::scripted::{Script, peer, status};
use tailgauge_testbed::stage::{NOWHERE, Stage, udp_frame};

use crate::{Before, stage, sum, value};

fn say(stage: &Stage, peers: &[Value]) {
    stage.api.say(Script::Status(status(peers)));
}

fn wait(agent: &Agent<'_>, what: &str, holds: impl Fn(&Exposition) -> bool) -> Exposition {
    wait_for(what, Duration::from_secs(15), || agent.scrape().ok().filter(&holds))
        .unwrap_or_else(|timeout| panic!("{timeout}; the log:\n{}", agent.log()))
}

fn known(scrape: &Exposition, id: &str) -> bool {
    scrape.matching("tailgauge_peer_info", &[("peer_id", id)]).next().is_some()
}

fn received(scrape: &Exposition, id: &str) -> f64 {
    scrape.sum("tailgauge_peer_receive_packets_total", &[("peer_id", id)])
}

fn unattributed(scrape: &Exposition) -> f64 {
    value(scrape, "tailgauge_unattributed_receive_packets_total", &[])
}

fn send(stage: &Stage, number: u8, times: u32) {
    for _ in 0..times {
        assert!(stage.receive(&udp_frame([100, 64, 0, number], NOWHERE, 100)));
    }
}

#[test]
fn peers_beyond_the_slots_count_as_unattributed_until_a_slot_is_free() {
    let Some(stage) = stage("peers_beyond_the_slots_count_as_unattributed_until_a_slot_is_free") else {
        return;
    };
    let agent = stage.agent(&["--max-peers", "3", "--peer.grace", "2s"]).unwrap();
    let before = Before::read(&stage, &agent);
    let five: Vec<_> = (2..=6).map(peer).collect();
    say(&stage, &five);
    let scrape = wait(&agent, "two peers without slot", |scrape| {
        scrape.value("tailgauge_peers_without_slot", &[]) == Some(2.0)
    });
    assert_eq!(scrape.sum("tailgauge_peer_info", &[]), 3.0);
    (2..=6).for_each(|number| send(&stage, number, 10 * u32::from(number)));
    let scrape = agent.scrape().unwrap();
    for (id, packets) in [("n2", 20.0), ("n3", 30.0), ("n4", 40.0)] {
        assert_eq!(received(&scrape, id), packets, "{id}");
    }
    assert_eq!(unattributed(&scrape), 110.0);

    // One leaves: it is exported for the grace period, then its slot goes to one that waits, with zeroed counters,
    // though tailscaled has no more news.
    let left = Instant::now();
    say(&stage, &five[1..]);
    let scrape = wait(&agent, "n2 to be gone", |scrape| {
        assert_eq!(scrape.sum("tailgauge_tunnel_receive_packets_total", &[]), 200.0, "totals never fall");
        !known(scrape, "n2")
    });
    assert!(left.elapsed() >= Duration::from_secs(2), "gone after {:?}", left.elapsed());
    assert_eq!(received(&scrape, "n2"), 0.0, "no series without its info");
    let scrape = wait(&agent, "n5 to get the slot", |scrape| known(scrape, "n5"));
    assert_eq!(received(&scrape, "n5"), 0.0, "the counters of the one before were retired");
    assert_eq!(scrape.value("tailgauge_peers_without_slot", &[]), Some(1.0));
    send(&stage, 5, 7);
    send(&stage, 2, 3);
    let scrape = agent.scrape().unwrap();
    assert_eq!((received(&scrape, "n5"), unattributed(&scrape)), (7.0, 113.0));
    assert_eq!(before.assert_exact(&stage, &agent).rx_packets, 210);
    assert!(agent.log().contains("raise --max-peers"), "{}", agent.log());
}

#[test]
fn two_peers_with_one_prefix_are_told_apart_the_same_way_every_time() {
    let Some(stage) = stage("two_peers_with_one_prefix_are_told_apart_the_same_way_every_time") else {
        return;
    };
    let agent = stage.agent(&[]).unwrap();
    let claiming = |number: u8, routes: &[&str]| {
        let mut peer = peer(number);
        let own = format!("100.64.0.{number}/32");
        peer["AllowedIPs"] = json!([&[own.as_str()], routes].concat());
        peer
    };
    // n4 claims the address of n3, and both the same network.
    let peers = [claiming(3, &["10.0.0.0/8"]), claiming(4, &["10.0.0.0/8", "100.64.0.3/32", "10.9.0.0/16"])];
    for order in [[0, 1], [1, 0]] {
        say(&stage, &order.map(|index: usize| peers[index].clone()));
        wait(&agent, "both peers", |scrape| known(scrape, "n3") && known(scrape, "n4"));
        let before = Before::read(&stage, &agent);
        let earlier = agent.scrape().unwrap();
        for source in [[10, 1, 2, 3], [100, 64, 0, 3], [10, 9, 2, 3]] {
            assert!(stage.receive(&udp_frame(source, NOWHERE, 10)));
        }
        let scrape = agent.scrape().unwrap();
        let since = |id| received(&scrape, id) - received(&earlier, id);
        assert_eq!((since("n3"), since("n4")), (2.0, 1.0), "{order:?}");
        assert_eq!(before.assert_exact(&stage, &agent).rx_packets, 3);
    }
}

#[test]
fn a_hundred_thousand_allowed_ips_are_taken_in_and_scrapes_go_on() {
    let Some(stage) = stage("a_hundred_thousand_allowed_ips_are_taken_in_and_scrapes_go_on") else { return };
    let agent = stage.agent(&[]).unwrap();
    let before = Before::read(&stage, &agent);
    let mut greedy = peer(2);
    let part = |n: u32, byte: u32| (n >> (8 * byte)) & 0xff;
    let networks = (0..100_000).map(|n| format!("{}.{}.{}.0/24", 20 + part(n, 2), part(n, 1), part(n, 0)));
    // More single addresses than there is room for: the rest is counted, other peers' own are not pushed out.
    let single = (0..5_000).map(|n| format!("30.0.{}.{}/32", part(n, 1), part(n, 0)));
    greedy["AllowedIPs"] = networks.chain(single).collect();
    say(&stage, &[greedy, peer(3)]);
    let scrape = wait(&agent, "the prefixes", |scrape| {
        scrape.value("tailgauge_map_entries", &[("map", "PREFIXES_V4")]) == Some(100_000.0)
    });
    let mut took = [(); 20].map(|()| {
        let started = Instant::now();
        assert_eq!(agent.get("/metrics").unwrap().status, 200);
        started.elapsed()
    });
    took.sort_unstable();
    println!("scrapes took {took:?}");
    // The machine may stand still during one or two of them.
    assert!(took[17] < Duration::from_secs(1), "{took:?}");
    let held = value(&scrape, "tailgauge_map_entries", &[("map", "PEERS_V4")]);
    assert_eq!(value(&scrape, "tailgauge_keys_without_room", &[]) + held, 5_002.0);
    assert!(held < 5_002.0);
    // The last network, what is beside it, and the peer whose address came after all of these.
    for (source, times) in [([21, 134, 159, 9], 1), ([21, 134, 160, 9], 2), ([100, 64, 0, 3], 5)] {
        (0..times).for_each(|_| assert!(stage.receive(&udp_frame(source, NOWHERE, 10))));
    }
    let scrape = agent.scrape().unwrap();
    let counted = (received(&scrape, "n2"), unattributed(&scrape), received(&scrape, "n3"));
    assert_eq!(counted, (1.0, 2.0, 5.0));
    assert_eq!(before.assert_exact(&stage, &agent).rx_packets, 8);
}

#[test]
fn renaming_new_keys_and_new_routes_lose_no_packet() {
    let Some(stage) = stage("renaming_new_keys_and_new_routes_lose_no_packet") else { return };
    let agent = stage.agent(&[]).unwrap();
    let before = Before::read(&stage, &agent);
    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let frame = udp_frame([100, 64, 0, 2], NOWHERE, 100);
            while !stop.load(Ordering::Relaxed) {
                assert!(stage.receive(&frame));
                written.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(200));
            }
        });
        let _stop = StopOnDrop(&stop);
        let mut least = 0.0;
        for round in 0..3u32 {
            let name = format!("name{round}");
            let mut changed = peer(2);
            changed["DNSName"] = json!(format!("{name}.lab."));
            changed["PublicKey"] = json!(format!("nodekey:{:064x}", 1000 + round));
            changed["AllowedIPs"] = json!(["100.64.0.2/32", format!("10.{round}.0.0/16")]);
            say(&stage, &[changed]);
            wait(&agent, "the new name", |scrape| {
                let now = received(scrape, "n2");
                assert!(now >= least, "{now} after {least}");
                for sample in scrape.matching("tailgauge_tunnel_coverage_ratio", &[("direction", "receive")])
                {
                    assert!(sample.value >= 1.0, "{sample:?}");
                }
                scrape.value("tailgauge_peer_info", &[("peer_name", name.as_str())]) == Some(1.0)
            });
            least = sum(&agent, "tailgauge_peer_receive_packets_total");
        }
    });
    let device = before.assert_exact(&stage, &agent);
    let scrape = agent.scrape().unwrap();
    assert_eq!(device.rx_packets, written.into_inner());
    assert_eq!((received(&scrape, "n2"), unattributed(&scrape)), (device.rx_packets as f64, 0.0));
}

/// Lets the writer end when the rest panics.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
