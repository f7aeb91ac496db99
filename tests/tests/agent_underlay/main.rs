//! Agents at both ends of a link under the tunnel: what they say of WireGuard, disco and paths against what the link
//! and the nodes have written down.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod delay;
mod handshakes;
mod judged;
mod lab;
mod loss;
mod paths;
mod restart;
mod roaming;
mod times;
mod totals;
