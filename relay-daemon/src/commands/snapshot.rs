//! `relayd snapshot`, `wait` and `stop`: what a flight recorder holds becomes a trace.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use relay_channel::pins::OpenError;
use relay_daemon::{
    record::snapshot,
    session::{self, PinnedSession},
};
use relay_trace::{
    form::session::{CpuAccount, SessionFile},
    similar::did_you_mean,
};

use super::signals::leave_nothing_behind;

/// How often to ask whether a record has stopped a session.
const POLL: Duration = Duration::from_millis(50);

/// Write what a flight recorder holds as a trace directory, cut at one instant on all CPUs. It goes on recording.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  relayd snapshot flight
  relayd snapshot flight -o /tmp/now && relayd stat /tmp/now")]
pub(crate) struct Arguments {
    /// The session's name.
    #[arg(value_name = "NAME")]
    name: String,
    /// Trace directory to make [default: NAME-YYYYmmdd-HHMMSS].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Let this group read the trace (mode 0640); others cannot [default: the session's].
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
}

/// Wait until a record stops a flight recorder (relayd start --until), then write what led to it as a trace directory.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit status: 0 when there is a snapshot; 1 when the time was over before, or the session was stopped.

Examples:
  relayd wait slow -o /tmp/slow
  relayd wait slow --timeout 1h --rearm      and record on, until the next")]
pub(crate) struct WaitArguments {
    #[command(flatten)]
    snapshot: Arguments,
    /// Wait at most so long, like 90s or 2h; a number alone is seconds [default: for ever].
    #[arg(long, value_name = "TIME", value_parser = super::parse_duration)]
    timeout: Option<Duration>,
    /// Afterwards go on recording, until the next such record.
    #[arg(long)]
    rearm: bool,
}

/// Stop a flight recorder and give its memory back; what it holds is gone, unless a snapshot is asked for.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Removes what an older relayd, or one that was killed, has left under that name too.

Examples:
  relayd stop flight
  relayd stop flight --snapshot -o /tmp/last")]
pub(crate) struct StopArguments {
    /// The session's name.
    #[arg(value_name = "NAME")]
    name: String,
    /// First write what it holds as a trace directory.
    #[arg(long)]
    snapshot: bool,
    /// Trace directory to make [default: NAME-YYYYmmdd-HHMMSS].
    #[arg(short, long, value_name = "DIR", requires = "snapshot")]
    output: Option<PathBuf>,
    /// Let this group read the trace (mode 0640); others cannot [default: the session's].
    #[arg(long, value_name = "GROUP", requires = "snapshot")]
    group: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let pinned = open(&arguments.name)?;
    super::share_with(arguments.group.as_deref(), Some(&pinned))?;
    take(&pinned, &arguments.name, arguments.output.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn wait(arguments: &WaitArguments) -> Result<ExitCode> {
    let Arguments { name, output, group } = &arguments.snapshot;
    let looking = PinnedSession::look(name).map_err(|error| explain(name, error))?;
    if !looking.is_armed() {
        bail!("nothing stops {name}: start it with --until EVENT; relayd snapshot {name} needs no event");
    }
    let start = Instant::now();
    let (mut pinned, fired) = loop {
        if let Some(fired) = looking.fired()? {
            // It may go on for a while after the record.
            let left = fired.end.saturating_sub(relay_trace::form::clock::Instant::now().monotonic);
            thread::sleep(Duration::from_nanos(left));
            match PinnedSession::open(name) {
                // Another may have taken it meanwhile, and have it go on.
                Ok(pinned) if pinned.fired()? == Some(fired) => break (pinned, fired),
                // Or is at it.
                Ok(_) | Err(OpenError::Locked(_)) => {}
                Err(error) => return Err(explain(name, error)),
            }
        }
        if !looking.is_there() {
            bail!("{name} was stopped");
        }
        if arguments.timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            bail!("no record has stopped {name}: the time is over, and it records on");
        }
        thread::sleep(POLL);
    };
    super::share_with(group.as_deref(), Some(&pinned))?;
    say!("relayd: {name} was stopped by {} on cpu {}", pinned.event_name(fired.event), fired.cpu);
    take(&pinned, name, output.as_deref())?;
    if arguments.rearm {
        pinned.rearm()?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn stop(arguments: &StopArguments) -> Result<ExitCode> {
    let name = &arguments.name;
    let mut pinned = match PinnedSession::open(name) {
        Ok(pinned) => pinned,
        Err(OpenError::Other(error)) if !arguments.snapshot => {
            session::remove(name).map_err(|error| explain(name, error))?;
            say!("relayd: removed what was left of {name} ({error:#})");
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(explain(name, error)),
    };
    if arguments.snapshot {
        super::share_with(arguments.group.as_deref(), Some(&pinned))?;
        pinned.stop()?;
        if let Err(error) = take(&pinned, name, arguments.output.as_deref()) {
            pinned.start()?;
            return Err(error.context(format!("{name} was not stopped")));
        }
    }
    pinned.detach()?;
    pinned.close()?;
    Ok(ExitCode::SUCCESS)
}

/// Opens a session to work with it.
pub(crate) fn open(name: &str) -> Result<PinnedSession> {
    PinnedSession::open(name).map_err(|error| explain(name, error))
}

/// What to say of a session that cannot be opened.
pub(crate) fn explain(name: &str, error: OpenError) -> anyhow::Error {
    match error {
        OpenError::Missing(_) => {
            let names = session::names().unwrap_or_default();
            let near = did_you_mean(name, names.iter().map(String::as_str));
            let there = if names.is_empty() {
                "there is none; relayd start begins one".to_owned()
            } else {
                format!("there are: {}", names.join(", "))
            };
            anyhow::anyhow!("there is no session {name}{near}; {there}")
        }
        OpenError::Locked(_) => anyhow::anyhow!(
            "another relayd is at work on {name}: it takes a snapshot or changes its events; try again when it has ended"
        ),
        OpenError::Other(error) => error,
    }
}

fn take(pinned: &PinnedSession, name: &str, output: Option<&Path>) -> Result<SessionFile> {
    let output = output.map_or_else(|| default_output(name), Path::to_path_buf);
    leave_nothing_behind()?;
    let session = snapshot::write(pinned, &output).with_context(|| format!("taking a snapshot of {name}"))?;
    let total = |count: fn(&CpuAccount) -> u64| session.cpus.iter().map(count).sum::<u64>();
    say!(
        "relayd: snapshot of {} records in {}; {} overrun before, {} lost",
        total(CpuAccount::in_file),
        output.display(),
        total(|cpu| cpu.overrun),
        total(CpuAccount::lost)
    );
    Ok(session)
}

fn default_output(name: &str) -> PathBuf {
    format!("{name}-{}", jiff::Zoned::now().strftime("%Y%m%d-%H%M%S")).into()
}
