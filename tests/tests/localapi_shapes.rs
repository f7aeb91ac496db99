//! The stand-in's LocalAPI says what the real one said, field by field.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tailgauge_testbed::client::{BusReader, localapi, localapi_as};
use tailgauge_testbed::miniature::{MiniatureTailnet, Options, Via, WEB_V4};
use tailgauge_testbed::needs;
use tailgauge_testbed::node::Node;
use tailgauge_testbed::traffic::{self, Ping};
use tailgauge_testbed::wireguard::Path;

fn recording(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recordings").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn recorded(name: &str) -> Value {
    serde_json::from_str(&recording(name)).unwrap()
}

/// Every path of keys; elements of arrays and entries of maps with data for keys share one path.
fn shape(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, path: &str, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (key, inner) in fields {
                    let data = key.starts_with("nodekey:") || key.chars().all(|digit| digit.is_ascii_digit());
                    let path = format!("{path}/{}", if data { "*" } else { key });
                    into.insert(path.clone());
                    walk(inner, &path, into);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, &format!("{path}[]"), into)),
            _ => {}
        }
    }
    let mut paths = BTreeSet::new();
    walk(value, "", &mut paths);
    paths
}

fn assert_same_shape(ours: &Value, theirs: &Value, allowed: &[&str], what: &str) {
    let (ours, theirs) = (shape(ours), shape(theirs));
    let tolerated = |path: &&String| !allowed.iter().any(|part| path.contains(part));
    let missing: Vec<_> = theirs.difference(&ours).filter(tolerated).collect();
    let invented: Vec<_> = ours.difference(&theirs).filter(tolerated).collect();
    assert!(missing.is_empty() && invented.is_empty(), "{what}: missing {missing:?}, invented {invented:?}");
}

fn get(node: &Node, endpoint: &str) -> Value {
    let answer = localapi(node.socket(), &format!("/localapi/v0/{endpoint}")).unwrap();
    assert_eq!(answer.status, 200, "{endpoint}");
    answer.json().unwrap()
}

fn peer<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["Peer"].as_object().unwrap().values().find(|peer| peer["HostName"] == name).unwrap()
}

