//! Chrome's JSON, for programs that read only that: an instant for every record, a bar for every pair of entry and return, and a
//! track for each CPU with what it ran.

use std::{collections::BTreeMap, io::Write};

use anyhow::Result;

use super::{
    Exported, Job, Piece,
    lanes::{Lane, Lanes},
    running::{Running, TraceCpu, Turn},
};
use crate::{
    answers::span::AsRecord,
    read::{
        filter::comm,
        names::Names,
        slices::{Gap, GapKind, Item, Seen, Slice},
        symbolize::Symbols,
        trace::Trace,
        value::{Number, Value},
    },
    show::{
        json::{push_text, push_value},
        text::{kernel_frames, push_number, user_frames},
    },
};

/// The process that CPUs are threads of: no process has a higher number than 2^22.
const CPUS: u64 = (1 << 22) + 1;
/// The process that the lanes of spans are threads of.
const SPANS: u64 = CPUS + 1;
/// Traces do not share processes.
const PER_TRACE: u64 = 1 << 23;

/// A slice's worth of events, the threads in it, and what its CPUs ran.
struct Part<'t> {
    text: Vec<u8>,
    threads: BTreeMap<(usize, u32, u32), Vec<u8>>,
    running: Running,
    /// Turns whose end is not known.
    endless: u64,
    symbols: &'t mut [Symbols],
}

/// What is left of it for the one that writes.
type Written = (Vec<u8>, BTreeMap<(usize, u32, u32), Vec<u8>>, Running, u64);

/// Writes the traces.
///
/// # Errors
/// When a file cannot be read, or `output` not be written.
pub fn write(job: Job<'_>, output: &mut dyn Write) -> Result<Exported> {
    let (traces, filter) = (job.traces, job.filter);
    let mut threads = BTreeMap::new();
    let (mut running, mut endless) = (Running::default(), 0);
    let (mut lanes, mut flows) = (Spread::default(), 0);
    output.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n")?;
    let worker = || {
        let mut symbols: Vec<Symbols> = traces.iter().map(Trace::symbols).collect();
        move |slice: &Slice| {
            let mut part = Part {
                text: Vec::new(),
                threads: BTreeMap::new(),
                running: Running::default(),
                endless: 0,
                symbols: &mut symbols,
            };
            filter.show(slice, traces, |item, names| match item {
                Item::Record(seen) => part.record(&seen, names),
                Item::Gap(gap) => part.gap(gap),
            });
            (part.text, part.threads, part.running, part.endless)
        }
    };
    let done = job.run(worker, |piece: Piece<'_, Written>| {
        let text = match piece {
            Piece::Part((mut text, of, later, without_end)) => {
                threads.extend(of);
                endless += without_end;
                for (cpu, turn) in running.append(later) {
                    endless += push_turn(&mut text, cpu, &turn);
                }
                text
            }
            Piece::Span(span) => {
                let mut text = Vec::new();
                push_span(&mut text, span, lanes.of(span));
                if span.moves() {
                    flows += 1;
                    push_flow(&mut text, span, flows);
                }
                text
            }
        };
        Ok(output.write_all(&text)?)
    })?;
    output.write_all(&metadata(traces, &threads, &lanes))?;
    output.write_all(b"]}\n")?;
    Ok(Exported { left_out: vec![("bars of CPUs whose ends are not known", endless)], ..done })
}

