//! What waits in the root queueing disciplines of devices (`tc_fill_qdisc` in net/sched/sch_api.c says the same).

use tailgauge_ebpf::layout::{Found, Sample, UNKNOWN, WATCHED_DEVICES, Watched};

use super::{
    Offsets,
    list::{self, List},
    repeat,
};
use crate::programs::{
    forget::forgotten,
    maps::CPU_OFFSETS,
    peek::{follow, peek},
};

/// `NETDEV_HASHENTRIES`.
const BUCKETS: u32 = 256;
/// Devices in a bucket that are looked at.
const MOST_IN_BUCKET: u32 = 64;
/// Transmit queues of a device that are added up; of one that has more in use, nothing is said.
const MOST_QUEUES: u32 = 256;

/// Flags of a discipline (include/net/sch_generic.h): it belongs to the kernel, and holds nothing.
const BUILTIN: u32 = 0x1;
/// Its parts are one for each transmit queue: `mq` and `mqprio`.
const MULTIQUEUE: u32 = 0x8;
/// It counts for each CPU.
const COUNTS_BY_CPU: u32 = 0x20;

struct Sum {
    fields: Offsets,
    cpus: u32,
    /// `net_device._tx`.
    queues: u64,
    bytes: u64,
}

struct CpuSum {
    /// Of each CPU.
    counters: u64,
    bytes: u32,
}

/// Reads those of all watched devices.
#[inline(always)]
pub(super) fn read(watched: &Watched, found: &Found, sample: &mut Sample) {
    for place in 0..WATCHED_DEVICES {
        let ifindex = watched.devices[place];
        sample.backlogs[place] =
            if ifindex == 0 { UNKNOWN } else { of_device(watched, found.namespace, ifindex) };
    }
}

#[inline(never)]
fn of_device(watched: &Watched, namespace: u64, ifindex: u32) -> u64 {
    let fields = &watched.fields;
    let buckets = follow(namespace, fields.net_dev_index_head);
    let node = follow(buckets, (ifindex & (BUCKETS - 1)) * 8);
    let bucket = List {
        node,
        end: 0,
        node_at: fields.device_index_hlist,
        number_at: fields.device_ifindex,
        number: ifindex,
    };
    let device = list::search(bucket, MOST_IN_BUCKET);
    if device == 0 {
        return UNKNOWN;
    }
    let root = follow(device, fields.device_qdisc);
    let Some(flags) = peek::<u32>(root, fields.qdisc_flags) else { return UNKNOWN };
    // `noqueue` has no way in.
    let is_multiqueue = flags & MULTIQUEUE != 0;
    if flags & BUILTIN != 0 || !is_multiqueue && follow(root, fields.qdisc_enqueue) == 0 {
        return UNKNOWN;
    }
    let queues = follow(device, fields.device_tx);
    let mut sum = Sum { fields, cpus: watched.cpus, queues, bytes: forgotten(0) };
    if is_multiqueue {
        let count = peek::<u32>(device, fields.device_real_num_tx_queues).unwrap_or(u32::MAX);
        if count > MOST_QUEUES {
            return UNKNOWN;
        }
        repeat(count, queue, &mut sum);
    } else {
        add(root, &mut sum);
    }
    sum.bytes
}

unsafe extern "C" fn queue(number: u32, sum: *mut Sum) -> i64 {
    // SAFETY: what `of_device` passed.
    let (fields, sum) = unsafe { (&*(*sum).fields, &mut *sum) };
    let queue = sum.queues + u64::from(number) * u64::from(fields.netdev_queue_bytes);
    add(follow(queue, fields.netdev_queue_qdisc), sum);
    0
}

/// Adds what waits in a discipline.
#[inline(never)]
fn add(discipline: u64, sum: &mut Sum) {
    // SAFETY: what `of_device` passed.
    let fields = unsafe { &*sum.fields };
    let flags = peek::<u32>(discipline, fields.qdisc_flags).unwrap_or(BUILTIN);
    if flags & BUILTIN != 0 {
        return;
    }
    if flags & COUNTS_BY_CPU == 0 {
        sum.bytes += u64::from(peek::<u32>(discipline, fields.qdisc_backlog).unwrap_or(0));
    } else if follow(discipline, fields.qdisc_state) & u64::from(fields.qdisc_non_empty) != 0 {
        // Added up only where there is something: a device may have as many queues as there are CPUs.
        let counters = follow(discipline, fields.qdisc_cpu_qstats) + u64::from(fields.qstats_backlog);
        let mut of_cpus = CpuSum { counters, bytes: forgotten(0) as u32 };
        repeat(sum.cpus, on_cpu, &mut of_cpus);
        sum.bytes += u64::from(of_cpus.bytes);
    }
}

unsafe extern "C" fn on_cpu(number: u32, sum: *mut CpuSum) -> i64 {
    let Some(offset) = CPU_OFFSETS.get(number) else { return 1 };
    // SAFETY: what `add` passed.
    let sum = unsafe { &mut *sum };
    let counters = sum.counters + offset;
    // What one CPU took in, another one may send.
    sum.bytes = sum.bytes.wrapping_add(peek::<u32>(counters, 0).unwrap_or(0));
    0
}
