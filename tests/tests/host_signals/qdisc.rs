//! A queueing discipline that holds packets back and drops them.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;

use serde_json::Value;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::needs;
use tailgauge_testbed::process::{CommandError, run};
use tailgauge_testbed::stage::Stage;

use crate::{agreed, kernel, stage, value};

const DEVICE: &str = "out0";
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PACKETS: u64 = 200;

/// A way out of the stage, with a neighbour who need not be asked for.
pub(crate) fn way_out(stage: &Stage) {
    way_out_by(stage, "link add out0 type veth peer name far0");
}

fn way_out_by(stage: &Stage, add: &str) {
    let namespace = &stage.namespace;
    for arguments in [
        add,
        "link set out0 up",
        "link set far0 up",
        "addr add 192.0.2.1/24 dev out0",
        "neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev out0 nud permanent",
        "route add default via 192.0.2.2 dev out0",
    ] {
        namespace.ip(&arguments.split(' ').collect::<Vec<_>>()).unwrap();
    }
}

fn shape(stage: &Stage, verb: &str, limits: &str) -> Result<String, CommandError> {
    let limits = limits.split(' ');
    let arguments = ["-n", stage.namespace.name(), "qdisc", verb, "dev", DEVICE, "root", "tbf"];
    run(Command::new("tc").args(arguments).args(limits))
}

/// What the agent says and what `tc` says, side by side.
fn same(scrape: &Exposition, qdisc: &Value) -> bool {
    [
        ("bytes_total", "bytes"),
        ("packets_total", "packets"),
        ("drops_total", "drops"),
        ("overlimits_total", "overlimits"),
        ("requeues_total", "requeues"),
        ("backlog_bytes", "backlog"),
        ("queue_packets", "qlen"),
    ]
    .into_iter()
    .all(|(metric, field)| {
        let labels = [("device", DEVICE), ("kind", "tbf")];
        let said = scrape.value(&format!("tailgauge_host_qdisc_{metric}"), &labels);
        said.is_some() && said == qdisc[field].as_f64()
    })
}

#[test]
fn a_shaper_s_drops_overlimits_and_backlog_are_those_of_tc() {
    let test = "a_shaper_s_drops_overlimits_and_backlog_are_those_of_tc";
    let Some(stage) = stage(test, &["ip", "tc"]) else { return };
    way_out(&stage);
    if let Err(error) = shape(&stage, "add", "rate 1gbit burst 1mb limit 10mb") {
        needs::skip(test, &format!("the queueing discipline tbf: {error}"));
        return;
    }
    let agent = stage.agent(&[]).unwrap();
    let socket = stage.namespace.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let send = || (0..PACKETS).for_each(|_| assert_eq!(socket.send_to(&[7; 1000], (FAR, 9)).unwrap(), 1000));
    let read = || kernel::qdisc(&stage.namespace, DEVICE);
    let count = |qdisc: &Value, field: &str| qdisc[field].as_u64().unwrap();

    let (_, before) = agreed(&agent, "the queue at rest", read, same);
    send();
    let (_, healthy) = agreed(&agent, "healthy traffic", read, same);
    assert_eq!(count(&healthy, "packets") - count(&before, "packets"), PACKETS);
    for field in ["drops", "overlimits", "backlog", "qlen"] {
        assert_eq!(count(&healthy, field), 0, "{field} is still when healthy");
    }

    // A packet a second, and room for some twenty.
    shape(&stage, "change", "rate 8kbit burst 2000 limit 20000").unwrap();
    send();
    let (_, after) = agreed(&agent, "the shaper at work", read, same);
    let (dropped, waiting) = (count(&after, "drops"), count(&after, "qlen"));
    assert_eq!(count(&after, "packets") - count(&healthy, "packets") + waiting + dropped, PACKETS);
    assert!(dropped > PACKETS / 2 && count(&after, "overlimits") > 0, "{after}");
    assert!(waiting > 0 && count(&after, "backlog") > waiting * 1000, "{after}");

    let (scrape, _) = agreed(
        &agent,
        "a sample of the backlog",
        || (),
        |scrape, ()| {
            let peak = scrape.value("tailgauge_host_qdisc_backlog_peak_15s_bytes", &[("device", DEVICE)]);
            // A packet may have left before the next sample.
            peak.is_some_and(|peak| peak >= count(&after, "backlog") as f64 / 2.0)
        },
    );
    assert_eq!(
        value(&scrape, "tailgauge_host_qdisc_drops_total", &[("device", DEVICE), ("kind", "tbf")]),
        dropped as f64
    );
}

#[test]
fn the_queues_of_a_device_with_several_add_up() {
    let test = "the_queues_of_a_device_with_several_add_up";
    let Some(stage) = stage(test, &["ip", "tc"]) else { return };
    way_out_by(
        &stage,
        "link add out0 numtxqueues 2 numrxqueues 2 type veth peer name far0 numrxqueues 2 numtxqueues 2",
    );
    let tc = |arguments: &str| {
        let all = ["-n", stage.namespace.name(), "qdisc", "add", "dev", DEVICE];
        run(Command::new("tc").args(all).args(arguments.split(' ')))
    };
    let limits = "tbf rate 8kbit burst 2000 limit 100000";
    for discipline in ["root handle 1: mq", &format!("parent 1:1 {limits}"), &format!("parent 1:2 {limits}")]
    {
        if let Err(error) = tc(discipline) {
            needs::skip(test, &format!("the queueing disciplines mq and tbf: {error}"));
            return;
        }
    }
    let agent = stage.agent(&[]).unwrap();
    // Each socket has a queue of its own, by chance.
    for _ in 0..32 {
        let socket = stage.namespace.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        for _ in 0..4 {
            socket.send_to(&[7; 1000], (FAR, 9)).unwrap();
        }
    }
    // The root's own figures are made when somebody asks for them.
    let waiting = kernel::qdisc(&stage.namespace, DEVICE)["backlog"].as_u64().unwrap();
    assert!(waiting > 100_000, "more than has room in one queue: {waiting}");
    let labels = [("device", DEVICE)];
    agreed(
        &agent,
        "a sample of the backlog",
        || (),
        |scrape, ()| {
            let peak = scrape.value("tailgauge_host_qdisc_backlog_peak_15s_bytes", &labels);
            // A packet a second leaves.
            peak.is_some_and(|peak| (waiting as f64 * 0.9..=waiting as f64 * 1.1).contains(&peak))
        },
    );
}
