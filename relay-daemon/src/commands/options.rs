//! What to record: the arguments that `relayd trace` and `relayd start` share.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use relay_channel::machine;
use relay_common::{Geometry, MAX_BUFFER_SIZE, MAX_SUBBUF_SIZE, recipe::context};
use relay_daemon::{
    host::{Namespace, is_in_own},
    kernel::choice::{Choice, parse_cpus},
    probe::{Event, selection},
};

use relay_trace::answers::span;

use super::misuse;

/// Least sub-buffer that relayd makes for traces: a page.
const MIN_SUBBUF_SIZE: u64 = 4096;

/// How events are written.
macro_rules! event_help {
    () => {
        "\
Events:
  sched:sched_switch           a tracepoint; `relayd list` has the others
  kprobe:vfs_read(count, ino=file->f_inode->i_ino)
                               arguments by name, pointers followed by name, a name for the field
  (… filename:ustr, buf:buf:64, arg0:s32)
                               how to read: ustr kstr str, strv, hex, buf:BYTES, s8…s64, u8…u64
  … if ret < 0 && comm ~ \"kworker*\"
                               == != < <= > >= on numbers (0x1f, 64K, 10ms) and FIELD & BITS, == != on texts, ~ !~ with
                               wildcards, && || ! ( ); pid, tid, uid, cpu and comm are known everywhere
"
    };
}
pub(crate) use event_help;

/// Which events, and what of them.
#[derive(Debug, Args)]
pub(crate) struct EventOptions {
    /// Events to record: CATEGORY:NAME of a tracepoint, or KIND:…, with * ? [] as wildcards; (ARGUMENTS) select what is
    /// recorded, `if CONDITION` when; repeat it or separate by commas. Kinds: tracepoint, rawtracepoint, syscall, kprobe,
    /// kretprobe, fentry, fexit, uprobe, uretprobe, usdt, profile. `relayd list` shows what there is. syscall:NAME is of
    /// 64-bit programs; compat:* are the calls of 32-bit ones.
    #[arg(short, long = "event", value_name = "EVENT")]
    pub(crate) events: Vec<String>,
    /// Record what these spans need, like runq, offcpu or block; `relayd stat DIR --span SPAN` shows them.
    #[arg(long = "span", value_name = "SPAN", help_heading = "What is recorded")]
    pub(crate) spans: Vec<String>,
    /// At returns record the time since the entry too (duration_ns); arguments of the entry can be named then.
    #[arg(long, help_heading = "What is recorded")]
    pub(crate) latency: bool,
    /// With every record: comm, cgroup (id), uid, kstack, ustack; separated by commas.
    #[arg(long = "context", value_name = "LIST", value_delimiter = ',', help_heading = "What is recorded")]
    contexts: Vec<ContextField>,
    /// Record at most so many of an event a second on each CPU, like 'sched:*=10000/s'; what is over is counted as suppressed.
    #[arg(long = "limit", value_name = "EVENT=RATE/s", help_heading = "What is recorded")]
    limits: Vec<String>,
}

/// Whose events.
#[derive(Debug, Args)]
pub(crate) struct TaskOptions {
    /// Only events of these processes.
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',', help_heading = "Whose events")]
    pids: Vec<u32>,
    /// Only events of these threads.
    #[arg(long = "tid", value_name = "TID", value_delimiter = ',', help_heading = "Whose events")]
    tids: Vec<u32>,
    /// Only events of these users, by number.
    #[arg(long = "uid", value_name = "UID", value_delimiter = ',', help_heading = "Whose events")]
    uids: Vec<u32>,
    /// Only events of threads of these names, with * ? as wildcards.
    #[arg(long = "comm", value_name = "NAME", value_delimiter = ',', help_heading = "Whose events")]
    names: Vec<String>,
    /// Only events of tasks in these cgroups and below, by path in the unified hierarchy.
    #[arg(long = "cgroup", value_name = "PATH", help_heading = "Whose events")]
    cgroups: Vec<PathBuf>,
    /// Only events on these CPUs, like 0-3,8.
    #[arg(long = "cpu", value_name = "LIST", help_heading = "Whose events")]
    cpus: Option<String>,
}

