//! The testbed: namespaces, adjustable links and a miniature tailnet of real TUN devices.

pub mod agent;
pub mod exposition;
pub mod http;
pub mod leftovers;
pub mod needs;
pub mod netns;
pub mod offload;
pub mod process;
pub mod programs;
pub mod proof;
pub mod real;
pub mod tailnet;
