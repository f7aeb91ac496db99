//! Plain data, no I/O: what the sources know at this moment.

pub mod collector;
pub mod host;
pub mod kernel;
pub mod node;
pub mod sampled;
pub mod slots;
pub mod synthetic;
pub mod tailnet;
pub mod user_metrics;

use std::sync::Arc;

use collector::Collectors;
use host::Host;
use kernel::Kernel;
use node::Node;
use sampled::Sampled;
use slots::SlotTable;
use tailnet::Tailnet;
use user_metrics::UserMetrics;

/// Everything the sources know. Each source writes its own field and no other; outputs read.
#[derive(Debug, Default)]
pub struct Model {
    /// Filled by `sources::tailscale`; the last known state stays while tailscaled is away.
    pub tailnet: Arc<Tailnet>,
    /// Filled by `sources::tailscale` when they are wanted; `None` while tailscaled does not answer, too.
    pub user_metrics: Option<UserMetrics>,
    /// Which peer owns which row of the kernel maps.
    pub slots: SlotTable,
    /// Filled by `sources::kernel`.
    pub kernel: Kernel,
    /// Filled by `sources::host`.
    pub host: Host,
    /// Filled by `sources::host::node`, when it is asked for.
    pub node: Node,
    /// Filled by `sources::sampler`.
    pub sampled: Sampled,
    /// Health of every source.
    pub collectors: Collectors,
}
