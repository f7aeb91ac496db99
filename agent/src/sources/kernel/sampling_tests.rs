//! Samples beside what the kernel says in its files.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{socket_cookie, socket_recv_buffer_size};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use tailgauge_ebpf::layout::{UNKNOWN, UNKNOWN_32};

use super::*;
use crate::sources::kernel::description;
use crate::sources::kernel::probe::missing_capabilities;
use crate::sources::kernel::types::KernelTypes;

const PERIOD: u64 = 10_000_000;
const PATIENCE: Duration = Duration::from_secs(20);
/// Files show ticks of a hundredth of a second.
const TICK: u64 = 10_000_000;

/// The programs, and the object that they are in; `None` where this host does not let them, which is for others than
/// the code under test to say.
fn open() -> Option<(Object, Sampling)> {
    open_with(|_| {})
}

/// The same on another kernel.
fn open_with(change: impl FnOnce(&mut Fields)) -> Option<(Object, Sampling)> {
    if !missing_capabilities().is_empty() {
        eprintln!("skipped: needs root");
        return None;
    }
    if description::is_absent() {
        return None;
    }
    let mut types = KernelTypes::of_this_kernel(true, true);
    change(types.sampling.as_mut().unwrap().as_mut().unwrap());
    let mut object = Object::load(1, &types).unwrap();
    let sampling = Sampling::open(&mut object, types.sampling.as_ref()).unwrap();
    assert_eq!(sampling.obstacle(), None, "{:?}", object.refused());
    Some((object, sampling))
}

/// The next sample that is taken from now on, of what is watched now.
fn next(sampling: &mut Sampling) -> (Sample, Vec<CpuSample>) {
    sampling.read(|_, _, _| {});
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < PATIENCE, "no samples");
        let mut found = None;
        sampling.read(|sample, cpus, is_current| {
            found = is_current.then(|| (*sample, cpus.to_vec())).or(found.take());
        });
        match found {
            Some(found) => return found,
            None => std::thread::yield_now(),
        }
    }
}

/// A process that does nothing but work.
struct Busy(Child);

impl Busy {
    fn start() -> Self {
        let mut command = Command::new("sh");
        Self(command.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap())
    }

    /// On one CPU.
    fn on(cpu: usize) -> Self {
        let busy = Self::start();
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        sched_setaffinity(Pid::from_raw(busy.0.id().cast_signed()), &cpus).unwrap();
        busy
    }

    /// Nanoseconds that it ran and waited, by its schedstat.
    fn schedstat(&self) -> (u64, u64) {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", self.0.id())).unwrap();
        let mut words = text.split_ascii_whitespace().map(|word| word.parse().unwrap());
        (words.next().unwrap(), words.next().unwrap())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nanoseconds that each CPU was busy, and in soft interrupts, by /proc/stat.
fn stat() -> Vec<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    let lines = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    lines
        .map(|line| {
            let ticks: Vec<u64> =
                line.split_ascii_whitespace().skip(1).map(|word| word.parse().unwrap()).collect();
            // user, nice, system, idle, iowait, irq, softirq, steal
            let busy = ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6] + ticks[7];
            (busy * TICK, ticks[6] * TICK)
        })
        .collect()
}

