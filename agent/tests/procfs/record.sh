#!/bin/sh
# record.sh DIRECTORY PID: copies what the host collectors read below /proc and /sys. PID stands for tailscaled.
to=$1
pid=$2

copy() {
    for file do
        [ -f "$file" ] || continue
        mkdir -p "$to${file%/*}"
        # Some files can be opened and not read: pressure that is off, for one.
        cat "$file" > "$to$file" 2> /dev/null || rm "$to$file"
    done
}

cd /proc || exit 1
for name in stat meminfo vmstat diskstats loadavg softirqs interrupts schedstat pressure/cpu pressure/memory \
    pressure/io pressure/irq net/dev net/snmp net/netstat net/snmp6 net/sockstat net/sockstat6 net/softnet_stat \
    net/udp net/udp6 net/stat/nf_conntrack self/stat self/status self/schedstat self/mountinfo self/mounts \
    self/cgroup "$pid/comm" "$pid/stat" "$pid/status" "$pid/schedstat" "$pid/limits" "$pid/cgroup"
do
    copy "/proc/$name"
done
for name in net/netfilter/nf_conntrack_count net/netfilter/nf_conntrack_max net/netfilter/nf_conntrack_buckets \
    net/netfilter/nf_conntrack_tcp_timeout_established net/netfilter/nf_conntrack_udp_timeout \
    net/netfilter/nf_conntrack_udp_timeout_stream net/ipv4/ip_forward net/ipv4/ip_no_pmtu_disc \
    net/ipv4/tcp_mtu_probing net/ipv4/tcp_congestion_control net/ipv4/tcp_rmem net/ipv4/udp_mem \
    net/ipv4/conf/all/rp_filter net/ipv4/conf/default/rp_filter net/ipv4/conf/all/src_valid_mark \
    net/ipv4/conf/near0/forwarding net/ipv4/conf/near0/rp_filter net/ipv4/conf/near0/src_valid_mark \
    net/ipv6/conf/near0/forwarding net/ipv6/conf/near0/disable_ipv6 net/ipv6/conf/all/forwarding \
    net/ipv6/conf/all/disable_ipv6 net/core/rmem_max net/core/wmem_max net/core/netdev_max_backlog \
    net/core/netdev_budget net/core/netdev_budget_usecs net/core/dev_weight net/core/default_qdisc vm/swappiness
do
    copy "/proc/sys/$name"
done
for task in "/proc/$pid/task"/*; do
    copy "$task/stat" "$task/status" "$task/schedstat"
done
copy /sys/devices/system/cpu/online
for name in cgroup.procs cpu.max cpu.stat memory.current memory.max memory.events; do
    copy "/sys/fs/cgroup/$(sed -n 's/^0::\///p' "/proc/$pid/cgroup")/$name"
done
