//! HTTP from people who mean no good: each gets a short answer or loses the connection, and a scraper gets through.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use tailgauge_testbed::agent::{ADDRESS, Agent};
use tailgauge_testbed::stage::Stage;

use crate::{Before, stage, value};

/// A scrape takes milliseconds; the machine may stand still for a while. A client that dawdles is given 10 s.
const SOON: Duration = Duration::from_secs(3);

/// Who says nothing for so long has nothing to say.
const SILENT: Duration = Duration::from_secs(4);

fn connect(stage: &Stage) -> TcpStream {
    let stream = stage.namespace.run(|| TcpStream::connect(ADDRESS)).unwrap().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// What the agent says to these bytes, up to the end of the connection or to when it falls silent.
fn answer(stage: &Stage, request: &[u8]) -> String {
    let mut stream = connect(stage);
    stream.set_read_timeout(Some(SILENT)).unwrap();
    // It may answer and close before everything is written.
    let _ = stream.write_all(request);
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        said.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

fn status(said: &str) -> Option<u16> {
    said.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// A scrape by somebody who means well.
fn scrape_soon(agent: &Agent<'_>, beside: &str) {
    let started = Instant::now();
    let scrape = agent.scrape().unwrap();
    let took = started.elapsed();
    assert!(scrape.sum("tailgauge_build_info", &[]) == 1.0 && took < SOON, "{took:?} beside {beside}");
}

#[test]
fn wrong_requests_are_answered_with_the_right_refusal() {
    let Some(stage) = stage("wrong_requests_are_answered_with_the_right_refusal") else { return };
    let mut agent = stage.agent(&[]).unwrap();
    let close = "Host: x\r\nConnection: close\r\n\r\n";
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let said = answer(&stage, format!("{method} /metrics HTTP/1.1\r\n{close}").as_bytes());
        assert_eq!(status(&said), Some(405), "{method}: {said}");
        assert!(said.to_lowercase().contains("allow: get, head"), "{said}");
    }
    for target in ["/nothing", "/metrics/", "/../etc/passwd", "/%2e%2e/metrics", "//metrics", "*"] {
        let said = answer(&stage, format!("GET {target} HTTP/1.1\r\n{close}").as_bytes());
        assert!(matches!(status(&said), Some(404 | 400)), "{target}: {said}");
    }
    let said = answer(&stage, format!("GET /nothing HTTP/1.1\r\n{close}").as_bytes());
    assert_eq!(status(&said), Some(404), "{said}");
    assert!(said.contains("there are: / /metrics"), "{said}");
    let huge = "x".repeat(100_000);
    let said = answer(&stage, format!("GET / HTTP/1.1\r\nX-Huge: {huge}\r\n{close}").as_bytes());
    assert_eq!(status(&said), Some(431), "{said}");
    let many = "X-Many: y\r\n".repeat(1_000);
    let said = answer(&stage, format!("GET / HTTP/1.1\r\n{many}{close}").as_bytes());
    assert_eq!(status(&said), Some(431), "{said}");
    let said = answer(&stage, format!("GET /{huge} HTTP/1.1\r\n{close}").as_bytes());
    assert!(matches!(status(&said), Some(414 | 431)), "{said}");
    for (nonsense, refusal) in [
        (&b"GET /metrics\r\n\r\n"[..], Some(400)),
        (b"GET /metrics HTTP/0.9\r\n\r\n", Some(400)),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", Some(400)),
        (b"GET /metrics HTTP/7.3\r\n\r\n", Some(400)),
        (b"\0\0\0\0\r\n\r\n", Some(400)),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: -5\r\n\r\n", Some(400)),
        (b"GET /metrics HTTP/1.1\r\nbad header\r\n\r\n", Some(400)),
        // Methods are told apart by case: this is another one.
        (b"get /metrics HTTP/1.1\r\n\r\n\r\n", Some(405)),
        // A TLS hello does not begin as a head does.
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Some(400)),
        // HTTP/2 by prior knowledge: a client that speaks it does not understand an answer, and gets none.
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
    ] {
        let said = answer(&stage, nonsense);
        let words = String::from_utf8_lossy(nonsense);
        assert_eq!((status(&said), said.is_empty()), (refusal, refusal.is_none()), "{words:?}: {said}");
        assert!(!said.contains("tailgauge_tunnel"), "{words:?}: no exposition");
        scrape_soon(&agent, "nonsense");
    }
    // One good request, then garbage in the same breath.
    let said = answer(
        &stage,
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\x00\xffgarbage\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    );
    assert_eq!(status(&said), Some(200), "{said}");
    assert_eq!(said.matches("HTTP/1.1 200").count(), 1, "nothing after the garbage is served: {said}");
    let pipelined = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50);
    let said = answer(&stage, format!("{pipelined}GET /nothing HTTP/1.1\r\n{close}").as_bytes());
    assert_eq!((said.matches("HTTP/1.1 200").count(), said.matches("HTTP/1.1 404").count()), (50, 1));

    let scrape = agent.scrape().unwrap();
    let count = |code: &str| scrape.sum("tailgauge_http_requests_total", &[("code", code)]);
    assert!(count("405") >= 6.0 && count("404") >= 3.0);
    let handlers = scrape.matching("tailgauge_http_requests_total", &[]).count();
    assert!(handlers < 20, "{handlers} series: a client cannot make them");
    assert!(agent.is_running());
}