#[test]
fn cpus_and_a_process_are_what_files_say_before_and_after() {
    let Some((mut object, mut sampling)) = open() else { return };
    // More than there are CPUs, so that it waits for one now and then.
    let cpus = std::thread::available_parallelism().unwrap().get();
    let others: Vec<_> = (0..cpus).map(|_| Busy::start()).collect();
    let busy = Busy::start();
    let found = sampling.watch(&mut object, &Targets { process: busy.0.id(), ..Targets::default() }).unwrap();
    assert!([found.task, found.cpu_times, found.namespace].iter().all(|found| *found != 0));
    sampling.start(&mut object, 0, PERIOD).unwrap();
    let mut last = 0;
    for _ in 0..10 {
        let before = (busy.schedstat(), stat());
        let (sample, cpus) = next(&mut sampling);
        let after = (busy.schedstat(), stat());
        assert!(sample.at > last && sample.cost > 0 && sample.cost < 10_000_000, "{sample:?}");
        last = sample.at;
        let ((ran, waited), (ran_after, waited_after)) = (before.0, after.0);
        assert!((ran..=ran_after).contains(&sample.ran), "{ran} {sample:?} {ran_after}");
        assert!((waited..=waited_after).contains(&sample.waited), "{waited} {sample:?} {waited_after}");
        assert_eq!(sample.ended, 0, "it has one thread, which goes on");
        for ((cpu, before), after) in cpus.iter().zip(before.1).zip(after.1) {
            // A file cuts its six parts off at a tick each.
            assert!((before.0..=after.0 + 6 * TICK).contains(&cpu.busy), "{before:?} {cpu:?} {after:?}");
            assert!((before.1..=after.1 + TICK).contains(&cpu.softirq), "{before:?} {cpu:?} {after:?}");
        }
    }
    drop(others);
    drop(busy);
    let (sample, _) = next(&mut sampling);
    assert_eq!(sample.ran, UNKNOWN, "it is gone");
}

#[test]
fn pressure_is_up_to_date_whatever_lasts() {
    let Some((mut object, mut sampling)) = open() else { return };
    if !Path::new(PRESSURE).exists() {
        return eprintln!("skipped: needs a kernel with pressure");
    }
    // Two for each CPU: one of them always waits.
    let cpus = std::thread::available_parallelism().unwrap().get();
    let _busy: Vec<_> = (0..2 * cpus).map(|place| Busy::on(place % cpus)).collect();
    let found = sampling.watch(&mut object, &Targets::default()).unwrap();
    assert_ne!(found.pressure, 0);
    sampling.start(&mut object, 0, PERIOD).unwrap();
    next(&mut sampling);
    let mut last = next(&mut sampling);
    let mut errors = Vec::new();
    for _ in 0..50 {
        let now = next(&mut sampling);
        for (now_there, before) in now.1.iter().zip(&last.1).take(cpus) {
            for (counted, before) in
                [(now_there.waiting, before.waiting), (now_there.nonidle, before.nonidle)]
            {
                let known = counted != UNKNOWN_32 && before != UNKNOWN_32;
                let grown = u64::from(counted.wrapping_sub(before));
                errors.push(if known { grown.abs_diff(now.0.at - last.0.at) } else { u64::MAX });
            }
        }
        last = now;
    }
    // The scheduler looks at the clock of a CPU that does the same thing all the time once a tick, 4 ms or so. A virtual
    // CPU may stand still between the moments that are held against each other.
    errors.sort_unstable();
    let (usual, most) = (errors[errors.len() / 2], errors[errors.len() * 9 / 10]);
    assert!(usual < 200_000 && most < 10_000_000, "{usual} {most} of {errors:?}");
}

#[test]
fn a_kernel_without_pressure_is_sampled_all_the_same() {
    let Some((mut object, mut sampling)) = open_with(|fields| fields.has_pressure = 0) else { return };
    let found = sampling.watch(&mut object, &Targets::default()).unwrap();
    assert!(found.pressure == 0 && found.cpu_times != 0 && found.namespace != 0, "{found:?}");
    sampling.start(&mut object, 0, PERIOD).unwrap();
    let (_, cpus) = next(&mut sampling);
    assert!(cpus[0].busy > 0 && cpus[0].busy != UNKNOWN, "{cpus:?}");
    assert!(cpus.iter().all(|cpu| (cpu.waiting, cpu.nonidle) == (UNKNOWN_32, UNKNOWN_32)), "{cpus:?}");
}

