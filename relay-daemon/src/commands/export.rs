//! `relayd export`: traces in the forms that other programs open.

use std::{
    io::BufWriter,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use relay_trace::{
    export::{Exported, Job, chrome, folded, perfetto},
    form::new::{NewDirectory, NewFile},
};

use super::{
    misuse,
    reading::{Chosen, Damages, check_place, progress_bar},
    signals::leave_nothing_behind,
};

/// Write traces in the form of another program.
#[derive(Debug, Args)]
#[command(after_long_help = "\
perfetto  protobuf: ui.perfetto.dev, trace_processor; scheduling as Perfetto itself records it
json      Chrome's JSON: chrome://tracing, speedscope, and what reads only that
parquet   a directory with a file for each event: DuckDB, Spark, pandas, ClickHouse
folded    stacks and how often each was seen: inferno-flamegraph, flamegraph.pl, speedscope

With several directories (hosts) all go into one export, brought to the first one's clock by the wall time that each has kept.

How much a form has no place for is said. Exit status: 0; 1 when something in the files could not be read (what could is exported, the rest is named).

Examples:
  relayd export DIR --to perfetto -o trace.pftrace
  relayd export DIR --to parquet -o tables && duckdb -c \"select comm, count(*) from 'tables/sched.sched_switch.parquet' group by 1\"
  relayd export DIR -e 'profile:*' --to folded -o - | inferno-flamegraph > cpu.svg")]
pub(crate) struct Arguments {
    #[command(flatten)]
    chosen: Chosen,
    /// The form.
    #[arg(long, value_name = "FORM", value_enum)]
    to: Form,
    /// The file to make, or the directory for parquet; - is standard output.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace a file that is there, or a directory of Parquet files.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Perfetto,
    Json,
    Parquet,
    Folded,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    leave_nothing_behind()?;
    let traces = arguments.chosen.open()?;
    if arguments.output != Path::new("-") {
        traces.iter().try_for_each(|trace| check_place(&arguments.output, trace))?;
    }
    let choice = arguments.chosen.choice(&traces)?;
    let slicer = arguments.chosen.slicer(&traces, false)?;
    let bar = progress_bar(&traces.iter().collect::<Vec<_>>(), false)?;
    let mut progress = |bytes| bar.set_position(bytes);
    let job = Job { traces: &traces, slicer, choice: &choice, progress: &mut progress };
    let done = match arguments.to {
        Form::Parquet => arguments.make_directory(job),
        _ if arguments.output == Path::new("-") => arguments.stream(job, BufWriter::new(std::io::stdout().lock())),
        _ => arguments.make_file(job),
    }?;
    bar.finish_and_clear();
    let mut damages = Damages::of(&traces);
    damages.add(done.damages);
    for (what, count) in done.left_out.iter().filter(|(_, count)| *count > 0) {
        say!("relayd: left out: {count} {what}");
    }
    arguments.chosen.compare_with_account(&traces, &mut damages);
    Ok(damages.finish())
}

impl Arguments {
    fn stream(&self, job: Job<'_>, mut output: impl std::io::Write) -> Result<Exported> {
        let done = match self.to {
            Form::Perfetto => perfetto::write(job, &mut output),
            Form::Json => chrome::write(job, &mut output),
            Form::Folded => folded::write(job, &mut output),
            Form::Parquet => bail!("parquet needs a directory"),
        }?;
        output.flush()?;
        Ok(done)
    }

    /// What was there stays until the new file is whole.
    fn make_file(&self, job: Job<'_>) -> Result<Exported> {
        let mut file = NewFile::create(&self.output, self.force)?;
        let done = self
            .stream(job, BufWriter::new(&mut file))
            .with_context(|| format!("writing {}", self.output.display()))?;
        file.put()?;
        Ok(done)
    }

    fn make_directory(&self, job: Job<'_>) -> Result<Exported> {
        if self.output == Path::new("-") {
            return Err(misuse(anyhow!("parquet is a directory with a file for each event: give one with -o")));
        }
        let directory = NewDirectory::create(&self.output, self.force.then_some("parquet"))?;
        let done = parquet(job, directory.path())?;
        directory.put()?;
        Ok(done)
    }
}

#[cfg(feature = "parquet")]
fn parquet(job: Job<'_>, path: &Path) -> Result<Exported> {
    relay_trace::export::parquet::write(job, path)
}

#[cfg(not(feature = "parquet"))]
fn parquet(_: Job<'_>, _: &Path) -> Result<Exported> {
    bail!("this relayd was built without the feature `parquet`");
}
