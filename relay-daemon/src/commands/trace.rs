//! `relayd trace`: record until told to stop.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use relay_common::Mode;
use relay_daemon::{
    record::{
        Recording, RecordingOptions, Removed,
        rules::{Free, Rules},
    },
    session::{self, Notices},
};
use relay_trace::form::session::{CpuAccount, SessionFile};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    misuse,
    options::{BufferOptions, EventOptions, TaskOptions, event_help},
    signals::{self, Ending},
    summary,
};

/// How often to look whether a piece is to end.
const ROTATION_INTERVAL: Duration = Duration::from_millis(100);
/// Interrupts that come within this time are one.
const TOGETHER: Duration = Duration::from_millis(300);
/// How long the end may take yet when it is interrupted.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the status line changes.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// Record events of the kernel and of programs into a trace directory: cpu0…cpuN and metadata, which any CTF reader opens.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("rotates").args(["rotate_size", "rotate_time"]).multiple(true))]
#[command(after_long_help = concat!(event_help!(), "
Examples:
  relayd trace -e sched:sched_switch -d 5s
  relayd trace -e 'sched:*,irq:*' -o /tmp/boot -- make -j2
  relayd trace -e 'raw_syscalls:*' --overwrite -b 1M -n 16    (the newest 16 MiB of each CPU)
  babeltrace2 relayd-20260102-030405"))]
pub(crate) struct Arguments {
    #[command(flatten)]
    what: EventOptions,
    #[command(flatten)]
    whose: TaskOptions,
    /// Also events of the processes that those of --pid start later; without --pid, of COMMAND and what it starts, alone.
    #[arg(long, help_heading = "Whose events")]
    follow: bool,
    /// Trace directory to make [default: relayd-YYYYmmdd-HHMMSS].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace a trace that is in DIR, with its pieces.
    #[arg(long)]
    force: bool,
    /// Go on with the trace in DIR, whose recorder was killed: the same events and sizes, nothing twice, and nothing lost that the
    /// buffers had room for. In pieces only when the options for that are given again. `relayd recover DIR` completes it instead.
    #[arg(long, requires = "output", conflicts_with_all = ["events", "latency", "contexts", "limits", "pids", "tids", "uids", "names", "cgroups", "cpus",
        "follow", "force", "group", "subbuf_size", "n_subbufs", "overwrite", "bpf_stats", "record_self"])]
    resume: bool,
    #[command(flatten)]
    size: BufferOptions,
    /// Overwrite the oldest when the buffers are full, instead of losing the newest; write them out at the end, and at
    /// every SIGUSR1 as a snapshot beside DIR (DIR-snapshot-1, …) while recording goes on.
    #[arg(long)]
    overwrite: bool,
    /// When the files have so many bytes, like 100M, go on in new ones: each piece is a trace of its own, DIR-piece-000001 and so on; DIR
    /// has what is newest. Nothing is lost between pieces.
    #[arg(long, value_name = "SIZE", value_parser = super::parse_size, conflicts_with = "overwrite", help_heading = "In pieces")]
    rotate_size: Option<u64>,
    /// When so much time has passed, like 10m or 1h, go on in a new piece.
    #[arg(long, value_name = "TIME", value_parser = super::parse_duration, conflicts_with = "overwrite", help_heading = "In pieces")]
    rotate_time: Option<Duration>,
    /// Keep the newest N pieces beside DIR and remove those before them [default: all].
    #[arg(long, value_name = "N", requires = "rotates", help_heading = "In pieces")]
    keep: Option<usize>,
    /// Remove the oldest pieces when they have more bytes together, like 20G [default: never].
    #[arg(long, value_name = "SIZE", value_parser = super::parse_size, requires = "rotates", help_heading = "In pieces")]
    keep_size: Option<u64>,
    /// Remove the oldest pieces while the file system has less room than that, like 2G or 5% [default: never]. With this, --keep or --keep-size, one
    /// gives way when the disk is full, too; recording stops when there is none.
    #[arg(long, value_name = "SIZE|N%", value_parser = parse_free, requires = "rotates", help_heading = "In pieces")]
    min_free: Option<Free>,
    /// Compress each piece when it has ended, into DIR-piece-000001.tar.zst; relayd reads it as it is, and tar -xf unpacks it.
    #[arg(long, value_name = "KIND", requires = "rotates", help_heading = "In pieces")]
    compress: Option<Compression>,
    /// Let this group read what is written (mode 0640); others cannot [default: root's].
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
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

/// `2G` or `5%`.
fn parse_free(text: &str) -> Result<Free> {
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.parse().ok().filter(|percent| (1..100).contains(percent));
            Ok(Free::Percent(percent.context("a part is from 1% to 99%")?))
        }
        None => Ok(Free::Bytes(super::parse_size(text).map_err(|error| anyhow!(error))?)),
    }
}

/// How a piece is compressed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Compression {
    Zstd,
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
    super::share_with(arguments.group.as_deref(), None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(trace(arguments))
}

