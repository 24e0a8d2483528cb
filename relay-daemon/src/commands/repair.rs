//! `relayd repair`: a sound trace from a damaged one.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Args;
use relay_trace::read::{repair, trace::Trace};

use super::{
    reading::{Damages, check_place, progress_bar, with_bar},
    signals::leave_nothing_behind,
};

/// Save every whole record of a damaged trace into a new one.
#[derive(Debug, Args)]
#[command(after_long_help = "\
For traces that a recorder which was killed, a full disk or a bad one has left. The damaged trace is not changed. The account of the new one has
what is missing as `unwritten`; if there was no account, it is made from what is in the files.

Example:
  relayd repair /mnt/trace /tmp/repaired && relayd verify /tmp/repaired")]
pub(crate) struct Arguments {
    /// The directory of the damaged trace, or a piece that was compressed (.tar.zst).
    #[arg(value_name = "DIR")]
    trace: PathBuf,
    /// The directory to make.
    #[arg(value_name = "OUT")]
    output: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    leave_nothing_behind()?;
    let trace = with_bar(false, |progress| Trace::open(&arguments.trace, progress))?;
    check_place(&arguments.output, &trace)?;
    let bar = progress_bar(&[&trace], false)?;
    let saved = repair::repair(&trace, &arguments.output, |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    // They are named; what could be saved was.
    let mut damages = Damages::of(std::slice::from_ref(&trace));
    damages.add(saved.damages);
    damages.finish();
    writeln!(
        io::stdout(),
        "{}: {} records saved, {} bytes could not be read",
        arguments.output.display(),
        saved.records,
        saved.left_out
    )
    .context("writing the result")?;
    Ok(ExitCode::SUCCESS)
}
