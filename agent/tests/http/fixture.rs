//! A server with a made-up tailnet, and a client that writes bytes.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tailgauge::model::node::Selection;
use tailgauge::model::{Model, synthetic};
use tailgauge::outputs::http::{Limits, Server, Site};
use tailgauge::outputs::own::SelfMetrics;
use tailgauge::sources::host::{NodeSource, Paths};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// Nothing here takes longer, on a loaded machine and without optimisation, unless the server hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Fixture {
    pub(crate) model: RefCell<Model>,
    node: RefCell<NodeSource>,
    pub(crate) own: SelfMetrics,
    pub(crate) snapshots: Cell<u32>,
    pub(crate) statistics: Cell<Option<Duration>>,
}

impl Site for Fixture {
    fn take_snapshot(&self) {
        self.snapshots.set(self.snapshots.get() + 1);
    }

    fn read_node(&self, collectors: Selection) {
        self.node.borrow_mut().collect(collectors, &mut self.model.borrow_mut().node);
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

pub(crate) struct Setup {
    pub(crate) site: Rc<Fixture>,
    pub(crate) server: Server<Fixture>,
    pub(crate) address: SocketAddr,
}

/// Runs a test beside a server with `peers` peers.
pub(crate) fn serve<F: Future<Output = ()>>(peers: u32, limits: Limits, test: impl FnOnce(Setup) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let site = Rc::new(Fixture {
            model: RefCell::new(synthetic::model(peers)),
            node: RefCell::new(NodeSource::new(Paths::default())),
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
pub(crate) type Answer = (String, String);

impl Setup {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A client with a small receive buffer that asks for metrics and reads nothing.
    pub(crate) async fn dawdle(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream.readable().await.unwrap();
        stream
    }

    /// Sends `request` on a connection of its own and reads until the server closes it.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        split(&self.raw(request.as_bytes()).await)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    /// Scrapes until there is room for it.
    pub(crate) async fn scrape_at_last(&self) {
        while status(&self.get("/metrics").await.0) == 503 {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Value of one of the agent's own metrics.
    pub(crate) async fn own(&self, series: &str) -> u64 {
        let (_, body) = self.get("/metrics").await;
        let line = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }
}

pub(crate) fn split(answer: &str) -> Answer {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    (head.to_owned(), body.to_owned())
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

pub(crate) fn status(head: &str) -> u16 {
    head.split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("no status in {head:?}"))
}

/// Reads one answer with a Content-Length from a connection that stays open.
pub(crate) async fn read_one(stream: &mut TcpStream) -> Answer {
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
pub(crate) async fn ended(stream: &mut TcpStream) -> bool {
    let mut sink = vec![0; 1 << 16];
    loop {
        match timeout(PATIENCE, stream.read(&mut sink)).await {
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
}
