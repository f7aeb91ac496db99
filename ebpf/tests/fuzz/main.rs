//! Whatever arrives, the code that kernel and agent share neither panics nor overflows, and says what a slower reading
//! of the same says.
//!
//! `TAILGAUGE_CASES=10000000` runs as many cases (with `CARGO_PROFILE_DEV_OPT_LEVEL=2` in half a minute),
//! `TAILGAUGE_SEED=…` others. The cases of a seed are always the same; a failure says which one it was.

#![expect(clippy::unwrap_used, reason = "helpers of tests stop the test")]

mod exchange;
#[path = "../support/formats.rs"]
mod formats;
#[path = "../support/layers.rs"]
mod layers;
#[path = "../sequence/memory.rs"]
mod memory;
mod messages;
#[path = "../sequence/model.rs"]
mod model;
mod packets;
#[path = "../support/pcap.rs"]
mod pcap;
mod random;
mod sequence;

use random::Random;

/// What a real tailscaled sent.
const CAPTURE: &[u8] = include_bytes!("../data/tailscaled.pcap");

/// In a run of all tests.
const CASES: u64 = 200_000;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap())
}

/// Names the case in which a test fails.
struct Case(u64);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed in case {}", self.0);
        }
    }
}

/// Runs a share of all cases, in hundredths.
fn cases(share: u64, mut run: impl FnMut(&mut Random)) {
    const { assert!(cfg!(debug_assertions), "overflows would pass unnoticed") };
    let seed = setting("TAILGAUGE_SEED", 20_261_125);
    for case in 0..setting("TAILGAUGE_CASES", CASES) * share / 100 {
        let _case = Case(case);
        run(&mut Random::new(seed, case));
    }
}

#[test]
fn packets_parse_as_the_reference_says() {
    let whole = packets::whole();
    cases(45, |random| packets::check(random, &whole));
}

#[test]
fn messages_are_read_as_the_reference_says() {
    cases(40, messages::check);
}

#[test]
fn sessions_count_as_the_definitions_say() {
    cases(5, sequence::check);
}

#[test]
fn pongs_are_believed_only_when_they_are_the_answer() {
    cases(10, |random| {
        if random.chance(4) {
            exchange::anything(random);
        } else {
            exchange::network(random);
        }
    });
}
