//! Kernel settings that decide how well a node forwards.

use std::borrow::Cow;

/// Below /proc/sys; a setting that this kernel does not have is not in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Numbers, by the name that sysctl(8) knows, in the order of `sources::host::sysctl`. Of a setting of three, each
    /// has its own name behind that: `net.ipv4.udp_mem.max`.
    pub numbers: Vec<(Cow<'static, str>, i64)>,
    /// `net.ipv4.tcp_congestion_control`; cleaned.
    pub congestion_control: Option<String>,
    /// `net.core.default_qdisc`; cleaned.
    pub default_qdisc: Option<String>,
}
