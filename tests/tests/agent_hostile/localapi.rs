//! tailscaled says nonsense, too much, nothing, or is not there: traffic is counted on with the last known names.

use std::fs;
use std::time::Duration;

use serde_json::json;
use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::process::wait_for;
use tailgauge_testbed::scripted::{Script, Scripted, peer, status};
use tailgauge_testbed::stage::{NOWHERE, Stage, udp_frame};

use crate::{Before, stage, sum, value};

const UP: &str = "tailgauge_tailscaled_up";

fn http(body: &[u8]) -> Script {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    Script::Bytes([head.as_bytes(), body].concat())
}

/// Waits until tailscaled is said to be up or not.
fn wait_up(agent: &Agent<'_>, up: f64, why: &str) {
    wait_for(why, Duration::from_secs(15), || {
        (agent.scrape().ok()?.value(UP, &[]) == Some(up)).then_some(())
    })
    .unwrap_or_else(|timeout| panic!("{timeout}; the log:\n{}", agent.log()));
}

/// Says `script` and sees to it that peers and traffic stay, and that the agent recovers.
fn withstand(stage: &Stage, agent: &Agent<'_>, name: &str, script: Script, complaint: &str) {
    let before = sum(agent, "tailgauge_peer_receive_packets_total");
    stage.api.say(script);
    wait_up(agent, 0.0, name);
    assert!(stage.receive(&udp_frame([100, 64, 0, 2], NOWHERE, 64)));
    let scrape = agent.scrape().unwrap();
    let received = scrape.sum("tailgauge_peer_receive_packets_total", &[("peer_id", "n2")]);
    assert_eq!(received, before + 1.0, "{name}: counted to the peer that is still known");
    let log = agent.log();
    assert!(log.contains(complaint), "{name}: no {complaint:?} in the log:\n{log}");
    stage.api.say(Script::Status(status(&[peer(2)])));
    wait_up(agent, 1.0, "tailscaled to be known as up again");
}

/// Gives an agent one script after the other. They are few: equal lines of log are held back after some.
fn survives(test: &str, cases: &[(&str, Script, &str)]) {
    let Some(stage) = stage(test) else { return };
    let agent = stage.agent(&[]).unwrap();
    let before = Before::read(&stage, &agent);
    for (name, script, complaint) in cases {
        withstand(&stage, &agent, name, script.clone(), complaint);
    }
    let log = agent.log();
    assert!(!log.contains('\u{1b}'), "no escape sequence gets into the log");
    assert!(log.lines().count() < 100, "{} lines of log", log.lines().count());
    let resident = value(&agent.scrape().unwrap(), "process_resident_memory_bytes", &[]);
    println!("{resident} bytes resident");
    assert!(resident < 200e6, "{resident} bytes resident");
    assert_eq!(before.assert_exact(&stage, &agent).rx_packets, cases.len() as u64);
}