async fn trace(arguments: Arguments) -> Result<ExitCode> {
    // From here on a signal ends the recording in order, and a second one changes nothing.
    let mut signals = Signals::listen()?;
    let (mut recording, notices) = begin(&arguments)?;
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
        None => wait(&arguments, &mut recording, &mut child, &mut signals, &status).await.unwrap_or_else(|error| {
            log::error!("{error:#}");
            Stop::Failed
        }),
    };
    status.set_message(format!("stopping: draining, then detaching from {} events", recording.events()));
    status.enable_steady_tick(STATUS_INTERVAL);
    if let (Some(child), false) = (&child, matches!(stop, Stop::Ended(_))) {
        stop_command(child);
    }
    let path = recording.path();
    let session = match finish(recording, &path, &mut signals).await {
        Err(error) if !error.is::<Removed>() => {
            return Err(
                error.context(format!("ending the trace; `relayd recover {}` tries it once more", path.display()))
            );
        }
        finished => finished?,
    };
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

/// Ends the recording. A second Ctrl-C gives that a second, and leaves.
async fn finish(recording: Recording, path: &Path, signals: &mut Signals) -> Result<SessionFile> {
    let mut finishing = tokio::task::spawn_blocking(|| recording.finish());
    let interrupted = async {
        let begin = Instant::now();
        // The terminal's and a parent's are often sent together.
        while begin.elapsed() < TOGETHER {
            signals.ending.interrupted().await;
        }
        sleep(PATIENCE).await;
    };
    tokio::select! {
        finished = &mut finishing => finished.context("ending the trace")?,
        () = interrupted => {
            say!("relayd: interrupted while it ended the trace: `relayd recover {}` completes it", path.display());
            // Returning would wait for what is under way.
            std::process::exit(128 + rustix::process::Signal::INT.as_raw());
        }
    }
}

/// Begins a recording, or takes up one whose recorder was killed.
fn begin(arguments: &Arguments) -> Result<(Recording, Option<Notices>)> {
    if let Some(program) = arguments.command.first()
        && which::which(program).is_err()
    {
        bail!("the command '{program}' cannot be run: it is not there, or may not be executed");
    }
    if arguments.rotate_size == Some(0) || arguments.rotate_time.is_some_and(|time| time < ROTATION_INTERVAL) {
        return Err(misuse(anyhow!(
            "no piece is so small: give --rotate-size more than 0, and --rotate-time at least 100ms"
        )));
    }
    let rotation = Rules {
        size: arguments.rotate_size,
        time: arguments.rotate_time,
        keep: arguments.keep,
        keep_size: arguments.keep_size,
        min_free: arguments.min_free,
        compress: arguments.compress.is_some(),
    };
    if arguments.resume {
        let output =
            arguments.output.as_deref().context("--resume needs -o DIR: the trace to go on with").map_err(misuse)?;
        return Ok((Recording::resume(output, rotation)?, None));
    }
    let has_command = !arguments.command.is_empty();
    if arguments.follow && !arguments.whose.has_pids() && !has_command {
        return Err(misuse(anyhow!("--follow needs --pid, or a COMMAND whose processes are followed")));
    }
    let (context, geometry) = (arguments.what.context(), arguments.size.geometry().map_err(misuse)?);
    let session = session::SessionOptions {
        events: arguments.what.find()?,
        choice: arguments.whose.choice(arguments.follow, arguments.follow && has_command)?,
        context,
        geometry,
        mode: if arguments.overwrite { Mode::Overwrite } else { Mode::NoOverwrite },
        command: std::env::args().collect(),
    };
    Recording::start(RecordingOptions {
        session,
        output: arguments.output.clone().unwrap_or_else(default_output),
        force: arguments.force,
        bpf_stats: arguments.bpf_stats,
        record_self: arguments.record_self,
        rotation,
    })
}

/// What relayd is told by signals.
struct Signals {
    ending: Ending,
    user: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            ending: Ending::listen()?,
            user: signal(SignalKind::user_defined1()).context("listening for SIGUSR1")?,
        })
    }
}

/// At SIGUSR1. That it cannot be taken is not a reason to stop recording.
fn snapshot(recording: &mut Recording) {
    match recording.snapshot() {
        Ok((path, session)) => {
            let total = |count: fn(&CpuAccount) -> u64| session.cpus.iter().map(count).sum::<u64>();
            let records = total(|cpu| cpu.recorded - cpu.overrun);
            say!("relayd: snapshot of {records} records in {}", path.display());
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
    // An idle recorder is not woken for pieces that it does not make.
    let makes_pieces = arguments.rotate_size.is_some() || arguments.rotate_time.is_some();
    let mut rotation = interval(ROTATION_INTERVAL);
    rotation.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tick = interval(STATUS_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let time_is_over = signals::after(arguments.duration);
    tokio::pin!(time_is_over);
    loop {
        let command_ends = async {
            match child {
                Some(child) => child.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = signals.ending.next() => return Ok(Stop::Asked),
            _ = signals.user.recv() => status.suspend(|| snapshot(recording)),
            () = &mut time_is_over => return Ok(Stop::Asked),
            ended = command_ends => return Ok(Stop::Ended(ended.context("waiting for the command")?)),
            () = recording.failed() => return Ok(Stop::Failed),
            _ = rotation.tick(), if makes_pieces => if let Err(error) = recording.rotate() {
                log::error!("no new piece, and recording goes on: {error:#}");
            },
            _ = tick.tick() => {
                recording.poll();
                if !recording.is_intact() {
                    return Ok(Stop::Failed);
                }
                if !status.is_hidden() {
                    status.set_message(summary::status(start.elapsed(), &recording.progress()));
                }
            }
        }
    }
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
