//! `relayd report`: a trace as a page.

use std::{io::BufWriter, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use relay_trace::{
    form::new::NewFile,
    report::{PageSpec, Reported, write},
};

use super::{
    misuse, parse_size,
    reading::{Chosen, Damages, check_place, progress_bar},
    signals::leave_nothing_behind,
    spans,
};

/// Spans that tell most of scheduling, where it was recorded.
const OF_SCHEDULING: [&str; 2] = ["runq", "offcpu"];

/// Make one page of a trace that any browser shows, without a network.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The page has the facts of the trace and its account, a timeline with a lane for each CPU and for the busiest threads, losses where they are, how long
things lasted, and stacks as a flame graph. Where not every record has room, it keeps those around losses and the longest spans one by one, and of the rest sums;
how many is said. Press ? in it for the keys.

Exit status: 0; 1 when something in the files could not be read (what could is shown, the rest is named).

Examples:
  relayd report relayd-20260102-030405 -o report.html
  relayd report DIR --since 1.5s --until 2s -o stall.html
  relayd report DIR --span 'block:block_rq_issue -> block:block_rq_complete by dev,sector' -o disk.html")]
pub(crate) struct Arguments {
    #[command(flatten)]
    chosen: Chosen,
    /// Show how long these spans lasted: 'START -> END by FIELDS', or a known one like block (relayd stat --help); repeat it for several [default: runq and offcpu, where they were recorded].
    #[arg(long = "span", value_name = "SPAN")]
    spans: Vec<String>,
    /// The file to make.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// How large it may be, about.
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "8M")]
    max_size: u64,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    leave_nothing_behind()?;
    let traces = arguments.chosen.open()?;
    let [trace] = &traces[..] else { return Err(misuse(anyhow!("a report is of one trace"))) };
    check_place(&arguments.output, trace)?;
    let filter = arguments.chosen.filter(&traces)?;
    let of_scheduling = || OF_SCHEDULING.map(str::to_owned).to_vec();
    let has = |name: &str| trace.schema.events().any(|event| event.name == name);
    let wanted = match &arguments.spans[..] {
        [] if has("sched:sched_switch") && has("sched:sched_wakeup") => of_scheduling(),
        texts => texts.to_vec(),
    };
    let spans = match &wanted[..] {
        [] => None,
        texts => Some(relay_trace::answers::span::Spans::new(&traces, spans::definitions(texts)?, Vec::new())?),
    };
    let slicer = || arguments.chosen.slicer(&traces, false);
    let bar = progress_bar(&[trace], false)?;
    let mut file = NewFile::create(&arguments.output, arguments.force)?;
    let request = PageSpec {
        traces: &traces,
        slicer: &slicer,
        window: arguments.chosen.window(&traces, None)?,
        filter: &filter,
        is_whole: arguments.chosen.is_everything(),
        spans: spans.as_ref(),
        size: usize::try_from(arguments.max_size)?,
        progress: &mut |bytes| bar.set_position(bytes),
    };
    let Reported { damages: found, spans, records, kept } = {
        let mut output = BufWriter::new(&mut file);
        let done = write(request, &mut output);
        let done = done.and_then(|done| std::io::Write::flush(&mut output).map(|()| done).map_err(Into::into));
        done.with_context(|| format!("writing {}", arguments.output.display()))?
    };
    file.put()?;
    bar.finish_and_clear();
    let mut damages = Damages::of(&traces);
    damages.add(found);
    spans.iter().for_each(|(name, account)| say!("relayd: {}", spans::said(name, account)));
    if kept < records {
        say!(
            "relayd: {kept} of {records} records are in the page one by one, the others in sums; --max-size makes it larger, --since and --until choose a time"
        );
    }
    arguments.chosen.compare_with_account(&traces, &mut damages);
    Ok(damages.finish())
}
