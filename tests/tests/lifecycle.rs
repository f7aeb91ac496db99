//! The miniature tailnet changes while it runs, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tailgauge_testbed::client::{BusReader, localapi};
use tailgauge_testbed::control::Machine;
use tailgauge_testbed::localapi::Behaviour;
use tailgauge_testbed::miniature::{LAN_V4, MiniatureTailnet, Options, WEB_V4};
use tailgauge_testbed::needs;
use tailgauge_testbed::node::{Exit, Node, TUNNEL};
use tailgauge_testbed::process::{wait_for, wait_until};
use tailgauge_testbed::traffic::{self, Mix, Ping};

const LIMIT: Duration = Duration::from_secs(10);
const STATUS: &str = "/localapi/v0/status";

fn up(test: &str) -> Option<MiniatureTailnet> {
    needs::root_and(test, &["ip", "nft"]).ok()?;
    Some(MiniatureTailnet::up(Options::default()).unwrap())
}

fn answers(node: &Node) -> bool {
    let how = Ping { timeout: Duration::from_millis(500), ..Ping::default() };
    traffic::ping(node.namespace(), WEB_V4.into(), &how).is_ok_and(|report| report.round_trips.len() == 1)
}

/// Waits for an answer: a busy machine may take longer than a ping waits.
#[track_caller]
fn assert_answers(node: &Node) {
    wait_until("an answer from the internet", LIMIT, || answers(node)).unwrap();
}

/// Index of the tunnel device in the node's namespace, if there is one.
fn tunnel_index(node: &Node) -> Option<u32> {
    let shown = node.namespace().ip(&["-o", "link", "show", "dev", TUNNEL]).ok()?;
    shown.split(':').next()?.parse().ok()
}

