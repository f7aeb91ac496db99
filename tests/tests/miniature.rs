//! The miniature tailnet does what it promises.

use tailgauge_testbed::miniature::{MiniatureTailnet, Options, WEB_V4};
use tailgauge_testbed::needs;
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
