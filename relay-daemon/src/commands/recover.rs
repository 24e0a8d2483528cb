//! `relayd recover`: complete a trace whose recorder was killed.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::Args;
use relay_daemon::record;
use relay_trace::form::archive::is_archive;

use super::summary;

/// Complete a trace whose recorder was killed, by what the kernel side still holds.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The kernel side has gone on recording since, as long as its buffers had room; what came then is counted as lost. Nothing is written twice.
To go on recording instead: relayd trace --resume -o DIR. When the machine was booted since, nothing is left: relayd repair.

Example:
  relayd recover relayd-20260102-030405")]
pub(crate) struct Arguments {
    /// The directory of the trace.
    #[arg(value_name = "DIR")]
    trace: PathBuf,
    /// Print the summary as one JSON document.
    #[arg(long)]
    json: bool,
    /// Print no summary.
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if is_archive(&arguments.trace) {
        bail!(
            "{} is a file: recovery completes the directory that a recorder was writing when it was killed; relayd repair saves what a damaged \
             piece holds",
            arguments.trace.display()
        );
    }
    let session = record::recover(&arguments.trace)?;
    summary::print(&arguments.trace, &session, arguments.json, arguments.quiet)?;
    if let Some(error) = &session.error {
        bail!("{error}; what was written until then is valid, and the account is in {}", arguments.trace.display());
    }
    Ok(ExitCode::SUCCESS)
}