#[test]
fn half_open_connections_and_slow_readers_keep_nobody_out() {
    let Some(stage) = stage("half_open_connections_and_slow_readers_keep_nobody_out") else { return };
    let agent = stage.agent(&[]).unwrap();
    let before = Before::read(&stage, &agent);
    let half_open: Vec<_> = (0..200)
        .map(|index| {
            let mut stream = connect(&stage);
            let begun = &b"GET /metrics HTTP/1.1\r\nHost:"[..index % 29];
            // The agent may have closed it already to make room.
            let _ = stream.write_all(begun);
            stream
        })
        .collect();
    for _ in 0..5 {
        scrape_soon(&agent, "200 half-open connections");
    }
    let slow: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = connect(&stage);
            stream.write_all("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100).as_bytes()).unwrap();
            stream
        })
        .collect();
    for _ in 0..5 {
        scrape_soon(&agent, "ten readers that do not read");
    }
    let dropped = agent.scrape().unwrap().sum("tailgauge_http_connections_dropped_total", &[]);
    assert!(dropped >= 100.0, "{dropped} connections counted as dropped");
    drop((half_open, slow));
    before.assert_exact(&stage, &agent);
}

#[test]
fn scrapes_at_once_all_get_a_whole_answer() {
    let Some(stage) = stage("scrapes_at_once_all_get_a_whole_answer") else { return };
    let agent = stage.agent(&[]).unwrap();
    let names = || -> BTreeSet<String> {
        agent.scrape().unwrap().samples.into_iter().map(|sample| sample.name).collect()
    };
    // Its own requests have samples from the second scrape on.
    agent.scrape().unwrap();
    let alone = names();
    let at_once: Vec<_> = thread::scope(|scope| {
        let scrapes: Vec<_> = (0..8).map(|_| scope.spawn(|| [(); 20].map(|()| names()))).collect();
        scrapes.into_iter().flat_map(|scrape| scrape.join().unwrap()).collect()
    });
    // Some come with time, none goes.
    let after = names();
    assert!(alone.len() > 100, "{alone:?}");
    for names in &at_once {
        assert!(names.is_superset(&alone), "{:?} missing", alone.difference(names));
        assert!(names.is_subset(&after), "{:?} at once only", names.difference(&after));
    }
    let scrape = agent.scrape().unwrap();
    let answered =
        value(&scrape, "tailgauge_http_requests_total", &[("code", "200"), ("handler", "/metrics")]);
    assert!(answered >= 160.0, "{answered}");
}