/// How buffers are cut.
#[derive(Debug, Args)]
pub(crate) struct BufferOptions {
    /// Bytes of a sub-buffer, like 64K or 1M: a power of two from 4K to 16M, else rounded up.
    #[arg(short = 'b', long, value_name = "SIZE", default_value = "256K", value_parser = super::parse_size)]
    subbuf_size: u64,
    /// Sub-buffers per CPU: a power of two, else rounded up.
    #[arg(short, long, value_name = "N", default_value_t = 8)]
    n_subbufs: u64,
}

/// What can stand with every record.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ContextField {
    Comm,
    Cgroup,
    Uid,
    Kstack,
    Ustack,
}

impl EventOptions {
    /// Bits of `relay_common::recipe::context`.
    pub(crate) fn context(&self) -> u32 {
        let bit = |field: &ContextField| match field {
            ContextField::Comm => context::COMM,
            ContextField::Cgroup => context::CGROUP,
            ContextField::Uid => context::UID,
            ContextField::Kstack => context::KSTACK,
            ContextField::Ustack => context::USTACK,
        };
        self.contexts.iter().map(bit).fold(0, |all, bit| all | bit)
    }

    /// The events.
    pub(crate) fn find(&self) -> Result<Vec<Event>> {
        let mut events = self.events.clone();
        for text in &self.spans {
            let more = span::parse(text).map_err(misuse)?.events();
            // Spans of one kind take the same.
            events.extend(more.into_iter().filter(|list| !self.events.contains(list)));
        }
        events.dedup();
        if events.is_empty() {
            bail!(
                "no event is given: name at least one with -e, like -e sched:sched_switch; relayd list shows what there is"
            );
        }
        selection::select(&events, self.latency, &self.limits)
    }
}

impl TaskOptions {
    pub(crate) fn has_pids(&self) -> bool {
        !self.pids.is_empty()
    }

    pub(crate) fn choice(&self, follow: bool, own_children: bool) -> Result<Choice> {
        let cpus = self.cpus.as_deref().map_or(Ok(Vec::new()), parse_cpus).context("--cpu").map_err(misuse)?;
        let possible = machine::possible_cpus()?;
        if let Some(cpu) = cpus.iter().find(|cpu| !possible.contains(cpu)) {
            return Err(misuse(anyhow!(
                "--cpu: there is no CPU {cpu} here; the last is {}",
                possible.last().unwrap_or(&0)
            )));
        }
        if (!self.pids.is_empty() || !self.tids.is_empty()) && is_in_own(Namespace::Pid) {
            bail!(
                "--pid and --tid are the host's numbers, and this container counts its processes by itself: start it with --pid=host, \
                 or choose by --comm"
            );
        }
        if !self.cgroups.is_empty() && is_in_own(Namespace::Cgroup) {
            bail!(
                "--cgroup is a path from the host's root, and this container has a root of its own: start it with --cgroupns=host, or \
                 choose by --comm"
            );
        }
        for task in
            self.pids.iter().chain(&self.tids).filter(|task| !Path::new("/proc").join(task.to_string()).exists())
        {
            log::warn!("there is no process or thread {task} now");
        }
        Ok(Choice {
            pids: self.pids.clone(),
            tids: self.tids.clone(),
            uids: self.uids.clone(),
            cpus,
            cgroups: self.cgroups.clone(),
            names: self.names.clone(),
            follow,
            own_children,
        })
    }
}

impl BufferOptions {
    /// Geometry as asked for, rounded up to powers of two.
    pub(crate) fn geometry(&self) -> Result<Geometry> {
        let round = |name: &str, value: u64, least: u64, most: u64| {
            if value == 0 || value > most {
                bail!("{name} must be from 1 to {most}, not {value}");
            }
            let rounded = value.max(least).next_power_of_two();
            if rounded != value {
                say!("relayd: {name} {value} rounded up to {rounded}");
            }
            Ok(rounded)
        };
        let subbuf_size = round("--subbuf-size", self.subbuf_size, MIN_SUBBUF_SIZE, MAX_SUBBUF_SIZE)?;
        let n_subbufs = round("--n-subbufs", self.n_subbufs, 1, MAX_BUFFER_SIZE)?;
        Geometry::new(subbuf_size, n_subbufs).context("--subbuf-size times --n-subbufs")
    }
}
