//! What a well-behaved client gets.

use std::sync::Arc;
use std::time::Duration;

use tailgauge::model::kernel::{Hook, HookMode};
use tailgauge::model::tailnet::Tailnet;
use tailgauge::outputs::http::Limits;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::fixture::{header, serve, status};

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
            ("/nothing", 404, "text/plain; charset=utf-8", "/compat/node /compat/tailscale /healthz"),
            (
                "/compat/node?collect[]=uname",
                200,
                "text/plain; version=0.0.4; charset=utf-8",
                "node_scrape_collector_success{collector=\"uname\"} 1\n",
            ),
            (
                "/compat/node?collect[]=x",
                400,
                "text/plain; charset=utf-8",
                "no collector \"x\" in collect[]; ",
            ),
            (
                "/compat/node?collect[]=cpu&exclude[]=cpu",
                400,
                "text/plain; charset=utf-8",
                "cannot be combined",
            ),
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
