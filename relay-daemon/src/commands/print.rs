//! `relayd print`: the records of traces in the order of time.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use relay_channel::consumer::SETTLED;
use relay_daemon::host;
use relay_trace::{
    answers::span::{Extractor, Fold, SliceEnds, Span, Spans},
    form::{archive::is_archive, clock::Instant},
    read::{
        filter::Filter,
        names::Names,
        pipeline,
        schema::EventClass,
        slices::{Item, Slice, Slicer},
        trace::Trace,
    },
    show::{
        csv::{Columns, CsvWriter},
        json::JsonWriter,
        text::{Style, TextWriter, TimeForm},
        time::{WallClock, zone},
    },
};

use super::{
    reading::{Chosen, Damages},
    spans,
};

/// How often the files of a trace that is being recorded are looked at.
const POLL: Duration = Duration::from_millis(100);

/// Print traces: the records of all CPUs in the order of time, a line each.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A line is COMM-TID [CPU] SECONDS: EVENT: FIELD=VALUE …, as in ftrace; numbers that the kernel has words for are shown by them. Where
records were lost there is a line that says so. With --span there is a line for each span, where it ends: of the thread that it is about, with
duration_ns, start_cpu, crossed (1: records were lost meanwhile, so it may be two), and the fields of both ends. With several directories the traces are merged; those of other machines or
boots by the wall clock.

Exit status: 0; 1 when something in the files could not be read (what could is printed, the rest is named).

Examples:
  relayd print relayd-20260102-030405 | less
  relayd print DIR -e 'sched:sched_switch if prev_comm == \"make\"' --since 1.5s --until 2s
  relayd print DIR --json | jq -c 'select(.fields.ret < 0)'
  relayd print DIR --fields pid,comm --csv > wakeups.csv
  relayd print DIR --span offcpu --json
  relayd print DIR --span 'block:block_rq_issue -> block:block_rq_complete by dev,sector' -e 'syscall:fsync'
  relayd print -f DIR                           (while it is being recorded)")]
pub(crate) struct Arguments {
    #[command(flatten)]
    chosen: Chosen,
    /// Show the time between two records: 'START -> END by FIELDS', or a known span like runq (relayd stat --help); records only with -e. Repeat it for several.
    #[arg(long = "span", value_name = "SPAN")]
    spans: Vec<String>,
    /// Show only these fields, separated by commas [default: all].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    fields: Vec<String>,
    /// How times are shown.
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Times::Monotonic)]
    time: Times,
    /// Print a JSON object a line.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values, with a line of names first; losses and stacks are left out.
    #[arg(long)]
    csv: bool,
    /// Go on with what is being recorded until recording ends, through all pieces that follow.
    #[arg(short, long)]
    follow: bool,
    /// Use colours.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    color: When,
}

/// How times are shown.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Times {
    /// Seconds of CLOCK_MONOTONIC, as in the files
    Monotonic,
    /// Seconds since recording began
    Relative,
    /// The time of the wall clock and its zone ($TZ), as ISO 8601 has it
    Wall,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

