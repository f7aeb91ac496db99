//! Each source knows one place outside and fills its own part of the model.

mod clean;
pub mod host;
pub mod kernel;
mod netlink;
pub mod sampler;
pub mod tailscale;
mod thread_time;

use thread_time::thread_time;
