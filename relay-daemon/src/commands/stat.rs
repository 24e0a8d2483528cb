//! `relayd stat`: what traces have, in numbers.

mod draw;
mod spans;

use std::{cmp::Ordering, collections::BTreeMap, io::Write as _, process::ExitCode};

use anyhow::{Result, anyhow, bail};
use clap::{Args, ValueEnum};
use relay_trace::{
    answers::{
        key::Key,
        spread::Spread,
        statistics::{self, EventCount, TraceStatistics},
        totals::{Group, TotalFields, Totals},
    },
    form::{
        format::{Display, FieldKind},
        session::{CpuAccount, Pairs},
    },
    read::{
        geometry::{self, Cut},
        schema::Schema,
        trace::Trace,
    },
};
use serde::Serialize;

use super::{
    misuse,
    reading::{Chosen, Damages, progress_bar},
};

/// What every record has beside its fields, or may have.
const OF_TASK: [&str; 9] = ["event", "cpu", "pid", "tid", "uid", "cgroup", "comm", "kstack", "ustack"];

/// Count what is in traces: records by event and CPU, over time, and by the values of a field; and what was lost.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit status: 0; 1 when something in the files could not be read.

Examples:
  relayd stat relayd-20260102-030405
  relayd stat DIR -e 'syscall:*' --sum duration_ns --by event
  relayd stat DIR -e 'syscall:*' --hist duration_ns --by comm,event --sort p99 --top 10
  relayd stat DIR -e block:block_rq_issue --sum bytes --by comm
  relayd stat DIR -e kmem:kmalloc --hist bytes_alloc
  relayd stat DIR -e sched:sched_switch --by prev_state --since -1s
  relayd stat DIR --span runq --by comm,cpu --sort max
  relayd stat DIR --span 'block:block_rq_issue -> block:block_rq_complete by dev,sector' --by dev

Spans: the time between two records, START -> END by the fields that both have (S=E where their names differ; by tid when none is given).
A word after the fields says what becomes of a second START while a span is open: last (it takes the place of the first; the default), first,
nest, queue, all, each. Known by name, and recorded by `relayd trace --span`: runq oncpu offcpu block irq softirq syscall fsync tcp-connect.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    chosen: Chosen,
    /// Count the time between two records instead: 'START -> END by FIELDS', or a known span like runq; repeat it for several.
    #[arg(long = "span", value_name = "SPAN", conflicts_with_all = ["hist", "sum", "verbose"])]
    spans: Vec<String>,
    /// Draw how the numbers in this field are spread, like duration_ns.
    #[arg(long, value_name = "FIELD")]
    hist: Option<String>,
    /// Add up the numbers in this field.
    #[arg(long, value_name = "FIELD")]
    sum: Option<String>,
    /// Count separately for each value of these fields, or of event, cpu, pid, tid, uid, cgroup, comm, kstack, ustack.
    #[arg(long, value_name = "FIELD,…", value_delimiter = ',')]
    by: Vec<String>,
    /// Which values come first [default: those with the largest sum, or with the most records].
    #[arg(long, value_enum, requires = "by")]
    sort: Option<Order>,
    /// Show so many values [default: 30; with --json all].
    #[arg(long, value_name = "N", requires = "by")]
    top: Option<usize>,
    /// Show every event's numbers on every CPU.
    #[arg(short, long)]
    verbose: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Values of `--by` that are shown to people.
const SHOWN: usize = 30;

/// What values of `--by` are sorted by: the largest first, but for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    Records,
    Sum,
    Mean,
    P50,
    P90,
    P99,
    Max,
    Key,
}

/// All numbers, as a program reads them. `docs/reading.md` has the schema.
#[derive(Debug, Serialize)]
struct Report {
    traces: Vec<TraceReport>,
    /// Bars of records over time, each of `bar_ns`.
    over_time: Vec<u64>,
    from: u64,
    bar_ns: f64,
    #[serde(flatten)]
    groups: Groups,
}

