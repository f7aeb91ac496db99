//! `/compat/node` beside Debian's node_exporter: the same families, types, labels and values.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers may panic"
)]

mod compare;
mod differences;
mod stand;

use std::time::{Duration, Instant};

use tailgauge_testbed::{compat, needs};

use compare::Rounds;
use differences::COVERED;
use stand::{ROOT, Stand, with};

const NEEDED: [&str; 4] = ["ip", "nft", "unshare", "prometheus-node-exporter"];
/// Enough to tell a figure that is often wrong from one that moved.
const ROUNDS: u32 = 10;
/// Long enough for every figure to stand still once.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn every_family_has_the_type_the_labels_and_the_values_of_node_exporter() {
    let Ok(()) =
        needs::root_and("every_family_has_the_type_the_labels_and_the_values_of_node_exporter", &NEEDED)
    else {
        return;
    };
    with("/", agrees);
}

#[test]
fn the_host_of_a_container_is_shown_as_node_exporter_shows_it() {
    let Ok(()) = needs::root_and("the_host_of_a_container_is_shown_as_node_exporter_shows_it", &NEEDED)
    else {
        return;
    };
    with(ROOT, agrees);
}

fn agrees(stand: &Stand<'_>) {
    let collectors: Vec<_> = compat::collectors().map(|name| format!("collect[]={name}")).collect();
    let ours = format!("/compat/node?{}", collectors.join("&"));
    let mut rounds = Rounds::default();
    let end = Instant::now() + PATIENCE;
    // A figure that moves may do so between the scrapes: it has to agree once. One that stands still has no excuse.
    for round in 1.. {
        let before = stand.reference();
        let between = stand.agent(&ours);
        let findings = rounds.add(&before, &between, &stand.reference());
        if findings.is_empty() && round >= ROUNDS {
            break;
        }
        assert!(Instant::now() < end, "{}\nthe agent's log:\n{}", findings.join("\n"), stand.log());
    }
    assert!(rounds.series() > 300, "only {} series were compared", rounds.series());
}

#[test]
fn native_file_systems_are_those_of_the_host_from_a_container_too() {
    let test = "native_file_systems_are_those_of_the_host_from_a_container_too";
    let Ok(()) = needs::root_and(test, &NEEDED) else { return };
    for root in ["/", ROOT] {
        with(root, |stand| native_agrees(stand, root));
    }
}

fn native_agrees(stand: &Stand<'_>, root: &str) {
    let (reference, ours) = (stand.reference().samples, stand.agent("/metrics").samples);
    let mut points = Vec::new();
    for found in ours.matching("tailgauge_host_filesystem_size_bytes", &[]) {
        let labels = ["device", "mountpoint", "fstype"].map(|name| (name, found.label(name).unwrap()));
        points.push(labels[1].1);
        // node_exporter leaves these folders out.
        if !["/dev/", "/proc/", "/sys/"].iter().any(|folder| labels[1].1.starts_with(folder)) {
            let expected = reference.value("node_filesystem_size_bytes", &labels);
            assert_eq!(expected, Some(found.value), "{root}: {labels:?}");
        }
    }
    for expected in ["/run", "/run/with blank"] {
        assert_eq!(points.iter().filter(|point| **point == expected).count(), 1, "{root}: {points:?}");
    }
    assert!(points.iter().all(|point| !point.starts_with(ROOT) && *point != COVERED), "{root}: {points:?}");
}

#[test]
fn collectors_are_chosen_as_in_node_exporter() {
    let Ok(()) = needs::root_and("collectors_are_chosen_as_in_node_exporter", &NEEDED) else { return };
    with("/", chooses);
}

fn chooses(stand: &Stand<'_>) {
    let collectors = |query: &str| {
        let scrape = stand.agent(&format!("/compat/node{query}"));
        let names = scrape.samples.matching("node_scrape_collector_success", &[]);
        names.map(|sample| sample.label("collector").unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(collectors(""), compat::BY_DEFAULT);
    assert_eq!(collectors("?collect[]=tcpstat&collect%5B%5D=cpu"), ["cpu", "tcpstat"]);
    let others: Vec<_> = compat::BY_DEFAULT.into_iter().filter(|name| *name != "netclass").collect();
    assert_eq!(collectors("?exclude[]=netclass&exclude[]=hwmon"), others);
    for query in ["?collect[]=coffee", "?collect[]=", "?collect[]=cpu&collect[]=coffee"] {
        assert_eq!(stand.status(query), (400, 400), "{query}");
    }
    // node_exporter knows exclude[] since 1.9.
    assert_eq!(stand.status("?collect[]=cpu&exclude[]=stat").1, 400);
}
