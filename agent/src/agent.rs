//! Wiring only: which source fills what when, and who serves it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::cli::{AttachMode, Options};
use crate::collectors::DROPS;
use crate::listeners::Listeners;
use crate::model::Model;
use crate::model::node::Selection;
use crate::model::slots::SlotTable;
use crate::model::tailnet::Tailnet;
use crate::outputs::http::{Limits, ListenError, Server, Site};
use crate::outputs::own::SelfMetrics;
use crate::sources::host::{HostSource, NodeSource, Paths, boot};
use crate::sources::kernel::{self, DeviceWatch, KernelConfig, KernelError, KernelSource};
use crate::sources::sampler::{Sampler, SamplerConfig};
use crate::sources::tailscale::{self, TailscaleConfig};
use crate::tasks::{Ended, Tasks};
use crate::tick::Ticker;

/// Name of the kernel source in the self metrics.
const KERNEL: &str = "kernel";
/// Scrapes closer together than this share one reading of the host.
const HOST_INTERVAL: Duration = Duration::from_millis(50);
/// Time that answers under way get when the agent is stopped.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Why the agent cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The runtime or a signal handler could not be made.
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    /// The timer of what is done once a second.
    #[error("the timer fails")]
    Timer(#[source] std::io::Error),
    /// The sampler.
    #[error("cannot start to sample")]
    Sampler(#[source] std::io::Error),
    /// The kernel side.
    #[error("cannot watch the tunnel")]
    Kernel(#[from] KernelError),
    /// The web side.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A part of the agent that everything else would go on without.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// Sources, and the model they fill.
struct Agent {
    own: SelfMetrics,
    state: RefCell<State>,
}

struct State {
    model: Model,
    kernel: KernelSource,
    host: HostSource,
    host_read: Option<Instant>,
    node: NodeSource,
    /// `None` while sampling is off.
    sampler: Option<Sampler>,
    grace: Duration,
}

impl State {
    fn refresh(&mut self) {
        let started = Instant::now();
        let outcome = self.kernel.read(&mut self.model.kernel, self.model.slots.rows());
        if let Err(error) = &outcome {
            tracing::warn!(error = error as &dyn std::error::Error, "cannot read the kernel maps");
        }
        self.model.collectors.record(KERNEL, started, Instant::now(), outcome.is_ok());
        if self.host_read.is_none_or(|read| started.saturating_duration_since(read) >= HOST_INTERVAL) {
            self.host.collect(&mut self.model.host, &mut self.model.collectors);
            self.host_read = Some(started);
        }
        if let Some(sampler) = &mut self.sampler {
            sampler.read(&mut self.kernel, &mut self.model.sampled, &mut self.model.collectors);
        }
    }

    fn take(&mut self, tailnet: Arc<Tailnet>) {
        let overflow = self.model.slots.overflow();
        self.model.tailnet = tailnet;
        let now = Instant::now();
        self.model.slots.update(&self.model.tailnet.peers, now);
        self.model.slots.hear_paths(self.model.tailnet.paths_asked, now);
        if self.model.slots.overflow() > overflow {
            tracing::warn!(
                peers = self.model.slots.overflow(),
                "more peers than slots: these count as unattributed; raise --max-peers"
            );
        }
        self.kernel.sync(&self.model.tailnet, &self.model.slots);
        self.host.follow(&self.model.tailnet);
    }

    fn every_second(&mut self) {
        self.kernel.sweep();
        if let Some(sampler) = &mut self.sampler
            && let Err(error) = sampler.look(&mut self.kernel, &mut self.model.sampled)
        {
            tracing::error!(%error, "cannot sample any more");
            self.sampler = None;
        }
        let now = Instant::now();
        for (slot, path) in self.kernel.paths() {
            self.model.slots.see_path(*slot, *path, now);
        }
        let mut released = false;
        let Self { kernel, model, .. } = self;
        let expired = model.slots.expired(now, self.grace);
        kernel.retire(&expired, |slot, outcome| match outcome {
            Ok(()) => {
                model.slots.release(slot);
                released = true;
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                slot,
                "cannot retire the slot of a peer that left"
            ),
        });
        if released && self.model.slots.overflow() > 0 {
            // Peers wait for a slot, and tailscaled may have no news for long.
            self.take(Arc::clone(&self.model.tailnet));
        }
    }
}

impl Site for Agent {
    fn take_snapshot(&self) {
        self.state.borrow_mut().refresh();
    }

    fn read_node(&self, collectors: Selection) {
        let State { model, node, .. } = &mut *self.state.borrow_mut();
        node.collect(collectors, &mut model.node);
    }

    fn with_model<R>(&self, read: impl FnOnce(&Model) -> R) -> R {
        read(&self.state.borrow().model)
    }

    fn own_metrics(&self) -> &SelfMetrics {
        &self.own
    }

    fn keep_program_statistics(&self, duration: Duration) {
        if let Err(error) = self.state.borrow_mut().kernel.enable_statistics(duration) {
            tracing::warn!(error = &error as &dyn std::error::Error, "no run times of the programs");
        }
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from starting; nothing that happens later ends it but a timer that fails and a task that ends.
pub fn serve(options: &Options, own: SelfMetrics) -> Result<(), ServeError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Runtime)?;
    LocalSet::new().block_on(&runtime, run(options, own))
}

async fn run(options: &Options, own: SelfMetrics) -> Result<(), ServeError> {
    // Subscribed before anything is looked up, so that no change falls between.
    let watch = DeviceWatch::open()?;
    let agent = Rc::new(Agent { own, state: RefCell::new(state(options)?) });
    let limits = Limits { scrapes: options.web_max_requests as usize, ..Limits::default() };
    let server = Server::new(Rc::clone(&agent), limits);
    let mut listeners = Listeners::new(&options.web_listen_address);
    listeners.settle(&server)?;

    let mut tasks = Tasks::default();
    tasks.start("attach to devices as they come", follow_devices(Rc::clone(&agent), watch));
    let socket = &options.tailscale_socket;
    tasks.start("follow tailscaled", follow_tailscaled(Rc::clone(&agent), socket.clone()));
    if options.tailscale_user_metrics {
        let task = pass_on_user_metrics(Rc::clone(&agent), socket.clone());
        tasks.start("pass the metrics of tailscaled on", task);
    }

    let handler = |kind| signal(kind).map_err(ServeError::Runtime);
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut hang_up = handler(SignalKind::hangup())?;
    let second = Ticker::new(Duration::from_secs(1)).map_err(ServeError::Timer)?;
    loop {
        tokio::select! {
            ticked = second.tick() => {
                ticked.map_err(ServeError::Timer)?;
                agent.state.borrow_mut().every_second();
                let own = agent.with_model(|model| {
                    model.tailnet.own.as_ref().map(|own| own.addresses.clone()).unwrap_or_default()
                });
                listeners.follow(&own, &server);
                if let Err(error) = listeners.settle(&server) {
                    tracing::warn!(%error, "cannot serve on an address");
                }
            }
            ended = tasks.end() => return Err(ended.into()),
            _ = hang_up.recv() => tracing::info!("nothing to reload: flags are read at the start"),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping");
    server.stop(STOP_PATIENCE).await;
    Ok(())
}

fn state(options: &Options) -> Result<State, ServeError> {
    let mut kernel = KernelSource::load(&KernelConfig {
        interface: options.interface.clone(),
        max_peers: options.max_peers,
        attach_mode: match options.attach_mode {
            AttachMode::Auto => kernel::AttachMode::Auto,
            AttachMode::Tcx => kernel::AttachMode::Tcx,
            AttachMode::Clsact => kernel::AttachMode::Clsact,
        },
        handshake_timeout: options.tcp_handshake_timeout,
        underlay: options.underlay_interface.clone(),
        drops: options.collectors.enabled.contains(DROPS),
        sampling: !options.sampler_interval.is_zero(),
    })?;
    let host =
        HostSource::new(paths(options), |collector| options.collectors.enabled.contains(collector.name));
    let node = NodeSource::new(paths(options));
    let mut model = Model { slots: SlotTable::new(kernel.slots()), ..Model::default() };
    model.host.boot = Some(boot());
    let sampler = (!options.sampler_interval.is_zero()).then(|| {
        let config = SamplerConfig { paths: paths(options), interval: options.sampler_interval };
        Sampler::start(config, &mut kernel, &mut model.sampled)
    });
    let sampler = sampler.transpose().map_err(ServeError::Sampler)?;
    Ok(State { model, kernel, host, host_read: None, node, sampler, grace: options.peer_grace })
}

fn paths(options: &Options) -> Paths {
    Paths {
        procfs: options.path_procfs.clone(),
        sysfs: options.path_sysfs.clone(),
        rootfs: options.path_rootfs.clone(),
        localapi: options.tailscale_socket.clone(),
        interface: options.interface.clone(),
    }
}

async fn follow_devices(agent: Rc<Agent>, mut watch: DeviceWatch) {
    loop {
        let event = watch.next().await;
        agent.state.borrow_mut().kernel.handle(&event);
    }
}

async fn follow_tailscaled(agent: Rc<Agent>, socket: std::path::PathBuf) {
    let config = TailscaleConfig { socket, ..TailscaleConfig::default() };
    // A success after a failure is a reconnection, but for the first one ever.
    let (mut connected_once, mut connected) = (false, false);
    tailscale::run(
        config,
        |tailnet| agent.state.borrow_mut().take(tailnet),
        |started, ended, success| {
            if success && connected_once && !connected {
                agent.own.localapi_reconnects.inc();
            }
            (connected_once, connected) = (connected_once || success, success);
            agent.state.borrow_mut().model.collectors.record(tailscale::COLLECTOR, started, ended, success);
        },
    )
    .await;
}

async fn pass_on_user_metrics(agent: Rc<Agent>, socket: std::path::PathBuf) {
    let config = TailscaleConfig { socket, ..TailscaleConfig::default() };
    tailscale::follow_user_metrics(
        config,
        |metrics| agent.state.borrow_mut().model.user_metrics = metrics,
        |started, ended, success| {
            let collectors = &mut agent.state.borrow_mut().model.collectors;
            collectors.record(tailscale::USER_METRICS_COLLECTOR, started, ended, success);
        },
    )
    .await;
}