#[test]
fn answers_have_the_recorded_fields() {
    let Ok(()) = needs::root_and("answers_have_the_recorded_fields", &["ip", "nft"]) else { return };
    let tailnet = MiniatureTailnet::up(Options::default()).unwrap();
    let (exit, c1) = (tailnet.exit(), tailnet.c1());
    traffic::ping(c1.namespace(), WEB_V4.into(), &Ping::default()).unwrap();

    // The recorded exit node's own routes were not in its own status yet, and it had no subnet router for a peer.
    let routes = ["PrimaryRoutes"];
    let status = get(exit, "status");
    assert_same_shape(&status, &recorded("status-exit-node.json"), &routes, "status of the exit node");
    let client = get(c1, "status");
    assert_same_shape(
        &client,
        &recorded("status-client-using-exit-node.json"),
        &routes,
        "status of a client",
    );
    let alone = get(exit, "status?peers=false");
    assert_same_shape(&alone, &recorded("status-self-only.json"), &routes, "status of self");
    assert!(alone["Peer"].is_null());
    assert_same_shape(&get(exit, "prefs"), &recorded("prefs-exit-node.json"), &[], "prefs");
    assert_same_shape(&get(exit, "derpmap"), &recorded("derpmap.json"), &[], "derpmap");
    let whois = get(exit, "whois?addr=100.64.0.2:1234");
    assert_same_shape(&whois, &recorded("whois.json"), &[], "whois");
    assert_eq!(whois["Node"]["ComputedName"], "c1");
    let disco = tailnet.control().by_name("c1").unwrap().disco.to_string();
    assert_eq!(whois["Node"]["DiscoKey"], disco);

    let text = localapi(exit.socket(), "/localapi/v0/usermetrics").unwrap().text();
    let names = |text: &str| -> BTreeSet<String> {
        text.lines().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    // Comments lose their last word, samples their value: what stays must be the same.
    assert_eq!(names(&text), names(&recording("usermetrics.prom")));
}

#[test]
fn first_message_on_the_bus_has_the_recorded_fields() {
    let Ok(()) = needs::root_and("first_message_on_the_bus_has_the_recorded_fields", &["ip", "nft"]) else {
        return;
    };
    let tailnet = MiniatureTailnet::up(Options::default()).unwrap();
    traffic::ping(tailnet.c1().namespace(), WEB_V4.into(), &Ping::default()).unwrap();
    let filter = ["PacketFilter", "PrimaryRoutes", "RoutableIPs", "MappingVariesByDestIP"];
    for (mask, name) in [(139, "bus-exit-node-mask139.ndjson"), (315_523, "bus-exit-node-mask315523.ndjson")]
    {
        let mut bus = BusReader::watch(tailnet.exit().socket(), mask).unwrap();
        let first = bus.next_message().unwrap().unwrap();
        let theirs: Value = serde_json::from_str(recording(name).lines().next().unwrap()).unwrap();
        assert_same_shape(&first, &theirs, &filter, name);
    }
}

#[test]
fn bus_tells_every_change_that_the_real_one_tells() {
    let Ok(()) = needs::root_and("bus_tells_every_change_that_the_real_one_tells", &["ip", "nft"]) else {
        return;
    };
    let tailnet = MiniatureTailnet::up(Options::default()).unwrap();
    let mut bus = BusReader::watch(tailnet.exit().socket(), 315_522).unwrap();
    assert_eq!(bus.next_message().unwrap().unwrap()["State"], 6);
    let mut next = |field: &str| loop {
        let message = bus.next_message().unwrap().expect("the bus goes on");
        if !message[field].is_null() {
            return message[field].clone();
        }
    };
    tailnet.rename_peer("c2", "c2-renamed").unwrap();
    let changed = next("PeersChanged");
    assert_eq!(changed[0]["ComputedName"], "c2-renamed");
    let theirs = recording("bus-exit-node-mask315523.ndjson");
    let theirs = theirs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut renamed = theirs.into_iter().map(|message| message["PeersChanged"].clone());
    let renamed = renamed.rfind(|changed| changed[0]["ComputedName"] == "c2-renamed").unwrap();
    // This client uses an exit node, the recorded one did not.
    assert_same_shape(&changed, &renamed, &["ExitNodeID", "MappingVariesByDestIP"], "PeersChanged");

    tailnet.set_online("six", false).unwrap();
    assert_eq!(next("PeerChangedPatch"), serde_json::json!([{ "NodeID": 5, "Online": false }]));
    let before = changed[0]["Key"].clone();
    tailnet.rotate_key("c2-renamed").unwrap();
    assert_ne!(next("PeersChanged")[0]["Key"], before);
    tailnet.rotate_disco_key("c2-renamed").unwrap();
    assert_ne!(next("PeersChanged")[0]["DiscoKey"], changed[0]["DiscoKey"]);
    let machine = tailnet.remove_peer("c2-renamed").unwrap();
    assert_eq!(next("PeersRemoved"), serde_json::json!([3]));
    tailnet.add_peer(machine).unwrap();
    assert_eq!(next("PeersChanged")[0]["ID"], 3);
    traffic::ping(tailnet.c1().namespace(), WEB_V4.into(), &Ping::default()).unwrap();
    assert_eq!(next("PeerState")["2"]["PeerWireGuardState"], "established");
}

#[test]
fn status_reports_paths() {
    let Ok(()) = needs::root_and("status_reports_paths", &["ip", "nft"]) else { return };
    let tailnet = MiniatureTailnet::up(Options::default()).unwrap();
    let exit = tailnet.exit();
    let path = |name: &str| {
        let status = get(exit, "status");
        let peer = peer(&status, name);
        (peer["CurAddr"].as_str().unwrap().to_owned(), peer["PeerRelay"].as_str().unwrap().to_owned())
    };
    assert_eq!(path("c2"), (String::new(), String::new()), "no traffic, no path");
    for node in [tailnet.c1(), tailnet.six()] {
        let answered = traffic::ping(node.namespace(), WEB_V4.into(), &Ping::default()).unwrap();
        assert_eq!(answered.round_trips.len(), 1);
    }
    assert_eq!(path("c1").0, "10.99.0.11:41641");
    assert_eq!(path("six").0, "[2001:db8:99::d]:41641");
    tailnet.set_path(exit, "c1", Via::Derp).unwrap();
    assert_eq!(path("c1"), (String::new(), String::new()));
    for (via, relay) in [(Via::PeerRelayV4, "10.99.0.1:40000"), (Via::PeerRelayV6, "[2001:db8:99::1]:40000")]
    {
        let Path::PeerRelay(_, network) = tailnet.set_path(exit, "c1", via).unwrap() else { unreachable!() };
        assert_eq!(path("c1"), (String::new(), format!("{relay}:vni:{network}")));
    }
    tailnet.set_path(exit, "c1", Via::Direct).unwrap();
    assert_eq!(path("c1"), ("10.99.0.11:41641".to_owned(), String::new()));
}

#[test]
fn foreign_host_names_are_refused() {
    let Ok(()) = needs::root_and("foreign_host_names_are_refused", &["ip", "nft"]) else { return };
    let tailnet = MiniatureTailnet::up(Options::default()).unwrap();
    let socket = tailnet.exit().socket();
    let refused = localapi_as(socket, "/localapi/v0/status", "localhost").unwrap();
    assert_eq!((refused.status, refused.text().as_str()), (403, "invalid localapi request\n"));
    let answer = localapi(socket, "/localapi/v0/status").unwrap();
    assert_eq!(answer.header("tailscale-cap"), Some("142"));
    assert_eq!(localapi(socket, "/localapi/v0/nothing").unwrap().status, 404);
}
