//! Times the encoder: `cargo run --release --example encode [PEERS]`. CPU time of the thread, so that other load
//! on the machine counts less.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::time::{ClockId, clock_gettime};
use tailgauge::model::synthetic;
use tailgauge::outputs::prometheus::{Build, Encoder, Format};

fn main() {
    let peers = std::env::args().nth(1).and_then(|argument| argument.parse().ok()).unwrap_or(10_000);
    let model = synthetic::model(peers);
    let mut encoder = Encoder::new(Build::current());
    let mut out = BytesMut::new();
    for format in [Format::Text, Format::OpenMetrics] {
        let mut times = Vec::new();
        for _ in 0..31 {
            out.clear();
            let started = cpu_time();
            encoder.encode(&model, Instant::now(), format, &mut out);
            times.push(cpu_time() - started);
        }
        times.sort_unstable();
        let series =
            out[..].split(|byte| *byte == b'\n').filter(|line| line.first().is_some_and(|b| *b != b'#'));
        let (series, median, best) =
            (series.count(), times[times.len() / 2].as_secs_f64() * 1e3, times[0].as_secs_f64() * 1e3);
        let scaled = median * 200_000.0 / series as f64;
        println!(
            "{format:?}: {peers} peers, {series} series, {} bytes: {median:.2} ms, best {best:.2} ({scaled:.2} ms per 200,000)",
            out.len()
        );
    }
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
