//! `relayd trace`: record until told to stop.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use relay_common::{Geometry, MAX_BUFFER_SIZE, MAX_SUBBUF_SIZE, Mode, recipe::context};
use relay_daemon::{
    machine,
    tracer::{
        choice::{Choice, parse_cpus},
        programs::Notices,
        recorder::{Options, Recording},
        selection::Selection,
        session::Cpu,
    },
};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use super::summary;

/// Least sub-buffer that relayd trace makes: a page.
const MIN_SUBBUF_SIZE: u64 = 4096;
/// How often the status line changes.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// Record events of the kernel and of programs into a trace directory: cpu0…cpuN and metadata, which any CTF reader opens.
#[derive(Debug, Args)]
#[command(after_help = "\
Events:
  sched:sched_switch           a tracepoint; `relayd list` has the others
  kprobe:vfs_read(count, ino=file->f_inode->i_ino)
                               arguments by name, pointers followed by name, a name for the field
  (… filename:ustr, buf:buf:64, arg0:s32)
                               how to read: ustr kstr str, hex, buf:BYTES, s8…s64, u8…u64
  … if ret < 0 && comm ~ \"kworker*\"
                               == != < <= > >= on numbers (0x1f, 64K, 10ms) and FIELD & BITS, == != on texts, ~ !~ with
                               wildcards, && || ! ( ); pid, tid, uid, cpu and comm are known everywhere

Examples:
  relayd trace -e sched:sched_switch -d 5s
  relayd trace -e 'sched:*,irq:*' -o /tmp/boot -- make -j2
  relayd trace -e 'raw_syscalls:*' --overwrite -b 1M -n 16    (the newest 16 MiB of each CPU)
  babeltrace2 relayd-20260102-030405")]
pub(crate) struct Arguments {
    /// Events to record: CATEGORY:NAME of a tracepoint, or KIND:…, with * ? [] as wildcards; (ARGUMENTS) select what is
    /// recorded, `if CONDITION` when; repeat it or separate by commas. Kinds: tracepoint, rawtracepoint, syscall, kprobe,
    /// kretprobe, fentry, fexit, uprobe, uretprobe, usdt, profile. `relayd list` shows what there is.
    #[arg(short, long = "event", value_name = "EVENT", required = true)]
    events: Vec<String>,
    /// At returns record the time since the entry too (duration_ns); arguments of the entry can be named then.
    #[arg(long, help_heading = "What is recorded")]
    latency: bool,
    /// With every record: comm, cgroup (id), uid, kstack, ustack; separated by commas.
    #[arg(long = "context", value_name = "LIST", value_delimiter = ',', help_heading = "What is recorded")]
    contexts: Vec<ContextField>,
    /// Record at most so many of an event a second on each CPU, like 'sched:*=10000/s'; what is over is counted as suppressed.
    #[arg(long = "limit", value_name = "EVENT=RATE/s", help_heading = "What is recorded")]
    limits: Vec<String>,
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
    /// Also events of the processes that those of --pid start later; without --pid, of COMMAND and what it starts, alone.
    #[arg(long, help_heading = "Whose events")]
    follow: bool,
    /// Only events on these CPUs, like 0-3,8.
    #[arg(long = "cpu", value_name = "LIST", help_heading = "Whose events")]
    cpus: Option<String>,
    /// Trace directory to make [default: relayd-YYYYmmdd-HHMMSS].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace a trace that is in DIR.
    #[arg(long)]
    force: bool,
    /// Bytes of a sub-buffer, like 64K or 1M: a power of two from 4K to 16M, else rounded up.
    #[arg(short = 'b', long, value_name = "SIZE", default_value = "256K", value_parser = super::parse_size)]
    subbuf_size: u64,
    /// Sub-buffers per CPU: a power of two, else rounded up.
    #[arg(short, long, value_name = "N", default_value_t = 8)]
    n_subbufs: u64,
    /// Overwrite the oldest when the buffers are full, instead of losing the newest; write them out at the end, and at
    /// every SIGUSR1 as a snapshot beside DIR (DIR-snapshot-1, …) while recording goes on.
    #[arg(long)]
    overwrite: bool,
    /// Have the kernel count the programs' runs, to check the account against (costs some time per event).
    #[arg(long)]
    bpf_stats: bool,
    /// Stop after this long, like 500ms, 5s or 2m (a number alone is seconds), and end the COMMAND if there is one [default: at Ctrl-C].
    #[arg(short, long, value_name = "TIME", value_parser = super::parse_duration)]
    duration: Option<Duration>,
    /// Record relayd's own events too; otherwise they are left out and counted as filtered.
    #[arg(long = "self")]
    record_self: bool,
    /// Print the summary as one JSON document (a COMMAND's output then goes to stderr).
    #[arg(long)]
    json: bool,
    /// Print no status line and no summary.
    #[arg(short, long)]
    quiet: bool,
    /// Record, on the whole system, while this command runs; its exit status becomes relayd's, unless -d ends it.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
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

impl Arguments {
    /// Bits of `relay_common::recipe::context`.
    fn context(&self) -> u32 {
        let bit = |field: &ContextField| match field {
            ContextField::Comm => context::COMM,
            ContextField::Cgroup => context::CGROUP,
            ContextField::Uid => context::UID,
            ContextField::Kstack => context::KSTACK,
            ContextField::Ustack => context::USTACK,
        };
        self.contexts.iter().map(bit).fold(0, |all, bit| all | bit)
    }

