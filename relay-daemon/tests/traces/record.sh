#!/bin/sh
# Records the traces beside this file anew: `record.sh OUT [NAME]`, as root, with relayd in PATH, on a machine with two CPUs and kprobes on which
# nothing else runs: a guest with busybox will do. Then `INSTA_UPDATE=always cargo test -p relay-daemon --test reading`, and read the difference.
set -eu
mkdir -p "$1"
cd "$1"
wanted=${2-}

record() {
    name=$1
    shift
    [ "${wanted:-$name}" = "$name" ] || return 0
    echo "recording $name"
    relayd trace -q --force -o "$name" "$@"
    # Names of addresses in programs must not depend on what the machine has on which the traces are read.
    [ ! -f "$name/.relayd/build-ids.json" ] || sed -i 's,: "/,: "/nowhere/,' "$name/.relayd/build-ids.json"
    # Of the kernel's symbols those that a stack names, and the next of each, so that its end is known.
    [ ! -f "$name/.relayd/kallsyms" ] || {
        relayd print --json "$name" | grep -o '"[A-Za-z0-9_.]*+0x' | sed 's/^"//; s/+0x$//' | sort -u > /tmp/named
        awk 'NR == FNR { named[$1]; next } more || $3 in named { print; more = $3 in named }' \
            /tmp/named "$name/.relayd/kallsyms" > /tmp/kept
        cat /tmp/kept > "$name/.relayd/kallsyms"
    }
}

# Records of many shapes: strings, arrays, addresses, flags, signed and unsigned numbers; pairs; system calls that fail. Not too many of each.
record mixed --bpf-stats --follow -b 4K \
    -e 'sched:sched_switch,sched:sched_process_fork,sched:sched_process_exec,sched:sched_process_exit,signal:signal_generate' \
    -e 'kmem:kmalloc if bytes_req > 2000,irq:softirq_entry,raw_syscalls:sys_enter if id < 2,syscall:openat,syscall:nanosleep' \
    -- sh -c 'taskset 1 ls / > /dev/null; taskset 2 cat /nowhere 2> /dev/null; sleep 0.003; sh -c "kill -USR1 \$\$" || true'

# Losses: while dd runs, the reader of its CPU has no turn.
record lossy -b 4K -n 2 -e 'raw_syscalls:sys_enter' -- chrt -f 10 dd if=/dev/zero of=/dev/null bs=1 count=3000

# The newest records alone.
record overwrite -b 4K -n 2 --overwrite -e 'raw_syscalls:*' -- dd if=/dev/zero of=/dev/null bs=1 count=1000

# Context, and stacks of the kernel and of a program.
record stacks --follow -e 'profile:hz:49' --context cgroup,comm,uid,kstack,ustack \
    -- sh -c 'i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/dev/null bs=64 count=1000'

# Functions of the kernel and of a program, each with its return.
record calls --follow -b 4K \
    -e 'kprobe:do_sys_openat2(dfd, filename:ustr),kretprobe:vfs_read(count, retval),uprobe:libc:getenv,uretprobe:libc:getenv' \
    --latency -- bash -c 'read line < /etc/passwd'
