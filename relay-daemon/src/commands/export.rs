//! `relayd export`: traces in the forms that other programs open.

use std::{
    io::BufWriter,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use relay_trace::{
    export::{Exported, Job, chrome, flamegraph, folded, perfetto, speedscope},
    form::new::{NewDirectory, NewFile},
};

use super::{
    misuse,
    reading::{Chosen, Damages, check_place, progress_bar},
    signals::leave_nothing_behind,
    spans,
};

/// Write traces in the form of another program.
#[derive(Debug, Args)]
#[command(after_long_help = "\
perfetto  protobuf: ui.perfetto.dev, trace_processor; scheduling as Perfetto itself records it
json      Chrome's JSON: chrome://tracing, speedscope, and what reads only that
parquet   a directory with a file for each event: DuckDB, Spark, pandas, ClickHouse
folded    a line for each stack, and how often it was seen
flamegraph  the same as SVG, which a browser shows; a click zooms
speedscope  the same as speedscope's JSON: www.speedscope.app

Spans (--span) go along as bars with arrows between the threads of their ends, and as a file for each span. As stacks they go alone: where they began, and
how long they were; so --span offcpu is an off-CPU flame graph. --weight FIELD weighs stacks by a field. What crossed a loss of records is marked, and has no weight.

With several directories (hosts) all go into one export, brought to the first one's clock by the wall time that each has kept.

How much a form has no place for is said. Exit status: 0; 1 when something in the files could not be read (what could is exported, the rest is named).

Examples:
  relayd export DIR --to perfetto -o trace.pftrace
  relayd export DIR --to parquet -o tables && duckdb -c \"select comm, count(*) from 'tables/sched.sched_switch.parquet' group by 1\"
  relayd export DIR -e 'profile:*' --to flamegraph -o cpu.svg
  relayd export DIR --span offcpu --to flamegraph -o offcpu.svg
  relayd export DIR -e kmem:kmalloc --to folded --weight bytes_alloc -o -")]
pub(crate) struct Arguments {
    #[command(flatten)]
    chosen: Chosen,
    /// The form.
    #[arg(long, value_name = "FORM", value_enum)]
    to: Form,
    /// The time between two records too: 'START -> END by FIELDS', or a known span like runq (relayd stat --help); repeat it for several.
    #[arg(long = "span", value_name = "SPAN")]
    spans: Vec<String>,
    /// What a record's stack weighs: this field [default: 1; of spans duration_ns].
    #[arg(long, value_name = "FIELD")]
    weight: Option<String>,
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
    Flamegraph,
    Speedscope,
}

impl Form {
    fn is_of_stacks(self) -> bool {
        matches!(self, Self::Folded | Self::Flamegraph | Self::Speedscope)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    leave_nothing_behind()?;
    let traces = arguments.chosen.open()?;
    if arguments.output != Path::new("-") {
        traces.iter().try_for_each(|trace| check_place(&arguments.output, trace))?;
    }
    if arguments.weight.is_some() && !arguments.to.is_of_stacks() {
        return Err(misuse(anyhow!("--weight is of stacks: --to folded, flamegraph or speedscope")));
    }
    let filter = arguments.chosen.filter(&traces)?;
    let spans = spans::wanted(&traces, &arguments.spans)?;
    let slicer = arguments.chosen.slicer(&traces, false)?;
    let bar = progress_bar(&traces.iter().collect::<Vec<_>>(), false)?;
    let mut progress = |bytes| bar.set_position(bytes);
    let job = Job { traces: &traces, slicer, filter: &filter, spans: spans.as_ref(), progress: &mut progress };
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
    done.spans.iter().for_each(|(name, account)| say!("relayd: {}", spans::said_of_all(name, account)));
    arguments.chosen.compare_with_account(&traces, &mut damages);
    Ok(damages.finish())
}

impl Arguments {
    fn stream(&self, job: Job<'_>, mut output: impl std::io::Write) -> Result<Exported> {
        let weight = self.weight.as_deref();
        let done = match self.to {
            Form::Perfetto => perfetto::write(job, &mut output),
            Form::Json => chrome::write(job, &mut output),
            Form::Folded => folded::write(job, weight, &mut output),
            Form::Flamegraph => flamegraph::write(job, weight, &mut output),
            Form::Speedscope => speedscope::write(job, weight, &mut output),
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
