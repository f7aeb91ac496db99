//! Families that stand in for classic exporters, each on a path of its own so that nothing is counted twice.

pub mod node;
pub mod tailscale;
