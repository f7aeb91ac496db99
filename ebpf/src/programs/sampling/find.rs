//! Where the kernel has what is sampled.
//!
//! A classifier that is attached nowhere: the agent runs it in its own context when something has changed. From its own
//! thread (`current`) everything can be reached without the address of any symbol, of which kernels show few.

use core::{ffi::c_void, mem::size_of_val, ptr};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock_tuple},
    helpers::{bpf_get_current_task, bpf_map_lookup_percpu_elem, bpf_sk_lookup_udp, bpf_sk_release},
};
use tailgauge_ebpf::layout::{Fields, Found, WATCHED_SOCKETS, Watched, WatchedSocket};

use super::{
    list::{self, List},
    repeat,
};
use crate::programs::{
    maps::{CPU_OFFSETS, FOUND, OF_EACH_CPU, WATCHED},
    peek::{follow, peek},
};

/// Steps to the first ancestor.
const MOST_ANCESTORS: u32 = 256;
/// Processes that are looked through (`PID_MAX_LIMIT`).
const MOST_PROCESSES: u32 = 4 << 20;
/// `BPF_F_CURRENT_NETNS`.
const CURRENT_NAMESPACE: u64 = u64::MAX;

/// Program that the agent runs.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub(super) extern "C" fn sampling_find(skb: *mut __sk_buff) -> i32 {
    let (Some(watched), Some(found)) = (WATCHED.get(0), FOUND.get_ptr_mut(0)) else { return 0 };
    // SAFETY: the map's row. Who samples meanwhile knows by the generation that it is being written.
    let found = unsafe { &mut *found };
    let fields = &watched.fields;
    // SAFETY: no precondition.
    let current = unsafe { bpf_get_current_task() };
    offsets(watched, found);
    let set = follow(current, fields.task_cgroups);
    found.cpu_times = cpu_times(fields, set);
    if found.pressure == 0 && fields.has_pressure != 0 {
        found.pressure = pressure(watched, current, set);
    }
    found.namespace = follow(follow(current, fields.task_nsproxy), fields.nsproxy_net_ns);
    found.task = process(watched, current);
    found.task_started = peek(found.task, fields.task_start_boottime).unwrap_or(0);
    for place in 0..WATCHED_SOCKETS {
        let socket = &watched.sockets[place];
        found.sockets[place] = 0;
        if socket.cookie != 0 {
            look_up(skb, socket, found, place);
        }
    }
    0
}

struct Cpus {
    /// Address of our variable of each CPU.
    variable: u64,
    scratch: *mut u64,
}

/// From our own variable of each CPU: its address on a CPU, less that of the variable.
#[inline(always)]
fn offsets(watched: &Watched, found: &mut Found) {
    let scratch = ptr::addr_of_mut!(found.scratch);
    let map = number(scratch, ptr::addr_of!(OF_EACH_CPU).cast());
    let mut cpus = Cpus { variable: follow(map, watched.fields.bpf_array_pptrs), scratch };
    repeat(watched.cpus, cpu, &mut cpus);
}

unsafe extern "C" fn cpu(cpu: u32, cpus: *mut Cpus) -> i64 {
    // SAFETY: what `offsets` passed.
    let (variable, scratch) = unsafe { ((*cpus).variable, (*cpus).scratch) };
    let key = 0u32;
    // SAFETY: a map and a key of its size.
    let at = unsafe {
        bpf_map_lookup_percpu_elem(
            ptr::addr_of!(OF_EACH_CPU).cast_mut().cast(),
            ptr::from_ref(&key).cast(),
            cpu,
        )
    };
    if at.is_null() {
        return 1;
    }
    let Some(offset) = CPU_OFFSETS.get_ptr_mut(cpu) else { return 1 };
    // SAFETY: the map's row.
    unsafe { *offset = number(scratch, at).wrapping_sub(variable) };
    0
}

/// An address as a number: the verifier lets nobody calculate with some pointers, but forgets that something in a map
/// ever was one.
#[inline(always)]
fn number(scratch: *mut u64, address: *const c_void) -> u64 {
    // SAFETY: in the map's row.
    unsafe {
        scratch.write_volatile(address as u64);
        scratch.read_volatile()
    }
}

