//! 200,000 series as text: the streaming encoder against the `prometheus` crate.

use std::time::Instant;

use bytes::BytesMut;
use prometheus::{Encoder as _, IntCounterVec, Opts, Registry, TextEncoder};
use tailgauge::model::{Model, synthetic};
use tailgauge::outputs::prometheus::{Build, Encoder, Format};

use crate::process::milliseconds;
use crate::table::{Row, Spread, digits};
use crate::{Outcome, Plan, allocations};

const SERIES: usize = 200_000;
/// Peers of the sample from which series per peer are known.
const SAMPLE: u32 = 100;
/// Milliseconds.
const TARGET: f64 = 10.0;

pub fn measure(plan: &Plan) -> Outcome {
    let per_peer = (series(2 * SAMPLE) - series(SAMPLE)) / SAMPLE as usize;
    let peers = SERIES.div_ceil(per_peer.max(1)) as u32;
    let (model, count) = (synthetic::model(peers), series(peers));
    let mut formats = [Format::Text, Format::OpenMetrics].map(|format| Run::new(&model, format));
    let registry = baseline(peers, per_peer)?;
    let (mut plain, mut text) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds(21, 5) {
        formats.iter_mut().for_each(Run::once);
        text.clear();
        let mut outcome = Ok(());
        plain.push(milliseconds(|| outcome = TextEncoder::new().encode(&registry.gather(), &mut text)));
        outcome?;
    }
    let plain = Spread::of(plain);
    let at_rest = allocations::during(|| formats.iter_mut().for_each(Run::once));
    let of_baseline = allocations::during(|| drop(TextEncoder::new().encode(&registry.gather(), &mut text)));
    let mut rows = Vec::new();
    for (name, run) in ["text", "OpenMetrics"].into_iter().zip(&mut formats) {
        let spread = Spread::of(std::mem::take(&mut run.samples));
        rows.push(
            Row::new(format!("encode {count} series of {peers} peers, {name}"), spread.show("ms"))
                .against(format!("prometheus crate {}", plain.show("ms")), spread.median / plain.median)
                .target(format!("≤ {TARGET} ms"), spread.median <= TARGET),
        );
    }
    rows.push(
        Row::new("allocations meanwhile, both formats", at_rest.to_string())
            .beside(format!("prometheus crate {}", digits(of_baseline as f64)))
            .target("0", at_rest == 0),
    );
    Ok(rows)
}

/// One encoder at rest: its buffer is large enough and its labels are rendered.
struct Run<'a> {
    model: &'a Model,
    format: Format,
    encoder: Encoder,
    out: BytesMut,
    samples: Vec<f64>,
}

impl<'a> Run<'a> {
    fn new(model: &'a Model, format: Format) -> Self {
        let (encoder, out) = (Encoder::new(Build::current()), BytesMut::new());
        // Room for the samples too: they must not count as the encoder's allocations.
        let mut run = Self { model, format, encoder, out, samples: Vec::with_capacity(64) };
        run.once();
        run.samples.clear();
        run
    }

    fn once(&mut self) {
        let Self { model, format, encoder, out, samples } = self;
        out.clear();
        samples.push(milliseconds(|| encoder.encode(model, Instant::now(), *format, out)));
    }
}

/// Series of a scrape with so many peers.
fn series(peers: u32) -> usize {
    let model = synthetic::model(peers);
    let mut out = BytesMut::new();
    Encoder::new(Build::current()).encode(&model, Instant::now(), Format::Text, &mut out);
    let lines = out[..].split(|byte| *byte == b'\n');
    lines.filter(|line| line.first().is_some_and(|first| *first != b'#')).count()
}

/// As many counters by peer and class, the usual way.
fn baseline(peers: u32, families: usize) -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    for family in 0..families {
        let options = Opts::new(format!("baseline_{family}_total"), "A counter.");
        let counters = IntCounterVec::new(options, &["peer_id", "class"])?;
        for peer in 1..=peers {
            let id = synthetic::peer(peer).id;
            counters.with_label_values(&[id.as_str(), "exit"]).inc_by(1_000_003 * u64::from(peer));
        }
        registry.register(Box::new(counters))?;
    }
    Ok(registry)
}