    fn choice(&self) -> Result<Choice> {
        if self.follow && self.pids.is_empty() && self.command.is_empty() {
            bail!("--follow needs --pid, or a COMMAND whose processes are followed");
        }
        let cpus = self.cpus.as_deref().map_or(Ok(Vec::new()), parse_cpus).context("--cpu")?;
        let possible = machine::possible_cpus()?;
        if let Some(cpu) = cpus.iter().find(|cpu| !possible.contains(cpu)) {
            bail!("--cpu: there is no CPU {cpu} here; the last is {}", possible.last().unwrap_or(&0));
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
            follow: self.follow,
            own_children: self.follow && !self.command.is_empty(),
        })
    }
}

/// Why recording stopped.
enum Stop {
    /// SIGINT, SIGTERM, SIGHUP, or the time is over.
    Asked,
    /// The command has ended.
    Ended(ExitStatus),
    /// A reader could not go on.
    Failed,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(trace(arguments))
}

async fn trace(arguments: Arguments) -> Result<ExitCode> {
    let geometry = geometry(&arguments)?;
    if let Some(program) = arguments.command.first()
        && which::which(program).is_err()
    {
        bail!("the command '{program}' cannot be run: it is not there, or may not be executed");
    }
    let selection = Selection::find(&arguments.events, arguments.latency, &arguments.limits, arguments.context())?;
    let options = Options {
        events: selection.events,
        patterns: selection.patterns,
        choice: arguments.choice()?,
        context: arguments.context(),
        output: arguments.output.clone().unwrap_or_else(default_output),
        force: arguments.force,
        geometry,
        mode: if arguments.overwrite { Mode::Overwrite } else { Mode::NoOverwrite },
        bpf_stats: arguments.bpf_stats,
        record_self: arguments.record_self,
        command: std::env::args().collect(),
    };
    // From here on a signal ends the recording in order, and a second one changes nothing.
    let mut signals = Signals::listen()?;
    let (mut recording, notices) = Recording::start(options)?;
    if let Some(notices) = notices {
        tokio::spawn(show_notices(notices));
    }
    let (mut child, not_started) = match start_command(&arguments) {
        Ok(child) => (child, None),
        Err(error) => (None, Some(error)),
    };
    let status = status_line(&arguments, &recording, child.is_some());
    let stop = match not_started {
        // It ends in order all the same.
        Some(_) => Stop::Asked,
        None => wait(&arguments, &mut recording, &mut child, &mut signals, &status).await?,
    };
    status.set_message(format!("stopping: draining, then detaching from {} events", recording.events()));
    status.tick();
    if let (Some(child), false) = (&child, matches!(stop, Stop::Ended(_))) {
        stop_command(child);
    }
    let path = recording.path().to_path_buf();
    let session = recording.finish()?;
    status.finish_and_clear();
    summary::print(&path, &session, arguments.json, arguments.quiet)?;
    if let Some(error) = not_started {
        return Err(error);
    }
    if let Some(error) = &session.error {
        bail!("{error}; what was written until then is valid, and the account is in {}", path.display());
    }
    Ok(match stop {
        Stop::Ended(status) => exit_code(status),
        Stop::Asked => ExitCode::SUCCESS,
        Stop::Failed => ExitCode::FAILURE,
    })
}

