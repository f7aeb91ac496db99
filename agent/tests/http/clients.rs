//! Clients that behave badly, or just keep their connection.

use std::io::ErrorKind;
use std::time::Duration;

use tailgauge::outputs::http::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::fixture::{PATIENCE, ended, header, read_one, serve, status};

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
    // Long enough for the test's own requests on a machine that stands still for a moment.
    let limits = Limits { head: Duration::from_secs(1), ..Limits::default() };
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

#[test]
fn the_time_for_a_head_begins_with_its_first_byte() {
    let limits = Limits { head: Duration::from_secs(2), ..Limits::default() };
    serve(1, limits, |setup| async move {
        let mut stream = setup.connect().await;
        for pause in [0, 2200] {
            sleep(Duration::from_millis(pause)).await;
            stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
            sleep(Duration::from_millis(20)).await;
            stream.write_all(b"Host: x\r\n\r\n").await.unwrap();
            assert_eq!(read_one(&mut stream).await.1, "ok\n");
        }
    });
}

/// Enough for an exposition that fits into no socket buffer.
const MANY: u32 = 6_000;

#[test]
fn a_slow_reader_holds_up_nobody_and_is_cut_off() {
    let limits = Limits { answer: Duration::from_secs(4), scrapes: 1, ..Limits::default() };
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
        // Reset, so that the kernel does not go on to send what is left.
        let end = slow.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind());
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
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
