//! Each CPU's time (`kernel_cpustat`), and how long tasks waited for it (`psi_group_cpu`).

use tailgauge_ebpf::layout::{CpuSample, Fields, Found, UNKNOWN, UNKNOWN_32, Watched};

use super::{Offsets, repeat};
use crate::programs::{
    maps::{CPU_OFFSETS, CPU_SAMPLES},
    peek::peek,
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
    clock: u64,
}

/// Reads all of them into the rows of a sample. `clock` is what the scheduler's clock says.
#[inline(always)]
pub(super) fn read(watched: &Watched, found: &Found, sample: u32, clock: u64) {
    let mut step = Step { fields: &raw const watched.fields, found, row: sample * watched.cpus, clock };
    repeat(watched.cpus, cpu, &mut step);
}

unsafe extern "C" fn cpu(number: u32, step: *mut Step) -> i64 {
    // SAFETY: what `read` passed.
    let (fields, found, step) = unsafe { (&*(*step).fields, &*(*step).found, &*step) };
    let (Some(offset), Some(sample)) = (CPU_OFFSETS.get(number), CPU_SAMPLES.get_ptr_mut(step.row + number))
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
    (sample.waiting, sample.nonidle) = (UNKNOWN_32, UNKNOWN_32);
    if found.pressure != 0 && step.clock != 0 {
        let group = found.pressure + offset;
        // A change of state takes some nanoseconds, and the next one may come soon.
        if let Some((waiting, nonidle)) =
            pressure(fields, group, step.clock).or_else(|| pressure(fields, group, step.clock))
        {
            (sample.waiting, sample.nonidle) = (waiting, nonidle);
        }
    }
    0
}

/// How long tasks waited for a CPU, and it had any, until now (`get_recent_times` in kernel/sched/psi.c): a state that
/// lasts is added up when it ends. The lock that keeps this together is another one in newer kernels and can be found
/// in older ones only, so `None` when the state was seen to change.
#[inline(always)]
fn pressure(fields: &Fields, group: u64, clock: u64) -> Option<(u32, u32)> {
    let since = peek::<u64>(group, fields.psi_state_start)?;
    let state = peek::<u32>(group, fields.psi_state_mask)?;
    let waiting = peek::<u32>(group, fields.psi_cpu_some)?;
    let nonidle = peek::<u32>(group, fields.psi_nonidle)?;
    let is_same = peek(group, fields.psi_state_start) == Some(since)
        && peek(group, fields.psi_state_mask) == Some(state);
    if !is_same {
        return None;
    }
    // It may have begun after the clock was read.
    let lasting = if clock > since { (clock - since) as u32 } else { 0 };
    let time = |time: u32, number: u32| {
        if state >> (number & 31) & 1 == 0 { time } else { time.wrapping_add(lasting) }
    };
    Some((time(waiting, fields.psi_cpu_some_state), time(nonidle, fields.psi_nonidle_state)))
}
