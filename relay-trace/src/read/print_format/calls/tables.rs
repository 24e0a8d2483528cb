//! Numbers of the system call interface and their names (include/uapi and arch/*/include/uapi of Linux 6.18). Of flags that have bits in common
//! the one with more bits comes first.

use std::borrow::Cow;

use super::super::Names;

macro_rules! names {
    ($($value:literal $name:literal),* $(,)?) => { &[$(($value, Cow::Borrowed($name))),*] };
}

pub(super) const ACCESS: Names = names!(
    0 "O_RDONLY", 1 "O_WRONLY", 2 "O_RDWR",
);
pub(super) const ADVICE: Names = names!(
    0 "MADV_NORMAL", 1 "MADV_RANDOM", 2 "MADV_SEQUENTIAL", 3 "MADV_WILLNEED", 4 "MADV_DONTNEED", 8 "MADV_FREE",
    9 "MADV_REMOVE", 10 "MADV_DONTFORK", 11 "MADV_DOFORK", 12 "MADV_MERGEABLE", 13 "MADV_UNMERGEABLE",
    14 "MADV_HUGEPAGE", 15 "MADV_NOHUGEPAGE", 16 "MADV_DONTDUMP", 17 "MADV_DODUMP", 18 "MADV_WIPEONFORK",
    19 "MADV_KEEPONFORK", 20 "MADV_COLD", 21 "MADV_PAGEOUT", 22 "MADV_POPULATE_READ", 23 "MADV_POPULATE_WRITE",
    24 "MADV_DONTNEED_LOCKED", 100 "MADV_HWPOISON", 25 "MADV_COLLAPSE", 101 "MADV_SOFT_OFFLINE",
);
pub(super) const ARCH_PRCTL: Names = names!(
    4097 "ARCH_SET_GS", 4098 "ARCH_SET_FS", 4099 "ARCH_GET_FS", 4100 "ARCH_GET_GS", 4113 "ARCH_GET_CPUID",
    4114 "ARCH_SET_CPUID",
);
pub(super) const AT: Names = names!(
    0x100 "AT_SYMLINK_NOFOLLOW", 0x400 "AT_SYMLINK_FOLLOW", 0x800 "AT_NO_AUTOMOUNT", 0x1000 "AT_EMPTY_PATH",
    0x2000 "AT_STATX_FORCE_SYNC", 0x4000 "AT_STATX_DONT_SYNC", 0x8000 "AT_RECURSIVE",
);
pub(super) const BPF: Names = names!(
    0 "BPF_MAP_CREATE", 1 "BPF_MAP_LOOKUP_ELEM", 2 "BPF_MAP_UPDATE_ELEM", 3 "BPF_MAP_DELETE_ELEM",
    4 "BPF_MAP_GET_NEXT_KEY", 5 "BPF_PROG_LOAD", 6 "BPF_OBJ_PIN", 7 "BPF_OBJ_GET", 8 "BPF_PROG_ATTACH",
    9 "BPF_PROG_DETACH", 10 "BPF_PROG_TEST_RUN", 11 "BPF_PROG_GET_NEXT_ID", 12 "BPF_MAP_GET_NEXT_ID",
    13 "BPF_PROG_GET_FD_BY_ID", 14 "BPF_MAP_GET_FD_BY_ID", 15 "BPF_OBJ_GET_INFO_BY_FD", 16 "BPF_PROG_QUERY",
    17 "BPF_RAW_TRACEPOINT_OPEN", 18 "BPF_BTF_LOAD", 19 "BPF_BTF_GET_FD_BY_ID", 20 "BPF_TASK_FD_QUERY",
    21 "BPF_MAP_LOOKUP_AND_DELETE_ELEM", 22 "BPF_MAP_FREEZE", 23 "BPF_BTF_GET_NEXT_ID", 24 "BPF_MAP_LOOKUP_BATCH",
    25 "BPF_MAP_LOOKUP_AND_DELETE_BATCH", 26 "BPF_MAP_UPDATE_BATCH", 27 "BPF_MAP_DELETE_BATCH", 28 "BPF_LINK_CREATE",
    29 "BPF_LINK_UPDATE", 30 "BPF_LINK_GET_FD_BY_ID", 31 "BPF_LINK_GET_NEXT_ID", 32 "BPF_ENABLE_STATS",
    33 "BPF_ITER_CREATE", 34 "BPF_LINK_DETACH", 35 "BPF_PROG_BIND_MAP",
);
pub(super) const CALLS_ARM64: Names = names!(
    0 "io_setup", 1 "io_destroy", 2 "io_submit", 3 "io_cancel", 4 "io_getevents", 5 "setxattr", 6 "lsetxattr",
    7 "fsetxattr", 8 "getxattr", 9 "lgetxattr", 10 "fgetxattr", 11 "listxattr", 12 "llistxattr", 13 "flistxattr",
    14 "removexattr", 15 "lremovexattr", 16 "fremovexattr", 17 "getcwd", 18 "lookup_dcookie", 19 "eventfd2",
    20 "epoll_create1", 21 "epoll_ctl", 22 "epoll_pwait", 23 "dup", 24 "dup3", 25 "fcntl", 26 "inotify_init1",
    27 "inotify_add_watch", 28 "inotify_rm_watch", 29 "ioctl", 30 "ioprio_set", 31 "ioprio_get", 32 "flock",
    33 "mknodat", 34 "mkdirat", 35 "unlinkat", 36 "symlinkat", 37 "linkat", 38 "renameat", 39 "umount2", 40 "mount",
    41 "pivot_root", 42 "nfsservctl", 43 "statfs", 44 "fstatfs", 45 "truncate", 46 "ftruncate", 47 "fallocate",
    48 "faccessat", 49 "chdir", 50 "fchdir", 51 "chroot", 52 "fchmod", 53 "fchmodat", 54 "fchownat", 55 "fchown",
    56 "openat", 57 "close", 58 "vhangup", 59 "pipe2", 60 "quotactl", 61 "getdents64", 62 "lseek", 63 "read",
    64 "write", 65 "readv", 66 "writev", 67 "pread64", 68 "pwrite64", 69 "preadv", 70 "pwritev", 71 "sendfile",
    72 "pselect6", 73 "ppoll", 74 "signalfd4", 75 "vmsplice", 76 "splice", 77 "tee", 78 "readlinkat", 79 "newfstatat",
    80 "fstat", 81 "sync", 82 "fsync", 83 "fdatasync", 84 "sync_file_range", 85 "timerfd_create",
    86 "timerfd_settime", 87 "timerfd_gettime", 88 "utimensat", 89 "acct", 90 "capget", 91 "capset", 92 "personality",
    93 "exit", 94 "exit_group", 95 "waitid", 96 "set_tid_address", 97 "unshare", 98 "futex", 99 "set_robust_list",
    100 "get_robust_list", 101 "nanosleep", 102 "getitimer", 103 "setitimer", 104 "kexec_load", 105 "init_module",
    106 "delete_module", 107 "timer_create", 108 "timer_gettime", 109 "timer_getoverrun", 110 "timer_settime",
    111 "timer_delete", 112 "clock_settime", 113 "clock_gettime", 114 "clock_getres", 115 "clock_nanosleep",
    116 "syslog", 117 "ptrace", 118 "sched_setparam", 119 "sched_setscheduler", 120 "sched_getscheduler",
    121 "sched_getparam", 122 "sched_setaffinity", 123 "sched_getaffinity", 124 "sched_yield",
    125 "sched_get_priority_max", 126 "sched_get_priority_min", 127 "sched_rr_get_interval", 128 "restart_syscall",
    129 "kill", 130 "tkill", 131 "tgkill", 132 "sigaltstack", 133 "rt_sigsuspend", 134 "rt_sigaction",
    135 "rt_sigprocmask", 136 "rt_sigpending", 137 "rt_sigtimedwait", 138 "rt_sigqueueinfo", 139 "rt_sigreturn",
    140 "setpriority", 141 "getpriority", 142 "reboot", 143 "setregid", 144 "setgid", 145 "setreuid", 146 "setuid",
    147 "setresuid", 148 "getresuid", 149 "setresgid", 150 "getresgid", 151 "setfsuid", 152 "setfsgid", 153 "times",
    154 "setpgid", 155 "getpgid", 156 "getsid", 157 "setsid", 158 "getgroups", 159 "setgroups", 160 "uname",
    161 "sethostname", 162 "setdomainname", 163 "getrlimit", 164 "setrlimit", 165 "getrusage", 166 "umask",
    167 "prctl", 168 "getcpu", 169 "gettimeofday", 170 "settimeofday", 171 "adjtimex", 172 "getpid", 173 "getppid",
    174 "getuid", 175 "geteuid", 176 "getgid", 177 "getegid", 178 "gettid", 179 "sysinfo", 180 "mq_open",
    181 "mq_unlink", 182 "mq_timedsend", 183 "mq_timedreceive", 184 "mq_notify", 185 "mq_getsetattr", 186 "msgget",
    187 "msgctl", 188 "msgrcv", 189 "msgsnd", 190 "semget", 191 "semctl", 192 "semtimedop", 193 "semop", 194 "shmget",
    195 "shmctl", 196 "shmat", 197 "shmdt", 198 "socket", 199 "socketpair", 200 "bind", 201 "listen", 202 "accept",
    203 "connect", 204 "getsockname", 205 "getpeername", 206 "sendto", 207 "recvfrom", 208 "setsockopt",
    209 "getsockopt", 210 "shutdown", 211 "sendmsg", 212 "recvmsg", 213 "readahead", 214 "brk", 215 "munmap",
    216 "mremap", 217 "add_key", 218 "request_key", 219 "keyctl", 220 "clone", 221 "execve", 222 "mmap",
    223 "fadvise64", 224 "swapon", 225 "swapoff", 226 "mprotect", 227 "msync", 228 "mlock", 229 "munlock",
    230 "mlockall", 231 "munlockall", 232 "mincore", 233 "madvise", 234 "remap_file_pages", 235 "mbind",
    236 "get_mempolicy", 237 "set_mempolicy", 238 "migrate_pages", 239 "move_pages", 240 "rt_tgsigqueueinfo",
    241 "perf_event_open", 242 "accept4", 243 "recvmmsg", 260 "wait4", 261 "prlimit64", 262 "fanotify_init",
    263 "fanotify_mark", 264 "name_to_handle_at", 265 "open_by_handle_at", 266 "clock_adjtime", 267 "syncfs",
    268 "setns", 269 "sendmmsg", 270 "process_vm_readv", 271 "process_vm_writev", 272 "kcmp", 273 "finit_module",
    274 "sched_setattr", 275 "sched_getattr", 276 "renameat2", 277 "seccomp", 278 "getrandom", 279 "memfd_create",
    280 "bpf", 281 "execveat", 282 "userfaultfd", 283 "membarrier", 284 "mlock2", 285 "copy_file_range",
    286 "preadv2", 287 "pwritev2", 288 "pkey_mprotect", 289 "pkey_alloc", 290 "pkey_free", 291 "statx",
    292 "io_pgetevents", 293 "rseq", 294 "kexec_file_load", 424 "pidfd_send_signal", 425 "io_uring_setup",
    426 "io_uring_enter", 427 "io_uring_register", 428 "open_tree", 429 "move_mount", 430 "fsopen", 431 "fsconfig",
    432 "fsmount", 433 "fspick", 434 "pidfd_open", 435 "clone3", 436 "close_range", 437 "openat2", 438 "pidfd_getfd",
    439 "faccessat2", 440 "process_madvise", 441 "epoll_pwait2", 442 "mount_setattr", 443 "quotactl_fd",
    444 "landlock_create_ruleset", 445 "landlock_add_rule", 446 "landlock_restrict_self", 447 "memfd_secret",
    448 "process_mrelease", 449 "futex_waitv", 450 "set_mempolicy_home_node", 451 "cachestat", 452 "fchmodat2",
    453 "map_shadow_stack", 454 "futex_wake", 455 "futex_wait", 456 "futex_requeue", 457 "statmount", 458 "listmount",
    459 "lsm_get_self_attr", 460 "lsm_set_self_attr", 461 "lsm_list_modules", 462 "mseal", 463 "setxattrat",
    464 "getxattrat", 465 "listxattrat", 466 "removexattrat", 467 "open_tree_attr", 468 "file_getattr",
    469 "file_setattr",
);
pub(super) const CALLS_X86_64: Names = names!(
    0 "read", 1 "write", 2 "open", 3 "close", 4 "stat", 5 "fstat", 6 "lstat", 7 "poll", 8 "lseek", 9 "mmap",
    10 "mprotect", 11 "munmap", 12 "brk", 13 "rt_sigaction", 14 "rt_sigprocmask", 15 "rt_sigreturn", 16 "ioctl",
    17 "pread64", 18 "pwrite64", 19 "readv", 20 "writev", 21 "access", 22 "pipe", 23 "select", 24 "sched_yield",
    25 "mremap", 26 "msync", 27 "mincore", 28 "madvise", 29 "shmget", 30 "shmat", 31 "shmctl", 32 "dup", 33 "dup2",
    34 "pause", 35 "nanosleep", 36 "getitimer", 37 "alarm", 38 "setitimer", 39 "getpid", 40 "sendfile", 41 "socket",
    42 "connect", 43 "accept", 44 "sendto", 45 "recvfrom", 46 "sendmsg", 47 "recvmsg", 48 "shutdown", 49 "bind",
    50 "listen", 51 "getsockname", 52 "getpeername", 53 "socketpair", 54 "setsockopt", 55 "getsockopt", 56 "clone",
    57 "fork", 58 "vfork", 59 "execve", 60 "exit", 61 "wait4", 62 "kill", 63 "uname", 64 "semget", 65 "semop",
    66 "semctl", 67 "shmdt", 68 "msgget", 69 "msgsnd", 70 "msgrcv", 71 "msgctl", 72 "fcntl", 73 "flock", 74 "fsync",
    75 "fdatasync", 76 "truncate", 77 "ftruncate", 78 "getdents", 79 "getcwd", 80 "chdir", 81 "fchdir", 82 "rename",
    83 "mkdir", 84 "rmdir", 85 "creat", 86 "link", 87 "unlink", 88 "symlink", 89 "readlink", 90 "chmod", 91 "fchmod",
    92 "chown", 93 "fchown", 94 "lchown", 95 "umask", 96 "gettimeofday", 97 "getrlimit", 98 "getrusage", 99 "sysinfo",
    100 "times", 101 "ptrace", 102 "getuid", 103 "syslog", 104 "getgid", 105 "setuid", 106 "setgid", 107 "geteuid",
    108 "getegid", 109 "setpgid", 110 "getppid", 111 "getpgrp", 112 "setsid", 113 "setreuid", 114 "setregid",
    115 "getgroups", 116 "setgroups", 117 "setresuid", 118 "getresuid", 119 "setresgid", 120 "getresgid",
    121 "getpgid", 122 "setfsuid", 123 "setfsgid", 124 "getsid", 125 "capget", 126 "capset", 127 "rt_sigpending",
    128 "rt_sigtimedwait", 129 "rt_sigqueueinfo", 130 "rt_sigsuspend", 131 "sigaltstack", 132 "utime", 133 "mknod",
    134 "uselib", 135 "personality", 136 "ustat", 137 "statfs", 138 "fstatfs", 139 "sysfs", 140 "getpriority",
    141 "setpriority", 142 "sched_setparam", 143 "sched_getparam", 144 "sched_setscheduler", 145 "sched_getscheduler",
    146 "sched_get_priority_max", 147 "sched_get_priority_min", 148 "sched_rr_get_interval", 149 "mlock",
    150 "munlock", 151 "mlockall", 152 "munlockall", 153 "vhangup", 154 "modify_ldt", 155 "pivot_root", 156 "_sysctl",
    157 "prctl", 158 "arch_prctl", 159 "adjtimex", 160 "setrlimit", 161 "chroot", 162 "sync", 163 "acct",
    164 "settimeofday", 165 "mount", 166 "umount2", 167 "swapon", 168 "swapoff", 169 "reboot", 170 "sethostname",
    171 "setdomainname", 172 "iopl", 173 "ioperm", 174 "create_module", 175 "init_module", 176 "delete_module",
    177 "get_kernel_syms", 178 "query_module", 179 "quotactl", 180 "nfsservctl", 181 "getpmsg", 182 "putpmsg",
    183 "afs_syscall", 184 "tuxcall", 185 "security", 186 "gettid", 187 "readahead", 188 "setxattr", 189 "lsetxattr",
    190 "fsetxattr", 191 "getxattr", 192 "lgetxattr", 193 "fgetxattr", 194 "listxattr", 195 "llistxattr",
    196 "flistxattr", 197 "removexattr", 198 "lremovexattr", 199 "fremovexattr", 200 "tkill", 201 "time", 202 "futex",
    203 "sched_setaffinity", 204 "sched_getaffinity", 205 "set_thread_area", 206 "io_setup", 207 "io_destroy",
    208 "io_getevents", 209 "io_submit", 210 "io_cancel", 211 "get_thread_area", 212 "lookup_dcookie",
    213 "epoll_create", 214 "epoll_ctl_old", 215 "epoll_wait_old", 216 "remap_file_pages", 217 "getdents64",
    218 "set_tid_address", 219 "restart_syscall", 220 "semtimedop", 221 "fadvise64", 222 "timer_create",
    223 "timer_settime", 224 "timer_gettime", 225 "timer_getoverrun", 226 "timer_delete", 227 "clock_settime",
    228 "clock_gettime", 229 "clock_getres", 230 "clock_nanosleep", 231 "exit_group", 232 "epoll_wait",
    233 "epoll_ctl", 234 "tgkill", 235 "utimes", 236 "vserver", 237 "mbind", 238 "set_mempolicy", 239 "get_mempolicy",
    240 "mq_open", 241 "mq_unlink", 242 "mq_timedsend", 243 "mq_timedreceive", 244 "mq_notify", 245 "mq_getsetattr",
    246 "kexec_load", 247 "waitid", 248 "add_key", 249 "request_key", 250 "keyctl", 251 "ioprio_set",
    252 "ioprio_get", 253 "inotify_init", 254 "inotify_add_watch", 255 "inotify_rm_watch", 256 "migrate_pages",
    257 "openat", 258 "mkdirat", 259 "mknodat", 260 "fchownat", 261 "futimesat", 262 "newfstatat", 263 "unlinkat",
    264 "renameat", 265 "linkat", 266 "symlinkat", 267 "readlinkat", 268 "fchmodat", 269 "faccessat", 270 "pselect6",
    271 "ppoll", 272 "unshare", 273 "set_robust_list", 274 "get_robust_list", 275 "splice", 276 "tee",
    277 "sync_file_range", 278 "vmsplice", 279 "move_pages", 280 "utimensat", 281 "epoll_pwait", 282 "signalfd",
    283 "timerfd_create", 284 "eventfd", 285 "fallocate", 286 "timerfd_settime", 287 "timerfd_gettime", 288 "accept4",
    289 "signalfd4", 290 "eventfd2", 291 "epoll_create1", 292 "dup3", 293 "pipe2", 294 "inotify_init1", 295 "preadv",
    296 "pwritev", 297 "rt_tgsigqueueinfo", 298 "perf_event_open", 299 "recvmmsg", 300 "fanotify_init",
    301 "fanotify_mark", 302 "prlimit64", 303 "name_to_handle_at", 304 "open_by_handle_at", 305 "clock_adjtime",
    306 "syncfs", 307 "sendmmsg", 308 "setns", 309 "getcpu", 310 "process_vm_readv", 311 "process_vm_writev",
    312 "kcmp", 313 "finit_module", 314 "sched_setattr", 315 "sched_getattr", 316 "renameat2", 317 "seccomp",
    318 "getrandom", 319 "memfd_create", 320 "kexec_file_load", 321 "bpf", 322 "execveat", 323 "userfaultfd",
    324 "membarrier", 325 "mlock2", 326 "copy_file_range", 327 "preadv2", 328 "pwritev2", 329 "pkey_mprotect",
    330 "pkey_alloc", 331 "pkey_free", 332 "statx", 333 "io_pgetevents", 334 "rseq", 335 "uretprobe",
    424 "pidfd_send_signal", 425 "io_uring_setup", 426 "io_uring_enter", 427 "io_uring_register", 428 "open_tree",
    429 "move_mount", 430 "fsopen", 431 "fsconfig", 432 "fsmount", 433 "fspick", 434 "pidfd_open", 435 "clone3",
    436 "close_range", 437 "openat2", 438 "pidfd_getfd", 439 "faccessat2", 440 "process_madvise", 441 "epoll_pwait2",
    442 "mount_setattr", 443 "quotactl_fd", 444 "landlock_create_ruleset", 445 "landlock_add_rule",
    446 "landlock_restrict_self", 447 "memfd_secret", 448 "process_mrelease", 449 "futex_waitv",
    450 "set_mempolicy_home_node", 451 "cachestat", 452 "fchmodat2", 453 "map_shadow_stack", 454 "futex_wake",
    455 "futex_wait", 456 "futex_requeue", 457 "statmount", 458 "listmount", 459 "lsm_get_self_attr",
    460 "lsm_set_self_attr", 461 "lsm_list_modules", 462 "mseal", 463 "setxattrat", 464 "getxattrat",
    465 "listxattrat", 466 "removexattrat", 467 "open_tree_attr", 468 "file_getattr", 469 "file_setattr",
);
pub(super) const CLOCK: Names = names!(
    0 "CLOCK_REALTIME", 1 "CLOCK_MONOTONIC", 2 "CLOCK_PROCESS_CPUTIME_ID", 3 "CLOCK_THREAD_CPUTIME_ID",
    4 "CLOCK_MONOTONIC_RAW", 5 "CLOCK_REALTIME_COARSE", 6 "CLOCK_MONOTONIC_COARSE", 7 "CLOCK_BOOTTIME",
    8 "CLOCK_REALTIME_ALARM", 9 "CLOCK_BOOTTIME_ALARM", 11 "CLOCK_TAI",
);
pub(super) const CLONE: Names = names!(
    0x100 "CLONE_VM", 0x200 "CLONE_FS", 0x400 "CLONE_FILES", 0x800 "CLONE_SIGHAND", 0x1000 "CLONE_PIDFD",
    0x2000 "CLONE_PTRACE", 0x4000 "CLONE_VFORK", 0x8000 "CLONE_PARENT", 0x10000 "CLONE_THREAD", 0x20000 "CLONE_NEWNS",
    0x40000 "CLONE_SYSVSEM", 0x80000 "CLONE_SETTLS", 0x100000 "CLONE_PARENT_SETTID", 0x200000 "CLONE_CHILD_CLEARTID",
    0x400000 "CLONE_DETACHED", 0x800000 "CLONE_UNTRACED", 0x1000000 "CLONE_CHILD_SETTID", 0x2000000 "CLONE_NEWCGROUP",
    0x4000000 "CLONE_NEWUTS", 0x8000000 "CLONE_NEWIPC", 0x10000000 "CLONE_NEWUSER", 0x20000000 "CLONE_NEWPID",
    0x40000000 "CLONE_NEWNET", 0x80000000 "CLONE_IO",
);
pub(super) const CLOSE_RANGE: Names = names!(
    2 "CLOSE_RANGE_UNSHARE", 4 "CLOSE_RANGE_CLOEXEC",
);
pub(super) const DUP: Names = names!(
    0x80000 "O_CLOEXEC",
);
pub(super) const EPOLL_CREATE: Names = names!(
    0x80000 "EPOLL_CLOEXEC",
);
pub(super) const EPOLL_OP: Names = names!(
    1 "EPOLL_CTL_ADD", 2 "EPOLL_CTL_DEL", 3 "EPOLL_CTL_MOD",
);
pub(super) const ERRNO: Names = names!(
    1 "EPERM", 2 "ENOENT", 3 "ESRCH", 4 "EINTR", 5 "EIO", 6 "ENXIO", 7 "E2BIG", 8 "ECHO", 9 "EBADF", 10 "ECHILD",
    11 "EAGAIN", 12 "ENOMEM", 13 "EACCES", 14 "EFAULT", 15 "ENOTBLK", 16 "EBUSY", 17 "EEXIST", 18 "EXDEV",
    19 "ENODEV", 20 "ENOTDIR", 21 "EISDIR", 22 "EINVAL", 23 "ENFILE", 24 "EMFILE", 25 "ENOTTY", 26 "ETXTBSY",
    27 "EFBIG", 28 "ENOSPC", 29 "ESPIPE", 30 "EROFS", 31 "EMLINK", 32 "ECHOK", 33 "EDOM", 34 "ERANGE", 35 "EDEADLK",
    36 "ENAMETOOLONG", 37 "ENOLCK", 38 "ENOSYS", 39 "ENOTEMPTY", 40 "ELOOP", 42 "ENOMSG", 43 "EIDRM", 44 "ECHRNG",
    45 "EL2NSYNC", 46 "EL3HLT", 47 "EL3RST", 48 "ELNRNG", 49 "EUNATCH", 50 "ENOCSI", 51 "EL2HLT", 52 "EBADE",
    53 "EBADR", 54 "EXFULL", 55 "ENOANO", 56 "EBADRQC", 57 "EBADSLT", 59 "EBFONT", 60 "ENOSTR", 61 "ENODATA",
    62 "ETIME", 63 "ENOSR", 64 "ECHONL", 65 "ENOPKG", 66 "EREMOTE", 67 "ENOLINK", 68 "EADV", 69 "ESRMNT", 70 "ECOMM",
    71 "EPROTO", 72 "EMULTIHOP", 73 "EDOTDOT", 74 "EBADMSG", 75 "EOVERFLOW", 76 "ENOTUNIQ", 77 "EBADFD", 78 "EREMCHG",
    79 "ELIBACC", 80 "ELIBBAD", 81 "ELIBSCN", 82 "ELIBMAX", 83 "ELIBEXEC", 84 "EILSEQ", 85 "ERESTART", 86 "ESTRPIPE",
    87 "EUSERS", 88 "ENOTSOCK", 89 "EDESTADDRREQ", 90 "EMSGSIZE", 91 "EPROTOTYPE", 92 "ENOPROTOOPT",
    93 "EPROTONOSUPPORT", 94 "ESOCKTNOSUPPORT", 95 "EOPNOTSUPP", 96 "EPFNOSUPPORT", 97 "EAFNOSUPPORT",
    98 "EADDRINUSE", 99 "EADDRNOTAVAIL", 100 "ENETDOWN", 101 "ENETUNREACH", 102 "ENETRESET", 103 "ECONNABORTED",
    104 "ECONNRESET", 105 "ENOBUFS", 106 "EISCONN", 107 "ENOTCONN", 108 "ESHUTDOWN", 109 "ETOOMANYREFS",
    110 "ETIMEDOUT", 111 "ECONNREFUSED", 112 "EHOSTDOWN", 113 "EHOSTUNREACH", 114 "EALREADY", 115 "EINPROGRESS",
    116 "ESTALE", 117 "EUCLEAN", 118 "ENOTNAM", 119 "ENAVAIL", 120 "EISNAM", 121 "EREMOTEIO", 122 "EDQUOT",
    123 "ENOMEDIUM", 124 "EMEDIUMTYPE", 125 "ECANCELED", 126 "ENOKEY", 127 "EKEYEXPIRED", 128 "EKEYREVOKED",
    129 "EKEYREJECTED", 130 "EOWNERDEAD", 131 "ENOTRECOVERABLE", 132 "ERFKILL", 133 "EHWPOISON", 512 "ECHOCTL",
    1024 "ECHOPRT", 2048 "ECHOKE", 65536 "EXTPROC",
);
pub(super) const EVENTFD: Names = names!(
    0x1 "EFD_SEMAPHORE", 0x800 "EFD_NONBLOCK", 0x80000 "EFD_CLOEXEC",
);
pub(super) const FACCESS: Names = names!(
    0x200 "AT_EACCESS", 0x100 "AT_SYMLINK_NOFOLLOW", 0x1000 "AT_EMPTY_PATH",
);
pub(super) const FADVICE: Names = names!(
    0 "POSIX_FADV_NORMAL", 1 "POSIX_FADV_RANDOM", 2 "POSIX_FADV_SEQUENTIAL", 3 "POSIX_FADV_WILLNEED",
    4 "POSIX_FADV_DONTNEED", 5 "POSIX_FADV_NOREUSE",
);
pub(super) const FALLOCATE: Names = names!(
    0x1 "FALLOC_FL_KEEP_SIZE", 0x2 "FALLOC_FL_PUNCH_HOLE", 0x4 "FALLOC_FL_NO_HIDE_STALE",
    0x8 "FALLOC_FL_COLLAPSE_RANGE", 0x10 "FALLOC_FL_ZERO_RANGE", 0x20 "FALLOC_FL_INSERT_RANGE",
    0x40 "FALLOC_FL_UNSHARE_RANGE",
);
pub(super) const FAMILY: Names = names!(
    0 "AF_UNSPEC", 1 "AF_UNIX", 2 "AF_INET", 3 "AF_AX25", 4 "AF_IPX", 5 "AF_APPLETALK", 6 "AF_NETROM", 7 "AF_BRIDGE",
    8 "AF_ATMPVC", 9 "AF_X25", 10 "AF_INET6", 11 "AF_ROSE", 13 "AF_NETBEUI", 14 "AF_SECURITY", 15 "AF_KEY",
    16 "AF_NETLINK", 17 "AF_PACKET", 18 "AF_ASH", 19 "AF_ECONET", 20 "AF_ATMSVC", 21 "AF_RDS", 22 "AF_SNA",
    23 "AF_IRDA", 24 "AF_PPPOX", 25 "AF_WANPIPE", 26 "AF_LLC", 27 "AF_IB", 28 "AF_MPLS", 29 "AF_CAN", 30 "AF_TIPC",
    31 "AF_BLUETOOTH", 32 "AF_IUCV", 33 "AF_RXRPC", 34 "AF_ISDN", 35 "AF_PHONET", 36 "AF_IEEE802154", 37 "AF_CAIF",
    38 "AF_ALG", 39 "AF_NFC", 40 "AF_VSOCK", 41 "AF_KCM", 42 "AF_QIPCRTR", 43 "AF_SMC", 44 "AF_XDP",
);
pub(super) const FCNTL: Names = names!(
    0 "F_DUPFD", 1 "F_GETFD", 2 "F_SETFD", 3 "F_GETFL", 4 "F_SETFL", 5 "F_GETLK", 6 "F_SETLK", 7 "F_SETLKW",
    8 "F_SETOWN", 9 "F_GETOWN", 10 "F_SETSIG", 11 "F_GETSIG", 15 "F_SETOWN_EX", 16 "F_GETOWN_EX", 36 "F_OFD_GETLK",
    37 "F_OFD_SETLK", 38 "F_OFD_SETLKW", 1024 "F_SETLEASE", 1025 "F_GETLEASE", 1026 "F_NOTIFY",
    1030 "F_DUPFD_CLOEXEC", 1031 "F_SETPIPE_SZ", 1032 "F_GETPIPE_SZ", 1033 "F_ADD_SEALS", 1034 "F_GET_SEALS",
    1035 "F_GET_RW_HINT", 1036 "F_SET_RW_HINT", 1037 "F_GET_FILE_RW_HINT", 1038 "F_SET_FILE_RW_HINT",
);
pub(super) const FILE_TYPE: Names = names!(
    0o140000 "S_IFSOCK", 0o120000 "S_IFLNK", 0o100000 "S_IFREG", 0o60000 "S_IFBLK", 0o40000 "S_IFDIR",
    0o20000 "S_IFCHR", 0o10000 "S_IFIFO",
);
pub(super) const FLOCK: Names = names!(
    1 "LOCK_SH", 2 "LOCK_EX", 8 "LOCK_UN", 5 "LOCK_SH|LOCK_NB", 6 "LOCK_EX|LOCK_NB", 12 "LOCK_UN|LOCK_NB",
);
pub(super) const FUTEX: Names = names!(
    0 "FUTEX_WAIT", 1 "FUTEX_WAKE", 2 "FUTEX_FD", 3 "FUTEX_REQUEUE", 4 "FUTEX_CMP_REQUEUE", 5 "FUTEX_WAKE_OP",
    6 "FUTEX_LOCK_PI", 7 "FUTEX_UNLOCK_PI", 8 "FUTEX_TRYLOCK_PI", 9 "FUTEX_WAIT_BITSET", 10 "FUTEX_WAKE_BITSET",
    11 "FUTEX_WAIT_REQUEUE_PI", 12 "FUTEX_CMP_REQUEUE_PI", 13 "FUTEX_LOCK_PI2",
);
pub(super) const GETRANDOM: Names = names!(
    1 "GRND_NONBLOCK", 2 "GRND_RANDOM", 4 "GRND_INSECURE",
);
pub(super) const INOTIFY: Names = names!(
    0x1 "IN_ACCESS", 0x2 "IN_MODIFY", 0x4 "IN_ATTRIB", 0x8 "IN_CLOSE_WRITE", 0x10 "IN_CLOSE_NOWRITE", 0x20 "IN_OPEN",
    0x40 "IN_MOVED_FROM", 0x80 "IN_MOVED_TO", 0x100 "IN_CREATE", 0x200 "IN_DELETE", 0x400 "IN_DELETE_SELF",
    0x800 "IN_MOVE_SELF", 0x1000000 "IN_ONLYDIR", 0x2000000 "IN_DONT_FOLLOW", 0x4000000 "IN_EXCL_UNLINK",
    0x10000000 "IN_MASK_CREATE", 0x20000000 "IN_MASK_ADD", 0x40000000 "IN_ISDIR", 0x80000000 "IN_ONESHOT",
);
pub(super) const INOTIFY_INIT: Names = names!(
    0x80000 "IN_CLOEXEC", 0x800 "IN_NONBLOCK",
);
pub(super) const IOCTL: Names = names!(
    0x1 "FIBMAP", 0x2 "FIGETBSZ", 0x125d "BLKROSET", 0x125e "BLKROGET", 0x125f "BLKRRPART", 0x1260 "BLKGETSIZE",
    0x1261 "BLKFLSBUF", 0x1262 "BLKRASET", 0x1263 "BLKRAGET", 0x1264 "BLKFRASET", 0x1265 "BLKFRAGET",
    0x1266 "BLKSECTSET", 0x1267 "BLKSECTGET", 0x1268 "BLKSSZGET", 0x1274 "BLKTRACESTART", 0x1275 "BLKTRACESTOP",
    0x1276 "BLKTRACETEARDOWN", 0x1277 "BLKDISCARD", 0x1278 "BLKIOMIN", 0x1279 "BLKIOOPT", 0x127a "BLKALIGNOFF",
    0x127b "BLKPBSZGET", 0x127c "BLKDISCARDZEROES", 0x127d "BLKSECDISCARD", 0x127e "BLKROTATIONAL",
    0x127f "BLKZEROOUT", 0x5401 "TCGETS", 0x5402 "TCSETS", 0x5403 "TCSETSW", 0x5404 "TCSETSF", 0x5405 "TCGETA",
    0x5406 "TCSETA", 0x5407 "TCSETAW", 0x5408 "TCSETAF", 0x5409 "TCSBRK", 0x540a "TCXONC", 0x540b "TCFLSH",
    0x540c "TIOCEXCL", 0x540d "TIOCNXCL", 0x540e "TIOCSCTTY", 0x540f "TIOCGPGRP", 0x5410 "TIOCSPGRP",
    0x5411 "SIOCOUTQ", 0x5412 "TIOCSTI", 0x5413 "TIOCGWINSZ", 0x5414 "TIOCSWINSZ", 0x5415 "TIOCMGET",
    0x5416 "TIOCMBIS", 0x5417 "TIOCMBIC", 0x5418 "TIOCMSET", 0x5419 "TIOCGSOFTCAR", 0x541a "TIOCSSOFTCAR",
    0x541b "FIONREAD", 0x541c "TIOCLINUX", 0x541d "TIOCCONS", 0x541e "TIOCGSERIAL", 0x541f "TIOCSSERIAL",
    0x5420 "TIOCPKT", 0x5421 "FIONBIO", 0x5422 "TIOCNOTTY", 0x5423 "TIOCSETD", 0x5424 "TIOCGETD", 0x5425 "TCSBRKP",
    0x5427 "TIOCSBRK", 0x5428 "TIOCCBRK", 0x5429 "TIOCGSID", 0x542e "TIOCGRS485", 0x542f "TIOCSRS485",
    0x5432 "TCGETX", 0x5433 "TCSETX", 0x5434 "TCSETXF", 0x5435 "TCSETXW", 0x5437 "TIOCVHANGUP", 0x5441 "TIOCGPTPEER",
    0x5450 "FIONCLEX", 0x5451 "FIOCLEX", 0x5452 "FIOASYNC", 0x5456 "TIOCGLCKTRMIOS", 0x5457 "TIOCSLCKTRMIOS",
    0x545c "TIOCMIWAIT", 0x545d "TIOCGICOUNT", 0x5460 "FIOQSIZE", 0x8901 "FIOSETOWN", 0x8902 "SIOCSPGRP",
    0x8903 "FIOGETOWN", 0x8904 "SIOCGPGRP", 0x8905 "SIOCATMARK", 0x8906 "SIOCGSTAMP", 0x8907 "SIOCGSTAMPNS",
    0x890b "SIOCADDRT", 0x890c "SIOCDELRT", 0x8910 "SIOCGIFNAME", 0x8912 "SIOCGIFCONF", 0x8913 "SIOCGIFFLAGS",
    0x8914 "SIOCSIFFLAGS", 0x8915 "SIOCGIFADDR", 0x8916 "SIOCSIFADDR", 0x8917 "SIOCGIFDSTADDR",
    0x8918 "SIOCSIFDSTADDR", 0x891b "SIOCGIFNETMASK", 0x891c "SIOCSIFNETMASK", 0x891d "SIOCGIFMETRIC",
    0x891e "SIOCSIFMETRIC", 0x8921 "SIOCGIFMTU", 0x8922 "SIOCSIFMTU", 0x8923 "SIOCSIFNAME", 0x8924 "SIOCSIFHWADDR",
    0x8925 "SIOCGIFENCAP", 0x8926 "SIOCSIFENCAP", 0x8927 "SIOCGIFHWADDR", 0x8929 "SIOCGIFSLAVE",
    0x8930 "SIOCSIFSLAVE", 0x8931 "SIOCADDMULTI", 0x8932 "SIOCDELMULTI", 0x8933 "SIOCGIFINDEX",
    0x8934 "SIOCSIFPFLAGS", 0x8935 "SIOCGIFPFLAGS", 0x8936 "SIOCDIFADDR", 0x8937 "SIOCSIFHWBROADCAST",
    0x8938 "SIOCGIFCOUNT", 0x8942 "SIOCGIFTXQLEN", 0x8943 "SIOCSIFTXQLEN", 0x8946 "SIOCETHTOOL", 0x8947 "SIOCGMIIPHY",
    0x8948 "SIOCGMIIREG", 0x8949 "SIOCSMIIREG", 0x894b "SIOCOUTQNSD", 0x894c "SIOCGSKNS", 0x8970 "SIOCGIFMAP",
    0x8971 "SIOCSIFMAP", 0x8982 "SIOCGIFVLAN", 0x8983 "SIOCSIFVLAN", 0x89b0 "SIOCSHWTSTAMP", 0x89b1 "SIOCGHWTSTAMP",
    0x40045431 "TIOCSPTLCK", 0x40045436 "TIOCSIG", 0x40049409 "FICLONE", 0x40081271 "BLKBSZSET",
    0x40086602 "FS_IOC_SETFLAGS", 0x40087602 "FS_IOC_SETVERSION", 0x401c5820 "FS_IOC_FSSETXATTR",
    0x4020940d "FICLONERANGE", 0x41009432 "FS_IOC_SETFSLABEL", 0x80045430 "TIOCGPTN", 0x80045432 "TIOCGDEV",
    0x80045438 "TIOCGPKT", 0x80045439 "TIOCGPTLCK", 0x80045440 "TIOCGEXCL", 0x80081270 "BLKBSZGET",
    0x80081272 "BLKGETSIZE64", 0x80081280 "BLKGETDISKSEQ", 0x80086601 "FS_IOC_GETFLAGS",
    0x80087601 "FS_IOC_GETVERSION", 0x80108906 "SIOCGSTAMP_NEW", 0x80108907 "SIOCGSTAMPNS_NEW",
    0x801c581f "FS_IOC_FSGETXATTR", 0x80285442 "TIOCGISO7816", 0x81009431 "FS_IOC_GETFSLABEL", 0xc0045877 "FIFREEZE",
    0xc0045878 "FITHAW", 0xc0185879 "FITRIM", 0xc0189436 "FIDEDUPERANGE", 0xc020660b "FS_IOC_FIEMAP",
    0xc0285443 "TIOCSISO7816", 0xc0481273 "BLKTRACESETUP",
);
pub(super) const ITIMER: Names = names!(
    0 "ITIMER_REAL", 1 "ITIMER_VIRTUAL", 2 "ITIMER_PROF",
);
pub(super) const LEVEL: Names = names!(
    0 "SOL_IP", 1 "SOL_SOCKET", 6 "SOL_TCP", 41 "SOL_IPV6", 58 "SOL_ICMPV6", 255 "SOL_RAW", 263 "SOL_PACKET",
    270 "SOL_NETLINK", 282 "SOL_TLS", 17 "SOL_UDP",
);
pub(super) const MAP: Names = names!(
    0x10 "MAP_FIXED", 0x20 "MAP_ANONYMOUS", 0x40 "MAP_32BIT", 0x100 "MAP_GROWSDOWN", 0x800 "MAP_DENYWRITE",
    0x1000 "MAP_EXECUTABLE", 0x2000 "MAP_LOCKED", 0x4000 "MAP_NORESERVE", 0x8000 "MAP_POPULATE",
    0x10000 "MAP_NONBLOCK", 0x20000 "MAP_STACK", 0x40000 "MAP_HUGETLB", 0x80000 "MAP_SYNC",
    0x100000 "MAP_FIXED_NOREPLACE",
);
pub(super) const MAP_TYPE: Names = names!(
    1 "MAP_SHARED", 2 "MAP_PRIVATE", 3 "MAP_SHARED_VALIDATE",
);
pub(super) const MASK_HOW: Names = names!(
    0 "SIG_BLOCK", 1 "SIG_UNBLOCK", 2 "SIG_SETMASK",
);
pub(super) const MEMFD: Names = names!(
    0x1 "MFD_CLOEXEC", 0x2 "MFD_ALLOW_SEALING", 0x4 "MFD_HUGETLB",
);
pub(super) const MLOCKALL: Names = names!(
    1 "MCL_CURRENT", 2 "MCL_FUTURE", 4 "MCL_ONFAULT",
);
pub(super) const MOUNT: Names = names!(
    0x1 "MS_RDONLY", 0x2 "MS_NOSUID", 0x4 "MS_NODEV", 0x8 "MS_NOEXEC", 0x10 "MS_SYNCHRONOUS", 0x20 "MS_REMOUNT",
    0x40 "MS_MANDLOCK", 0x80 "MS_DIRSYNC", 0x100 "MS_NOSYMFOLLOW", 0x400 "MS_NOATIME", 0x800 "MS_NODIRATIME",
    0x1000 "MS_BIND", 0x2000 "MS_MOVE", 0x4000 "MS_REC", 0x8000 "MS_SILENT", 0x10000 "MS_POSIXACL",
    0x20000 "MS_UNBINDABLE", 0x40000 "MS_PRIVATE", 0x80000 "MS_SLAVE", 0x100000 "MS_SHARED", 0x200000 "MS_RELATIME",
    0x400000 "MS_KERNMOUNT", 0x800000 "MS_I_VERSION", 0x1000000 "MS_STRICTATIME", 0x2000000 "MS_LAZYTIME",
);
pub(super) const MREMAP: Names = names!(
    1 "MREMAP_MAYMOVE", 2 "MREMAP_FIXED", 4 "MREMAP_DONTUNMAP",
);
pub(super) const MSG: Names = names!(
    0x1 "MSG_OOB", 0x2 "MSG_PEEK", 0x4 "MSG_DONTROUTE", 0x8 "MSG_CTRUNC", 0x10 "MSG_PROXY", 0x20 "MSG_TRUNC",
    0x40 "MSG_DONTWAIT", 0x80 "MSG_EOR", 0x100 "MSG_WAITALL", 0x200 "MSG_FIN", 0x400 "MSG_SYN", 0x800 "MSG_CONFIRM",
    0x1000 "MSG_RST", 0x2000 "MSG_ERRQUEUE", 0x4000 "MSG_NOSIGNAL", 0x8000 "MSG_MORE", 0x10000 "MSG_WAITFORONE",
    0x40000 "MSG_BATCH", 0x20000000 "MSG_FASTOPEN", 0x40000000 "MSG_CMSG_CLOEXEC",
);
pub(super) const MSYNC: Names = names!(
    1 "MS_ASYNC", 2 "MS_INVALIDATE", 4 "MS_SYNC",
);
pub(super) const NAMESPACE: Names = names!(
    0x80 "CLONE_NEWTIME", 0x200 "CLONE_FS", 0x400 "CLONE_FILES", 0x40000 "CLONE_SYSVSEM", 0x20000 "CLONE_NEWNS",
    0x2000000 "CLONE_NEWCGROUP", 0x4000000 "CLONE_NEWUTS", 0x8000000 "CLONE_NEWIPC", 0x10000000 "CLONE_NEWUSER",
    0x20000000 "CLONE_NEWPID", 0x40000000 "CLONE_NEWNET", 0x800 "CLONE_SIGHAND", 0x10000 "CLONE_THREAD",
    0x100 "CLONE_VM",
);
pub(super) const OPEN: Names = names!(
    0x40 "O_CREAT", 0x80 "O_EXCL", 0x100 "O_NOCTTY", 0x200 "O_TRUNC", 0x400 "O_APPEND", 0x800 "O_NONBLOCK",
    0x101000 "O_SYNC", 0x1000 "O_DSYNC", 0x2000 "FASYNC", 0x4000 "O_DIRECT", 0x8000 "O_LARGEFILE",
    0x410000 "O_TMPFILE", 0x10000 "O_DIRECTORY", 0x20000 "O_NOFOLLOW", 0x40000 "O_NOATIME", 0x80000 "O_CLOEXEC",
    0x200000 "O_PATH",
);
pub(super) const OPEN_ARM64: Names = names!(
    0x40 "O_CREAT", 0x80 "O_EXCL", 0x100 "O_NOCTTY", 0x200 "O_TRUNC", 0x400 "O_APPEND", 0x800 "O_NONBLOCK",
    0x101000 "O_SYNC", 0x1000 "O_DSYNC", 0x2000 "FASYNC", 0x10000 "O_DIRECT", 0x20000 "O_LARGEFILE",
    0x404000 "O_TMPFILE", 0x4000 "O_DIRECTORY", 0x8000 "O_NOFOLLOW", 0x40000 "O_NOATIME", 0x80000 "O_CLOEXEC",
    0x200000 "O_PATH",
);
pub(super) const PERF_OPEN: Names = names!(
    1 "PERF_FLAG_FD_NO_GROUP", 2 "PERF_FLAG_FD_OUTPUT", 4 "PERF_FLAG_PID_CGROUP", 8 "PERF_FLAG_FD_CLOEXEC",
);
pub(super) const PERMISSIONS: Names = names!(
    4 "R_OK", 2 "W_OK", 1 "X_OK",
);
pub(super) const PIPE: Names = names!(
    0x800 "O_NONBLOCK", 0x80000 "O_CLOEXEC", 0x4000 "O_DIRECT",
);
pub(super) const POLICY: Names = names!(
    0 "SCHED_OTHER", 1 "SCHED_FIFO", 2 "SCHED_RR", 3 "SCHED_BATCH", 5 "SCHED_IDLE", 6 "SCHED_DEADLINE",
);
pub(super) const PRCTL: Names = names!(
    1 "PR_SET_PDEATHSIG", 2 "PR_GET_PDEATHSIG", 3 "PR_GET_DUMPABLE", 4 "PR_SET_DUMPABLE", 5 "PR_GET_UNALIGN",
    6 "PR_SET_UNALIGN", 7 "PR_GET_KEEPCAPS", 8 "PR_SET_KEEPCAPS", 9 "PR_GET_FPEMU", 10 "PR_SET_FPEMU",
    11 "PR_GET_FPEXC", 12 "PR_SET_FPEXC", 13 "PR_GET_TIMING", 14 "PR_SET_TIMING", 15 "PR_SET_NAME", 16 "PR_GET_NAME",
    19 "PR_GET_ENDIAN", 20 "PR_SET_ENDIAN", 21 "PR_GET_SECCOMP", 22 "PR_SET_SECCOMP", 23 "PR_CAPBSET_READ",
    24 "PR_CAPBSET_DROP", 25 "PR_GET_TSC", 26 "PR_SET_TSC", 27 "PR_GET_SECUREBITS", 28 "PR_SET_SECUREBITS",
    29 "PR_SET_TIMERSLACK", 30 "PR_GET_TIMERSLACK", 33 "PR_MCE_KILL", 35 "PR_SET_MM", 36 "PR_SET_CHILD_SUBREAPER",
    37 "PR_GET_CHILD_SUBREAPER", 38 "PR_SET_NO_NEW_PRIVS", 39 "PR_GET_NO_NEW_PRIVS", 40 "PR_GET_TID_ADDRESS",
    45 "PR_SET_FP_MODE", 46 "PR_GET_FP_MODE", 47 "PR_CAP_AMBIENT", 50 "PR_SVE_SET_VL", 51 "PR_SVE_GET_VL",
    52 "PR_GET_SPECULATION_CTRL", 53 "PR_SET_SPECULATION_CTRL", 54 "PR_PAC_RESET_KEYS", 55 "PR_SET_TAGGED_ADDR_CTRL",
    56 "PR_GET_TAGGED_ADDR_CTRL", 57 "PR_SET_IO_FLUSHER", 58 "PR_GET_IO_FLUSHER", 59 "PR_SET_SYSCALL_USER_DISPATCH",
    62 "PR_SCHED_CORE", 63 "PR_SME_SET_VL", 64 "PR_SME_GET_VL", 1398164801 "PR_SET_VMA", 1499557217 "PR_SET_PTRACER",
);
pub(super) const PRIORITY_WHICH: Names = names!(
    0 "PRIO_PROCESS", 1 "PRIO_PGRP", 2 "PRIO_USER",
);
pub(super) const PROT: Names = names!(
    0x1 "PROT_READ", 0x2 "PROT_WRITE", 0x4 "PROT_EXEC", 0x1000000 "PROT_GROWSDOWN", 0x2000000 "PROT_GROWSUP",
);
pub(super) const RENAME: Names = names!(
    1 "RENAME_NOREPLACE", 2 "RENAME_EXCHANGE", 4 "RENAME_WHITEOUT",
);
pub(super) const RESOURCE: Names = names!(
    0 "RLIMIT_CPU", 1 "RLIMIT_FSIZE", 2 "RLIMIT_DATA", 3 "RLIMIT_STACK", 4 "RLIMIT_CORE", 5 "RLIMIT_RSS",
    6 "RLIMIT_NPROC", 7 "RLIMIT_NOFILE", 8 "RLIMIT_MEMLOCK", 9 "RLIMIT_AS", 10 "RLIMIT_LOCKS", 11 "RLIMIT_SIGPENDING",
    12 "RLIMIT_MSGQUEUE", 13 "RLIMIT_NICE", 14 "RLIMIT_RTPRIO", 15 "RLIMIT_RTTIME",
);
pub(super) const SECCOMP: Names = names!(
    0 "SECCOMP_SET_MODE_STRICT", 1 "SECCOMP_SET_MODE_FILTER", 2 "SECCOMP_GET_ACTION_AVAIL",
    3 "SECCOMP_GET_NOTIF_SIZES",
);
pub(super) const SEEK: Names = names!(
    0 "SEEK_SET", 1 "SEEK_CUR", 2 "SEEK_END", 3 "SEEK_DATA", 4 "SEEK_HOLE",
);
pub(super) const SHUT: Names = names!(
    0 "SHUT_RD", 1 "SHUT_WR", 2 "SHUT_RDWR",
);
pub(super) const SIGNAL: Names = names!(
    1 "SIGHUP", 2 "SIGINT", 3 "SIGQUIT", 4 "SIGILL", 5 "SIGTRAP", 6 "SIGABRT", 7 "SIGBUS", 8 "SIGFPE", 9 "SIGKILL",
    10 "SIGUSR1", 11 "SIGSEGV", 12 "SIGUSR2", 13 "SIGPIPE", 14 "SIGALRM", 15 "SIGTERM", 16 "SIGSTKFLT", 17 "SIGCHLD",
    18 "SIGCONT", 19 "SIGSTOP", 20 "SIGTSTP", 21 "SIGTTIN", 22 "SIGTTOU", 23 "SIGURG", 24 "SIGXCPU", 25 "SIGXFSZ",
    26 "SIGVTALRM", 27 "SIGPROF", 28 "SIGWINCH", 29 "SIGPOLL", 30 "SIGPWR", 31 "SIGSYS", 32 "SIGRTMIN", 33 "SIGRT_1",
    34 "SIGRT_2", 35 "SIGRT_3", 36 "SIGRT_4", 37 "SIGRT_5", 38 "SIGRT_6", 39 "SIGRT_7", 40 "SIGRT_8", 41 "SIGRT_9",
    42 "SIGRT_10", 43 "SIGRT_11", 44 "SIGRT_12", 45 "SIGRT_13", 46 "SIGRT_14", 47 "SIGRT_15", 48 "SIGRT_16",
    49 "SIGRT_17", 50 "SIGRT_18", 51 "SIGRT_19", 52 "SIGRT_20", 53 "SIGRT_21", 54 "SIGRT_22", 55 "SIGRT_23",
    56 "SIGRT_24", 57 "SIGRT_25", 58 "SIGRT_26", 59 "SIGRT_27", 60 "SIGRT_28", 61 "SIGRT_29", 62 "SIGRT_30",
    63 "SIGRT_31", 64 "SIGRT_32",
);
pub(super) const SIGNALFD: Names = names!(
    0x80000 "SFD_CLOEXEC", 0x800 "SFD_NONBLOCK",
);
pub(super) const SO: Names = names!(
    1 "SO_DEBUG", 2 "SO_REUSEADDR", 3 "SO_TYPE", 4 "SO_ERROR", 5 "SO_DONTROUTE", 6 "SO_BROADCAST", 7 "SO_SNDBUF",
    8 "SO_RCVBUF", 9 "SO_KEEPALIVE", 10 "SO_OOBINLINE", 11 "SO_NO_CHECK", 12 "SO_PRIORITY", 13 "SO_LINGER",
    14 "SO_BSDCOMPAT", 15 "SO_REUSEPORT", 16 "SO_PASSCRED", 17 "SO_PEERCRED", 18 "SO_RCVLOWAT", 19 "SO_SNDLOWAT",
    20 "SO_RCVTIMEO", 21 "SO_SNDTIMEO", 22 "SO_SECURITY_AUTHENTICATION", 23 "SO_SECURITY_ENCRYPTION_TRANSPORT",
    24 "SO_SECURITY_ENCRYPTION_NETWORK", 25 "SO_BINDTODEVICE", 26 "SO_ATTACH_FILTER", 27 "SO_DETACH_BPF",
    28 "SO_PEERNAME", 29 "SO_TIMESTAMP", 30 "SO_ACCEPTCONN", 31 "SO_PEERSEC", 32 "SO_SNDBUFFORCE",
    33 "SO_RCVBUFFORCE", 34 "SO_PASSSEC", 35 "SO_TIMESTAMPNS", 36 "SO_MARK", 37 "SO_TIMESTAMPING", 38 "SO_PROTOCOL",
    39 "SO_DOMAIN", 40 "SO_RXQ_OVFL", 41 "SO_WIFI_STATUS", 42 "SO_PEEK_OFF", 43 "SO_NOFCS", 44 "SO_LOCK_FILTER",
    45 "SO_SELECT_ERR_QUEUE", 46 "SO_BUSY_POLL", 47 "SO_MAX_PACING_RATE", 48 "SO_BPF_EXTENSIONS",
    49 "SO_INCOMING_CPU", 50 "SO_ATTACH_BPF", 51 "SO_ATTACH_REUSEPORT_CBPF", 52 "SO_ATTACH_REUSEPORT_EBPF",
    53 "SO_CNX_ADVICE", 55 "SO_MEMINFO", 56 "SO_INCOMING_NAPI_ID", 57 "SO_COOKIE", 59 "SO_PEERGROUPS",
    60 "SO_ZEROCOPY", 61 "SO_TXTIME", 62 "SO_BINDTOIFINDEX", 68 "SO_DETACH_REUSEPORT_BPF", 69 "SO_PREFER_BUSY_POLL",
    70 "SO_BUSY_POLL_BUDGET", 71 "SO_NETNS_COOKIE", 72 "SO_BUF_LOCK", 73 "SO_RESERVE_MEM", 74 "SO_TXREHASH",
    75 "SO_RCVMARK",
);
pub(super) const SOCKET_FLAGS: Names = names!(
    0x80000 "SOCK_CLOEXEC", 0x800 "SOCK_NONBLOCK",
);
pub(super) const SOCKET_TYPE: Names = names!(
    1 "SOCK_STREAM", 2 "SOCK_DGRAM", 3 "SOCK_RAW", 4 "SOCK_RDM", 5 "SOCK_SEQPACKET", 6 "SOCK_DCCP", 10 "SOCK_PACKET",
);
pub(super) const SPLICE: Names = names!(
    1 "SPLICE_F_MOVE", 2 "SPLICE_F_NONBLOCK", 4 "SPLICE_F_MORE", 8 "SPLICE_F_GIFT",
);
pub(super) const STATX: Names = names!(
    0x7ff "STATX_BASIC_STATS", 0x1 "STATX_TYPE", 0x2 "STATX_MODE", 0x4 "STATX_NLINK", 0x8 "STATX_UID",
    0x10 "STATX_GID", 0x20 "STATX_ATIME", 0x40 "STATX_MTIME", 0x80 "STATX_CTIME", 0x100 "STATX_INO",
    0x200 "STATX_SIZE", 0x400 "STATX_BLOCKS", 0x800 "STATX_BTIME", 0x1000 "STATX_MNT_ID", 0x2000 "STATX_DIOALIGN",
);
pub(super) const TCP: Names = names!(
    1 "TCP_NODELAY", 2 "TCP_MAXSEG", 3 "TCP_CORK", 4 "TCP_KEEPIDLE", 5 "TCP_KEEPINTVL", 6 "TCP_KEEPCNT",
    7 "TCP_SYNCNT", 8 "TCP_LINGER2", 9 "TCP_DEFER_ACCEPT", 10 "TCP_WINDOW_CLAMP", 11 "TCP_INFO", 12 "TCP_QUICKACK",
    13 "TCP_CONGESTION", 14 "TCP_MD5SIG", 15 "TCP_COOKIE_TRANSACTIONS", 16 "TCP_THIN_LINEAR_TIMEOUTS",
    17 "TCP_THIN_DUPACK", 18 "TCP_USER_TIMEOUT", 19 "TCP_REPAIR", 20 "TCP_REPAIR_QUEUE", 21 "TCP_QUEUE_SEQ",
    22 "TCP_REPAIR_OPTIONS", 23 "TCP_FASTOPEN", 24 "TCP_TIMESTAMP", 25 "TCP_NOTSENT_LOWAT", 26 "TCP_CC_INFO",
    27 "TCP_SAVE_SYN", 28 "TCP_SAVED_SYN", 29 "TCP_REPAIR_WINDOW", 30 "TCP_FASTOPEN_CONNECT", 31 "TCP_ULP",
    32 "TCP_MD5SIG_EXT", 33 "TCP_FASTOPEN_KEY", 34 "TCP_FASTOPEN_NO_COOKIE", 35 "TCP_ZEROCOPY_RECEIVE", 36 "TCP_INQ",
    37 "TCP_TX_DELAY",
);
pub(super) const TIMER: Names = names!(
    1 "TIMER_ABSTIME",
);
pub(super) const TIMERFD: Names = names!(
    0x80000 "TFD_CLOEXEC", 0x800 "TFD_NONBLOCK",
);
pub(super) const TIMERFD_SET: Names = names!(
    1 "TFD_TIMER_ABSTIME", 2 "TFD_TIMER_CANCEL_ON_SET",
);
pub(super) const UMOUNT: Names = names!(
    0x1 "MNT_FORCE", 0x2 "MNT_DETACH", 0x4 "MNT_EXPIRE", 0x8 "UMOUNT_NOFOLLOW",
);
pub(super) const UNLINK: Names = names!(
    0x200 "AT_REMOVEDIR",
);
pub(super) const USAGE: Names = names!(
    0 "RUSAGE_SELF", 1 "RUSAGE_THREAD", 4294967295 "RUSAGE_CHILDREN",
);
pub(super) const WAIT: Names = names!(
    0x1 "WNOHANG", 0x2 "WUNTRACED", 0x4 "WEXITED", 0x8 "WCONTINUED", 0x1000000 "WNOWAIT", 0x20000000 "__WNOTHREAD",
    0x40000000 "__WALL", 0x80000000 "__WCLONE",
);
pub(super) const WAIT_WHICH: Names = names!(
    0 "P_ALL", 1 "P_PID", 2 "P_PGID", 3 "P_PIDFD",
);
