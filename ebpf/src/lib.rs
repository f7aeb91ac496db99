//! What the kernel programs and the agent share: the layout of every map, the parsers of packets and of tailscaled's
//! messages, the account of a session's counters, and the histogram index. `no_std` and free of I/O, so that all of it
//! is tested on the host.
#![cfg_attr(not(test), no_std)]

pub mod exchange;
pub mod histogram;
pub mod layout;
pub mod message;
pub mod packet;
pub mod sequence;
