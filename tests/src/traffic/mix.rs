//! Steady mixed traffic of every kind that the tailnet can carry, for the demo and for looking around.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::icmp::{self, Ping};
use super::server::{PORT, Server};
use super::udp::{self, Udp};
use super::{TrafficError, tcp};
use crate::miniature::{EXIT_SUBNET_V4, EXIT_SUBNET_V6, LAN_V4, MiniatureTailnet, WEB_V4, WEB_V6};
use crate::netns::Namespace;
use crate::wake::Threads;

/// Nobody listens there.
const CLOSED_PORT: u16 = 9;
/// How long a closed port may take to say so.
const REFUSAL: Duration = Duration::from_secs(2);

/// Running traffic; dropped, it ends.
#[derive(Debug)]
pub struct Mix {
    _threads: Threads,
    _servers: Vec<Server>,
}

impl Mix {
    /// Starts servers and flows: bulk and short TCP, UDP and ICMP, IPv4 and IPv6, from clients, from behind the subnet
    /// router, and from the exit node to its peers. Some 60 Mbit/s through the exit node.
    pub fn start(tailnet: &MiniatureTailnet) -> Result<Self, TrafficError> {
        let servers = vec![
            tailnet.serve_web()?,
            tailnet.serve_lan()?,
            tailnet.serve_node(tailnet.exit())?,
            tailnet.serve_node(tailnet.c2())?,
        ];
        let threads = Threads::new().map_err(TrafficError::socket("mixed traffic", at(WEB_V4.into())))?;
        let mut mix = Flows { threads };
        let (exit, c1, c2, six) = (tailnet.exit(), tailnet.c1(), tailnet.c2(), tailnet.six());
        let [exit_v4, exit_v6] = exit.addresses();
        let [c2_v4, _] = c2.addresses();
        let milliseconds = Duration::from_millis;

        mix.tcp(c1.namespace(), at(WEB_V4.into()), milliseconds(500), (0, 2_000_000))?;
        mix.tcp(c1.namespace(), at(WEB_V6.into()), milliseconds(1000), (1_000_000, 0))?;
        mix.tcp(c2.namespace(), at(WEB_V4.into()), milliseconds(50), (300, 20_000))?;
        mix.tcp(c2.namespace(), at(exit_v4), milliseconds(500), (300, 5_000))?;
        mix.tcp(c2.namespace(), at(EXIT_SUBNET_V4.into()), milliseconds(400), (300, 50_000))?;
        mix.tcp(six.namespace(), at(WEB_V6.into()), milliseconds(300), (300, 100_000))?;
        mix.tcp(six.namespace(), at(EXIT_SUBNET_V6.into()), milliseconds(700), (300, 10_000))?;
        mix.tcp(tailnet.lan(), at(EXIT_SUBNET_V4.into()), milliseconds(300), (20_000, 2_000))?;
        mix.tcp(exit.namespace(), at(LAN_V4.into()), milliseconds(500), (300, 30_000))?;
        mix.tcp(exit.namespace(), at(c2_v4), milliseconds(800), (300, 10_000))?;

        let small = Udp { datagrams: 20, payload: 120, rate: Some(200) };
        mix.udp(c2.namespace(), at(WEB_V4.into()), small)?;
        mix.udp(six.namespace(), at(WEB_V4.into()), Udp { payload: 1100, ..small })?;
        mix.ping(six.namespace(), WEB_V6.into())?;
        mix.ping(tailnet.router().namespace(), exit_v6)?;
        mix.ping(tailnet.lan(), exit_v4)?;

        let refused = SocketAddr::new(WEB_V4.into(), CLOSED_PORT);
        mix.flow(c1.namespace(), "refused", milliseconds(3000), move || {
            TcpStream::connect_timeout(&refused, REFUSAL).map(drop)
        })?;
        Ok(Self { _threads: mix.threads, _servers: servers })
    }
}

struct Flows {
    threads: Threads,
}

impl Flows {
    /// Calls `work` in the namespace, again and again; what it could not do this time it tries again.
    fn flow(
        &mut self,
        from: &Arc<Namespace>,
        name: &str,
        period: Duration,
        mut work: impl FnMut() -> io::Result<()> + Send + 'static,
    ) -> Result<(), TrafficError> {
        let from = Arc::clone(from);
        let run = move |stop: &crate::wake::Stop| {
            let _ = from.run(|| {
                loop {
                    let _ = work();
                    if stop.sleep(period) {
                        return;
                    }
                }
            });
        };
        self.threads.spawn(name, run).map_err(TrafficError::socket("mixed traffic", at(WEB_V4.into())))
    }

    fn tcp(
        &mut self,
        from: &Arc<Namespace>,
        to: SocketAddr,
        period: Duration,
        (upload, download): (u64, u64),
    ) -> Result<(), TrafficError> {
        self.flow(from, "mix-tcp", period, move || tcp::transfer(to, upload, download).map(drop))
    }

    fn udp(&mut self, from: &Arc<Namespace>, to: SocketAddr, what: Udp) -> Result<(), TrafficError> {
        let patience = Duration::from_millis(500);
        self.flow(from, "mix-udp", Duration::from_millis(100), move || {
            udp::echo(to, what, patience).map(drop)
        })
    }

    fn ping(&mut self, from: &Arc<Namespace>, to: IpAddr) -> Result<(), TrafficError> {
        let once = Ping { timeout: Duration::from_secs(1), ..Ping::default() };
        self.flow(from, "mix-ping", Duration::from_millis(500), move || {
            icmp::echo(to, &once).map(drop).map_err(io::Error::other)
        })
    }
}

fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, PORT)
}
