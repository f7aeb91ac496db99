//! `/compat/tailscale`: the families that the classic tailscale exporters have.
//!
//! Public exporters disagree about labels (`id`, `peer`, `host`). Here they are `peer` (the name, as dashboards
//! show it), `peer_id` (names need not be unique: nodes may be shared in from other tailnets), `peer_os`, and
//! `relay` (the home DERP region, which says nothing about the path).

use bytes::BytesMut;

use crate::model::tailnet::{Path, Peer, Tailnet};
use crate::outputs::prometheus::{Format, Header, Samples, family};

/// Heading in docs/METRICS.md.
pub(in crate::outputs) const TITLE: &str = "/compat/tailscale";
/// What holds for all of them.
pub(in crate::outputs) const ABOUT: &str = "On their own path, for dashboards of the classic tailscale exporters; always text 0.0.4. `tailscale_peers_total` \
     is a gauge, as it always was, and so not clean in the eyes of `promtool check metrics`. `relay` is the home DERP \
     region of the peer and does not say that it is reached by relay.";

const PEER_LABELS: &[&str] = &["peer", "peer_id", "peer_os", "relay"];
const PEERS: Header = Header::gauge("tailscale_peers_total", &[], "Number of peers of the tailnet.");
const PEERS_ONLINE: Header = Header::gauge("tailscale_peers_online", &[], "Number of peers that are online.");
const ONLINE: Header = Header::gauge("tailscale_peer_online", PEER_LABELS, "1 if the peer is online.");
const DIRECT: Header = Header::gauge(
    "tailscale_peer_direct",
    PEER_LABELS,
    "1 if the peer is reached directly; 0 by any relay and while there is no path.",
);

/// Every family.
pub(in crate::outputs) const HEADERS: [&Header; 4] = [&PEERS, &PEERS_ONLINE, &ONLINE, &DIRECT];

/// Appends the classic families in text 0.0.4.
pub fn render(tailnet: &Tailnet, out: &mut BytesMut) {
    let peers = &tailnet.peers;
    let online = peers.iter().filter(|peer| peer.online).count();
    family(&PEERS, Format::Text, out, |samples| samples.plain(Some(peers.len() as u64)));
    family(&PEERS_ONLINE, Format::Text, out, |samples| samples.plain(Some(online as u64)));
    family(&ONLINE, Format::Text, out, |samples| by_peer(tailnet, samples, |peer| peer.online));
    family(&DIRECT, Format::Text, out, |samples| {
        by_peer(tailnet, samples, |peer| matches!(peer.path, Path::DirectIpv4 | Path::DirectIpv6));
    });
}

fn by_peer(tailnet: &Tailnet, samples: &mut Samples<'_>, value: fn(&Peer) -> bool) {
    for peer in &tailnet.peers {
        let line = samples.sample().label("peer", &peer.name).label("peer_id", &peer.id);
        line.label("peer_os", &peer.os).label("relay", &peer.derp_region).flag(value(peer));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_classic_families() {
        let peer = |id: &str, name: &str, online, path| {
            let (id, name, os) = (id.to_owned(), name.to_owned(), "linux".to_owned());
            Arc::new(Peer { id, name, os, online, path, derp_region: "fra".to_owned(), ..Peer::default() })
        };
        let peers = vec![
            peer("n1", "laptop", true, Path::DirectIpv6),
            peer("n2", "a\"b\nc", true, Path::Derp),
            peer("n3", "phone", false, Path::Idle),
        ];
        let mut out = BytesMut::new();
        render(&Tailnet { peers, ..Tailnet::default() }, &mut out);
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            r#"# HELP tailscale_peers_total Number of peers of the tailnet.
# TYPE tailscale_peers_total gauge
tailscale_peers_total 3
# HELP tailscale_peers_online Number of peers that are online.
# TYPE tailscale_peers_online gauge
tailscale_peers_online 2
# HELP tailscale_peer_online 1 if the peer is online.
# TYPE tailscale_peer_online gauge
tailscale_peer_online{peer="laptop",peer_id="n1",peer_os="linux",relay="fra"} 1
tailscale_peer_online{peer="a\"b\nc",peer_id="n2",peer_os="linux",relay="fra"} 1
tailscale_peer_online{peer="phone",peer_id="n3",peer_os="linux",relay="fra"} 0
# HELP tailscale_peer_direct 1 if the peer is reached directly; 0 by any relay and while there is no path.
# TYPE tailscale_peer_direct gauge
tailscale_peer_direct{peer="laptop",peer_id="n1",peer_os="linux",relay="fra"} 1
tailscale_peer_direct{peer="a\"b\nc",peer_id="n2",peer_os="linux",relay="fra"} 0
tailscale_peer_direct{peer="phone",peer_id="n3",peer_os="linux",relay="fra"} 0
"#
        );
    }
}
