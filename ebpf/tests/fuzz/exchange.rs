//! Pings and pongs on a network that delays and loses them, and in any order at all.

use tailgauge_ebpf::exchange::{GIVE_UP, Pong};
use tailgauge_ebpf::layout::Exchange;

use crate::random::Random;

/// Every pong comes within the time that is waited for it, or never: then what is said of it is the truth.
pub fn network(random: &mut Random) {
    let mut events = Vec::new();
    let mut now = random.next() >> random.below(40);
    for _ in 0..random.below(20) {
        let wait = *random.pick(&[1_000, 100_000_000, 1_000_000_000, 6_000_000_000]);
        now = now.wrapping_add(1 + random.below(wait));
        events.push((now, None));
        if !random.chance(5) {
            let most = *random.pick(&[1_000_000, 300_000_000, GIVE_UP - 1]);
            let delay = 1 + random.below(most);
            events.push((now.wrapping_add(delay), Some(delay)));
        }
    }
    let first = events.first().map_or(0, |(at, _)| *at);
    events.sort_by_key(|(at, _)| at.wrapping_sub(first));
    let mut exchange = Exchange::default();
    for (place, (at, delay)) in events.iter().enumerate() {
        let Some(delay) = delay else {
            exchange.ping(*at);
            continue;
        };
        match exchange.pong(*at) {
            Pong::After(measured) => assert_eq!(measured, *delay, "{events:?}"),
            Pong::Ambiguous | Pong::Unasked => assert_ne!(place, 1, "one ping, one pong: {events:?}"),
        }
    }
}

/// Whoever sends what at whatever time.
pub fn anything(random: &mut Random) {
    let mut exchange = Exchange::default();
    let (mut pings, mut pongs) = (0, 0);
    let mut now = random.next();
    for _ in 0..random.below(40) {
        now = match random.below(8) {
            0 => random.next(),
            1 => now.wrapping_add(GIVE_UP - 1 + random.below(3)),
            _ => now.wrapping_add(random.below(1_000_000_000)),
        };
        if random.chance(2) {
            exchange.ping(now);
            pings += 1;
        } else {
            match exchange.pong(now) {
                Pong::After(measured) => {
                    assert!(measured < GIVE_UP);
                    pongs += 1;
                }
                Pong::Ambiguous => pongs += 1,
                Pong::Unasked => assert_eq!(exchange.outstanding, 0),
            }
        }
        assert!(pongs <= pings && u64::from(exchange.outstanding) <= pings - pongs);
    }
}
