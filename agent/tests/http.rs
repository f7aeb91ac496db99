//! The HTTP server over real sockets on loopback: right answers, and clients that behave badly.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tailgauge::model::kernel::{Hook, HookMode};
use tailgauge::model::tailnet::Tailnet;
use tailgauge::model::{Model, synthetic};
use tailgauge::outputs::http::{Limits, Server, Site};
use tailgauge::outputs::own::SelfMetrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// Nothing here takes longer, unless the server hangs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    model: RefCell<Model>,
    own: SelfMetrics,
    snapshots: Cell<u32>,
    statistics: Cell<Option<Duration>>,
}

impl Site for Fixture {
    fn take_snapshot(&self) {
        self.snapshots.set(self.snapshots.get() + 1);
    }

    fn with_model<R>(&self, read: impl FnOnce(&Model) -> R) -> R {
        read(&self.model.borrow())
    }

    fn own_metrics(&self) -> &SelfMetrics {
        &self.own
    }

    fn keep_program_statistics(&self, duration: Duration) {
        self.statistics.set(Some(duration));
    }
}

struct Setup {
    site: Rc<Fixture>,
    server: Server<Fixture>,
    address: SocketAddr,
}

/// Runs a test beside a server with `peers` peers.
fn serve<F: Future<Output = ()>>(peers: u32, limits: Limits, test: impl FnOnce(Setup) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let site = Rc::new(Fixture {
            model: RefCell::new(synthetic::model(peers)),
            own: SelfMetrics::new().unwrap(),
            snapshots: Cell::default(),
            statistics: Cell::default(),
        });
        let server = Server::new(Rc::clone(&site), limits);
        let address = server.listen(([127, 0, 0, 1], 0).into()).unwrap();
        timeout(PATIENCE, test(Setup { site, server, address })).await.expect("the server hangs");
    });
}

/// Head and body.
type Answer = (String, String);

impl Setup {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A client with a small receive buffer that asks for metrics and reads nothing.
    async fn dawdle(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream.readable().await.unwrap();
        stream
    }

