//! `usermetrics`: the text that `tailscale metrics` shows.

use std::fmt::Write;

use super::shapes::HOME_DERP;
use super::view::View;
use crate::wireguard::Traffic;

/// Every metric of tailscaled 1.102.3 without a running peer relay, in its order.
pub(super) fn encode(view: &View) -> String {
    let totals = view.traffic_by_path();
    let [advertised, approved] = view.route_counts();
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# TYPE tailscaled_{name} {kind}\n# HELP tailscaled_{name} {help}");
        for (labels, value) in samples {
            let _ = writeln!(text, "tailscaled_{name}{labels} {value}");
        }
    };
    let plain = |value| vec![(String::new(), value)];
    let label = |name: &str, value: &str, count| (format!("{{{name}=\"{value}\"}}"), count);
    let by_path = |pick: fn(&Traffic) -> u64| -> Vec<(String, u64)> {
        totals.iter().map(|(path, traffic)| label("path", path, pick(traffic))).collect()
    };
    let routes = "network routes (e.g. by a subnet router)";
    family("advertised_routes", "gauge", &format!("Number of advertised {routes}"), &plain(advertised));
    family("approved_routes", "gauge", &format!("Number of approved {routes}"), &plain(approved));
    family(
        "health_messages",
        "gauge",
        "Number of health messages broken down by type.",
        &[label("type", "warning", 0)],
    );
    let help = "DERP region ID of this node's home relay server";
    family("home_derp_region_id", "gauge", help, &plain(HOME_DERP));
    let help = "Counts the number of bytes received from other peers";
    family("inbound_bytes_total", "counter", help, &by_path(|traffic| traffic.rx_bytes));
    let help = "Counts the number of dropped packets received by the node from other peers";
    family("inbound_dropped_packets_total", "counter", help, &[]);
    let help = "Counts the number of packets received from other peers";
    family("inbound_packets_total", "counter", help, &by_path(|traffic| traffic.rx_packets));
    let help = "Counts the number of bytes sent to other peers";
    family("outbound_bytes_total", "counter", help, &by_path(|traffic| traffic.tx_bytes));
    let help = "Counts the number of packets dropped while being sent to other peers";
    let drops = [label("reason", "error", view.drops()), label("reason", "unknown_protocol", 0)];
    family("outbound_dropped_packets_total", "counter", help, &drops);
    let help = "Counts the number of packets sent to other peers";
    family("outbound_packets_total", "counter", help, &by_path(|traffic| traffic.tx_packets));
    for (direction, side) in [("inbound", "received from"), ("outbound", "sent to")] {
        let help = format!(
            "Bytes {side} peers on Serve connections for Tailscale Services, \
             labeled by Tailscale Service name."
        );
        family(&format!("serve_{direction}_bytes_total"), "counter", &help, &[]);
    }
    text
}
