//! tailscaled: what its threads ran, and waited for a CPU (`struct sched_info`).

use tailgauge_ebpf::layout::{Fields, Found, MOST_THREADS, Sample, UNKNOWN};

use super::{Offsets, repeat};
use crate::programs::{
    forget::forgotten,
    peek::{follow, peek},
};

struct Threads {
    fields: Offsets,
    /// `signal_struct.thread_head`.
    head: u64,
    /// Node of the next thread in the list, then the head again.
    node: u64,
    ran: u64,
    waited: u64,
}

/// Adds up its threads.
#[inline(always)]
pub(super) fn read(fields: &Fields, process: u32, found: &Found, sample: &mut Sample) {
    sample.ran = UNKNOWN;
    let task = found.task;
    // The memory of a process that is gone may be another one's by now, or as it was.
    let is_same = peek(task, fields.task_exit_state) == Some(0u32)
        && peek(task, fields.task_tgid) == Some(process)
        && peek(task, fields.task_start_boottime) == Some(found.task_started);
    if task == 0 || process == 0 || !is_same {
        return;
    }
    let signal = follow(task, fields.task_signal);
    let sequence = peek::<u32>(signal, fields.signal_stats_sequence);
    let ended = follow(signal, fields.signal_sum_sched_runtime);
    let head = signal + u64::from(fields.signal_thread_head);
    let mut threads = Threads { fields, head, node: follow(head, 0), ran: ended, waited: forgotten(0) };
    repeat(MOST_THREADS, thread, &mut threads);
    // A thread that ends meanwhile would count twice, or not at all.
    let is_whole = threads.node == head
        && sequence.is_some_and(|sequence| sequence & 1 == 0)
        && sequence == peek(signal, fields.signal_stats_sequence);
    if is_whole {
        sample.ran = threads.ran;
        sample.waited = threads.waited;
        sample.ended = ended;
    }
}

unsafe extern "C" fn thread(_: u32, threads: *mut Threads) -> i64 {
    // SAFETY: what `read` passed.
    let (fields, threads) = unsafe { (&*(*threads).fields, &mut *threads) };
    if threads.node == threads.head || threads.node == 0 {
        return 1;
    }
    let task = threads.node - u64::from(fields.task_thread_node);
    threads.ran += follow(task, fields.task_sum_exec_runtime);
    threads.waited += follow(task, fields.task_run_delay);
    threads.node = follow(threads.node, 0);
    0
}
