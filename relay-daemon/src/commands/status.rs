//! `relayd status`: the flight recorders that there are.

use std::{io::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use relay_channel::pins::OpenError;
use relay_daemon::session::{self, Orphan, PinnedSession, status::Status};
use relay_trace::show::escape::escaped;

use super::snapshot::explain;

/// Show the flight recorders: what they record, how much, and how far back their buffers reach.
#[derive(Debug, Args)]
#[command(after_long_help = "\
`holds` is the time before now of which every CPU's buffer has all records. Traces whose recorder was killed are shown too, with the command
that completes them.

Examples:
  relayd status
  relayd status flight --json | jq .sessions[0].span")]
pub(crate) struct Arguments {
    /// Only this session.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    session::sweep();
    let mut sessions = Vec::new();
    let names = match &arguments.name {
        Some(name) => vec![name.clone()],
        None => session::names()?,
    };
    for name in &names {
        match PinnedSession::look(name) {
            Ok(pinned) => sessions.push(Status::of(name, &pinned)?),
            // It has ended since it was listed.
            Err(OpenError::Missing(_)) if arguments.name.is_none() => {}
            Err(error) if arguments.name.is_none() => say!("relayd: {:#}", explain(name, error)),
            Err(error) => return Err(explain(name, error)),
        }
    }
    let orphans = if arguments.name.is_none() { session::orphans()? } else { Vec::new() };
    let mut out = std::io::stdout().lock();
    let text = if arguments.json {
        serde_json::to_string_pretty(&serde_json::json!({ "sessions": sessions, "killed": orphans }))? + "\n"
    } else {
        let mut text: String = sessions.iter().map(line).collect();
        for Orphan { name, trace } in &orphans {
            let trace = trace.display();
            text += &format!(
                "{trace}: its recorder was killed, and its events are still recorded\n  \
                 complete it: relayd recover {trace}\n  go on: relayd trace --resume -o {trace}\n  \
                 forget what is not in its files: relayd stop {name}\n"
            );
        }
        if text.is_empty() { "no session\n".to_owned() } else { text }
    };
    out.write_all(text.as_bytes()).context("writing the status")?;
    Ok(ExitCode::SUCCESS)
}

fn line(status: &Status) -> String {
    let Status { name, events, age, span, recorded, rate, overrun, lost, memory, stopped_by, armed, pairs, cpus } =
        status;
    let time = |seconds: f64| {
        // From a second on whole tenths of it are enough.
        let unit: u64 = if seconds < 1.0 { 1_000 } else { 100_000_000 };
        let nanoseconds = u64::try_from(Duration::from_secs_f64(seconds.max(0.0)).as_nanos()).unwrap_or(u64::MAX);
        humantime::format_duration(Duration::from_nanos(nanoseconds / unit * unit)).to_string()
    };
    let state = match (stopped_by, armed) {
        (Some(by), _) => format!("stopped by {} on cpu {}; relayd wait {name} writes it out", by.event, by.fired.cpu),
        (None, true) => "records, until its event".to_owned(),
        (None, false) => "records".to_owned(),
    };
    let pairs: String = pairs.iter().map(|(event, pairs)| format!("  {}: {pairs}\n", escaped(event))).collect();
    format!(
        "{name}: {state}\n  {} events, {} old, holds {}\n  recorded {recorded} ({rate:.0}/s), overrun {overrun}, lost {lost}\n  memory {:.1} MiB on {} CPUs\n{pairs}",
        events.len(),
        time(*age),
        time(*span),
        *memory as f64 / f64::from(1 << 20),
        cpus.len(),
    )
}
