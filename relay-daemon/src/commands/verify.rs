//! `relayd verify`: does everything in a trace add up?

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Args;
use relay_trace::{
    read::{trace::Trace, verify},
    show::escape::escaped,
};

use super::reading::{progress_bar, with_bar};

/// Verify a trace: every byte of every file, and the account.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Checked are: that packets follow each other without a gap, that no time falls, that every record lies within its packet and is as long as its
fields say, and that records, bytes, packets and losses are as many as the account says.

Exit status: 0 when everything adds up, else 1; each thing that does not is named with its file and place.

Example:
  relayd verify relayd-20260102-030405")]
pub(crate) struct Arguments {
    /// A directory that relayd trace has made, or a piece that it has compressed (.tar.zst).
    #[arg(value_name = "DIR")]
    trace: PathBuf,
    /// Print nothing but what does not add up.
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let trace = with_bar(arguments.quiet, |progress| Trace::open(&arguments.trace, progress))?;
    let bar = progress_bar(&[&trace], arguments.quiet)?;
    let report = verify::verify(&trace, |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    for finding in &report.findings {
        say!("relayd: {}", escaped(finding));
    }
    let total = |of: fn(&verify::Walked) -> u64| report.cpus.values().map(of).sum::<u64>();
    let (records, packets, bytes) = (total(|cpu| cpu.records), total(|cpu| cpu.packets), total(|cpu| cpu.bytes));
    let path = trace.path.display();
    if !arguments.quiet {
        let lost = trace.session.cpus.iter().flat_map(|cpu| [cpu.lost(), cpu.overrun]).fold(0, u64::saturating_add);
        let verdict =
            if report.is_sound() { "all adds up".to_owned() } else { format!("{} findings", report.findings.len()) };
        let told = writeln!(
            io::stdout(),
            "{path}: {records} records in {packets} packets, {bytes} bytes in {} files, {lost} lost or overrun: {verdict}",
            report.cpus.len()
        );
        match told {
            // A reader that has gone makes no trace sound.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.context("writing the result")?,
        }
    }
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
