//! `relayd stat`: what traces have, in numbers.

mod draw;

use std::{collections::BTreeMap, io::Write as _, process::ExitCode};

use anyhow::{Result, bail};
use clap::Args;
use relay_trace::{
    form::{
        format::{Display, Kind},
        session::Cpu,
    },
    read::{
        geometry::{self, Cut},
        schema::Schema,
        trace::Trace,
    },
    show::statistics::{self, Count, Fields, Group, Statistics},
};
use serde::Serialize;

use super::reading::{Chosen, Damages, progress_bar};

/// What every record has beside its fields.
const OF_TASK: [&str; 6] = ["event", "cpu", "pid", "tid", "uid", "comm"];

/// Count what is in traces: records by event and CPU, over time, and by the values of a field; and what was lost.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit status: 0; 1 when something in the files could not be read.

Examples:
  relayd stat relayd-20260102-030405
  relayd stat DIR -e 'syscall:*' --hist duration_ns --by event
  relayd stat DIR -e kmem:kmalloc --hist bytes_alloc
  relayd stat DIR -e sched:sched_switch --by prev_state --since -1s")]
pub(crate) struct Arguments {
    #[command(flatten)]
    chosen: Chosen,
    /// Draw how the numbers in this field are spread, like duration_ns.
    #[arg(long, value_name = "FIELD")]
    hist: Option<String>,
    /// Count separately for each value of this field, or of event, cpu, pid, tid, uid, comm.
    #[arg(long, value_name = "FIELD")]
    by: Option<String>,
    /// Show every event's numbers on every CPU.
    #[arg(short, long)]
    verbose: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// All numbers, as a program reads them. `docs/reading.md` has the schema.
#[derive(Debug, Serialize)]
struct Report {
    traces: Vec<TraceReport>,
    /// Bars of records over time, each of `bar_ns`.
    over_time: Vec<u64>,
    from: u64,
    bar_ns: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<GroupReport>,
}

#[derive(Debug, Serialize)]
struct TraceReport {
    path: String,
    host: String,
    kernel: String,
    command: Vec<String>,
    mode: String,
    seconds: f64,
    geometry: Cut,
    /// What would have lost nothing; null without an account, or when no buffer is large enough.
    enough: Option<Cut>,
    max_backlog: u64,
    records: u64,
    bytes: u64,
    events: Vec<EventReport>,
    cpus: Vec<CpuReport>,
    /// The account of the recording, when it ended in order.
    account: Option<Vec<Cpu>>,
}

#[derive(Debug, Serialize)]
struct EventReport {
    name: String,
    #[serde(flatten)]
    all: CountReport,
    cpus: BTreeMap<u32, CountReport>,
}

#[derive(Debug, Serialize)]
struct CpuReport {
    cpu: u32,
    #[serde(flatten)]
    all: CountReport,
    /// Losses that the packets of the chosen time tell.
    lost: u64,
    overrun_subbufs: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct CountReport {
    records: u64,
    bytes: u64,
    per_second: f64,
    first: Option<u64>,
    last: Option<u64>,
}

#[derive(Debug, Serialize)]
struct GroupReport {
    value: String,
    records: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<Spread>,
}

/// How numbers are spread; quantiles to a hundredth.
#[derive(Clone, Debug, Serialize)]
struct Spread {
    min: u64,
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
    /// Counts by powers of two: from 0, 1, 2, 4 …
    powers: Vec<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let traces = arguments.chosen.open()?;
    let choice = arguments.chosen.choice(&traces)?;
    for (option, name) in [("--hist", &arguments.hist), ("--by", &arguments.by)] {
        if let Some(name) = name {
            check_field(&traces, option, name)?;
        }
    }
    let fields = Fields { values: arguments.hist.clone(), by: arguments.by.clone() };
    let slicer = arguments.chosen.slicer(&traces, false)?;
    let bar = progress_bar(&traces.iter().collect::<Vec<_>>(), arguments.json)?;
    let mut counted = statistics::count(&traces, slicer, &choice, &fields, |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    let mut damages = Damages::of(&traces);
    damages.add(std::mem::take(&mut counted.damages));
    let report = Report::new(&traces, counted);
    let text = if arguments.json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        draw::text(&report, arguments.verbose, &fields)?
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    arguments.chosen.compare_with_account(&traces, &mut damages);
    Ok(damages.finish())
}

/// Refuses a field that no event has, or that is of no use.
fn check_field(traces: &[Trace], option: &str, name: &str) -> Result<()> {
    let schemas = || traces.iter().map(|trace| &trace.schema);
    let mut kinds = schemas().flat_map(Schema::events).filter_map(|event| Some(&event.fields[event.field(name)?].kind));
    let is_number = |kind: &Kind| matches!(kind, Kind::Integer(_));
    let is_text = |kind: &Kind| match kind {
        Kind::Integer(_) => false,
        Kind::Array(element) | Kind::Dynamic { element, .. } => element.display == Display::Text,
    };
    match kinds.next() {
        None if option == "--by" && OF_TASK.contains(&name) => {}
        None => {
            let names =
                schemas().flat_map(Schema::events).flat_map(|event| &event.fields).map(|field| field.name.as_str());
            let near = relay_trace::similar::did_you_mean(name, names);
            bail!("{option}: no event of the trace has a field '{name}'{near}; relayd print shows them");
        }
        Some(kind) if option == "--hist" && !is_number(kind) => {
            bail!("--hist: {name} is no number; --by {name} counts its values");
        }
        Some(kind) if !is_number(kind) && !is_text(kind) => bail!("{option}: {name} is an array"),
        Some(_) => {}
    }
    Ok(())
}

impl Report {
    fn new(traces: &[Trace], counted: Statistics) -> Self {
        let from = traces.iter().map(|trace| trace.common(trace.session.clock.start.monotonic)).min().unwrap_or(0);
        let first = counted.counts.values().map(|count| count.first).min().unwrap_or(from).max(from);
        let last = counted.counts.values().map(|count| count.last).max().unwrap_or(first);
        let reports =
            traces.iter().enumerate().map(|(index, trace)| TraceReport::new(index, trace, &counted)).collect();
        let mut groups: Vec<(String, Group)> = counted.groups.into_iter().collect();
        groups.sort_by(|a, b| b.1.records.cmp(&a.1.records).then_with(|| a.0.cmp(&b.0)));
        Self {
            traces: reports,
            over_time: counted.over_time.bars(first, last, draw::WIDTH),
            from: first,
            bar_ns: last.saturating_sub(first) as f64 / draw::WIDTH as f64,
            groups: groups.into_iter().map(|(value, group)| GroupReport::new(value, &group)).collect(),
        }
    }
}

impl TraceReport {
    fn new(index: usize, trace: &Trace, counted: &Statistics) -> Self {
        let session = &trace.session;
        let mut events: BTreeMap<u16, BTreeMap<u32, Count>> = BTreeMap::new();
        let mut cpus: BTreeMap<u32, Count> = BTreeMap::new();
        let mut all = Count::default();
        for ((_, event, cpu), count) in counted.counts.iter().filter(|((of, ..), _)| *of == index) {
            events.entry(*event).or_default().insert(*cpu, *count);
            *cpus.entry(*cpu).or_default() += *count;
            all += *count;
        }
        for cpu in counted.lost.keys().filter(|(of, _)| *of == index).map(|(_, cpu)| cpu) {
            cpus.entry(*cpu).or_default();
        }
        let end = session.clock.end.map_or(all.last, |end| end.monotonic);
        let seconds = end.saturating_sub(session.clock.start.monotonic) as f64 / 1e9;
        let count = |count: Count| CountReport {
            records: count.records,
            bytes: count.bytes,
            per_second: if seconds > 0.0 { count.records as f64 / seconds } else { 0.0 },
            first: (count.records > 0).then_some(count.first),
            last: (count.records > 0).then_some(count.last),
        };
        let event = |event: &relay_trace::read::schema::Event| {
            let cpus = events.remove(&event.id)?;
            let mut all = Count { first: u64::MAX, ..Count::default() };
            for of in cpus.values() {
                let first = if all.records == 0 { of.first } else { all.first.min(of.first) };
                all += *of;
                all.first = first;
            }
            let name = event.name.clone();
            Some(EventReport {
                name,
                all: count(all),
                cpus: cpus.into_iter().map(|(cpu, of)| (cpu, count(of))).collect(),
            })
        };
        let mut event_reports: Vec<EventReport> = trace.schema.events().filter_map(event).collect();
        event_reports.sort_by(|a, b| b.all.records.cmp(&a.all.records).then_with(|| a.name.cmp(&b.name)));
        let cpu = |(cpu, of): (u32, Count)| {
            let lost = counted.lost.get(&(index, cpu)).copied().unwrap_or_default();
            CpuReport { cpu, all: count(of), lost: lost.records, overrun_subbufs: lost.subbufs }
        };
        Self {
            path: trace.path.display().to_string(),
            host: session.host.clone(),
            kernel: session.kernel.clone(),
            command: session.command.clone(),
            mode: session.mode.clone(),
            seconds,
            geometry: Cut { subbuf_size: session.subbuf_size, n_subbufs: session.n_subbufs },
            enough: geometry::enough(session),
            max_backlog: session.cpus.iter().map(|cpu| cpu.max_backlog).max().unwrap_or(0),
            records: all.records,
            bytes: all.bytes,
            events: event_reports,
            cpus: cpus.into_iter().map(cpu).collect(),
            account: trace.is_finished().then(|| session.cpus.clone()),
        }
    }
}

impl GroupReport {
    fn new(value: String, group: &Group) -> Self {
        let spread = group.values.as_ref().map(|values| {
            let powers = 64 - values.max().leading_zeros();
            let between = |power: u32| match power {
                0 => values.count_at(0),
                _ => values.count_between(1 << (power - 1), (1u64 << (power - 1)) - 1 + (1 << (power - 1))),
            };
            Spread {
                min: values.min(),
                mean: group.sum as f64 / group.records.max(1) as f64,
                p50: values.value_at_quantile(0.5),
                p90: values.value_at_quantile(0.9),
                p99: values.value_at_quantile(0.99),
                p999: values.value_at_quantile(0.999),
                max: values.max(),
                powers: (0..=powers).map(between).collect(),
            }
        });
        Self { value, records: group.records, spread }
    }
}