    /// Sends `request` on a connection of its own and reads until the server closes it.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        split(&self.raw(request.as_bytes()).await)
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    /// Scrapes until there is room for it.
    async fn scrape_at_last(&self) {
        while status(&self.get("/metrics").await.0) == 503 {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Value of one of the agent's own metrics.
    async fn own(&self, series: &str) -> u64 {
        let (_, body) = self.get("/metrics").await;
        let line = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }
}

fn split(answer: &str) -> Answer {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    (head.to_owned(), body.to_owned())
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

fn status(head: &str) -> u16 {
    head.split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("no status in {head:?}"))
}

/// Reads one answer with a Content-Length from a connection that stays open.
async fn read_one(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(bytes).unwrap();
    let mut body = vec![0; header(&head, "content-length").unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// True when the server has ended the connection.
async fn ended(stream: &mut TcpStream) -> bool {
    let mut sink = vec![0; 1 << 16];
    loop {
        match timeout(PATIENCE, stream.read(&mut sink)).await {
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
}

#[test]
fn pages_have_status_type_and_content() {
    serve(2, Limits::default(), |setup| async move {
        for (path, code, content_type, content) in [
            ("/", 200, "text/html; charset=utf-8", "<h1>tailgauge"),
            ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8", "tailgauge_peer_info{peer_id="),
            ("/metrics?unknown=1", 200, "text/plain; version=0.0.4; charset=utf-8", "process_threads "),
            (
                "/compat/tailscale",
                200,
                "text/plain; version=0.0.4; charset=utf-8",
                "tailscale_peers_total 2\n",
            ),
            ("/healthz", 200, "text/plain; charset=utf-8", "ok\n"),
            ("/readyz", 503, "text/plain; charset=utf-8", "no hook is attached yet\n"),
            ("/nothing", 404, "text/plain; charset=utf-8", "/metrics /compat/tailscale /healthz /readyz\n"),
            ("/metrics/../etc", 404, "text/plain; charset=utf-8", "no such page"),
            ("/metrics?program_stats=2", 400, "text/plain; charset=utf-8", "program_stats is 1"),
        ] {
            let (head, body) = setup.get(path).await;
            assert_eq!(status(&head), code, "{path}");
            assert_eq!(header(&head, "content-type"), Some(content_type), "{path}");
            assert!(body.contains(content) && body.ends_with('\n'), "{path}: {body}");
            let (head_alone, nothing) = setup.ask("HEAD", path, "").await;
            assert_eq!(status(&head_alone), code, "HEAD {path}");
            assert_eq!(nothing, "", "HEAD {path}");
            assert!(
                header(&head_alone, "content-length").is_some_and(|length| length != "0"),
                "{head_alone}"
            );
        }
    });
}

#[test]
fn readiness_follows_the_model() {
    serve(2, Limits::default(), |setup| async move {
        let hook = |mode, reason: Option<&str>| Hook {
            device: "tailscale0".to_owned(),
            hook: "tunnel_egress",
            mode,
            reason: reason.map(str::to_owned),
        };
        setup.site.model.borrow_mut().kernel.hooks = vec![hook(HookMode::None, Some("no such device"))];
        let (head, body) = setup.get("/readyz").await;
        assert_eq!(
            (status(&head), body.as_str()),
            (503, "tunnel_egress is not attached to tailscale0: no such device\n")
        );
        setup.site.model.borrow_mut().kernel.hooks = vec![hook(HookMode::Tcx, None)];
        assert_eq!(status(&setup.get("/readyz").await.0), 200);
        setup.site.model.borrow_mut().tailnet = Arc::new(Tailnet::default());
        assert_eq!(status(&setup.get("/readyz").await.0), 503);
    });
}

#[test]
fn other_methods_are_refused() {
    serve(1, Limits::default(), |setup| async move {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            let (head, body) = setup.ask(method, "/metrics", "").await;
            assert_eq!((status(&head), header(&head, "allow")), (405, Some("GET, HEAD")), "{method}");
            assert_eq!(body, "only GET and HEAD are allowed\n");
        }
        let (head, _) = setup.ask("POST", "/metrics", "Content-Length: 1000000000\r\n").await;
        assert_eq!(status(&head), 405, "nobody waits for a body");
        assert_eq!(setup.own("tailgauge_http_requests_total{code=\"405\",handler=\"/metrics\"}").await, 7);
    });
}

#[test]
fn the_format_is_negotiated_and_the_snapshot_taken_at_the_scrape() {
    serve(2, Limits::default(), |setup| async move {
        for (accept, content_type, end) in [
            (
                "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                true,
            ),
            (
                "Accept: text/plain;q=0.5\r\nAccept: application/openmetrics-text;version=1.0.0\r\n",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                true,
            ),
            ("Accept: application/json\r\n", "text/plain; version=0.0.4; charset=utf-8", false),
            ("Accept: \u{fffd}\r\n", "text/plain; version=0.0.4; charset=utf-8", false),
        ] {
            let before = setup.site.snapshots.get();
            let (head, body) = setup.ask("GET", "/metrics", accept).await;
            assert_eq!(header(&head, "content-type"), Some(content_type), "{accept}");
            assert_eq!(body.matches("# EOF").count(), usize::from(end), "{accept}");
            assert_eq!(body.ends_with("\n# EOF\n"), end, "{accept}");
            assert_eq!(setup.site.snapshots.get(), before + 1);
        }
    });
}

#[test]
fn program_statistics_are_asked_for_by_query() {
    serve(1, Limits::default(), |setup| async move {
        setup.get("/metrics").await;
        setup.get("/metrics?program_stats=0").await;
        assert_eq!(setup.site.statistics.get(), None);
        assert_eq!(status(&setup.get("/metrics?program_stats=1").await.0), 200);
        assert_eq!(setup.site.statistics.get(), Some(Duration::from_secs(60)));
    });
}

#[test]
fn a_connection_serves_many_requests_pipelined_ones_too() {
    serve(1, Limits::default(), |setup| async move {
        let mut stream = setup.connect().await;
        for _ in 0..3 {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            assert_eq!(read_one(&mut stream).await.1, "ok\n");
        }
        let two = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(two).await.unwrap();
        assert!(read_one(&mut stream).await.1.contains("tailgauge_peers 1\n"));
        assert_eq!(read_one(&mut stream).await.1, "ok\n");
    });
}

#[test]
fn giant_heads_and_nonsense_are_refused() {
    serve(1, Limits::default(), |setup| async move {
        let giant = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(20_000));
        let many = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: 1\r\n".repeat(500));
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20_000));
        for (request, code) in [
            (giant.as_str(), 431),
            (&many, 431),
            (&long, 431),
            ("\u{1}\u{2}\r\n\r\n", 400),
            ("GET\r\n\r\n", 400),
        ] {
            assert_eq!(
                status(&setup.raw(request.as_bytes()).await),
                code,
                "{}",
                &request[..10.min(request.len())]
            );
        }
        let fits = format!(
            "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {}\r\n\r\n",
            "a".repeat(15_000)
        );
        assert_eq!(status(&setup.raw(fits.as_bytes()).await), 200);
    });
}

#[test]
fn half_open_connections_make_room() {
    let limits = Limits { connections: 4, head: PATIENCE * 2, ..Limits::default() };
    serve(1, limits, |setup| async move {
        let mut idle = setup.connect().await;
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        read_one(&mut idle).await;
        let mut half_open = Vec::new();
        for _ in 0..12 {
            let mut stream = setup.connect().await;
            stream.write_all(b"GET /metr").await.unwrap();
            half_open.push(stream);
        }
        for _ in 0..3 {
            assert_eq!(status(&setup.get("/metrics").await.0), 200);
        }
        assert!(ended(&mut half_open[0]).await, "the oldest went first");
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(read_one(&mut idle).await.1, "ok\n", "a client that had been served was spared");
        assert!(setup.own("tailgauge_http_connections_dropped_total{reason=\"evicted\"}").await >= 9);
    });
}

#[test]
fn a_head_has_to_come_in_time_however_it_drips() {
    let limits = Limits { head: Duration::from_millis(200), ..Limits::default() };
    serve(1, limits, |setup| async move {
        let mut silent = setup.connect().await;
        assert!(ended(&mut silent).await);
        let mut dripping = setup.connect().await;
        let drip = async {
            while dripping.write_all(b"G").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, drip).await.expect("dripping keeps a connection");
        assert_eq!(setup.own("tailgauge_http_connections_dropped_total{reason=\"timeout\"}").await, 2);
    });
}

#[test]
fn an_idle_connection_ends_quietly() {
    let limits = Limits { idle: Duration::from_millis(100), ..Limits::default() };
    serve(1, limits, |setup| async move {
        let mut stream = setup.connect().await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        read_one(&mut stream).await;
        assert!(ended(&mut stream).await);
        assert_eq!(setup.own("tailgauge_http_connections_dropped_total{reason=\"timeout\"}").await, 0);
    });
}

/// Enough for an exposition that fits into no socket buffer.
const MANY: u32 = 6_000;

#[test]
fn a_slow_reader_holds_up_nobody_and_is_cut_off() {
    let limits = Limits { answer: Duration::from_millis(1_500), scrapes: 1, ..Limits::default() };
    serve(MANY, limits, |setup| async move {
        let mut slow = setup.dawdle().await;
        let (head, body) = setup.get("/metrics").await;
        assert_eq!(
            (status(&head), body.as_str()),
            (503, "1 scrapes are not taken yet, which is the limit\n")
        );
        assert_eq!(status(&setup.get("/healthz").await.0), 200);
        setup.scrape_at_last().await;
        assert_eq!(setup.own("tailgauge_http_connections_dropped_total{reason=\"timeout\"}").await, 1);
        assert!(ended(&mut slow).await);
    });
}

#[test]
fn beyond_the_cap_clients_are_told_so() {
    let limits = Limits { connections: 2, ..Limits::default() };
    serve(MANY, limits, |setup| async move {
        let mut slow = [setup.dawdle().await, setup.dawdle().await];
        let (head, body) = setup.get("/healthz").await;
        assert_eq!((status(&head), header(&head, "connection")), (503, Some("close")));
        assert_eq!(body, "all 2 connections are in use; try again later\n");
        // Once an answer is taken its place is free again.
        read_one(&mut slow[0]).await;
        assert_eq!(status(&setup.get("/healthz").await.0), 200);
    });
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let limits = Limits { connections: 1, scrapes: 1, ..Limits::default() };
    serve(MANY, limits, |setup| async move {
        drop(setup.dawdle().await);
        setup.scrape_at_last().await;
    });
}

#[test]
fn addresses_come_and_go_and_errors_say_what_to_do() {
    serve(1, Limits::default(), |setup| async move {
        let second = setup.server.listen(([127, 0, 0, 1], 0).into()).unwrap();
        assert_eq!(setup.server.addresses(), [setup.address, second]);
        let error = setup.server.listen(second).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with(&format!("cannot listen on {second}: another process")), "{message}");
        assert!(message.contains("--web.listen-address"), "{message}");
        let error = setup.server.listen("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("this host has no such address"), "{error}");
        setup.server.unlisten(second);
        assert_eq!(setup.server.addresses(), [setup.address]);
        while TcpStream::connect(second).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(status(&setup.get("/healthz").await.0), 200);
    });
}

#[test]
fn stopping_lets_answers_be_taken() {
    serve(MANY, Limits::default(), |setup| async move {
        let mut idle = setup.connect().await;
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        read_one(&mut idle).await;
        let mut slow = setup.dawdle().await;
        let (answer, ()) = tokio::join!(read_one(&mut slow), setup.server.stop(PATIENCE));
        assert!(answer.1.contains(&format!("tailgauge_peers {MANY}\n")));
        assert!(ended(&mut idle).await);
        assert!(ended(&mut slow).await);
        assert!(TcpStream::connect(setup.address).await.is_err());
    });
}

#[test]
fn stopping_does_not_wait_for_ever() {
    serve(MANY, Limits::default(), |setup| async move {
        let mut slow = setup.dawdle().await;
        setup.server.stop(Duration::from_millis(50)).await;
        assert!(ended(&mut slow).await);
    });
}
