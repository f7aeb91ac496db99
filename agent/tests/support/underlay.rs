//! What the programs saw of the tunnel's own messages.

use tailgauge::model::kernel::{Kernel, SessionTotals};
use tailgauge_ebpf::layout::{
    Messages, PATH_DIRECT_IPV4, PATH_PEER_RELAY_IPV6, PathCounters, PeerUnderlayLine, WireGuard,
};

use super::model::histogram;

/// Peer 1 was reached by two paths, one of them one way only, and had handshakes; peer 2 had disco alone; of peer 3
/// nothing was seen.
pub(super) fn fill(kernel: &mut Kernel) {
    let path = |start: u64| PathCounters { bytes: start + 1, data: start - 3, others: 3, spare: 0 };
    let mut lines = [PeerUnderlayLine::default(); 2];
    lines[0].path[PATH_DIRECT_IPV4] = path(300);
    lines[1].path[PATH_DIRECT_IPV4] = path(400);
    lines[1].path[PATH_PEER_RELAY_IPV6] = path(500);
    let mut unattributed = [PeerUnderlayLine::default(); 2];
    unattributed[0].path[PATH_DIRECT_IPV4] = path(10);
    unattributed[0].path[PATH_PEER_RELAY_IPV6] = path(20);
    kernel.peer_underlay = vec![unattributed, lines, [PeerUnderlayLine::default(); 2]];
    let handshakes = WireGuard {
        handshake: histogram(&[1_500, 250_000]),
        completed: [2, 3],
        initiations: [4, 5],
        retries: 6,
        responses: [7, 8],
        unpaired_responses: 9,
        cookies: [10, 11],
        failures: 12,
        ..WireGuard::EMPTY
    };
    let disco = WireGuard {
        disco_rtt: histogram(&[900, 1_100, 40_000]),
        pings: [13, 14],
        pongs: [15, 16],
        pongs_ambiguous: 17,
        ..WireGuard::EMPTY
    };
    kernel.wireguard = vec![(0, handshakes), (1, handshakes), (2, disco)];
    let sessions = SessionTotals { received: 1_000, reordered: 20, duplicated: 3, lost: 4, unjudged: 5 };
    kernel.sessions = vec![sessions, sessions, SessionTotals::default()];
    kernel.messages = Some(Box::new(Messages {
        seen: [[1, 2, 3, 4, 5, 6, 7, 8, 9], [10, 20, 30, 40, 50, 60, 70, 80, 90]],
        handshake_response: histogram(&[20, 700]),
        disco_response: histogram(&[100, 150, 3_000_000]),
    }));
}
