//! What programs are attached to, and what the kernel promises there.

use std::os::fd::BorrowedFd;

use super::preemption;
use crate::host;

/// What a program is attached to.
#[derive(Clone, Copy, Debug)]
pub enum Hook<'a> {
    /// A kprobe, or the return of a function.
    Kprobe,
    /// Many of them at once.
    Kprobes,
    /// An instruction of a process, or the return of a function there.
    Uprobe,
    /// A tracepoint, by perf.
    Tracepoint,
    /// A tracepoint of a system call (`syscalls:*`), by perf.
    SystemCall,
    /// A tracepoint, without perf.
    RawTracepoint,
    /// The tracepoint of all system calls that begin, or of all that return, with its types: the BTF id of these.
    Calls(u32),
    /// A sample.
    Sample,
    /// The entry of a kernel function, by a trampoline: its BTF id, and its module's BTF.
    Entry(u32, Option<BorrowedFd<'a>>),
    /// Its exit.
    Exit(u32, Option<BorrowedFd<'a>>),
}

/// What keeps the kernel from running a program on a CPU that runs it already. A loaded program is reached through one kind of guard alone: two, each of
/// which does not know of the other, are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// One count a CPU for all programs, with preemption off (`bpf_prog_active`: kernel/trace/bpf_trace.c, `trace_call_bpf`,
    /// `kprobe_multi_link_prog_run`; kernel/events/core.c, `bpf_overflow_handler`).
    Cpu,
    /// A count of the program's own on each CPU (`prog->active`: kernel/trace/bpf_trace.c, `__bpf_trace_run`; kernel/bpf/trampoline.c,
    /// `__bpf_prog_enter_recur`). What runs at system calls has it since `trace_call_bpf_faultable` is there; before, [`Guard::Cpu`], and a
    /// program of its own all the same.
    Program,
    /// None, since Linux 6.0 (include/linux/bpf.h, `bpf_prog_run_array_uprobe`).
    Nothing,
}

impl Hook<'_> {
    /// Its guard.
    pub(crate) fn guard(self) -> Guard {
        match self {
            Self::Kprobe | Self::Kprobes | Self::Tracepoint | Self::Sample => Guard::Cpu,
            Self::SystemCall | Self::RawTracepoint | Self::Calls(_) | Self::Entry(..) | Self::Exit(..) => {
                Guard::Program
            }
            Self::Uprobe => Guard::Nothing,
        }
    }

    /// Whether a task can be preempted while it runs a program there.
    pub(crate) fn is_preemptible(self) -> bool {
        match self {
            Self::Kprobe | Self::Kprobes | Self::Tracepoint | Self::Sample => false,
            Self::Uprobe | Self::Entry(..) | Self::Exit(..) => true,
            Self::SystemCall => preemption::abilities().faultable_syscalls,
            // include/linux/tracepoint.h, `__DECLARE_TRACE`.
            Self::RawTracepoint | Self::Calls(_) => host::kernel_version().is_none_or(|version| version >= (7, 0)),
        }
    }
}
