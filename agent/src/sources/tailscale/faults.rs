//! The source against every way in which tailscaled may fail.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::api::Notify;
use super::client::{Lines, LocalApiError, get_json};
use super::convert::Report;
use super::fake::{ONE_PEER, Reply, Tailscaled, bus_line, healthy, initial_line, json};
use super::{BUS, STATUS, TailscaleConfig, run};
use crate::model::tailnet::{Path as Way, Tailnet, WireGuardState};

/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(20);

/// The source as the agent sees it.
struct Agent {
    tailnet: watch::Receiver<Arc<Tailnet>>,
    reads: watch::Receiver<(u32, u32)>,
    task: JoinHandle<()>,
}

impl Agent {
    fn start(config: TailscaleConfig) -> Self {
        let (publish, tailnet) = watch::channel(Arc::default());
        let (record, reads) = watch::channel((0, 0));
        let task = spawn_local(run(
            config,
            move |tailnet| {
                publish.send_replace(tailnet);
            },
            move |started, ended, success| {
                assert!(started <= ended);
                record.send_modify(|(good, bad)| if success { *good += 1 } else { *bad += 1 });
            },
        ));
        Self { tailnet, reads, task }
    }

    async fn until(&mut self, what: &str, is_it: impl Fn(&Tailnet) -> bool) -> Arc<Tailnet> {
        let found = timeout(DEADLINE, self.tailnet.wait_for(|tailnet| is_it(tailnet))).await;
        Arc::clone(&found.unwrap_or_else(|_| panic!("never: {what}")).expect("the source ended"))
    }

    async fn until_reads(&mut self, what: &str, is_it: impl Fn(u32, u32) -> bool) {
        let found = timeout(DEADLINE, self.reads.wait_for(|(good, bad)| is_it(*good, *bad))).await;
        found.unwrap_or_else(|_| panic!("never: {what}")).expect("the source ended");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config(directory: &Path) -> TailscaleConfig {
    TailscaleConfig {
        socket: directory.join("tailscaled.sock"),
        poll_interval: Duration::from_millis(50),
        connect_timeout: Duration::from_secs(2),
        response_timeout: Duration::from_millis(400),
        body_timeout: Duration::from_millis(400),
        body_limit: 1 << 20,
        line_limit: 1 << 20,
        backoff: Duration::from_millis(10),
        backoff_limit: Duration::from_millis(80),
    }
}

/// For tests that count requests: a machine that stands still for a moment makes none of them be sent again.
fn patient(directory: &Path) -> TailscaleConfig {
    let TailscaleConfig { response_timeout, body_timeout, .. } = TailscaleConfig::default();
    TailscaleConfig { response_timeout, body_timeout, ..config(directory) }
}

/// State of the first peer's WireGuard session.
fn session(tailnet: &Tailnet) -> Option<WireGuardState> {
    tailnet.peers.first()?.wireguard.map(|session| session.state)
}

fn is_on(tailnet: &Tailnet, path: Way) -> bool {
    tailnet.peers.first().is_some_and(|peer| peer.path == path)
}

/// Runs a scenario on a runtime like the agent's.
fn on_runtime<F: Future<Output = ()>>(scenario: impl FnOnce(PathBuf) -> F) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, scenario(directory.path().to_owned()));
}

#[test]
fn a_tailscaled_that_comes_later_goes_and_comes_back() {
    on_runtime(|directory| async move {
        let mut agent = Agent::start(config(&directory));
        agent.until_reads("a failed read", |_, bad| bad >= 2).await;
        assert!(!agent.tailnet.borrow().up);
        for _ in 0..2 {
            let tailscaled = Tailscaled::start(&directory, healthy);
            let tailnet = agent.until("up with a peer", |tailnet| tailnet.up).await;
            assert_eq!(tailnet.peers[0].name, "c1");
            drop(tailscaled);
            let tailnet = agent.until("down", |tailnet| !tailnet.up).await;
            assert_eq!(tailnet.peers[0].name, "c1", "the last known state stays");
        }
    });
}

