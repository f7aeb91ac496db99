//! Flags, permission, addresses: what keeps the agent from starting.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tailgauge_testbed::agent::{ADDRESS, binary};
use tailgauge_testbed::needs;
use tailgauge_testbed::process::{Process, wait_until};
use tailgauge_testbed::stage::Stage;

use crate::{ended, path, refused, sentence, stage};

#[test]
fn wrong_flags_end_with_code_2_and_say_what_would_be_right() {
    let Ok(()) = needs::root_and("wrong_flags_end_with_code_2_and_say_what_would_be_right", &["ip"]) else {
        return;
    };
    let stage = Stage::without_device().unwrap();
    for (arguments, remedies) in [
        (&["--coffee"][..], &["--coffee", "--help"][..]),
        (&["brew"], &["brew", "--help"]),
        (&["--interface", "a/b"], &["--interface", "1 to 15 bytes"]),
        (&["--max-peers", "0"], &["--max-peers", "1..=65534"]),
        (&["--max-peers", "65535"], &["--max-peers", "1..=65534"]),
        (&["--max-peers", "-1"], &["-1"]),
        (&["--peer.grace", "soon"], &["--peer.grace", "like 30s"]),
        (&["--tcp.handshake-timeout", "0s"], &["--tcp.handshake-timeout", "at least 1s"]),
        (&["--web.listen-address", "localhost"], &["--web.listen-address", "address:port"]),
        (&["--web.max-requests", "0"], &["--web.max-requests", "0 is not in 1.."]),
        (&["--attach.mode", "glue"], &["--attach.mode", "auto, tcx, clsact"]),
        (&["--log.level", "loud"], &["--log.level", "debug, info, warn, error"]),
        (&["--collector.coffee"], &["--collector.coffee"]),
        (&["--interface", "tun0", "--interface", "tun1"], &["--interface", "multiple times"]),
    ] {
        let (code, printed) = refused(&stage, arguments);
        assert_eq!(code, 2, "{arguments:?}: {printed}");
        for remedy in remedies {
            assert!(printed.contains(remedy), "{arguments:?} without {remedy:?}: {printed}");
        }
    }
}

#[test]
fn a_taken_or_foreign_listen_address_is_named_with_the_way_out() {
    let Some(stage) = stage("a_taken_or_foreign_listen_address_is_named_with_the_way_out") else { return };
    let socket = stage.socket();
    let _taken = stage.namespace.run(|| TcpListener::bind(ADDRESS)).unwrap().unwrap();
    for flags in [&["--web.listen-address", "127.0.0.1:10641"][..], &[]] {
        let (code, printed) = refused(&stage, &[&["--tailscale.socket", path(&socket)], flags].concat());
        assert_eq!(code, 1, "{printed}");
        let said = sentence(&printed);
        for part in ["127.0.0.1:10641", "another process has the port", "--web.listen-address"] {
            assert!(said.contains(part), "{said}");
        }
    }
    let both = ["--web.listen-address", "127.0.0.1:10642,127.0.0.1:10641"];
    let (code, printed) = refused(&stage, &[&["--tailscale.socket", path(&socket)], &both[..]].concat());
    assert_eq!((code, sentence(&printed).contains("127.0.0.1:10641")), (1, true), "{printed}");
    // An address that may still come is waited for, in the log.
    let foreign = ["--web.listen-address", "127.0.0.1:10642", "--web.listen-address", "192.0.2.77:10641"];
    let said = listening(&stage, &foreign);
    assert!(said.contains("this host has no such address"), "{said}");
}

/// The log of an agent that serves on the first address of `flags`, and does not end.
fn listening(stage: &Stage, flags: &[&str]) -> String {
    let mut command = stage.namespace.command(binary().unwrap());
    let mut process = Process::spawn(
        command.arg("--tailscale.socket").arg(stage.socket()).args(flags),
        stage.folder().join("listening.log"),
    )
    .unwrap();
    wait_until("a line about each address", Duration::from_secs(10), || {
        !process.is_running() || process.log().matches("serving").count() >= 2
    })
    .unwrap();
    assert!(process.is_running(), "{}", process.log());
    process.log()
}

#[test]
fn without_permission_it_names_the_capabilities() {
    let name = "without_permission_it_names_the_capabilities";
    let Ok(()) = needs::root_and(name, &["ip", "setpriv"]) else { return };
    let stage = Stage::set().unwrap();
    // Where nobody may go: the build's folder may be root's alone.
    let copy = stage.folder().join("tailgauge");
    fs::copy(binary().unwrap(), &copy).unwrap();
    fs::set_permissions(stage.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
        path(&copy),
    ];
    let (code, printed) = ended(&stage, "setpriv", &nobody);
    assert_eq!(code, 1, "{printed}");
    let said = sentence(&printed);
    assert!(said.contains("CAP_BPF") && said.contains("CAP_NET_ADMIN"), "{said}");
    assert!(said.len() < 500, "{said}");

    // `check` does not need what it says is lacking.
    let (code, printed) = ended(&stage, "setpriv", &[&nobody[..], &["check"]].concat());
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("CAP_BPF") && printed.contains("CAP_NET_ADMIN"), "{printed}");
}
