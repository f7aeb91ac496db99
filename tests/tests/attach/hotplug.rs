//! CPUs that go offline and come back under the sampler. Only where the machine is the test's own.

use std::env;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tailgauge::model::collector::Collectors;
use tailgauge::model::kernel::{HookMode, Kernel};
use tailgauge::model::sampled::Sampled;
use tailgauge::sources::host::Paths;
use tailgauge::sources::kernel::{AttachMode, KernelSource};
use tailgauge::sources::sampler::{Sampler, SamplerConfig};
use tailgauge_ebpf::layout::programs;
use tailgauge_testbed::needs;

use crate::{config, device, namespace};

/// Set where nothing but the tests runs: in a virtual machine of `cargo xtask vm`.
const OWN_MACHINE: &str = "TAILGAUGE_OWN_MACHINE";
const PATIENCE: Duration = Duration::from_secs(20);

/// The second CPU's switch.
const SWITCH: &str = "/sys/devices/system/cpu/cpu1/online";

/// Brings the second CPU back.
struct Offline;

impl Offline {
    fn take() -> Self {
        fs::write(SWITCH, "0").unwrap();
        Self
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        fs::write(SWITCH, "1").unwrap();
    }
}

/// Keeps all CPUs busy while `work` is done.
fn beside_busy_loops<T>(work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| while !black_box(is_over.load(Ordering::Relaxed)) {});
        }
        let outcome = work();
        is_over.store(true, Ordering::Relaxed);
        outcome
    })
}

/// A sampler that the test looks after, as the agent does.
struct Watch {
    source: KernelSource,
    sampler: Sampler,
    sampled: Sampled,
}

impl Watch {
    /// Looks once.
    fn look(&mut self) {
        self.sampler.look(&mut self.source, &mut self.sampled).unwrap();
        let mut collectors = Collectors::default();
        self.sampler.read(&mut self.source, &mut self.sampled, &mut collectors);
        let mut kernel = Kernel::default();
        self.source.read(&mut kernel, 1).unwrap();
        let hook = kernel.hooks.iter().find(|hook| hook.hook == programs::SAMPLING).unwrap();
        assert_eq!(hook.mode, HookMode::PerfEvent, "{hook:?}");
    }

    /// Samples of a CPU so far, and their sum.
    fn of(&mut self, cpu: u32) -> (u64, f64) {
        let busy = &self.sampled.cpu(cpu).busy;
        (busy.count(), busy.sum())
    }

    /// Looks until there are so many more samples of a CPU.
    fn wait(&mut self, cpu: u32, more: u64) {
        let (started, before) = (Instant::now(), self.of(cpu).0);
        while self.of(cpu).0 < before + more {
            assert!(started.elapsed() < PATIENCE, "no samples of CPU {cpu}: {:?}", self.sampled);
            thread::sleep(Duration::from_millis(200));
            self.look();
        }
    }
}

#[test]
fn samples_go_on_when_their_cpu_goes_and_comes_back() {
    let test = "samples_go_on_when_their_cpu_goes_and_comes_back";
    if env::var_os(OWN_MACHINE).is_none() || !Path::new(SWITCH).exists() {
        needs::skip(test, "a machine of its own with two CPUs (cargo xtask vm)");
        return;
    }
    let Some(namespace) = namespace(test) else { return };
    let _tun = device(&namespace);
    // The first CPU cannot go: let the sampler begin with the second one.
    let sysfs = tempfile::tempdir().unwrap();
    let folder = sysfs.path().join("devices/system/cpu");
    fs::create_dir_all(&folder).unwrap();
    let online = |cpus: &str| fs::write(folder.join("online"), cpus).unwrap();
    namespace
        .run(|| {
            online("1\n");
            let mut source = KernelSource::load(&config(AttachMode::Auto)).unwrap();
            source.sync(&tailgauge::model::tailnet::Tailnet::default(), &Default::default());
            let mut sampled = Sampled::default();
            let paths = Paths { sysfs: sysfs.path().to_path_buf(), ..Paths::default() };
            let config = SamplerConfig { paths, interval: Duration::from_millis(20) };
            let sampler = Sampler::start(config, &mut source, &mut sampled).unwrap();
            let mut watch = Watch { source, sampler, sampled };
            watch.wait(1, 10);
            assert_eq!(watch.of(0), (0, 0.0), "it is not among those online");

            let offline = Offline::take();
            online("0\n");
            // What was sampled before is read by now.
            watch.look();
            let before = watch.of(1);
            beside_busy_loops(|| watch.wait(0, 20));
            let (count, busy) = watch.of(0);
            assert!(busy / count as f64 > 0.5 && busy <= count as f64, "{busy} of {count}");
            assert_eq!(watch.of(1), before, "it is offline");
            assert!(watch.sampled.missed > 0, "nobody sampled for two seconds");

            drop(offline);
            online("0-1\n");
            watch.look();
            let before = watch.of(1);
            beside_busy_loops(|| watch.wait(1, 50));
            let (count, busy) = watch.of(1);
            let (count, busy) = ((count - before.0) as f64, busy - before.1);
            // While it was away nothing was added to its time, and the first sample says nothing.
            assert!(busy / count > 0.5 && busy <= count, "{busy} of {count}");
        })
        .unwrap();
}