/// `kernel_cpustat`: what the root of the subsystem cpuacct counts in.
#[inline(always)]
fn cpu_times(fields: &Fields, set: u64) -> u64 {
    let mut climb = Climb { parent: fields.css_parent, at: follow(set, fields.css_set_cpuacct) };
    repeat(MOST_ANCESTORS, up, &mut climb);
    follow(climb.at, fields.cpuacct_cpustat)
}

/// Pressure of the whole system: above that of any control group of version 2, which the root itself has not. Where
/// there is no other group, a trigger knows it.
#[inline(always)]
fn pressure(watched: &Watched, current: u64, set: u64) -> u64 {
    let fields = &watched.fields;
    let root = follow(set, fields.css_set_dfl_cgrp);
    let mut pressure = follow(root, fields.cgroup_psi);
    if pressure == 0 {
        let children = root + u64::from(fields.cgroup_self) + u64::from(fields.cgroup_children);
        let first = follow(children, 0);
        if first != 0 && first != children {
            let child = first - u64::from(fields.css_sibling) - u64::from(fields.cgroup_self);
            pressure = follow(child, fields.cgroup_psi);
        }
    }
    if pressure == 0 && watched.trigger != 0 {
        let files = follow(follow(current, fields.task_files), fields.files_fdt);
        let file = follow(follow(files, fields.fdtable_fd) + 8 * u64::from(watched.trigger), 0);
        let trigger = follow(follow(file, fields.file_private_data), fields.seq_file_private);
        pressure = follow(trigger, fields.psi_trigger_group);
    }
    let mut climb = Climb { parent: fields.psi_group_parent, at: pressure };
    repeat(MOST_ANCESTORS, up, &mut climb);
    follow(climb.at, fields.psi_group_pcpu)
}

struct Climb {
    /// Where the pointer to the parent is.
    parent: u32,
    at: u64,
}

/// To the parent, if there is one other than itself.
unsafe extern "C" fn up(_: u32, climb: *mut Climb) -> i64 {
    // SAFETY: what callers passed.
    let climb = unsafe { &mut *climb };
    let parent = follow(climb.at, climb.parent);
    if parent == 0 || parent == climb.at {
        return 1;
    }
    climb.at = parent;
    0
}

/// tailscaled's first thread. All processes are in a list that begins at the ancestor of all.
#[inline(always)]
fn process(watched: &Watched, current: u64) -> u64 {
    let fields = &watched.fields;
    if watched.process == 0 {
        return 0;
    }
    let mut climb = Climb { parent: fields.task_real_parent, at: current };
    repeat(MOST_ANCESTORS, up, &mut climb);
    let head = climb.at + u64::from(fields.task_tasks);
    let list = List {
        node: follow(head, 0),
        end: head,
        node_at: fields.task_tasks,
        number_at: fields.task_tgid,
        number: watched.process,
    };
    list::search(list, MOST_PROCESSES)
}

/// Looks a socket up as the kernel does for a datagram that arrives, and gives it back at once: it is watched, not
/// held.
#[inline(always)]
fn look_up(skb: *mut __sk_buff, socket: &WatchedSocket, found: &mut Found, place: usize) {
    // SAFETY: numbers.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if socket.is_v6 != 0 {
        // SAFETY: all bit patterns are valid.
        let v6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        v6.daddr = socket.address;
        v6.dport = socket.port as u16;
        size_of_val(v6)
    } else {
        // SAFETY: as above.
        let v4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        v4.daddr = socket.address[0];
        v4.dport = socket.port as u16;
        size_of_val(v4)
    };
    // SAFETY: the context that the kernel passed, and a tuple of this size.
    let address = unsafe { bpf_sk_lookup_udp(skb.cast(), &raw mut tuple, size as u32, CURRENT_NAMESPACE, 0) };
    if address.is_null() {
        return;
    }
    // SAFETY: in the map's row; a pointer that the helper gave is given back.
    unsafe {
        ptr::addr_of_mut!(found.sockets[place]).write_volatile(address as u64);
        bpf_sk_release(address.cast());
    }
}