/// What relayd is told by signals.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal is gone; unless that was to be ignored, as `nohup` has it.
    hangup: Option<Signal>,
    user: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("listening for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
            hangup: if ignores_hangup() {
                None
            } else {
                Some(signal(SignalKind::hangup()).context("listening for SIGHUP")?)
            },
            user: signal(SignalKind::user_defined1()).context("listening for SIGUSR1")?,
        })
    }
}

fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|ignored| ignored & 1 != 0)
}

/// At SIGUSR1. That it cannot be taken is no reason to stop recording.
fn snapshot(recording: &mut Recording) {
    match recording.snapshot() {
        Ok((path, session)) => {
            let total = |count: fn(&Cpu) -> u64| session.cpus.iter().map(count).sum::<u64>();
            let records = total(|cpu| cpu.recorded - cpu.overrun);
            eprintln!("relayd: snapshot of {records} records in {}", path.display());
        }
        Err(error) => log::error!("no snapshot: {error:#}"),
    }
}

async fn wait(
    arguments: &Arguments,
    recording: &mut Recording,
    child: &mut Option<Child>,
    signals: &mut Signals,
    status: &ProgressBar,
) -> Result<Stop> {
    let start = Instant::now();
    let mut tick = interval(STATUS_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let time_is_over = async {
        match arguments.duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(time_is_over);
    loop {
        let command_ends = async {
            match child {
                Some(child) => child.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = signals.interrupt.recv() => return Ok(Stop::Asked),
            _ = signals.terminate.recv() => return Ok(Stop::Asked),
            () = hung_up(&mut signals.hangup) => return Ok(Stop::Asked),
            _ = signals.user.recv() => status.suspend(|| snapshot(recording)),
            () = &mut time_is_over => return Ok(Stop::Asked),
            ended = command_ends => return Ok(Stop::Ended(ended.context("waiting for the command")?)),
            () = recording.failed() => return Ok(Stop::Failed),
            _ = tick.tick() => {
                recording.poll();
                if !status.is_hidden() {
                    status.set_message(summary::status(start.elapsed(), &recording.progress()));
                }
            }
        }
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// Geometry as asked for, rounded up to powers of two.
fn geometry(arguments: &Arguments) -> Result<Geometry> {
    let round = |name: &str, value: u64, least: u64, most: u64| {
        if value == 0 || value > most {
            bail!("{name} must be from 1 to {most}, not {value}");
        }
        let rounded = value.max(least).next_power_of_two();
        if rounded != value {
            eprintln!("relayd: {name} {value} rounded up to {rounded}");
        }
        Ok(rounded)
    };
    let subbuf_size = round("--subbuf-size", arguments.subbuf_size, MIN_SUBBUF_SIZE, MAX_SUBBUF_SIZE)?;
    let n_subbufs = round("--n-subbufs", arguments.n_subbufs, 1, MAX_BUFFER_SIZE)?;
    Geometry::new(subbuf_size, n_subbufs).context("--subbuf-size times --n-subbufs")
}

fn default_output() -> PathBuf {
    jiff::Zoned::now().strftime("relayd-%Y%m%d-%H%M%S").to_string().into()
}

async fn show_notices(mut notices: Notices) {
    while let Ok(mut ready) = notices.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

fn start_command(arguments: &Arguments) -> Result<Option<Child>> {
    let Some((program, rest)) = arguments.command.split_first() else { return Ok(None) };
    let mut command = Command::new(program);
    command.args(rest);
    if arguments.json {
        command.stdout(Stdio::from(std::io::stderr()));
    }
    Ok(Some(command.spawn().with_context(|| format!("running the command '{program}'"))?))
}

/// Recording ends before the command did: that ends too.
fn stop_command(child: &Child) {
    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
    {
        log::warn!("ending the command: {error}");
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn status_line(arguments: &Arguments, recording: &Recording, has_command: bool) -> ProgressBar {
    if arguments.quiet {
        return ProgressBar::hidden();
    }
    let until = if has_command { "the command ends" } else { "Ctrl-C" };
    let until = arguments.duration.map_or(until.to_owned(), |time| humantime::format_duration(time).to_string());
    log::info!("recording {} events into {} until {until}", recording.events(), recording.path().display());
    // Draws on stderr, and only on a terminal.
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    bar
}
