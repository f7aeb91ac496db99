//! What ten samples a second cost beside a tailscaled with as many threads as a real one, busy and at rest.

use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::netns::Namespace;
use tailgauge_testbed::standin::StandIn;
use tailgauge_testbed::wireguard::BYPASS_MARK;

use crate::device::Device;
use crate::process::cpu_time;
use crate::table::{Row, Spread, digits};
use crate::{Outcome, Plan, stolen};

/// This host on the tunnel.
const OWN: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
/// The Go runtime of a tailscaled on 2 to 4 CPUs has about a dozen; the stand-in has some besides these.
const WORKERS: usize = 10;
/// While busy, each of them works so long …
const WORK: Duration = Duration::from_millis(1);
/// … and all of them wait so long before the next time.
const PAUSE: Duration = Duration::from_millis(20);
/// Of one CPU.
const TARGET: f64 = 0.001;

pub fn measure(plan: &Plan) -> Outcome {
    let device = Device::create("sampling", OWN)?;
    let namespace = device.namespace();
    let _sockets = sockets(namespace)?;
    let program = std::env::current_exe()?.with_file_name("standin");
    let mut tailscaled = StandIn::start(&program, namespace)?;
    tailscaled.burn(WORKERS, WORK)?;
    let mut agent = Agent::start_program(&plan.agent, namespace, &tailscaled.socket(), &[])?;
    agent.wait_scrape("the sampler", |scrape| {
        scrape.value(SAMPLES, &[]).is_some_and(|samples| samples > 3.0)
    })?;
    let time = Duration::from_secs(plan.rounds(20, 5) as u64);
    let over = AtomicBool::new(false);
    let busy = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) && tailscaled.burn(WORKERS, WORK).is_ok() {
                thread::sleep(PAUSE);
            }
        });
        let busy = Stretch::measure(&agent, time);
        over.store(true, Ordering::Relaxed);
        busy
    })?;
    let at_rest = Stretch::measure(&agent, time)?;
    drop(agent);
    let interrupt = interrupt(plan, namespace, &tailscaled)?;
    Ok(vec![busy.row("its threads busy"), at_rest.row("at rest"), interrupt])
}

/// What one sample takes from whoever has the CPU, with the interrupt around it: what a thread that only runs loses in
/// the time of one with samples and without, by turns. The least of many such times, as others are lost to other machines.
fn interrupt(plan: &Plan, namespace: &Namespace, tailscaled: &StandIn) -> Result<Row, Box<dyn Error>> {
    const INTERVAL: Duration = Duration::from_millis(20);
    let (mut taken, mut own) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds(9, 3) {
        let mut lost = [0.0; 2];
        for (lost, interval) in lost.iter_mut().zip(["0s", "20ms"]) {
            let flags = ["--sampler.interval", interval];
            let agent = Agent::start_program(&plan.agent, namespace, &tailscaled.socket(), &flags)?;
            let before = agent.scrape()?;
            *lost = Spread::of(stolen::from(0, 100, INTERVAL)?).min;
            let after = agent.scrape()?;
            let grown = |name| Some(after.value(name, &[])? - before.value(name, &[])?);
            if let Some((samples, cost)) = grown(SAMPLES).zip(grown("tailgauge_sampler_cpu_seconds_total")) {
                own.push(cost / samples.max(1.0) * 1e6);
            }
        }
        taken.push(lost[1] - lost[0]);
    }
    let (taken, own) = (Spread::of(taken), Spread::of(own));
    let what = "a sample, as a thread that has the CPU loses it";
    let account = format!("by the agent's own account, with looking for what to sample {}", own.show("µs"));
    Ok(Row::new(what, taken.show("µs")).beside(account))
}

/// Like tailscaled's own: the sampler looks at their queues.
fn sockets(namespace: &Namespace) -> Result<[UdpSocket; 2], Box<dyn Error>> {
    let any: [SocketAddr; 2] = [(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
    let [ipv4, ipv6] = any.map(|address| {
        let socket = namespace.run(|| UdpSocket::bind(address))??;
        SockRef::from(&socket).set_mark(BYPASS_MARK)?;
        Ok::<_, Box<dyn Error>>(socket)
    });
    Ok([ipv4?, ipv6?])
}

const SAMPLES: &str = "tailgauge_sampler_samples_total";

/// What was used between two scrapes.
struct Stretch {
    seconds: f64,
    /// CPU seconds of sampling, by the agent's own account.
    sampling: f64,
    /// CPU seconds of the agent, the first of the two scrapes included.
    agent: f64,
    samples: f64,
    threads: f64,
}

impl Stretch {
    fn measure(agent: &Agent<'_>, time: Duration) -> Result<Self, Box<dyn Error>> {
        let (started, cpu, before) = (Instant::now(), cpu_time(agent.id())?, agent.scrape()?);
        thread::sleep(time);
        let (cpu, after) = (cpu_time(agent.id())?.saturating_sub(cpu), agent.scrape()?);
        let seconds = started.elapsed().as_secs_f64();
        let value = |scrape: &Exposition, name: &str| {
            scrape.value(name, &[]).ok_or_else(|| format!("the agent does not export {name}"))
        };
        let grown = |name| Ok::<_, String>(value(&after, name)? - value(&before, name)?);
        Ok(Self {
            seconds,
            sampling: grown("tailgauge_sampler_cpu_seconds_total")?,
            agent: cpu.as_secs_f64(),
            samples: grown(SAMPLES)?,
            threads: value(&after, "tailgauge_tailscaled_threads")?,
        })
    }

    fn row(&self, what: &str) -> Row {
        let Self { seconds, sampling, agent, samples, threads } = self;
        let share = sampling / seconds;
        Row::new(
            format!("sampling, beside a tailscaled of {threads} threads, {what}"),
            format!("{} % of a CPU", digits(share * 100.0)),
        )
        .beside(format!(
            "{} µs a sample, {} a second; the whole agent {} %",
            digits(sampling / samples.max(1.0) * 1e6),
            digits(samples / seconds),
            digits(agent / seconds * 100.0)
        ))
        .target(format!("≤ {} %", TARGET * 100.0), share <= TARGET)
    }
}
