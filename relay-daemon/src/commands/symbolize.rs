//! `relayd symbolize`: names for the addresses in a trace's text.

use std::{
    io::{self, BufRead as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Args;
use relay_trace::read::symbolize::TextSymbols;

use super::reading::with_bar;

/// Copy babeltrace2's text of a trace from standard input to standard output, with names in place of the addresses in stacks.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A frame is shown as FUNCTION+OFFSET [MODULE] in the kernel and FUNCTION+OFFSET (FILE) in a process. Names of the kernel come from the
trace itself; those of processes from the files that they ran, as long as these have the same build id.

Examples:
  babeltrace2 /tmp/trace | relayd symbolize /tmp/trace
  babeltrace2 trace | relayd symbolize trace --root /mnt/that-machine | less")]
pub(crate) struct Arguments {
    /// The trace's directory, or a piece that was compressed (.tar.zst).
    trace: PathBuf,
    /// Where the files of the machine that recorded are.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut symbols = with_bar(false, |progress| TextSymbols::open(&arguments.trace, &arguments.root, progress))?;
    let mut output = io::BufWriter::new(io::stdout().lock());
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line).context("reading the standard input")? == 0 {
            break;
        }
        output.write_all(&symbols.replace(&line))?;
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}
