//! Network stack of the host.

use super::{Family, Section, View};
use crate::model::host::{Ip, Tcp, Udp};
use crate::outputs::prometheus::family::Header;
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "Network stack of the host",
    about: "Of the network namespace that the agent runs in. `family` is `ipv4` or `ipv6`. TCP and UDP are those of \
            this host's own sockets; tailscaled's own packets are among the latter.",
    families: &[
        Family {
            header: Header::counter(
                "tailgauge_host_ip_receive_packets_total",
                &["family"],
                "IP packets received; a super-packet is one.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.in_receives),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_receive_header_errors_total",
                &["family"],
                "IP packets dropped for errors in their headers.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.in_header_errors),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_receive_discards_total",
                &["family"],
                "IP packets received and dropped for want of resources.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.in_discards),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_forwarded_packets_total",
                &["family"],
                "IP packets forwarded; a super-packet is one.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.forwarded),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_transmit_packets_total",
                &["family"],
                "IP packets that this host itself sent; before kernel 6.7 IPv4 counts those that it forwarded, too.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.out_requests),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_transmit_discards_total",
                &["family"],
                "IP packets to be sent and dropped for want of resources.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.out_discards),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_no_routes_total",
                &["family"],
                "IP packets dropped because no route was found.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.out_no_routes),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_receive_no_routes_total",
                &["family"],
                "IP packets that were to be forwarded, and no route leads where they go.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.in_no_routes),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_receive_address_errors_total",
                &["family"],
                "IP packets for somebody else that were dropped, mostly because this host does not forward.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.in_address_errors),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_reverse_path_drops_total",
                &["family"],
                "IPv4 packets dropped because an answer would leave by another way (rp_filter).",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.reverse_path_drops),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_reassembly_failures_total",
                &["family"],
                "Fragmented IP packets that could not be put together.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.reassembly_failures),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_fragmentation_failures_total",
                &["family"],
                "IP packets too big and not to be fragmented: the sign of a path MTU problem.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.fragmentation_failures),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_fragments_created_total",
                &["family"],
                "IP fragments made.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.fragments_created),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_icmp_destination_unreachable_sent_total",
                &["family"],
                "ICMP destination unreachable messages sent; for IPv4 those of path MTU discovery are among them.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.icmp_out_destination_unreachable),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_ip_icmp_packet_too_big_sent_total",
                &["family"],
                "ICMPv6 packet too big messages sent.",
            ),
            samples: |view, samples| ip(view, samples, |ip| ip.icmp_out_packet_too_big),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_udp_receive_datagrams_total",
                &["family"],
                "UDP datagrams received by sockets.",
            ),
            samples: |view, samples| udp(view, samples, |udp| udp.in_datagrams),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_udp_transmit_datagrams_total",
                &["family"],
                "UDP datagrams sent by sockets.",
            ),
            samples: |view, samples| udp(view, samples, |udp| udp.out_datagrams),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_udp_no_ports_total",
                &["family"],
                "UDP datagrams to ports that no socket is bound to.",
            ),
            samples: |view, samples| udp(view, samples, |udp| udp.no_ports),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_udp_receive_errors_total",
                &["family"],
                "UDP datagrams that came and no socket got, for whatever reason: those of buffers, checksums and memory are \
                 among them.",
            ),
            samples: |view, samples| udp(view, samples, |udp| udp.in_errors),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_udp_receive_buffer_errors_total",
                &["family"],
                "UDP datagrams dropped because the socket's receive buffer was full.",
            ),
            samples: |view, samples| udp(view, samples, |udp| udp.receive_buffer_errors),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_udp_send_buffer_errors_total",
                &["family"],
                "UDP datagrams not sent because the socket's send buffer was full.",
            ),
            samples: |view, samples| udp(view, samples, |udp| udp.send_buffer_errors),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_udp_checksum_errors_total",
                &["family"],
                "UDP datagrams with a wrong checksum.",
            ),
            samples: |view, samples| udp(view, samples, |udp| udp.checksum_errors),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_udp_memory_errors_total",
                &["family"],
                "UDP datagrams dropped because udp_mem was exhausted; absent before kernel 5.11.",
            ),
            samples: |view, samples| udp(view, samples, |udp| udp.memory_errors),
        },
        Family {
            header: Header::gauge(
                "tailgauge_host_tcp_established",
                &[],
                "Connections that are established now.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.established),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_active_opens_total",
                &[],
                "Connections opened by this host's own sockets.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.active_opens),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_passive_opens_total",
                &[],
                "Connections accepted by this host's own sockets.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.passive_opens),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_failed_attempts_total",
                &[],
                "Connections that did not come about.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.attempt_fails),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_resets_total",
                &[],
                "Established connections that were reset.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.established_resets),
        },
        Family {
            header: Header::counter("tailgauge_host_tcp_receive_segments_total", &[], "Segments received."),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.in_segments),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_transmit_segments_total",
                &[],
                "Segments sent, without retransmitted ones.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.out_segments),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_retransmitted_segments_total",
                &[],
                "Segments sent again.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.retransmitted_segments),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_lost_retransmits_total",
                &[],
                "Segments sent again that were lost once more.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.lost_retransmits),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_sack_recoveries_total",
                &[],
                "Times that selective acknowledgements told of a loss before a timeout did.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.sack_recoveries),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_timeouts_total",
                &[],
                "Retransmission timers that expired.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.timeouts),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_syn_retransmits_total",
                &[],
                "SYNs and SYN-ACKs sent again.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.syn_retransmits),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_receive_errors_total",
                &[],
                "Segments received in error.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.in_errors),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_listen_overflows_total",
                &[],
                "Connections refused because a listener's accept queue was full.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.listen_overflows),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_listen_drops_total",
                &[],
                "SYNs dropped at listeners for any reason.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.listen_drops),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_backlog_drops_total",
                &[],
                "Segments dropped because a socket's backlog was full.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.backlog_drops),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_receive_buffer_prunes_total",
                &[],
                "Times that a socket's receive buffer had to be pruned.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.prunes),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_memory_pressures_total",
                &[],
                "Times that TCP came under memory pressure (tcp_mem).",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.memory_pressures),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_mtu_probe_failures_total",
                &[],
                "Path MTU probes that failed.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.mtu_probe_failures),
        },
        Family {
            header: Header::counter(
                "tailgauge_host_tcp_mtu_probe_successes_total",
                &[],
                "Path MTU probes that arrived.",
            ),
            samples: |view, samples| tcp(view, samples, |tcp| tcp.mtu_probe_successes),
        },
    ],
};

fn ip(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Ip) -> Option<u64>) {
    let Some(protocols) = &view.model.host.protocols else { return };
    by_family(samples, value(&protocols.ipv4), protocols.ipv6.as_ref().and_then(value));
}

fn udp(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Udp) -> Option<u64>) {
    let Some(protocols) = &view.model.host.protocols else { return };
    by_family(samples, value(&protocols.udp), protocols.udp6.as_ref().and_then(value));
}

fn by_family(samples: &mut Samples<'_>, ipv4: Option<u64>, ipv6: Option<u64>) {
    for (family, value) in [("ipv4", ipv4), ("ipv6", ipv6)] {
        if let Some(value) = value {
            samples.sample().label("family", family).integer(value);
        }
    }
}

fn tcp(view: &View<'_>, samples: &mut Samples<'_>, value: fn(&Tcp) -> Option<u64>) {
    samples.plain(view.model.host.protocols.as_ref().and_then(|protocols| value(&protocols.tcp)));
}