/// Makes lines of one form.
enum Writer<'t> {
    Text(TextWriter<'t>),
    Json(JsonWriter<'t>),
    Csv(CsvWriter<'t>),
}

impl Writer<'_> {
    fn write(&mut self, item: &Item<'_>, names: &Names, text: &mut Vec<u8>) {
        match self {
            Self::Text(writer) => writer.write(item, names, text),
            Self::Json(writer) => writer.write(item, names, text),
            Self::Csv(writer) => writer.write(item, names, text),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.follow
        && let Some(path) = arguments.chosen.traces.iter().find(|path| is_archive(path))
    {
        bail!("--follow: {} is a file, to which nothing is added: print it without -f", path.display());
    }
    let traces = arguments.chosen.open()?;
    if arguments.follow && (traces.len() > 1 || traces[0].session.boot_id != host::boot_id().unwrap_or_default()) {
        bail!("--follow is for one trace, which this machine is recording");
    }
    let filter = arguments.chosen.filter(&traces)?;
    let spans = spans::wanted(&traces, &arguments.spans)?;
    let shown = Shown::new(arguments, &traces, &filter, spans.as_ref())?;
    let mut damages = Damages::of(&traces);
    if let Some(columns) = &shown.columns {
        io::stdout().write_all(&columns.header()?)?;
    }
    let slicer = arguments.chosen.slicer(&traces, arguments.follow)?;
    let next = pace(slicer, &traces, &arguments.chosen, arguments.follow);
    shown.run(next, &mut damages)?;
    if arguments.csv {
        say_left_out(&traces, shown.losses.into_inner());
    }
    // What was followed has ended meanwhile.
    let traces = if arguments.follow { arguments.chosen.open()? } else { traces };
    arguments.chosen.compare_with_account(&traces, &mut damages);
    Ok(damages.finish())
}

/// What is shown, and how.
struct Shown<'t> {
    traces: &'t [Trace],
    filter: &'t Filter,
    spans: Option<&'t Spans<'t>>,
    /// Records are not shown, only spans.
    spans_alone: bool,
    style: Style,
    columns: Option<Columns>,
    json: bool,
    /// Places where records were lost.
    losses: AtomicU64,
    /// Texts that can be written over: to ask the system for memory each time would cost a fault for every page.
    written: Mutex<Vec<Vec<u8>>>,
}

impl<'t> Shown<'t> {
    fn new(
        arguments: &Arguments,
        traces: &'t [Trace],
        filter: &'t Filter,
        spans: Option<&'t Spans<'t>>,
    ) -> Result<Self> {
        let spans_alone = spans.is_some() && !arguments.chosen.has_events();
        let records = filter.events_of(traces).filter(|_| !spans_alone);
        let events: Vec<&EventClass> =
            records.chain(spans.into_iter().flat_map(|spans| spans.events().map(|(_, event)| event))).collect();
        let style = arguments.style(traces, &events)?;
        let columns = arguments.csv.then(|| Columns::new(events.into_iter(), &style, traces.len() > 1));
        let (losses, written) = Default::default();
        Ok(Self { traces, filter, spans, spans_alone, style, columns, json: arguments.json, losses, written })
    }

    fn writer(&self) -> Writer<'_> {
        match &self.columns {
            Some(columns) => Writer::Csv(CsvWriter::new(self.traces, columns, &self.style)),
            None if self.json => Writer::Json(JsonWriter::new(self.traces, &self.style)),
            None => Writer::Text(TextWriter::new(self.traces, &self.style)),
        }
    }

    /// Writes what slices have, in order.
    fn run(&self, next: impl FnMut() -> Result<Option<Slice>> + Send, damages: &mut Damages) -> Result<()> {
        let mut output = io::stdout().lock();
        let mut spans =
            self.spans.map(|spans| SpanLines { shown: self, spans, fold: Fold::new(spans), writer: self.writer() });
        let worker = || {
            let mut writer = self.writer();
            let mut extractor = self.spans.map(Extractor::new);
            move |mut slice: Slice| {
                let mut text = self.written.lock().ok().and_then(|mut written| written.pop()).unwrap_or_default();
                let told = self.slice(&slice, &mut writer, extractor.as_mut(), &mut text);
                (text, told, std::mem::take(&mut slice.damages))
            }
        };
        pipeline::run(next, worker, |(mut text, told, found)| {
            if let (Some(spans), Some(told)) = (&mut spans, told) {
                text = spans.put_into(text, told)?;
            }
            output.write_all(&text).and_then(|()| output.flush()).context("writing to standard output")?;
            text.clear();
            if let Ok(mut written) = self.written.lock() {
                written.push(text);
            }
            damages.add(found);
            Ok(())
        })?;
        if let Some(SpanLines { spans, fold, .. }) = spans {
            for (definition, account) in spans.definitions().zip(fold.finish()) {
                say!("relayd: {}", spans::said_of_all(&definition.name, &account));
            }
        }
        Ok(())
    }

    /// Writes what is shown of a slice.
    fn slice(
        &self,
        slice: &Slice,
        writer: &mut Writer<'_>,
        extractor: Option<&mut Extractor<'_>>,
        text: &mut Vec<u8>,
    ) -> Option<SliceEnds> {
        let mut write = |item: &Item<'_>, names: &Names, text: &mut Vec<u8>| {
            if let Item::Gap(_) = item {
                self.losses.fetch_add(1, Ordering::Relaxed);
            }
            writer.write(item, names, text);
        };
        let Some(extractor) = extractor else {
            self.filter.show(slice, self.traces, |item, names| write(&item, names, text));
            return None;
        };
        Some(extractor.take(slice, |item, names| {
            let is_shown = match item {
                Item::Record(seen) => !self.spans_alone && self.filter.takes(seen, names),
                Item::Gap(_) => true,
            };
            if is_shown {
                write(item, names, text);
            }
            text.len()
        }))
    }
}

