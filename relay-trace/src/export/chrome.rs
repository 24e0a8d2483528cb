//! Chrome's JSON, for programs that read only that: an instant for every record, a bar for every pair of entry and return, and a
//! track for each CPU with what it ran.

use std::{collections::BTreeMap, io::Write};

use anyhow::Result;

use super::Job;
use crate::{
    read::{
        choice::comm,
        names::Names,
        slices::{Gap, GapKind, Item, Seen, Slice},
        stream::Damage,
        trace::Trace,
        value::{Number, Value},
    },
    show::{
        json::{push_text, push_value},
        text::push_number,
    },
};

/// The process that CPUs are threads of: no process has a higher number than 2^22.
const CPUS: u64 = (1 << 22) + 1;
/// Traces do not share processes.
const PER_TRACE: u64 = 1 << 23;

/// A slice's worth of events, and the threads in it.
type Part = (Vec<u8>, BTreeMap<(usize, u32, u32), Vec<u8>>);

/// Writes the traces. Returns what could not be read.
///
/// # Errors
/// When a file cannot be read, or `output` not be written.
pub fn write(job: Job<'_>, output: &mut dyn Write) -> Result<Vec<Damage>> {
    let (traces, choice) = (job.traces, job.choice);
    let mut threads = BTreeMap::new();
    output.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n")?;
    let worker = || {
        move |slice: &Slice| {
            let mut part = Part::default();
            choice.show(slice, traces, |item, names| match item {
                Item::Record(seen) => record(&mut part, &seen, names),
                Item::Gap(gap) => push_gap(&mut part.0, gap),
            });
            part
        }
    };
    let damages = job.run(worker, |(text, of): Part| {
        threads.extend(of);
        Ok(output.write_all(&text)?)
    })?;
    output.write_all(&metadata(traces, &threads))?;
    output.write_all(b"]}\n")?;
    Ok(damages)
}

fn record(part: &mut Part, seen: &Seen<'_>, names: &Names) {
    let trace = seen.source.trace;
    let name = comm(&seen.context, seen.record.tid, names);
    let known = part.1.entry((trace, seen.record.pid, seen.record.tid)).or_default();
    if known != name {
        *known = name.to_vec();
    }
    let text = &mut part.0;
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
    text.extend_from_slice(b",\"args\":{");
    for (index, (field, value)) in seen.event.values(seen.payload).enumerate() {
        if index > 0 {
            text.push(b',');
        }
        push_text(text, field.name.as_bytes());
        text.push(b':');
        push_value(text, value);
    }
    text.extend_from_slice(b"}},\n");
    if seen.event.name == "sched:sched_switch" {
        push_switch(text, seen);
    }
}

/// On the CPU's own track one thread's bar ends and another's begins.
fn push_switch(text: &mut Vec<u8>, seen: &Seen<'_>) {
    let value = |name: &str| seen.event.value(seen.event.field(name)?, seen.payload);
    let (Some(Value::Number(tid)), Some(Value::Text(name))) = (value("next_pid"), value("next_comm")) else { return };
    let cpus = CPUS + PER_TRACE * seen.source.trace as u64;
    push_head(text, b"E", seen.time, cpus, seen.source.cpu.into());
    text.extend_from_slice(b"},\n");
    if tid.wide() != 0 {
        push_head(text, b"B", seen.time, cpus, seen.source.cpu.into());
        text.extend_from_slice(b",\"name\":");
        push_text(text, &[name, b"-", tid.wide().to_string().as_bytes()].concat());
        text.extend_from_slice(b"},\n");
    }
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

/// The names of processes, threads and CPUs; the last one ends the list.
fn metadata(traces: &[Trace], threads: &BTreeMap<(usize, u32, u32), Vec<u8>>) -> Vec<u8> {
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
