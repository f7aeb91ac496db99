//! Each CPU's time (`kernel_cpustat`), and how long tasks waited for it (`psi_group_cpu`).

use tailgauge_ebpf::layout::{CpuSample, Found, UNKNOWN, Watched};

use super::{Offsets, repeat};
use crate::programs::{
    maps::{CPU_OFFSETS, CPU_SAMPLES},
    peek::{follow, peek},
};

/// `enum cpu_usage_stat`: user, nice, system, softirq, irq, idle, iowait, steal; guests are within the first two.
type Times = [u64; 8];
const SOFTIRQ: usize = 3;
const BUSY: [usize; 6] = [0, 1, 2, SOFTIRQ, 4, 7];

struct Step {
    fields: Offsets,
    found: *const Found,
    /// Of the first CPU.
    row: u32,
}

/// Reads all of them into the rows of a sample.
#[inline(always)]
pub(super) fn read(watched: &Watched, found: &Found, sample: u32) {
    let mut step = Step { fields: &raw const watched.fields, found, row: sample * watched.cpus };
    repeat(watched.cpus, cpu, &mut step);
}

unsafe extern "C" fn cpu(number: u32, step: *mut Step) -> i64 {
    // SAFETY: what `read` passed.
    let (fields, found, row) = unsafe { (&*(*step).fields, &*(*step).found, (*step).row) };
    let (Some(offset), Some(sample)) = (CPU_OFFSETS.get(number), CPU_SAMPLES.get_ptr_mut(row + number))
    else {
        return 1;
    };
    // SAFETY: the map's row, which only this program writes.
    let sample: &mut CpuSample = unsafe { &mut *sample };
    match peek::<Times>(found.cpu_times + offset, 0) {
        Some(times) if found.cpu_times != 0 => {
            sample.busy = BUSY.iter().map(|mode| times[*mode]).sum();
            sample.softirq = times[SOFTIRQ];
        }
        _ => sample.busy = UNKNOWN,
    }
    let group = found.pressure + offset;
    let state = peek::<u32>(group, fields.psi_state_mask).unwrap_or(0);
    // A state that lasts is added up when it ends. The scheduler's clock is that of the groups, and stands while a CPU
    // has nothing to do, when no state lasts.
    let since = follow(group, fields.psi_state_start);
    let clock = follow(found.run_queues + offset, fields.rq_clock);
    let lasting = if clock > since { (clock - since) as u32 } else { 0 };
    let time = |offset, number: u32| {
        let time = peek::<u32>(group, offset).unwrap_or(0);
        if state >> (number & 31) & 1 == 0 { time } else { time.wrapping_add(lasting) }
    };
    sample.waiting = time(fields.psi_cpu_some, fields.psi_cpu_some_state);
    sample.nonidle = time(fields.psi_nonidle, fields.psi_nonidle_state);
    0
}
