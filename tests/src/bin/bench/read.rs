//! Copying the counters of 10,000 peers out of the kernel: through the mapping, against a look-up per row.

use std::net::{IpAddr, Ipv4Addr};
use std::thread::sleep;
use std::time::Duration;

use tailgauge::model::kernel::Kernel;
use tailgauge::model::{Model, synthetic};
use tailgauge::sources::kernel::{KernelConfig, KernelSource};
use tailgauge_ebpf::layout::DIRECTIONS;
use tailgauge_testbed::node::TUNNEL;
use tailgauge_testbed::programs::{Error, Programs, Sizes};

use crate::device::Device;
use crate::process::milliseconds;
use crate::table::{Row, Spread};
use crate::{Outcome, Plan};

const PEERS: u32 = 10_000;
/// Milliseconds.
const TARGET: f64 = 0.5;
/// Readings in a row, of which each is a sample, for each round of look-ups.
const READINGS: usize = 20;
/// Longer than a window: what was open in the last reading is closed in the next.
const WINDOW_OVER: Duration = Duration::from_millis(12);

pub fn measure(plan: &Plan) -> Outcome {
    let device = Device::create("read", Ipv4Addr::new(100, 127, 0, 1))?;
    let namespace = device.namespace();
    // The source watches the device of the thread's namespace. Errors cross the thread as text.
    let measured = namespace.run(|| in_namespace(plan, &device).map_err(|error| error.to_string()))?;
    Ok(rows(&measured?))
}

/// Milliseconds of each kind of reading.
struct Measured {
    at_rest: Spread,
    active: Spread,
    lookups: Spread,
}

fn in_namespace(plan: &Plan, device: &Device) -> Result<Measured, Box<dyn std::error::Error>> {
    let model = synthetic::model(PEERS);
    let mut source = KernelSource::load(&KernelConfig::new(TUNNEL, PEERS))?;
    source.sync(&model.tailnet, &model.slots);
    let mut reader = Reader { source, kernel: Kernel::default(), rows: model.slots.rows() };

    let mut active = Vec::new();
    for round in 1..=plan.rounds(7, 3) as u64 {
        device.knock(addresses(&model))?;
        active.push(reader.read()?);
        let counted: u64 = reader.kernel.slots[1..].iter().map(|slot| slot.direction[0].skbs).sum();
        if counted != u64::from(PEERS) * round {
            return Err(format!("{counted} packets counted of {} sent", u64::from(PEERS) * round).into());
        }
    }
    // Whatever changed is copied once more, windows that were open are closed, and after some sweeps nobody counts as
    // active any more.
    for _ in 0..12 {
        sleep(WINDOW_OVER);
        reader.source.sweep();
        reader.read()?;
    }
    let rows = Programs::load(Sizes { slots: PEERS + 1, shards: shards(), ..Sizes::default() })?;
    let (mut at_rest, mut lookups) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds(9, 3) {
        for _ in 0..READINGS {
            at_rest.push(reader.read()?);
        }
        let mut outcome = Ok(());
        lookups.push(milliseconds(|| outcome = look_up_all(&rows)));
        outcome?;
    }
    Ok(Measured { at_rest: Spread::of(at_rest), active: Spread::of(active), lookups: Spread::of(lookups) })
}

struct Reader {
    source: KernelSource,
    kernel: Kernel,
    rows: u32,
}

impl Reader {
    /// Reads once; milliseconds.
    fn read(&mut self) -> Result<f64, Box<dyn std::error::Error>> {
        let mut outcome = Ok(());
        let spent = milliseconds(|| outcome = self.source.read(&mut self.kernel, self.rows));
        outcome?;
        Ok(spent)
    }
}

/// The counters of all slots by one look-up, a system call, for each row.
fn look_up_all(programs: &Programs) -> Result<(), Error> {
    for slot in 0..=PEERS {
        for direction in 0..DIRECTIONS {
            std::hint::black_box(programs.line(slot, direction)?);
        }
    }
    Ok(())
}

/// The IPv4 addresses of all peers.
fn addresses(model: &Model) -> impl Iterator<Item = Ipv4Addr> {
    model.tailnet.peers.iter().filter_map(|peer| {
        peer.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    })
}

/// As many as the agent has on this machine.
fn shards() -> u32 {
    aya::util::nr_cpus().map_or(1, |cpus| cpus as u32).next_power_of_two().min(8)
}

fn rows(measured: &Measured) -> Vec<Row> {
    let Measured { at_rest, active, lookups } = measured;
    let baseline = || format!("a look-up per row {}", lookups.show("ms"));
    vec![
        Row::new(format!("read the counters of {PEERS} peers"), at_rest.show("ms"))
            .against(baseline(), at_rest.median / lookups.median)
            .target(format!("≤ {TARGET} ms"), at_rest.median <= TARGET),
        Row::new(
            format!("the same, and windows and TCP of {PEERS} peers after traffic of each"),
            active.show("ms"),
        )
        .against(baseline(), active.median / lookups.median),
    ]
}