#[test]
fn wrong_json_is_survived_and_named_in_the_log() {
    let whole = status(&[peer(2)]);
    let expected = "is not the JSON expected";
    let cases = [
        ("truncated JSON", http(&whole[..whole.len() / 2]), expected),
        ("another shape", http(br#"{"Peer":[1,2,3],"Self":"me"}"#), expected),
        ("brackets without end", http("[".repeat(1 << 20).as_bytes()), expected),
    ];
    survives("wrong_json_is_survived_and_named_in_the_log", &cases);
}

#[test]
fn wrong_http_is_survived_and_named_in_the_log() {
    let raw = |bytes: &[u8]| Script::Bytes(bytes.to_vec());
    let refusal = raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\naccess \x1b[");
    let half = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{\"Vers");
    let cases = [
        ("another protocol", raw(b"SSH-2.0-OpenSSH_10.0\r\n"), "broke off"),
        ("nothing at all", raw(b""), "broke off"),
        ("a refusal", refusal, "HTTP status 403"),
        ("half a body", half, "broke off"),
    ];
    survives("wrong_http_is_survived_and_named_in_the_log", &cases);
}

#[test]
fn too_much_and_nothing_are_survived_and_named_in_the_log() {
    let cases = [
        ("100 MB", Script::Blanks(100 << 20), "has more than 67108864 bytes"),
        ("silence", Script::Silence, "did not begin an answer"),
    ];
    survives("too_much_and_nothing_are_survived_and_named_in_the_log", &cases);
}

#[test]
fn a_socket_that_is_missing_comes_goes_and_comes_back() {
    let Some(mut stage) = stage("a_socket_that_is_missing_comes_goes_and_comes_back") else { return };
    let socket = stage.socket();
    let elsewhere = stage.folder().join("other.sock");
    stage.api = Scripted::start(&elsewhere, Script::Silence).unwrap();
    fs::remove_file(&socket).unwrap();
    let agent = Agent::start(&stage.namespace, &socket, &[]).unwrap();
    wait_up(&agent, 0.0, "tailscaled to be missed");
    let answer = agent.get("/readyz").unwrap();
    assert_eq!((answer.status, answer.text().contains("tailscaled has not said")), (503, true), "{answer:?}");
    for _ in 0..2 {
        let api = Scripted::start(&socket, Script::Status(status(&[peer(2)]))).unwrap();
        wait_up(&agent, 1.0, "tailscaled to be found");
        assert_eq!(agent.get("/readyz").unwrap().status, 200);
        drop(api);
        fs::remove_file(&socket).unwrap();
        wait_up(&agent, 0.0, "tailscaled to be missed again");
        assert_eq!(sum(&agent, "tailgauge_peer_info"), 1.0, "last known names stay");
    }
}

#[test]
fn unknown_fields_and_hostile_names_cannot_break_a_scrape() {
    let Some(stage) = stage("unknown_fields_and_hostile_names_cannot_break_a_scrape") else { return };
    let agent = stage.agent(&[]).unwrap();
    let named = |number: u8, name: &str| {
        let mut peer = peer(number);
        peer["DNSName"] = json!(name);
        peer["HostName"] = json!(name);
        peer["OS"] = json!(name);
        peer["Tags"] = json!([name, "tag:b"]);
        peer["From2042"] = json!({ "deep": [[[[null]]]] });
        peer
    };
    let bidirectional = "evil\u{202e}gpj.exe\u{2066}\u{200b}";
    let mut odd_id = named(6, "odd");
    odd_id["ID"] = json!("\"} 1\nevil_metric{x=\"");
    let peers = [
        named(2, "\"\n{}"),
        named(3, &"x".repeat(10_000)),
        named(4, "RAW"),
        named(5, bidirectional),
        odd_id,
        named(7, "\\\\\"\\n"),
    ];
    let document =
        String::from_utf8(status(&peers)).unwrap().replace("\"Version\":", "\"New\":[{}],\"Version\":");
    let raw = document.as_bytes();
    let mut bytes = Vec::new();
    let mut rest = raw;
    while let Some(at) = rest.windows(3).position(|window| window == b"RAW") {
        bytes.extend_from_slice(&rest[..at]);
        bytes.extend_from_slice(b"r\xff\xc0w");
        rest = &rest[at + 3..];
    }
    bytes.extend_from_slice(rest);
    stage.api.say(Script::Status(bytes));
    let scrape = wait_for("six peers", Duration::from_secs(10), || {
        let scrape = agent.scrape().unwrap();
        (scrape.sum("tailgauge_peer_info", &[]) == 6.0).then_some(scrape)
    })
    .unwrap();
    let name = |id: &str| {
        let labels = [("peer_id", id)];
        let info = scrape.matching("tailgauge_peer_info", &labels).next();
        info.and_then(|info| info.label("peer_name")).map(str::to_owned).unwrap_or_else(|| panic!("no {id}"))
    };
    assert_eq!(name("n2"), "\"{}");
    assert_eq!(name("n3"), "x".repeat(63));
    assert_eq!(name("n4"), "r\u{fffd}\u{fffd}w");
    assert_eq!(name("n5"), "evilgpj");
    assert_eq!(name("n7"), "\\\\\"\\n");
    assert_eq!(scrape.sum("evil_metric", &[]), 0.0);
    let text = agent.get("/metrics").unwrap().text();
    assert!(!text.contains(['\u{202e}', '\u{2066}', '\u{200b}']));
    assert!(text.lines().all(|line| line.len() < 4096), "no label without end");
    assert!(agent.get("/").unwrap().status == 200 && agent.get("/compat/tailscale").unwrap().status == 200);
}