impl Part<'_> {
    fn record(&mut self, seen: &Seen<'_>, names: &Names) {
        let trace = seen.source.trace;
        let name = comm(seen, names);
        let known = self.threads.entry((trace, seen.record.pid, seen.record.tid)).or_default();
        if known != name {
            *known = name.to_vec();
        }
        let text = &mut self.text;
        let duration = seen.event.field("duration_ns").and_then(|index| seen.event.value(index, seen.payload));
        let (phase, time): (&[u8], u64) = match duration {
            Some(Value::Number(Number::Unsigned(duration))) => (b"X", seen.time.saturating_sub(duration)),
            _ => (b"i", seen.time),
        };
        push_head(text, phase, time, process(trace, seen.record.pid), seen.record.tid.into());
        if let Some(Value::Number(Number::Unsigned(duration))) = duration {
            text.extend_from_slice(b",\"dur\":");
            push_micros(text, duration);
        } else {
            text.extend_from_slice(b",\"s\":\"t\"");
        }
        text.extend_from_slice(b",\"name\":");
        push_text(text, seen.event.name.as_bytes());
        push_arguments(text, seen);
        let frames = kernel_frames(seen.context.kstack).chain(user_frames(seen.record.pid, seen.context.ustack));
        let mut frames: Vec<String> = frames.map(|frame| frame.name(&mut self.symbols[trace])).collect();
        if !frames.is_empty() {
            // The outermost first.
            frames.reverse();
            text.extend_from_slice(b",\"stack\":[");
            for (index, frame) in frames.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                push_text(text, frame.as_bytes());
            }
            text.push(b']');
        }
        text.extend_from_slice(b"},\n");
        if let Some(turn) = self.running.record(seen) {
            self.endless += push_turn(text, (trace, seen.source.cpu), &turn);
        }
    }

    fn gap(&mut self, gap: &Gap) {
        if let Some(turn) = self.running.gap(gap) {
            self.endless += push_turn(&mut self.text, (gap.source.trace, gap.source.cpu), &turn);
        }
        push_gap(&mut self.text, gap);
    }
}

/// The lanes of spans, numbered.
#[derive(Default)]
struct Spread {
    lanes: Lanes,
    numbers: BTreeMap<Lane, u64>,
}

impl Spread {
    /// The number of the lane on which a span is drawn.
    fn of(&mut self, span: &AsRecord<'_>) -> u64 {
        let (lane, _) = self.lanes.put(span.seen.source.trace, span.name(), span.start(), span.seen.time);
        let next = self.numbers.len() as u64 + 1;
        *self.numbers.entry(lane).or_insert(next)
    }
}

/// A bar on a lane.
fn push_span(text: &mut Vec<u8>, span: &AsRecord<'_>, lane: u64) {
    let spans = SPANS + PER_TRACE * span.seen.source.trace as u64;
    push_bar(text, (span.start(), span.seen.time), spans, lane, &span.title());
    push_arguments(text, &span.seen);
    text.extend_from_slice(b"},\n");
}

/// An arrow from the thread that began a span to the one that it ended with, from bar to bar: arrows have no other ends.
fn push_flow(text: &mut Vec<u8>, span: &AsRecord<'_>, number: u64) {
    let trace = span.seen.source.trace;
    for (phase, time, (pid, tid)) in [("s", span.start(), span.began), ("f", span.seen.time, span.ended)] {
        let (pid, tid) = (process(trace, pid), u64::from(tid));
        push_bar(text, (time, time), pid, tid, span.name().as_bytes());
        text.extend_from_slice(b"},\n");
        push_head(text, phase.as_bytes(), time, pid, tid);
        text.extend_from_slice(b",\"cat\":\"span\",\"bp\":\"e\",\"id\":");
        push_number(text, number);
        text.extend_from_slice(b",\"name\":");
        push_text(text, span.name().as_bytes());
        text.extend_from_slice(b"},\n");
    }
}

/// A bar from one time to another, not closed.
fn push_bar(text: &mut Vec<u8>, (begin, end): (u64, u64), pid: u64, tid: u64, name: &[u8]) {
    push_head(text, b"X", begin, pid, tid);
    text.extend_from_slice(b",\"dur\":");
    push_micros(text, end.saturating_sub(begin));
    text.extend_from_slice(b",\"name\":");
    push_text(text, name);
}

/// A record's fields.
fn push_arguments(text: &mut Vec<u8>, seen: &Seen<'_>) {
    text.extend_from_slice(b",\"args\":{");
    for (index, (field, value)) in seen.event.values(seen.payload).enumerate() {
        if index > 0 {
            text.push(b',');
        }
        push_text(text, field.name.as_bytes());
        text.push(b':');
        push_value(text, value);
    }
    text.push(b'}');
}

