//! The HTTP server over real sockets on loopback.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests may panic")]

mod clients;
mod fixture;
mod pages;
