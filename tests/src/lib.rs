//! The testbed: namespaces, adjustable links and a miniature tailnet of real TUN devices.

pub mod agent;
pub mod control;
pub mod exposition;
pub mod http;
pub mod leftovers;
pub mod link;
pub mod localapi;
pub mod miniature;
pub mod needs;
pub mod netns;
pub mod node;
pub mod offload;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod proof;
pub mod real;
pub mod scripted;
pub mod stage;
pub mod tailnet;
pub mod traffic;
pub mod tun;
pub mod wake;
pub mod wireguard;