fn namespaces_with(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

fn prefix_of(tailnet: &MiniatureTailnet) -> String {
    tailnet.exit().namespace().name().strip_suffix("exit").unwrap().to_owned()
}

#[test]
fn nothing_is_left_after_drop_and_after_panic() {
    let Some(tailnet) = up("nothing_is_left_after_drop_and_after_panic") else { return };
    let traffic = Mix::start(&tailnet).unwrap();
    let sleeper = tailnet.c1().spawn("sleep", &["600"], &tailnet.folder().join("sleep.log")).unwrap();
    let (prefix, folder) = (prefix_of(&tailnet), tailnet.folder().to_owned());
    assert_eq!(namespaces_with(&prefix).len(), 8);
    let process = format!("/proc/{}", sleeper.id());
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        // Declared in the order in which a test would have them, so dropped in the reverse one.
        let _tailnet = tailnet;
        let _traffic = traffic;
        let _sleeper = sleeper;
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(panicked.is_err());
    assert_eq!(namespaces_with(&prefix), Vec::<String>::new());
    assert!(!folder.exists());
    assert!(!Path::new(&process).exists());
}

/// A running binary that has said where everything is.
struct Binary {
    child: Child,
    prefix: String,
    folder: String,
    /// Closed, it would end the binary.
    _output: Lines<BufReader<ChildStdout>>,
}

fn start_binary() -> Binary {
    let mut child =
        Command::new(env!("CARGO_BIN_EXE_miniature")).arg("up").stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let exit = output.by_ref().map_while(Result::ok).find(|line| line.starts_with("exit ")).unwrap();
    let words: Vec<&str> = exit.split_whitespace().collect();
    let prefix = words[1].strip_suffix("exit").unwrap().to_owned();
    let folder = Path::new(words[4]).parent().unwrap().to_str().unwrap().to_owned();
    Binary { child, prefix, folder, _output: output }
}

#[test]
fn binary_ends_cleanly_on_a_signal() {
    let Ok(()) = needs::root_and("binary_ends_cleanly_on_a_signal", &["ip", "nft"]) else { return };
    for signal in [Signal::INT, Signal::TERM] {
        let mut binary = start_binary();
        assert_eq!(namespaces_with(&binary.prefix).len(), 8);
        kill_process(Pid::from_child(&binary.child), signal).unwrap();
        assert!(binary.child.wait().unwrap().success());
        assert_eq!(namespaces_with(&binary.prefix), Vec::<String>::new());
        assert!(!Path::new(&binary.folder).exists());
    }
}

#[test]
fn next_run_removes_what_a_killed_one_left() {
    let Ok(()) = needs::root_and("next_run_removes_what_a_killed_one_left", &["ip", "nft"]) else { return };
    let mut killed = start_binary();
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    assert_eq!(namespaces_with(&killed.prefix).len(), 8);
    let mut next = start_binary();
    let left = (namespaces_with(&killed.prefix), Path::new(&killed.folder).exists());
    kill_process(Pid::from_child(&next.child), Signal::TERM).unwrap();
    next.child.wait().unwrap();
    assert_eq!(left, (Vec::new(), false));
}

#[test]
fn two_run_side_by_side() {
    let Some(first) = up("two_run_side_by_side") else { return };
    let second = MiniatureTailnet::up(Options::default()).unwrap();
    assert_answers(first.c1());
    assert_answers(second.c1());
    drop(first);
    assert_answers(second.c1());
}

#[test]
fn restart_makes_a_new_device_and_traffic_goes_on() {
    let Some(tailnet) = up("restart_makes_a_new_device_and_traffic_goes_on") else { return };
    let exit = tailnet.exit();
    for ending in [Exit::Terminated, Exit::Killed] {
        assert_answers(tailnet.c1());
        let mut bus = BusReader::watch(exit.socket(), 2).unwrap();
        bus.next_message().unwrap().unwrap();
        let before = tunnel_index(exit).unwrap();
        exit.stop(ending);
        assert_eq!(tunnel_index(exit), None);
        assert_eq!(exit.socket().exists(), ending == Exit::Killed);
        assert!(localapi(exit.socket(), STATUS).is_err());
        assert!(!matches!(bus.next_message(), Ok(Some(_))), "the bus ends with tailscaled");
        assert!(!answers(tailnet.c1()));
        exit.start().unwrap();
        assert!(tunnel_index(exit).unwrap() > before);
        assert_eq!(localapi(exit.socket(), STATUS).unwrap().status, 200);
        // The client notices after 15 s without an answer; its own restart is quicker.
        tailnet.c1().restart(Exit::Terminated).unwrap();
        wait_until("traffic after the restart", LIMIT, || answers(tailnet.c1())).unwrap();
    }
}

#[test]
fn keys_names_and_routes_change_while_traffic_flows() {
    let Some(tailnet) = up("keys_names_and_routes_change_while_traffic_flows") else { return };
    let (c1, c2) = (tailnet.c1(), tailnet.c2());
    assert_answers(c1);
    assert_answers(c2);
    tailnet.rotate_key("c1").unwrap();
    wait_until("traffic after rotating the client's key", LIMIT, || answers(c1)).unwrap();
    tailnet.rotate_key("exit").unwrap();
    wait_until("traffic after rotating the exit node's key", LIMIT, || answers(c1) && answers(c2)).unwrap();

    let machine = tailnet.remove_peer("c2").unwrap();
    assert!(!answers(c2));
    assert_answers(c1);
    tailnet.add_peer(machine).unwrap();
    tailnet.rename_peer("c2", "renamed").unwrap();
    wait_until("traffic of the machine that came back", LIMIT, || answers(c2)).unwrap();

    let lan_answers = || {
        let how = Ping { timeout: Duration::from_millis(500), ..Ping::default() };
        let report = traffic::ping(c1.namespace(), LAN_V4.into(), &how);
        report.is_ok_and(|report| report.round_trips.len() == 1)
    };
    wait_until("an answer from the LAN", LIMIT, lan_answers).unwrap();
    let routes = tailnet.control().by_name("router").unwrap().routes.clone();
    tailnet.set_routes("router", &[]).unwrap();
    assert!(!lan_answers());
    tailnet.set_routes("router", &routes).unwrap();
    wait_until("an answer from the LAN", LIMIT, lan_answers).unwrap();
    assert!(tailnet.rename_peer("nobody", "x").is_err());
}

#[test]
fn many_machines_need_no_nodes() {
    let Some(tailnet) = up("many_machines_need_no_nodes") else { return };
    let machines = (1000..1300).map(|id| Machine::new(id, format!("machine-{id}")));
    tailnet.add_peers(machines).unwrap();
    let status = localapi(tailnet.exit().socket(), STATUS).unwrap().json().unwrap();
    assert_eq!(status["Peer"].as_object().unwrap().len(), 304);
    assert_answers(tailnet.c1());
}

#[test]
fn localapi_can_misbehave() {
    let Some(tailnet) = up("localapi_can_misbehave") else { return };
    let exit = tailnet.exit();
    exit.set_behaviour(Behaviour::Answer(500, b"{\"broken".to_vec()));
    let answer = localapi(exit.socket(), STATUS).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (500, "{\"broken"));
    exit.set_behaviour(Behaviour::Raw(b"not HTTP".to_vec()));
    assert!(localapi(exit.socket(), STATUS).is_err());
    exit.set_behaviour(Behaviour::Hang);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| localapi(exit.socket(), STATUS));
        // Long enough to be sure that nothing comes by itself: a real answer takes milliseconds.
        let early = wait_for("an answer", Duration::from_millis(300), || asked.is_finished().then_some(()));
        assert!(early.is_err(), "answered after {:?}", start.elapsed());
        exit.set_behaviour(Behaviour::Normal);
        assert!(asked.join().unwrap().is_err(), "the hanging connection ends without an answer");
    });
    assert_eq!(localapi(exit.socket(), STATUS).unwrap().status, 200);
}
