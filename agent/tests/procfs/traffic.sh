#!/bin/sh
# traffic.sh: a veth pair to a namespace of its own, connection tracking, and some packets of every kind. Needs root,
# iproute2, nftables and netcat-openbsd. The UDP socket stays: end it with the namespace.
ip() { /usr/sbin/ip "$@"; }
ip link set lo up
ip netns add far
ip link add near0 type veth peer name far0 netns far
ip addr add 10.9.8.1/24 dev near0
ip -6 addr add fd98::1/64 dev near0 nodad
ip link set near0 up
ip -n far addr add 10.9.8.2/24 dev far0
ip -n far -6 addr add fd98::2/64 dev far0 nodad
ip -n far link set lo up
ip -n far link set far0 up
nft -f - <<'RULES'
table inet filter {
    chain input {
        type filter hook input priority 0
        ct state established accept
    }
}
RULES
echo 1 > /proc/sys/net/ipv4/ip_forward
ping -c 5 -i 0.2 10.9.8.2
ping -6 -c 5 -i 0.2 fd98::2
# A port that nobody listens on, a UDP socket whose queue is full, and a connection.
far() { ip netns exec far "$@"; }
echo nobody | far timeout 2 nc.openbsd -u -w 1 10.9.8.1 9
nc.openbsd -u -l 10.9.8.1 7000 > /dev/null &
receiver=$!
far nc.openbsd -l 10.9.8.2 7001 > /dev/null &
sleep 1
kill -STOP "$receiver"
dd if=/dev/zero bs=1400 count=1000 2> /dev/null | far timeout 5 nc.openbsd -u -w 1 10.9.8.1 7000
dd if=/dev/zero bs=65536 count=64 2> /dev/null | timeout 10 nc.openbsd -N -w 2 10.9.8.2 7001