/// What keys have, those that were asked for first.
#[derive(Debug, Serialize)]
struct Groups {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<GroupReport>,
    /// Keys that are not among them, for --top.
    #[serde(skip_serializing_if = "is_zero")]
    more_groups: usize,
    /// Their records.
    #[serde(skip_serializing_if = "is_zero")]
    more_records: u64,
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
    account: Option<Vec<CpuAccount>>,
    /// What has become of entries that were kept for their returns, by event.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pairs: BTreeMap<String, Pairs>,
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
    /// The values of all keys in one text.
    value: String,
    /// By field. None where it is the rest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    key: BTreeMap<String, KeyReport>,
    records: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sum: Option<i128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<SpreadReport>,
    /// Keys for which there was no room.
    #[serde(skip_serializing_if = "is_zero")]
    is_rest: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum KeyReport {
    Number(i128),
    Text(String),
}

/// How numbers are spread; quantiles to a hundredth.
#[derive(Clone, Debug, Serialize)]
struct SpreadReport {
    min: i128,
    mean: f64,
    p50: i128,
    p90: i128,
    p99: i128,
    p999: i128,
    max: i128,
    /// How many are below zero.
    #[serde(skip_serializing_if = "is_zero")]
    negative: u64,
    /// Counts by powers of two: from 0, 1, 2, 4 …
    powers: Vec<u64>,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let traces = arguments.chosen.open()?;
    let top = arguments.top.unwrap_or(if arguments.json { usize::MAX } else { SHOWN });
    if !arguments.spans.is_empty() {
        return spans::run(arguments, &traces, top);
    }
    let filter = arguments.chosen.filter(&traces)?;
    let numbers = [("--hist", &arguments.hist), ("--sum", &arguments.sum)];
    let numbers = numbers.iter().filter_map(|(option, name)| Some((*option, name.as_ref()?)));
    for (option, name) in numbers.chain(arguments.by.iter().map(|name| ("--by", name))) {
        check_field(&traces, option, name)?;
    }
    let fields = TotalFields { spread: arguments.hist.clone(), sum: arguments.sum.clone(), by: arguments.by.clone() };
    let order = order(arguments)?;
    let slicer = arguments.chosen.slicer(&traces, false)?;
    let bar = progress_bar(&traces.iter().collect::<Vec<_>>(), arguments.json)?;
    let mut counted = statistics::count(&traces, slicer, &filter, &fields, |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    let mut damages = Damages::of(&traces);
    damages.add(std::mem::take(&mut counted.damages));
    let report = Report::new(&traces, counted, &fields, order, top);
    print(arguments.json, &report, || draw::text(&report, arguments.verbose, &fields))?;
    arguments.chosen.compare_with_account(&traces, &mut damages);
    Ok(damages.finish())
}

/// Prints a report as a program reads it, or as people do.
fn print(json: bool, report: &impl Serialize, draw: impl FnOnce() -> Result<String>) -> Result<()> {
    let text = if json { serde_json::to_string_pretty(report)? + "\n" } else { draw()? };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// What is asked for, or what is most likely meant.
fn order(arguments: &Arguments) -> Result<Order> {
    let has_spans = !arguments.spans.is_empty();
    let (has_sum, has_spread) = (has_spans || arguments.sum.is_some(), has_spans || arguments.hist.is_some());
    let order = arguments.sort.unwrap_or(if has_sum { Order::Sum } else { Order::Records });
    match order {
        Order::Sum if !has_sum && !has_spread => Err(misuse(anyhow!("--sort sum needs --sum FIELD"))),
        Order::Mean | Order::P50 | Order::P90 | Order::P99 | Order::Max if !has_spread => {
            Err(misuse(anyhow!("--sort by what a field's numbers are like needs --hist FIELD")))
        }
        order => Ok(order),
    }
}

/// Refuses a field that no event has, or that is of no use.
fn check_field(traces: &[Trace], option: &str, name: &str) -> Result<()> {
    let schemas = || traces.iter().map(|trace| &trace.schema);
    let mut kinds = schemas().flat_map(Schema::events).filter_map(|event| Some(&event.fields[event.field(name)?].kind));
    let is_number = |kind: &FieldKind| matches!(kind, FieldKind::Integer(_));
    let is_text = |kind: &FieldKind| match kind {
        FieldKind::Integer(_) => false,
        FieldKind::Array(element) | FieldKind::Dynamic { element, .. } => {
            matches!(element.display, Display::Text | Display::Texts)
        }
    };
    match kinds.next() {
        None if option == "--by" && OF_TASK.contains(&name) => {}
        None => {
            let names =
                schemas().flat_map(Schema::events).flat_map(|event| &event.fields).map(|field| field.name.as_str());
            let near = relay_trace::similar::did_you_mean(name, names);
            bail!("{option}: no event of the trace has a field '{name}'{near}; relayd print shows them");
        }
        Some(kind) if option != "--by" && !is_number(kind) => {
            bail!("{option}: {name} is not a number; --by {name} counts its values");
        }
        Some(kind) if !is_number(kind) && !is_text(kind) => bail!("{option}: {name} is an array"),
        Some(_) => {}
    }
    Ok(())
}

impl Report {
    fn new(traces: &[Trace], counted: TraceStatistics, fields: &TotalFields, order: Order, top: usize) -> Self {
        let from = traces.iter().map(|trace| trace.common(trace.session.clock.start.monotonic)).min().unwrap_or(0);
        let first = counted.counts.values().map(|count| count.first).min().unwrap_or(from).max(from);
        let last = counted.counts.values().map(|count| count.last).max().unwrap_or(first);
        let reports =
            traces.iter().enumerate().map(|(index, trace)| TraceReport::new(index, trace, &counted)).collect();
        Self {
            traces: reports,
            over_time: counted.over_time.bars(first, last, draw::WIDTH),
            from: first,
            bar_ns: last.saturating_sub(first) as f64 / draw::WIDTH as f64,
            groups: Groups::new(counted.totals, fields, order, top),
        }
    }
}

impl Groups {
    fn new(totals: Totals, fields: &TotalFields, order: Order, top: usize) -> Self {
        let others = totals.others.clone();
        let mut groups = totals.into_groups();
        groups.sort_by(|a, b| order.compare(&b.1, &a.1).then_with(|| a.0.cmp(&b.0)));
        let more = groups.split_off(top.min(groups.len()));
        let mut groups: Vec<_> = groups.iter().map(|(key, group)| GroupReport::new(fields, key, group)).collect();
        if others.records > 0 {
            let rest = GroupReport::new(&TotalFields { by: Vec::new(), ..fields.clone() }, &[], &others);
            groups.push(GroupReport { value: "(others)".to_owned(), is_rest: true, ..rest });
        }
        let more_records = more.iter().map(|(_, group)| group.records).sum();
        Self { groups, more_groups: more.len(), more_records }
    }
}

impl Order {
    fn compare(self, a: &Group, b: &Group) -> Ordering {
        let by = |of: fn(&Group) -> i128| of(a).cmp(&of(b));
        match self {
            Self::Records => by(|group| group.records.into()),
            // Without --sum it is that of --hist's field.
            Self::Sum => by(|group| if group.sum == 0 { group.spread.sum() } else { group.sum }),
            Self::Mean => a.spread.mean().total_cmp(&b.spread.mean()),
            Self::P50 => by(|group| group.spread.quantile(500)),
            Self::P90 => by(|group| group.spread.quantile(900)),
            Self::P99 => by(|group| group.spread.quantile(990)),
            Self::Max => by(|group| group.spread.max()),
            Self::Key => Ordering::Equal,
        }
    }
}

impl TraceReport {
    fn new(index: usize, trace: &Trace, counted: &TraceStatistics) -> Self {
        let session = &trace.session;
        let mut events: BTreeMap<u16, BTreeMap<u32, EventCount>> = BTreeMap::new();
        let mut cpus: BTreeMap<u32, EventCount> = BTreeMap::new();
        let mut all = EventCount::default();
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
        let count = |count: EventCount| CountReport {
            records: count.records,
            bytes: count.bytes,
            per_second: if seconds > 0.0 { count.records as f64 / seconds } else { 0.0 },
            first: (count.records > 0).then_some(count.first),
            last: (count.records > 0).then_some(count.last),
        };
        let event = |event: &relay_trace::read::schema::EventClass| {
            let cpus = events.remove(&event.id)?;
            let mut all = EventCount { first: u64::MAX, ..EventCount::default() };
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
        let cpu = |(cpu, of): (u32, EventCount)| {
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
            pairs: session.events.iter().filter_map(|event| Some((event.name.clone(), event.pairs?))).collect(),
        }
    }
}

impl GroupReport {
    fn new(fields: &TotalFields, key: &[Key], group: &Group) -> Self {
        let report = |key: &Key| match key {
            Key::Number(number) => KeyReport::Number(*number),
            Key::Text(text) => KeyReport::Text(text.clone()),
        };
        Self {
            value: key.iter().map(Key::to_string).collect::<Vec<_>>().join(", "),
            key: fields.by.iter().cloned().zip(key.iter().map(report)).collect(),
            records: group.records,
            sum: fields.sum.as_ref().map(|_| group.sum),
            spread: fields.spread.as_ref().map(|_| SpreadReport::new(&group.spread)),
            is_rest: false,
        }
    }
}

impl SpreadReport {
    fn new(spread: &Spread) -> Self {
        Self {
            min: spread.min(),
            mean: spread.mean(),
            p50: spread.quantile(500),
            p90: spread.quantile(900),
            p99: spread.quantile(990),
            p999: spread.quantile(999),
            max: spread.max(),
            negative: spread.negative(),
            powers: spread.powers(),
        }
    }
}