/// Puts the lines of spans behind those of the records that end them.
struct SpanLines<'t> {
    shown: &'t Shown<'t>,
    spans: &'t Spans<'t>,
    fold: Fold<'t>,
    writer: Writer<'t>,
}

impl SpanLines<'_> {
    fn put_into(&mut self, text: Vec<u8>, told: SliceEnds) -> Result<Vec<u8>> {
        let Self { shown, spans, fold, writer } = self;
        let (mut all, mut done) = (Vec::new(), 0);
        fold.take(told, |span: &Span<'_>, behind| {
            all.extend_from_slice(text.get(done..behind).unwrap_or_default());
            done = behind;
            span.as_record(spans, |record| {
                let names = shown.traces.get(record.seen.source.trace).map(|trace| &trace.names);
                if let Some(names) = names.filter(|_| shown.filter.has_process(record.seen.record.pid)) {
                    writer.write(&Item::Record(record.seen), names, &mut all);
                }
            });
            Ok(())
        })?;
        all.extend_from_slice(text.get(done..).unwrap_or_default());
        Ok(all)
    }
}

/// Says what CSV has no columns for.
fn say_left_out(traces: &[Trace], losses: u64) {
    if traces.iter().any(|trace| trace.session.context.iter().any(|of| of == "kstack" || of == "ustack")) {
        say!("relayd: left out: stacks; --json has them");
    }
    if losses > 0 {
        say!("relayd: left out: {losses} places where records were lost; --json has them");
    }
}

/// Gets slices; those of a trace that is being recorded when they are there.
fn pace<'t>(
    mut slicer: Slicer<'t>,
    traces: &'t [Trace],
    chosen: &'t Chosen,
    mut follow: bool,
) -> impl FnMut() -> Result<Option<Slice>> + Send + 't {
    move || {
        loop {
            let settled = if follow { Instant::now().monotonic.saturating_sub(SETTLED) } else { u64::MAX };
            if let Some(slice) = slicer.next(settled)? {
                return Ok(Some(slice));
            }
            if !follow {
                return Ok(None);
            }
            // Asked only when there is nothing more. What was written until now is read before the end.
            // If it cannot be told whether the recorder lives, it does until the session says that it has ended.
            let lives = match traces[0].is_being_recorded() {
                Ok(lives) => lives,
                Err(_) => !traces[0].has_ended()?,
            };
            slicer.look_for_cpus(|cpu| chosen.wants_cpu(cpu))?;
            if lives {
                sleep(POLL);
            } else {
                follow = false;
                slicer.finish();
            }
            slicer.look_for_names();
        }
    }
}

impl Arguments {
    fn style(&self, traces: &[Trace], events: &[&EventClass]) -> Result<Style> {
        let start = traces[0].session.clock.start;
        for field in &self.fields {
            if !events.iter().any(|event| event.field(field).is_some()) {
                bail!("--fields: no event that is shown has a field '{field}'; relayd stat names them");
            }
        }
        Ok(Style {
            time: match self.time {
                Times::Monotonic => TimeForm::Monotonic,
                Times::Relative => TimeForm::Since(start.monotonic),
                Times::Wall => TimeForm::Wall,
            },
            wall: WallClock::new(traces, zone()?),
            colours: match self.color {
                When::Always => true,
                When::Never => false,
                When::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
            },
            fields: self.fields.clone(),
        })
    }
}
