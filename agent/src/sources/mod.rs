//! Each source knows one place outside and fills its own part of the model.

mod clean;
pub mod host;
pub mod kernel;
mod netlink;
pub mod sampler;
pub mod tailscale;
