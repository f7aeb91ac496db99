//! How long the kernel thinks about the programs: most of the time that the agent takes to start.

use tailgauge_testbed::programs::Sizes;

use crate::load;

/// About 40 ms. Linux 6.1 follows up to 22,000, later kernels up to 16,000; what is not hidden from the verifier (see
/// `forget.rs` of the programs) multiplies that quickly.
const LIMIT: u32 = 30_000;

#[test]
fn the_verifier_is_soon_done_with_each_program() {
    let Some(programs) = load("the_verifier_is_soon_done", Sizes::default()) else { return };
    for (name, verified) in programs.verified().unwrap() {
        assert!(verified.is_none_or(|verified| verified <= LIMIT), "{name}: {verified:?} instructions");
    }
}
