//! The committed kernel programs, fed packets by `BPF_PROG_TEST_RUN`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop the test")]

mod attribution;
mod capture;
mod connections;
mod counting;
mod flow;
#[path = "../../../ebpf/tests/support/formats.rs"]
mod formats;
mod handshakes;
mod inner;
mod messages;
#[path = "../../../ebpf/tests/support/pcap.rs"]
mod pcap;
#[path = "../../../ebpf/tests/fuzz/random.rs"]
mod random;
mod sessions;
mod spoilt;
mod underlay;
mod verifier;
mod windows;

use std::sync::Mutex;

use tailgauge_testbed::needs;
use tailgauge_testbed::programs::{Programs, Sizes};

/// Loaded programs for one test, or `None` when this machine may not load any: the test is skipped aloud.
fn load(test: &str, sizes: Sizes) -> Option<Programs> {
    needs::root_and(test, &[]).ok()?;
    Some(Programs::load(sizes).unwrap())
}

/// Loads take turns: the verifier is the slow part, and on a small machine it would stretch the measured times.
static MEASURED: Mutex<()> = Mutex::new(());