#[test]
fn bad_answers_are_named_by_kind_and_the_last_state_stays() {
    let sent = Rc::new(RefCell::new(0));
    let cases: Vec<(Reply, &str)> = vec![
        (Reply::Hang, "did not begin an answer for /localapi/v0/status within 400ms"),
        (Reply::Drip(ONE_PEER.into()), "did not finish the answer for /localapi/v0/status within 400ms"),
        (Reply::Flood(100 << 20, Rc::clone(&sent)), "has more than 1048576 bytes"),
        (Reply::Truncated(b"{\"Version\":".into()), "broke off"),
        (json(&ONE_PEER[..ONE_PEER.len() / 2]), "is not the JSON expected: EOF"),
        (json("<html>login</html>"), "is not the JSON expected"),
        (json(""), "is not the JSON expected: EOF"),
        (json(r#"{"Peer":[1,2]}"#), "is not the JSON expected: invalid type"),
        (Reply::Whole("200 OK", vec![0xff; 100]), "is not the JSON expected"),
        (json(&"[".repeat(100_000)), "is not the JSON expected"),
        (
            Reply::Whole("403 Forbidden", b"invalid localapi request\n".into()),
            "refused /localapi/v0/status with HTTP status 403: invalid localapi request",
        ),
        (Reply::Whole("500 Oops", b"\x1b[31m".into()), "with HTTP status 500: [31m"),
        (Reply::Raw(b"SSH-2.0-OpenSSH_9\r\n\r\n".into()), "broke off"),
        (Reply::Raw([b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 1 << 20]].concat()), "broke off"),
        (Reply::Raw(Vec::new()), "broke off"),
    ];
    for (bad, expected) in cases {
        let sent = Rc::clone(&sent);
        on_runtime(|directory| async move {
            let broken = Rc::new(RefCell::new(false));
            let switch = Rc::clone(&broken);
            let tailscaled = Tailscaled::start(&directory, move |path| match (path, *switch.borrow()) {
                (STATUS, true) => bad.clone(),
                (BUS, true) => Reply::Hang,
                _ => healthy(path),
            });
            let mut agent = Agent::start(config(&directory));
            agent.until("up", |tailnet| tailnet.up).await;
            *broken.borrow_mut() = true;
            let tailnet = agent.until(expected, |tailnet| !tailnet.up).await;
            assert_eq!(tailnet.peers.len(), 1, "{expected}");
            let error = get_json::<Report>(&config(&directory), STATUS).await.unwrap_err().to_string();
            assert!(error.contains(expected), "expected {expected:?} in {error:?}");
            *broken.borrow_mut() = false;
            agent.until("up again", |tailnet| tailnet.up).await;
            assert!(*sent.borrow() < 50 << 20, "read on beyond the limit");
            drop(tailscaled);
        });
    }
    assert!(*sent.borrow() >= 1 << 20, "the flood was never let loose");
}

#[test]
fn names_that_are_not_utf8_are_repaired() {
    on_runtime(|directory| async move {
        let halves = ONE_PEER.split_once("c1.lab.").unwrap();
        let bytes = [halves.0.as_bytes(), b"c\xff1.lab.", halves.1.as_bytes()].concat();
        let _tailscaled = Tailscaled::start(&directory, move |path| match path {
            STATUS => Reply::Whole("200 OK", bytes.clone()),
            _ => Reply::Hang,
        });
        let mut agent = Agent::start(config(&directory));
        let tailnet = agent.until("up", |tailnet| tailnet.up).await;
        assert_eq!(tailnet.peers[0].name, "c\u{fffd}1");
    });
}

#[test]
fn a_hanging_tailscaled_holds_up_nothing_else() {
    on_runtime(|directory| async move {
        let _tailscaled = Tailscaled::start(&directory, |_| Reply::Hang);
        let mut agent = Agent::start(config(&directory));
        let mut ticks = 0;
        tokio::select! {
            () = agent.until_reads("two time-outs", |_, bad| bad >= 2) => {}
            () = async { loop { sleep(Duration::from_millis(10)).await; ticks += 1; } } => {}
        }
        assert!(ticks > 10, "{ticks} ticks of 10 ms in two time-outs of 400 ms");
    });
}

#[test]
fn changes_on_the_bus_are_published_at_once_and_make_status_be_read() {
    on_runtime(|directory| async move {
        let (bus, lines) = watch::channel(initial_line());
        let tailscaled = Tailscaled::start(&directory, move |path| match path {
            path if path.starts_with(BUS) => Reply::Live(lines.clone()),
            _ => healthy(path),
        });
        let mut agent = Agent::start(TailscaleConfig { poll_interval: DEADLINE * 10, ..patient(&directory) });
        let handshake = |tailnet: &Tailnet| session(tailnet) == Some(WireGuardState::Handshake);
        agent.until("what only the bus says", handshake).await;
        let first = tailscaled.requests.borrow().iter().find(|path| path.starts_with(BUS)).cloned();
        assert_eq!(first, Some(format!("{BUS}?mask=315531")));
        bus.send_replace(bus_line(
            r#"{"PeersChanged":[{"ID":3,"StableID":"3","Name":"c2.lab.","Key":"k"}]}"#,
        ));
        agent.until("the new peer", |tailnet| tailnet.peers.len() == 2).await;
        // The stand-in's /status does not know it: the whole is right in the end.
        agent.until("what /status says", |tailnet| tailnet.peers.len() == 1).await;
        assert_eq!(tailscaled.count(STATUS), 2);
        bus.send_replace(bus_line(r#"{"PeerChangedPatch":[{"NodeID":2,"Online":true}]}"#));
        agent.until("online", |tailnet| tailnet.peers[0].online).await;
        assert_eq!(tailscaled.count(STATUS), 2, "a patch needs no /status");
    });
}

#[test]
fn a_path_in_doubt_is_asked_for_again_before_its_time() {
    on_runtime(|directory| async move {
        let direct = ONE_PEER.replace("\"Active\"", "\"CurAddr\":\"192.0.2.1:41641\",\"Active\"");
        let first = RefCell::new(Some(direct));
        let tailscaled = Tailscaled::start(&directory, move |path| match first.take() {
            Some(direct) if path == STATUS => json(&direct),
            _ => healthy(path),
        });
        let mut agent = Agent::start(TailscaleConfig { poll_interval: DEADLINE * 10, ..patient(&directory) });
        agent.until("a direct path", |tailnet| is_on(tailnet, Way::DirectIpv4)).await;
        // The first line of the bus says DERP; so do a read soon after it and one that is late enough.
        agent.until("DERP", |tailnet| is_on(tailnet, Way::Derp)).await;
        assert_eq!(tailscaled.count(STATUS), 3);
    });
}

#[test]
fn sessions_are_unknown_while_the_bus_is_away() {
    on_runtime(|directory| async move {
        let (bus, lines) = watch::channel(initial_line());
        let lines = RefCell::new(Some(lines));
        let _tailscaled = Tailscaled::start(&directory, move |path| match path {
            path if path.starts_with(BUS) => lines.take().map_or(Reply::Hang, Reply::Live),
            _ => healthy(path),
        });
        let mut agent = Agent::start(config(&directory));
        agent.until("a session", |tailnet| session(tailnet).is_some()).await;
        drop(bus);
        let tailnet = agent.until("no session", |tailnet| session(tailnet).is_none()).await;
        assert!(tailnet.up && is_on(&tailnet, Way::Derp), "the rest is known from /status");
    });
}

#[test]
fn an_older_tailscaled_is_followed_by_its_map() {
    for refuses in [true, false] {
        on_runtime(|directory| async move {
            let map = r#"{"Version":"1.80.0","State":6,"NetMap":{"SelfNode":{"ID":1,"StableID":"1"},
                "Peers":[{"ID":2,"StableID":"2","Name":"old.lab.","Key":"nodekey:2"}]}}"#;
            let tailscaled = Tailscaled::start(&directory, move |path| match path.strip_prefix(BUS) {
                Some("?mask=139") => Reply::Stream(vec![bus_line(map)]),
                Some(_) if refuses => Reply::Whole("400 Bad Request", b"bad mask".into()),
                Some(_) => Reply::Stream(vec![r#"{"Version":"1.80.0","State":6}"#.to_owned()]),
                None => Reply::Whole("404 Not Found", Vec::new()),
            });
            let mut agent = Agent::start(patient(&directory));
            let tailnet = agent.until("a peer", |tailnet| !tailnet.peers.is_empty()).await;
            assert_eq!(tailnet.peers[0].name, "old");
            assert_eq!((tailnet.backend_state.as_str(), tailnet.version.as_str()), ("Running", "1.80.0"));
            assert_eq!(tailscaled.count(BUS), 2);
        });
    }
}

#[test]
fn a_bus_that_does_not_work_leaves_polling_and_is_not_hammered() {
    for broken in [
        Reply::Ends(Vec::new()),
        Reply::Ends(vec![initial_line()]),
        Reply::Stream(vec!["no json".to_owned()]),
        Reply::Stream(vec!["x".repeat(2 << 20)]),
        Reply::Whole("403 Forbidden", Vec::new()),
        Reply::Whole("404 Not Found", Vec::new()),
        Reply::Whole("400 Bad Request", Vec::new()),
    ] {
        on_runtime(|directory| async move {
            let tailscaled = Tailscaled::start(&directory, move |path| match path {
                path if path.starts_with(BUS) => broken.clone(),
                _ => healthy(path),
            });
            let limit = Duration::from_millis(40);
            let mut agent = Agent::start(TailscaleConfig {
                poll_interval: Duration::from_millis(20),
                backoff: limit,
                backoff_limit: limit,
                ..config(&directory)
            });
            let started = tokio::time::Instant::now();
            agent.until_reads("twenty good reads", |good, _| good >= 20).await;
            assert!(agent.tailnet.borrow().up);
            assert_eq!(agent.tailnet.borrow().peers.len(), 1);
            // Each wait may be preceded by a second try with the old mask; the first comes back at once.
            let waits = started.elapsed().as_millis() / limit.as_millis() + 2;
            let tries = tailscaled.count(BUS) as u128;
            assert!(tries >= 2 && tries <= 2 * waits, "{tries} connections in {waits} waits");
        });
    }
}

#[test]
fn a_line_without_end_is_not_held_in_memory() {
    on_runtime(|directory| async move {
        let sent = Rc::new(RefCell::new(0));
        let flood = Reply::Flood(100 << 20, Rc::clone(&sent));
        let _tailscaled = Tailscaled::start(&directory, move |_| flood.clone());
        let config = config(&directory);
        let mut lines = Lines::open(&config, BUS, "").await.unwrap();
        let error = lines.next::<Notify>(true).await.unwrap_err();
        assert!(
            matches!(error, LocalApiError::TooLong { limit, .. } if limit == config.line_limit),
            "{error}"
        );
        assert!(*sent.borrow() < 50 << 20);
    });
}

#[test]
fn a_line_that_never_ends_is_given_up() {
    on_runtime(|directory| async move {
        let tailscaled = Tailscaled::start(&directory, move |path| match path {
            path if path.starts_with(BUS) => Reply::Drip(initial_line().into_bytes()),
            _ => healthy(path),
        });
        let mut agent = Agent::start(TailscaleConfig { poll_interval: DEADLINE, ..config(&directory) });
        agent.until("up", |tailnet| tailnet.up).await;
        timeout(DEADLINE, async {
            while tailscaled.count(BUS) < 2 {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the bus was never left");
    });
}