#[test]
fn a_socket_is_known_by_its_cookie_until_it_is_gone() {
    let Some((mut object, mut sampling)) = open() else { return };
    let sockets = ["127.0.0.1:0", "[::1]:0"].map(|address| UdpSocket::bind(address).unwrap());
    let mut targets = Targets::default();
    for (place, socket) in targets.sockets.iter_mut().zip(&sockets) {
        let address = socket.local_addr().unwrap();
        let mut words = [0; 4];
        match address.ip() {
            std::net::IpAddr::V4(v4) => words[0] = v4.to_bits().to_be(),
            std::net::IpAddr::V6(_) => words[3] = 1u32.to_be(),
        }
        *place = WatchedSocket {
            cookie: socket_cookie(socket).unwrap(),
            address: words,
            port: address.port().to_be().into(),
            is_v6: address.is_ipv6().into(),
        };
    }
    // Somebody else's port.
    targets.sockets[2] = WatchedSocket { cookie: u64::MAX - 1, ..targets.sockets[0] };
    let found = sampling.watch(&mut object, &targets).unwrap();
    assert!(found.sockets[0] != 0 && found.sockets[1] != 0, "{found:?}");
    sampling.start(&mut object, 0, PERIOD).unwrap();
    let queues = |sampling: &mut Sampling| next(sampling).0.sockets;
    let before = queues(&mut sampling);
    for (socket, queue) in sockets.iter().zip(before) {
        assert_eq!(queue.bytes, 0);
        assert_eq!(queue.room as usize, socket_recv_buffer_size(socket).unwrap());
        socket.send_to(&[7; 1000], socket.local_addr().unwrap()).unwrap();
    }
    assert_eq!(before[2].bytes, UNKNOWN_32, "it has another cookie");
    let full = queues(&mut sampling);
    assert!(full[..2].iter().all(|queue| (1000..10_000).contains(&queue.bytes)), "{full:?}");
    sockets[0].recv(&mut [0; 2000]).unwrap();
    let one = queues(&mut sampling);
    assert!(one[0].bytes < full[0].bytes && one[1] == full[1], "{full:?} {one:?}");
    drop(sockets);
    let gone = queues(&mut sampling);
    assert!(gone.iter().all(|queue| queue.bytes == UNKNOWN_32), "{gone:?}");
}

#[test]
fn a_device_without_a_queue_has_no_backlog_nor_has_one_that_is_not_there() {
    let Some((mut object, mut sampling)) = open() else { return };
    // The loopback device is always the first.
    sampling.watch(&mut object, &Targets { devices: [1, i32::MAX as u32, 0], ..Targets::default() }).unwrap();
    sampling.start(&mut object, 0, PERIOD).unwrap();
    assert_eq!(next(&mut sampling).0.backlogs, [UNKNOWN; WATCHED_DEVICES]);
}

#[test]
fn who_does_not_read_loses_the_oldest_and_goes_on() {
    let Some((mut object, mut sampling)) = open() else { return };
    sampling.watch(&mut object, &Targets::default()).unwrap();
    sampling.start(&mut object, 0, 1_000_000).unwrap();
    let started = Instant::now();
    // Once round, and some more.
    while sampling.number(20) <= ROUND {
        assert!(started.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    let mut numbers = Vec::new();
    sampling.read(|sample, _, _| numbers.push(sample.number));
    assert!(numbers[0] > 1 && numbers.len() <= SAMPLES as usize, "{numbers:?}");
    assert!(numbers.windows(2).all(|pair| pair[1] > pair[0]), "{numbers:?}");
    let last = *numbers.last().unwrap();
    let after = next(&mut sampling).0.number;
    assert!(after > last);
}

#[test]
fn it_ends_when_it_is_told_to() {
    let Some((mut object, mut sampling)) = open() else { return };
    sampling.watch(&mut object, &Targets::default()).unwrap();
    let mut kernel = Kernel::default();
    let mut state = |sampling: &Sampling| {
        assert_eq!(sampling.describe(&mut kernel, 0), 1);
        (kernel.hooks[0].mode, kernel.hooks[0].reason.clone())
    };
    assert_eq!(state(&sampling).0, HookMode::None);
    sampling.start(&mut object, 0, PERIOD).unwrap();
    next(&mut sampling);
    assert_eq!(state(&sampling), (HookMode::PerfEvent, None));
    sampling.stop("enough");
    assert_eq!(state(&sampling), (HookMode::None, Some("enough".to_owned())));
    sampling.read(|_, _, _| {});
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(100) {
        sampling.read(|sample, _, _| panic!("{sample:?}"));
    }
    assert!(sampling.start(&mut object, u32::MAX - 1, PERIOD).is_err(), "there is no such CPU");
}
