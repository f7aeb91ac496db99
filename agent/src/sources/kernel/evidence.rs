//! By which path a peer was sent to: what this node's own packets show before tailscaled says so.

use tailgauge_ebpf::layout::{
    PATH_DIRECT_IPV4, PATH_DIRECT_IPV6, PATH_PEER_RELAY_IPV4, PATH_PEER_RELAY_IPV6, UDP_PATHS,
};

use crate::model::tailnet::Path;

/// Paths by `PATH_*`.
const PATHS: [Path; UDP_PATHS] = {
    let mut paths = [Path::Idle; UDP_PATHS];
    paths[PATH_DIRECT_IPV4] = Path::DirectIpv4;
    paths[PATH_DIRECT_IPV6] = Path::DirectIpv6;
    paths[PATH_PEER_RELAY_IPV4] = Path::PeerRelayIpv4;
    paths[PATH_PEER_RELAY_IPV6] = Path::PeerRelayIpv6;
    paths
};

/// The path by which most data was sent between two readings of the counters by path; `None` when there was none, or
/// when two have as much. Only data counts: tailscaled pings paths that it does not use.
pub(super) fn path_taken(before: &[u64; UDP_PATHS], now: &[u64; UDP_PATHS]) -> Option<Path> {
    let mut most = (0, None);
    for ((before, now), path) in before.iter().zip(now).zip(PATHS) {
        // Counters that were zeroed in between say nothing.
        let new = now.saturating_sub(*before);
        if new > most.0 {
            most = (new, Some(path));
        } else if new == most.0 {
            most.1 = None;
        }
    }
    most.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_with_most_new_data_was_taken() {
        let taken = |before, now| path_taken(&before, &now);
        assert_eq!(taken([9, 9, 9, 9], [9, 9, 9, 9]), None);
        assert_eq!(taken([100, 0, 0, 0], [101, 0, 0, 0]), Some(Path::DirectIpv4));
        assert_eq!(taken([100, 0, 7, 0], [100, 2, 8, 0]), Some(Path::DirectIpv6), "not the most ever");
        assert_eq!(taken([0, 0, 0, 0], [0, 0, 1, 0]), Some(Path::PeerRelayIpv4));
        assert_eq!(taken([0, 0, 0, 5], [2, 2, 0, 9]), Some(Path::PeerRelayIpv6), "more than both others");
        assert_eq!(taken([0, 0, 0, 0], [2, 0, 0, 2]), None, "nobody knows");
        assert_eq!(taken([50, 0, 0, 0], [3, 0, 0, 0]), None, "zeroed in between");
    }
}