/// On the CPU's own track a bar for what ran, if it is known until when. Returns how many are left out.
fn push_turn(text: &mut Vec<u8>, (trace, cpu): TraceCpu, turn: &Turn) -> u64 {
    if turn.tid == 0 {
        return 0;
    }
    let Some(end) = turn.end else { return 1 };
    let name = [&turn.name[..], b"-", turn.tid.to_string().as_bytes()].concat();
    push_bar(text, (turn.begin, end), CPUS + PER_TRACE * trace as u64, cpu.into(), &name);
    text.extend_from_slice(b"},\n");
    0
}

fn push_gap(text: &mut Vec<u8>, gap: &Gap) {
    let cpus = CPUS + PER_TRACE * gap.source.trace as u64;
    push_head(text, b"i", gap.until, cpus, gap.source.cpu.into());
    let lost = match gap.kind {
        GapKind::Lost(records) => format!("{records} records lost"),
        GapKind::Overrun(subbufs) => format!("{subbufs} sub-buffers overrun"),
    };
    text.extend_from_slice(b",\"s\":\"g\",\"name\":");
    push_text(text, lost.as_bytes());
    text.extend_from_slice(b"},\n");
}

/// The names of processes, threads, CPUs and lanes; the last one ends the list.
fn metadata(traces: &[Trace], threads: &BTreeMap<(usize, u32, u32), Vec<u8>>, lanes: &Spread) -> Vec<u8> {
    let mut text = Vec::new();
    let mut name = |kind: &str, pid: u64, tid: u64, name: &[u8]| {
        push_head(&mut text, b"M", 0, pid, tid);
        text.extend_from_slice(b",\"name\":");
        push_text(&mut text, kind.as_bytes());
        text.extend_from_slice(b",\"args\":{\"name\":");
        push_text(&mut text, name);
        text.extend_from_slice(b"}},\n");
    };
    for ((trace, pid, tid), of) in threads {
        let pid = process(*trace, *pid);
        name("thread_name", pid, (*tid).into(), of);
        if pid == process(*trace, *tid) {
            name("process_name", pid, (*tid).into(), of);
        }
    }
    for ((trace, span, lane), number) in &lanes.numbers {
        let spans = SPANS + PER_TRACE * *trace as u64;
        if *lane == 0 {
            let host = traces.get(*trace).map_or("", |trace| &trace.session.host);
            name("process_name", spans, 0, format!("{host} spans").as_bytes());
        }
        let counted = if *lane > 0 { format!("{span} {}", lane + 1) } else { span.clone() };
        name("thread_name", spans, *number, counted.as_bytes());
    }
    for (index, trace) in traces.iter().enumerate() {
        let cpus = CPUS + PER_TRACE * index as u64;
        name("process_name", cpus, 0, format!("{} CPUs", trace.session.host).as_bytes());
        for cpu in trace.cpus().unwrap_or_default() {
            name("thread_name", cpus, cpu.into(), format!("cpu {cpu}").as_bytes());
        }
    }
    // No comma after the last.
    if text.ends_with(b",\n") {
        text.truncate(text.len() - 2);
    }
    text.push(b'\n');
    text
}

fn process(trace: usize, pid: u32) -> u64 {
    PER_TRACE * trace as u64 + u64::from(pid)
}

/// `{"ph":"…","ts":…,"pid":…,"tid":…`
fn push_head(text: &mut Vec<u8>, phase: &[u8], time: u64, pid: u64, tid: u64) {
    text.extend_from_slice(b"{\"ph\":\"");
    text.extend_from_slice(phase);
    text.extend_from_slice(b"\",\"ts\":");
    push_micros(text, time);
    text.extend_from_slice(b",\"pid\":");
    push_number(text, pid);
    text.extend_from_slice(b",\"tid\":");
    push_number(text, tid);
}

/// Nanoseconds as microseconds, exactly.
fn push_micros(text: &mut Vec<u8>, time: u64) {
    push_number(text, time / 1000);
    let mut digits = itoa::Buffer::new();
    text.push(b'.');
    text.extend_from_slice(&digits.format(time % 1000 + 1000).as_bytes()[1..]);
}
