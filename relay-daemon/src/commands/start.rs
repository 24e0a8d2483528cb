//! `relayd start`: a session that records without a process; and changing its events.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use relay_common::Mode;
use relay_daemon::{
    probe::selection,
    session::{self, Prepared, SessionOptions},
};

use super::{
    misuse,
    options::{BufferOptions, EventOptions, TaskOptions, event_help},
    snapshot::open,
};

/// Start a flight recorder: a session in the kernel that goes on recording by itself, in overwrite mode, without any process.
#[derive(Debug, Args)]
#[command(after_long_help = concat!(event_help!(), "
Examples:
  relayd start flight -e 'sched:*,irq:*' -b 1M -n 16      the newest 16 MiB of each CPU
  relayd status flight
  relayd snapshot flight -o /tmp/now && relayd print /tmp/now
  relayd start slow -e 'block:*,sched:sched_switch' --until 'kretprobe:vfs_fsync if duration_ns > 100ms' --after 50ms
  relayd wait slow -o /tmp/slow
  relayd start flight --add -e syscall:openat             one more event, from now on
  relayd start flight --remove -e 'irq:*'
  relayd stop flight"))]
pub(crate) struct Arguments {
    /// The session's name: letters, digits, - and _.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    what: EventOptions,
    /// Stop recording, in the kernel, when a record of this event is made: so that what led to it is not overwritten. Repeat it for
    /// several. `relayd wait` tells when, and takes the snapshot.
    #[arg(long, value_name = "EVENT", help_heading = "What is recorded")]
    until: Vec<String>,
    /// Go on for so long after the record that stops it, like 50ms; a number alone is seconds [default: not at all].
    #[arg(long, value_name = "TIME", requires = "until", value_parser = super::parse_duration, help_heading = "What is recorded")]
    after: Option<Duration>,
    #[command(flatten)]
    whose: TaskOptions,
    /// Also events of the processes that those of --pid start later.
    #[arg(long, help_heading = "Whose events")]
    follow: bool,
    #[command(flatten)]
    size: BufferOptions,
    /// Let this group read what is written (mode 0640); others cannot [default: root's].
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Add the events of -e to a session that is running.
    #[arg(long, conflicts_with_all = ["remove", "group", "until", "subbuf_size", "n_subbufs", "follow", "contexts", "pids", "tids", "uids", "names",
        "cgroups", "cpus"])]
    add: bool,
    /// Remove the events of -e, which are names with wildcards, from a session that is running.
    #[arg(long, conflicts_with_all = ["group", "until", "subbuf_size", "n_subbufs", "follow", "contexts", "limits", "latency", "pids", "tids",
        "uids", "names", "cgroups", "cpus"])]
    remove: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    session::check_name(&arguments.name)?;
    if arguments.add {
        add(arguments)?;
    } else if arguments.remove {
        remove(arguments)?;
    } else {
        start(arguments)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn start(arguments: &Arguments) -> Result<()> {
    let Arguments { name, what, whose, .. } = arguments;
    super::share_with(arguments.group.as_deref(), None)?;
    if arguments.follow && !whose.has_pids() {
        return Err(misuse(anyhow!("--follow needs --pid")));
    }
    let (context, geometry) = (what.context(), arguments.size.geometry().map_err(misuse)?);
    let mut events = what.find()?;
    if !arguments.until.is_empty() {
        // Only pairs know how long they took.
        let latency = what.latency || arguments.until.iter().any(|event| event.contains("duration_ns"));
        let until = selection::select(&arguments.until, latency, &[]).context("--until")?;
        selection::end_at(&mut events, until);
    }
    let options = SessionOptions {
        events,
        choice: whose.choice(arguments.follow, false)?,
        context,
        geometry,
        mode: Mode::Overwrite,
        command: std::env::args().collect(),
    };
    let after = arguments.after.unwrap_or_default();
    let after = u64::try_from(after.as_nanos()).context("--after")?;
    let (prepared, _notices) = Prepared::load(Some(name), options)?;
    let pinned = prepared.attach(after, None)?;
    pinned.start()?;
    pinned.keep();
    let cpus = pinned.channel.buffers().len();
    say!(
        "relayd: {name} records {} events, the newest {} MiB on each of {cpus} CPUs",
        pinned.description.session.events.len(),
        geometry.buffer_size() as f64 / f64::from(1 << 20),
    );
    Ok(())
}

fn add(arguments: &Arguments) -> Result<()> {
    let name = &arguments.name;
    let mut pinned = open(name)?;
    super::share_with(None, Some(&pinned))?;
    let events = arguments.what.find()?;
    let known = &pinned.description.session.events;
    if let Some(event) =
        events.iter().find(|event| known.iter().any(|other| other.name == event.name && other.is_recorded()))
    {
        bail!("{name} records {} already", event.name);
    }
    let added = pinned.add(events)?;
    say!("relayd: {name} records {added} more events");
    Ok(())
}

fn remove(arguments: &Arguments) -> Result<()> {
    let name = &arguments.name;
    let mut pinned = open(name)?;
    super::share_with(None, Some(&pinned))?;
    let mut ids = Vec::new();
    for pattern in arguments.what.events.iter().flat_map(|list| list.split(',')).map(str::trim) {
        let glob = glob::Pattern::new(pattern).with_context(|| format!("the event pattern '{pattern}'"))?;
        let events = pinned.description.session.events.iter().filter(|event| event.is_recorded());
        let matching: Vec<u16> = events.filter(|event| glob.matches(&event.name)).map(|event| event.id).collect();
        if matching.is_empty() {
            bail!("{name} records no event '{pattern}'; relayd status {name} --json names those that it records");
        }
        ids.extend(matching);
    }
    ids.sort_unstable();
    ids.dedup();
    pinned.remove(&ids).with_context(|| format!("removing events from {name}"))?;
    say!("relayd: {name} records {} fewer events", ids.len());
    Ok(())
}
