//! Where the running kernel has what is sampled.

use tailgauge_ebpf::layout::Fields;

use super::btf::{ReadAt, Wanted};
use super::description::{Description, Member, TypeError};

/// What of [`Fields`] is the offset of a member.
type Place = fn(&mut Fields) -> &mut u32;

/// Makes the list of members, and where each goes.
macro_rules! members {
    ($(#[$about:meta])* $members:ident $places:ident: $($of:literal $path:literal => $field:ident),* $(,)?) => {
        $(#[$about])*
        pub(super) const $members: &[Member] = &[$(($of, $path)),*];
        const $places: &[Place] = &[$(|fields| &mut fields.$field),*];
    };
}

members! {
    /// Members that are looked for.
    MEMBERS PLACES:
    "task_struct" "tgid" => task_tgid,
    "task_struct" "exit_state" => task_exit_state,
    "task_struct" "start_boottime" => task_start_boottime,
    "task_struct" "real_parent" => task_real_parent,
    "task_struct" "tasks" => task_tasks,
    "task_struct" "signal" => task_signal,
    "task_struct" "thread_node" => task_thread_node,
    "task_struct" "se.sum_exec_runtime" => task_sum_exec_runtime,
    "task_struct" "sched_info.run_delay" => task_run_delay,
    "task_struct" "nsproxy" => task_nsproxy,
    "task_struct" "cgroups" => task_cgroups,
    "task_struct" "files" => task_files,
    "files_struct" "fdt" => files_fdt,
    "fdtable" "fd" => fdtable_fd,
    "file" "private_data" => file_private_data,
    "seq_file" "private" => seq_file_private,
    "signal_struct" "thread_head" => signal_thread_head,
    "signal_struct" "sum_sched_runtime" => signal_sum_sched_runtime,
    "signal_struct" "stats_lock.seqcount.seqcount.sequence" => signal_stats_sequence,
    "nsproxy" "net_ns" => nsproxy_net_ns,
    "css_set" "dfl_cgrp" => css_set_dfl_cgrp,
    "css_set" "subsys" => css_set_cpuacct,
    "cgroup_subsys_state" "parent" => css_parent,
    "cgroup_subsys_state" "sibling" => css_sibling,
    "cgroup_subsys_state" "children" => cgroup_children,
    "cgroup" "self" => cgroup_self,
    "cpuacct" "cpustat" => cpuacct_cpustat,
    "net" "dev_index_head" => net_dev_index_head,
    "net_device" "index_hlist" => device_index_hlist,
    "net_device" "ifindex" => device_ifindex,
    "net_device" "qdisc" => device_qdisc,
    "net_device" "_tx" => device_tx,
    "net_device" "real_num_tx_queues" => device_real_num_tx_queues,
    "netdev_queue" "qdisc_sleeping" => netdev_queue_qdisc,
    "Qdisc" "flags" => qdisc_flags,
    "Qdisc" "enqueue" => qdisc_enqueue,
    "Qdisc" "state" => qdisc_state,
    "Qdisc" "qstats.backlog" => qdisc_backlog,
    "Qdisc" "cpu_qstats" => qdisc_cpu_qstats,
    "gnet_stats_queue" "backlog" => qstats_backlog,
    "sock_common" "skc_cookie" => sock_cookie,
    "sock" "sk_socket" => sock_socket,
    "sock" "sk_backlog.rmem_alloc" => sock_rmem_alloc,
    "sock" "sk_rcvbuf" => sock_rcvbuf,
    "bpf_array" "pptrs" => bpf_array_pptrs,
}

members! {
    /// The same for pressure, where there is any.
    PRESSURE_MEMBERS PRESSURE_PLACES:
    "cgroup" "psi" => cgroup_psi,
    "psi_trigger" "group" => psi_trigger_group,
    "psi_group" "parent" => psi_group_parent,
    "psi_group" "pcpu" => psi_group_pcpu,
    "psi_group_cpu" "times" => psi_cpu_some,
    "psi_group_cpu" "state_mask" => psi_state_mask,
    "psi_group_cpu" "state_start" => psi_state_start,
    "bpf_perf_event_data_kern" "event" => perf_context_event,
    "perf_event" "hw.prev_count" => perf_event_clock,
}

/// What a kernel with pressure has, and one without (CONFIG_PSI) has not: `struct psi_group` is in both.
const PRESSURE: &str = "psi_group_cpu";

/// What else is looked for.
pub(super) const OTHERS: &[(Wanted, &str)] = &[
    (Wanted::Enum, "cgroup_subsys_id"),
    (Wanted::Enum, "cpu_usage_stat"),
    (Wanted::Enum, "psi_states"),
    (Wanted::Enum, "qdisc_state_t"),
];

/// Modes of a CPU's time at the places where the program expects them; they never moved.
const CPU_MODES: [(&str, u32); 3] = [("CPUTIME_SOFTIRQ", 3), ("CPUTIME_IOWAIT", 6), ("CPUTIME_STEAL", 7)];

/// Looks everything up. A kernel without pressure will do, one that has it and calls it something else will not.
pub(super) fn fields(description: &mut Description<impl ReadAt>) -> Result<Fields, TypeError> {
    let mut fields = Fields::default();
    look_up(description, MEMBERS, PLACES, &mut fields)?;
    for (mode, place) in CPU_MODES {
        if description.value("cpu_usage_stat", mode)? != place {
            return Err(TypeError::Missing(format!("{mode} = {place}")));
        }
    }
    let pointer = size_of::<usize>() as u32;
    fields.css_set_cpuacct += pointer * description.value("cgroup_subsys_id", "cpuacct_cgrp_id")?;
    fields.netdev_queue_bytes = description.bytes("netdev_queue")?;
    for state in ["__QDISC_STATE_MISSED", "__QDISC_STATE_DRAINING"] {
        let bit = description.value("qdisc_state_t", state)?;
        fields.qdisc_non_empty |= 1u32.checked_shl(bit).unwrap_or(0);
    }
    match description.bytes(PRESSURE) {
        Ok(_) => pressure(description, &mut fields)?,
        Err(TypeError::Missing(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(fields)
}

fn pressure(description: &mut Description<impl ReadAt>, fields: &mut Fields) -> Result<(), TypeError> {
    look_up(description, PRESSURE_MEMBERS, PRESSURE_PLACES, fields)?;
    fields.psi_cpu_some_state = description.value("psi_states", "PSI_CPU_SOME")?;
    fields.psi_nonidle_state = description.value("psi_states", "PSI_NONIDLE")?;
    let times = fields.psi_cpu_some;
    let time = |state| times + size_of::<u32>() as u32 * state;
    (fields.psi_cpu_some, fields.psi_nonidle) =
        (time(fields.psi_cpu_some_state), time(fields.psi_nonidle_state));
    fields.has_pressure = 1;
    Ok(())
}

fn look_up(
    description: &mut Description<impl ReadAt>,
    members: &[Member],
    places: &[Place],
    fields: &mut Fields,
) -> Result<(), TypeError> {
    for (member, place) in members.iter().zip(places) {
        *place(fields) = description.offset(*member)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::kernel::description::{self, KERNEL};

    fn all_members() -> Vec<Member> {
        [MEMBERS, PRESSURE_MEMBERS].concat()
    }

    #[test]
    fn each_member_has_a_place_of_its_own() {
        let mut fields = Fields::default();
        for (number, place) in (1..).zip(PLACES.iter().chain(PRESSURE_PLACES)) {
            let field = place(&mut fields);
            assert_eq!(std::mem::replace(field, number), 0, "{:?}", all_members()[number as usize - 1]);
        }
    }

    #[test]
    fn this_kernel_is_understood() {
        if description::is_absent() {
            return;
        }
        let started = std::time::Instant::now();
        let mut description = Description::of_this_kernel(&all_members(), OTHERS).unwrap();
        let found = fields(&mut description).unwrap();
        eprintln!("{found:?} in {:?}", started.elapsed());
        let before = found.task_sum_exec_runtime;
        assert!(before > 0 && found.task_tgid > before && found.task_tasks != found.task_tgid);
        if std::path::Path::new("/proc/pressure").exists() {
            assert!(found.has_pressure != 0 && found.psi_nonidle > found.psi_cpu_some);
        }
    }

    /// This kernel's fields, if it called something else.
    fn fields_without(name: &str) -> Option<Result<Fields, TypeError>> {
        if description::is_absent() {
            return None;
        }
        let mut bytes = std::fs::read(KERNEL).unwrap();
        let name = [b"\0", name.as_bytes(), b"\0"].concat();
        let places: Vec<_> =
            (0..bytes.len() - name.len()).filter(|place| bytes[*place..].starts_with(&name)).collect();
        for place in places {
            bytes[place + 1] = b'~';
        }
        Some(fields(&mut Description::read(bytes, &all_members(), OTHERS).unwrap()))
    }

    #[test]
    fn a_kernel_without_pressure_will_do() {
        let Some(found) = fields_without(PRESSURE) else { return };
        let found = found.unwrap();
        let pressure = PRESSURE_PLACES.iter().map(|place| *place(&mut found.clone()));
        assert_eq!((pressure.sum::<u32>(), found.has_pressure), (0, 0));
        assert!(found.task_tgid > 0 && found.netdev_queue_bytes > 0 && found.qdisc_non_empty > 0);
    }

    #[test]
    fn one_whose_pressure_or_accounts_are_called_something_else_will_not() {
        for name in ["state_mask", "PSI_NONIDLE", "cpuacct_cgrp_id"] {
            let Some(found) = fields_without(name) else { return };
            let error = found.unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
