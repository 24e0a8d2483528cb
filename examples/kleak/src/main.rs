//! kleak: kernel allocations that were never freed, by call site.
//!
//! A client of the relay channel that knows nothing of relayd's tracer. `kleak record` writes what the eBPF programs say to
//! `cpuN` files (`record_all.rs`); `kleak report` pairs allocations with their ends and lists what is left (`report.rs`).

mod record;
mod record_all;
mod report;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use clap::Parser;

/// Kernel allocations that were never freed, by call site.
#[derive(Debug, Parser)]
#[command(arg_required_else_help = true)]
enum Command {
    /// Record every slab allocation into a directory, as root, until the time is over or Ctrl-C.
    Record {
        /// Directory for cpu0…cpuN; it is made if it is not there.
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        /// Stop after this long, like 500ms or 5s [default: at Ctrl-C].
        #[arg(short, long, value_name = "TIME", value_parser = humantime::parse_duration)]
        duration: Option<Duration>,
    },
    /// List what was allocated and never freed, most bytes first.
    Report {
        /// What `kleak record` wrote.
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Record { output, duration } => record_all::run(&output, duration),
        Command::Report { directory } => show(&directory),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kleak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn show(directory: &Path) -> Result<()> {
    let text = report::read(directory)?.text(&report::Symbols::of_this_kernel()?);
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
