//! The miniature tailnet does what it promises.

use tailgauge_testbed::needs;
use tailgauge_testbed::tailnet::{MiniatureTailnet, Options, WEB_V4, WEB_V6};
use tailgauge_testbed::traffic::{self, Ping};

#[test]
fn first_ping() {
    let Ok(()) = needs::root_and("first_ping", &["ip", "nft"]) else { return };
    let start = std::time::Instant::now();
    let tailnet = MiniatureTailnet::up(Options::default()).unwrap();
    eprintln!("up {:?}", start.elapsed());
    let report =
        traffic::ping(tailnet.c1().namespace(), WEB_V4.into(), &Ping { count: 5, ..Ping::default() })
            .unwrap();
    eprintln!("{report:?} {} {}", tailnet.exit().dropped(), tailnet.c1().dropped());
    assert_eq!(report.round_trips.len(), 5);
}
#[test]
fn speed() {
    let tailnet = MiniatureTailnet::up(Options::default()).unwrap();
    let _server = tailnet.serve_web().unwrap();
    for (node, to) in [(tailnet.c1(), std::net::IpAddr::from(WEB_V4)), (tailnet.six(), WEB_V6.into())] {
        for (up, down) in [(200u64 << 20, 0), (0, 200 << 20)] {
            let r = traffic::tcp_transfer(node.namespace(), to, up, down).unwrap();
            eprintln!(
                "{} {:?} {} Mbit/s",
                node.name(),
                r,
                (up + down) as f64 * 8e-6 / r.elapsed.as_secs_f64()
            );
        }
    }
    let dev = tailnet.exit().exec("ip", &["-s", "link", "show", "tailscale0"]).unwrap();
    eprintln!("{}", String::from_utf8_lossy(&dev.stdout));
    for n in tailnet.nodes() {
        eprintln!(
            "{} dropped {} {:?}",
            n.name(),
            n.dropped(),
            tailnet.peer_link(n).stats(tailgauge_testbed::link::Direction::LeftToRight)
        );
    }
    eprintln!(
        "{:?} {:?}",
        tailnet.internet_link().stats(tailgauge_testbed::link::Direction::LeftToRight),
        tailnet.internet_link().stats(tailgauge_testbed::link::Direction::RightToLeft)
    );
    let r = traffic::udp_echo(
        tailnet.c2().namespace(),
        WEB_V4.into(),
        traffic::Udp { datagrams: 5000, payload: 800, rate: Some(20000) },
        std::time::Duration::from_millis(500),
    )
    .unwrap();
    eprintln!("{r:?}");
    let r = traffic::udp_flood_from(
        tailnet.c2().namespace(),
        WEB_V4.into(),
        traffic::Udp { datagrams: 100000, payload: 100, rate: None },
        std::time::Duration::from_millis(500),
    )
    .unwrap();
    eprintln!("{r:?}");
}
#[test]
fn where_lost() {
    use tailgauge_testbed::link::Direction::*;
    let tailnet = MiniatureTailnet::up(Options::default()).unwrap();
    let _server = tailnet.serve_web().unwrap();
    for _ in 0..2 {
        let r = traffic::udp_echo(
            tailnet.c2().namespace(),
            WEB_V4.into(),
            traffic::Udp { datagrams: 5000, payload: 800, rate: Some(20000) },
            std::time::Duration::from_millis(500),
        )
        .unwrap();
        eprintln!("{r:?}");
        for l in [tailnet.peer_link(tailnet.c2()), tailnet.peer_link(tailnet.exit()), tailnet.internet_link()]
        {
            for d in [LeftToRight, RightToLeft] {
                eprintln!("{:?}", l.stats(d));
            }
        }
        for n in [tailnet.exit(), tailnet.c2()] {
            let dev = n.exec("ip", &["-s", "link", "show", "tailscale0"]).unwrap();
            eprintln!("{} {}", n.dropped(), String::from_utf8_lossy(&dev.stdout));
        }
    }
}
