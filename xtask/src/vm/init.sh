#!/bin/busybox sh
# First process of the virtual machine. Lines that begin with "tailgauge-vm:" are for xtask.
export PATH=/usr/sbin:/usr/bin:/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
while read -r module; do
    insmod "/modules/$module"
done < /modules/order
ip link set lo up
# Only emergencies between the lines of the tests.
echo 1 > /proc/sys/kernel/printk

echo
echo "tailgauge-vm: up $(uname -r)"
tailgauge check
export TAILGAUGE_SKIPPED=/tmp/skipped
touch "$TAILGAUGE_SKIPPED"
filter=$(cat /filter)
for name in programs attach attach_underlay drops; do
    # Every test loads the programs, which the emulated verifier takes seconds for.
    timeout 1200 "$name" --test-threads=1 --skip hotplug:: "$filter"
    echo "tailgauge-vm: $name exited $?"
done
# Of the agent's unit tests, those that sample, if they are wanted.
case kernel::sampling in
*"$filter"*) unit=kernel::sampling ;;
*) unit="--exact none" ;;
esac
# shellcheck disable=SC2086
timeout 1200 unit --test-threads=1 $unit
echo "tailgauge-vm: unit exited $?"
# Last of all the test that takes a CPU away.
case hotplug::samples_go_on_when_their_cpu_goes_and_comes_back in
*"$filter"*) hotplug=hotplug:: ;;
*) hotplug="--exact none" ;;
esac
# shellcheck disable=SC2086
TAILGAUGE_OWN_MACHINE=1 timeout 300 attach --test-threads=1 $hotplug
echo "tailgauge-vm: hotplug exited $?"
sed 's/^/tailgauge-vm: /' "$TAILGAUGE_SKIPPED"
echo "tailgauge-vm: done"
poweroff -f
