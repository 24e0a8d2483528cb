//! Perfetto's protobuf: a stream of `TracePacket`s that ui.perfetto.dev and trace_processor open.
//!
//! Every record becomes an event in an `FtraceEventBundle` of its CPU, so that scheduling is shown as if Perfetto had recorded it. Events that
//! Perfetto knows (`events.txt`) are written as such, others as generic ones with a description of their fields. Pairs of entry and
//! return are slices of their thread besides, and records with stacks are events of it. Where it is not known until when a thread ran, a switch to
//! the idle task is written right after the one to the thread. Times are of CLOCK_BOOTTIME, as in Perfetto's own traces.

mod spans;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write,
};

use anyhow::Result;

use self::spans::SpanTracks;
use super::{
    Exported, Job, Piece,
    proto::Message,
    running::{Running, TraceCpu, Turn},
};
use crate::{
    form::format::FieldKind,
    read::{
        filter::comm,
        names::Names,
        schema::EventClass,
        slices::{Gap, GapKind, Item, Seen},
        symbolize::Symbols,
        trace::Trace,
        value::{Number, Value},
    },
    show::{
        json,
        text::{kernel_frames, user_frames},
        time,
    },
};

/// The events that Perfetto knows; `events.py` has made it.
const KNOWN: &str = include_str!("events.txt");
/// Generic events have field numbers of their own, above all that are given.
const FIRST_GENERIC: u32 = 1 << 16;
/// The one sequence of packets.
const SEQUENCE: u64 = 1;
/// The track of losses; those of threads follow.
const LOSSES: u64 = 1;
const BOOTTIME: u64 = 6;
/// Kinds of track events.
const BEGIN: u64 = 1;
const END: u64 = 2;
const INSTANT: u64 = 3;

/// Field numbers, by message.
mod field {
    pub(crate) const TRACE_PACKET: u32 = 1;

    pub(crate) const FTRACE_EVENTS: u32 = 1;
    pub(crate) const PROCESS_TREE: u32 = 2;
    pub(crate) const CLOCK_SNAPSHOT: u32 = 6;
    pub(crate) const TIMESTAMP: u32 = 8;
    pub(crate) const SEQUENCE_ID: u32 = 10;
    pub(crate) const TRACK_EVENT: u32 = 11;
    pub(crate) const SEQUENCE_FLAGS: u32 = 13;
    pub(crate) const FTRACE_STATS: u32 = 34;
    pub(crate) const SYSTEM_INFO: u32 = 45;
    pub(crate) const TRACK_DESCRIPTOR: u32 = 60;
    pub(crate) const MACHINE_ID: u32 = 98;
}

/// The events that Perfetto knows, by name: the number of each, and those of its fields.
type KnownEvents = HashMap<&'static str, (u32, HashMap<&'static str, u32>)>;

/// What is written of an event.
#[derive(Debug)]
struct Shape {
    /// Its number in `FtraceEvent`.
    number: u32,
    /// By field: its number in the event's message. `None`: Perfetto does not know it.
    fields: Vec<Option<u32>>,
    is_generic: bool,
    /// The field with the time since the entry.
    duration: Option<usize>,
}

/// A slice's worth of packets.
struct Part {
    packets: Vec<u8>,
    /// Trace, process and thread of all records, and the thread's last name.
    threads: BTreeMap<(usize, u32, u32), Vec<u8>>,
    /// Threads that have slices or stacks.
    tracks: BTreeSet<(usize, u32, u32)>,
    running: Running,
    /// Turns whose end is not known.
    endless: u64,
    /// Values of fields that Perfetto does not know.
    unknown: u64,
}

/// Writes the traces.
///
/// # Errors
/// When a file cannot be read, or `output` not be written.
pub fn write(job: Job<'_>, output: &mut dyn Write) -> Result<Exported> {
    let traces = job.traces;
    let known = known();
    let shapes: Vec<Vec<Option<Shape>>> = traces
        .iter()
        .enumerate()
        .map(|(index, trace)| trace.schema.by_id().map(|event| Some(shape(index, event?, &known))).collect())
        .collect();
    output.write_all(&head(traces, &shapes))?;
    let mut threads = BTreeMap::new();
    let mut tracks = BTreeSet::new();
    let (mut running, mut endless, mut unknown) = (Running::default(), 0, 0);
    let filter = job.filter;
    let worker = || {
        let (shapes, known) = (&shapes, &known);
        let mut symbols: Vec<Symbols> = traces.iter().map(Trace::symbols).collect();
        move |slice: &crate::read::slices::Slice| {
            let mut writer = Writer::new(traces, shapes, known, &mut symbols);
            filter.show(slice, traces, |item, names| writer.item(&item, names));
            writer.finish()
        }
    };
    let mut spans = SpanTracks::new(traces);
    let done = job.run(worker, |piece: Piece<'_, Part>| {
        let part = match piece {
            Piece::Part(part) => part,
            Piece::Span(span) => return Ok(output.write_all(&spans.packets(span, &mut tracks))?),
        };
        let mut bytes = Message::default();
        for thread in &part.tracks {
            if tracks.insert(*thread) {
                thread_track(&mut bytes, *thread);
            }
        }
        threads.extend(part.threads);
        endless += part.endless;
        unknown += part.unknown;
        output.write_all(&bytes.into_bytes())?;
        output.write_all(&part.packets)?;
        let mut bytes = Message::default();
        for (cpu, turn) in running.append(part.running) {
            endless += end_turn(&mut bytes, traces, &known, cpu, &turn);
        }
        Ok(output.write_all(&bytes.into_bytes())?)
    })?;
    output.write_all(&tail(traces, &threads))?;
    let left_out = vec![
        ("times of threads on CPUs whose ends are not known", endless),
        ("values of fields that Perfetto does not know", unknown),
    ];
    Ok(Exported { left_out, ..done })
}

fn known() -> KnownEvents {
    let event = |line: &'static str| {
        let mut words = line.split(' ');
        let (name, number) = (words.next()?, words.next()?.parse().ok()?);
        let field = |word: &'static str| {
            let mut parts = word.split(':');
            Some((parts.next()?, parts.next()?.parse().ok()?))
        };
        Some((name, (number, words.filter_map(field).collect())))
    };
    KNOWN.lines().filter_map(event).collect()
}

fn shape(trace: usize, event: &EventClass, known: &KnownEvents) -> Shape {
    let duration = event.field("duration_ns");
    // Only tracepoints are events of ftrace.
    let is_tracepoint = event.name.split(':').count() == 2;
    let name = event.name.split_once(':').map_or("", |(_, name)| name);
    if let Some((number, fields)) = known.get(name).filter(|_| is_tracepoint && !event.name.starts_with("syscall:")) {
        let fields = event.fields.iter().map(|field| fields.get(field.name.as_str()).copied()).collect();
        return Shape { number: *number, fields, is_generic: false, duration };
    }
    let number = FIRST_GENERIC + (u32::try_from(trace).unwrap_or(0) << 16) + u32::from(event.id);
    let fields = (1..).take(event.fields.len()).map(Some).collect();
    Shape { number, fields, is_generic: true, duration }
}

/// A packet of the stream. Those of traces but the first are of other machines.
fn packet(stream: &mut Message, trace: usize, write: impl FnOnce(&mut Message)) {
    stream.nested(field::TRACE_PACKET, |packet| {
        write(packet);
        packet.number(field::SEQUENCE_ID, SEQUENCE);
        if trace > 0 {
            packet.number(field::MACHINE_ID, trace as u64);
        }
    });
}

/// The packets before all events: clocks, machines, tracks, and what generic events look like.
fn head(traces: &[Trace], shapes: &[Vec<Option<Shape>>]) -> Vec<u8> {
    let mut stream = Message::default();
    for (index, trace) in traces.iter().enumerate() {
        let start = trace.session.clock.start;
        packet(&mut stream, index, |packet| {
            packet.number(field::SEQUENCE_FLAGS, 1);
            packet.nested(field::CLOCK_SNAPSHOT, |snapshot| {
                let boottime = boottime(traces, trace.common(start.monotonic));
                // The machine's own clocks are brought to the first one's already.
                let monotonic = trace.common(start.monotonic);
                for (id, time) in [(1, start.realtime), (3, monotonic), (BOOTTIME, boottime)] {
                    snapshot.nested(1, |clock| {
                        clock.number(1, id);
                        clock.number(2, time);
                    });
                }
                snapshot.number(2, BOOTTIME);
            });
        });
        packet(&mut stream, index, |packet| {
            packet.nested(field::SYSTEM_INFO, |info| {
                info.nested(1, |utsname| {
                    utsname.text(1, b"Linux");
                    utsname.text(3, trace.session.kernel.as_bytes());
                });
                info.text(17, trace.session.host.as_bytes());
                info.signed(7, zone_minutes(start.realtime));
            });
        });
        let generic = trace.schema.by_id().zip(&shapes[index]);
        let generic = generic.filter_map(|(event, shape)| Some((event?, shape.as_ref()?)));
        packet(&mut stream, index, |packet| {
            packet.nested(field::FTRACE_EVENTS, |bundle| {
                bundle.number(1, 0);
                for (event, shape) in generic.filter(|(_, shape)| shape.is_generic) {
                    describe(bundle, event, shape);
                }
            });
        });
    }
    packet(&mut stream, 0, |packet| {
        packet.nested(field::TRACK_DESCRIPTOR, |track| {
            track.number(1, LOSSES);
            track.text(2, b"relayd: lost records");
        });
    });
    stream.into_bytes()
}

/// Minutes by which the local time zone was ahead of UTC then.
fn zone_minutes(realtime: u64) -> i64 {
    let stamp = jiff::Timestamp::from_nanosecond(realtime.into()).unwrap_or_default();
    // Where TZ names no zone, times are of UTC.
    time::zone().map_or(0, |zone| i64::from(zone.to_offset(stamp).seconds() / 60))
}

/// A `GenericEventDescriptor`: the event's group, and a `DescriptorProto` of its fields.
fn describe(bundle: &mut Message, event: &EventClass, shape: &Shape) {
    const OPTIONAL: u64 = 1;
    const INT64: u64 = 3;
    const UINT64: u64 = 4;
    const STRING: u64 = 9;
    let (group, name) = event.name.split_once(':').unwrap_or(("", &event.name));
    let mut descriptor = Message::default();
    descriptor.text(1, name.as_bytes());
    for (field, number) in event.fields.iter().zip(&shape.fields) {
        let kind = match field.kind {
            FieldKind::Integer(element) if element.signed => INT64,
            FieldKind::Integer(_) => UINT64,
            FieldKind::Array(_) | FieldKind::Dynamic { .. } => STRING,
        };
        descriptor.nested(2, |of| {
            of.text(1, field.name.as_bytes());
            of.number(3, number.unwrap_or_default().into());
            of.number(4, OPTIONAL);
            of.number(5, kind);
        });
    }
    bundle.nested(11, |generic| {
        generic.number(1, shape.number.into());
        generic.bytes(2, &descriptor.into_bytes());
        generic.text(3, group.as_bytes());
    });
}

/// The packets after all events: names, and the account.
fn tail(traces: &[Trace], threads: &BTreeMap<(usize, u32, u32), Vec<u8>>) -> Vec<u8> {
    let mut stream = Message::default();
    for (index, trace) in traces.iter().enumerate() {
        let start = boottime(traces, trace.common(trace.session.clock.start.monotonic));
        let of = || threads.iter().filter(|((trace, ..), _)| *trace == index);
        let mut processes: BTreeMap<u32, &[u8]> = of().map(|((_, pid, _), _)| (*pid, &b""[..])).collect();
        for ((_, pid, _), name) in of().filter(|((_, pid, tid), _)| pid == tid) {
            processes.insert(*pid, name);
        }
        packet(&mut stream, index, |packet| {
            packet.number(field::TIMESTAMP, start);
            packet.nested(field::PROCESS_TREE, |tree| {
                for (pid, name) in &processes {
                    let name = if name.is_empty() { trace.names.last(*pid).unwrap_or_default() } else { name };
                    tree.nested(1, |process| {
                        process.number(1, (*pid).into());
                        process.text(3, name);
                        process.number(9, 1);
                    });
                }
                for ((_, pid, tid), name) in of() {
                    tree.nested(2, |thread| {
                        thread.number(1, (*tid).into());
                        thread.number(3, (*pid).into());
                        thread.text(2, name);
                    });
                }
            });
        });
        let end = trace.session.clock.end.unwrap_or(trace.session.clock.start);
        packet(&mut stream, index, |packet| {
            packet.number(field::TIMESTAMP, boottime(traces, trace.common(end.monotonic)));
            packet.nested(field::FTRACE_STATS, |statistics| {
                statistics.number(1, 2);
                for cpu in &trace.session.cpus {
                    statistics.nested(2, |of| {
                        of.number(1, cpu.cpu.into());
                        of.number(2, cpu.in_file());
                        of.number(3, cpu.overrun);
                        of.number(5, cpu.bytes);
                        of.number(8, cpu.lost());
                        of.number(9, cpu.in_file());
                    });
                }
            });
        });
    }
    stream.into_bytes()
}

/// A thread's own track, for its slices.
fn thread_track(stream: &mut Message, thread: (usize, u32, u32)) {
    let (trace, pid, tid) = thread;
    packet(stream, trace, |packet| {
        packet.nested(field::TRACK_DESCRIPTOR, |track| {
            track.number(1, track_id(trace, tid));
            track.nested(4, |of| {
                of.number(1, pid.into());
                of.number(2, tid.into());
            });
        });
    });
}

fn track_id(trace: usize, tid: u32) -> u64 {
    (trace as u64 + 1) << 32 | u64::from(tid)
}

/// A time of the common clock, which is the first trace's monotonic one.
fn boottime(traces: &[Trace], time: u64) -> u64 {
    let start = traces.first().map(|trace| trace.session.clock.start);
    start.map_or(time, |start| time.saturating_add(start.boottime.saturating_sub(start.monotonic)))
}

/// Where it is not known until when a thread ran, Perfetto would show it until the next switch: the CPU is switched to the idle task at once.
/// Returns how many such there are.
fn end_turn(stream: &mut Message, traces: &[Trace], known: &KnownEvents, cpu: TraceCpu, turn: &Turn) -> u64 {
    const SLEEPS: i64 = 1;
    let (trace, cpu) = cpu;
    let Some((number, fields)) = known.get("sched_switch").filter(|_| turn.tid != 0 && turn.end.is_none()) else {
        return 0;
    };
    let time = boottime(traces, turn.begin);
    let tid = i64::try_from(turn.tid).unwrap_or_default();
    packet(stream, trace, |packet| {
        packet.nested(field::FTRACE_EVENTS, |bundle| {
            bundle.number(1, cpu.into());
            bundle.nested(2, |event| {
                event.number(1, time);
                event.signed(2, tid);
                event.nested(*number, |message| {
                    let texts = [("prev_comm", &turn.name[..]), ("next_comm", b"swapper")];
                    texts.iter().for_each(|(name, of)| message.text(fields.get(name).copied().unwrap_or_default(), of));
                    for (name, number) in [("prev_pid", tid), ("prev_state", SLEEPS), ("next_pid", 0)] {
                        message.signed(fields.get(name).copied().unwrap_or_default(), number);
                    }
                });
            });
        });
    });
    1
}

/// Writes a slice's packets.
struct Writer<'t> {
    traces: &'t [Trace],
    shapes: &'t [Vec<Option<Shape>>],
    known: &'t KnownEvents,
    symbols: &'t mut [Symbols],
    /// A bundle's content for each CPU.
    bundles: BTreeMap<(usize, u32), Message>,
    /// Losses and slices.
    others: Message,
    part: Part,
}

impl<'t> Writer<'t> {
    fn new(
        traces: &'t [Trace],
        shapes: &'t [Vec<Option<Shape>>],
        known: &'t KnownEvents,
        symbols: &'t mut [Symbols],
    ) -> Self {
        let part = Part {
            packets: Vec::new(),
            threads: BTreeMap::new(),
            tracks: BTreeSet::new(),
            running: Running::default(),
            endless: 0,
            unknown: 0,
        };
        Self { traces, shapes, known, symbols, bundles: BTreeMap::new(), others: Message::default(), part }
    }

    fn item(&mut self, item: &Item<'_>, names: &Names) {
        match item {
            Item::Record(seen) => self.record(seen, names),
            Item::Gap(gap) => self.gap(gap),
        }
    }

    fn record(&mut self, seen: &Seen<'_>, names: &Names) {
        let trace = seen.source.trace;
        let Some(shape) = self.shapes[trace].get(usize::from(seen.event.id)).and_then(Option::as_ref) else { return };
        let time = boottime(self.traces, seen.time);
        let thread = (trace, seen.record.pid, seen.record.tid);
        let name = comm(seen, names);
        let known = self.part.threads.entry(thread).or_default();
        if known != name {
            *known = name.to_vec();
        }
        let unknown = &mut self.part.unknown;
        let bundle = self.bundles.entry((trace, seen.source.cpu)).or_default();
        bundle.nested(2, |event| {
            event.number(1, time);
            event.number(2, seen.record.tid.into());
            event.nested(shape.number, |message| {
                for ((_, value), number) in seen.event.values(seen.payload).zip(&shape.fields) {
                    match number {
                        Some(number) => push_value(message, *number, value, shape.is_generic),
                        None => *unknown += 1,
                    }
                }
            });
        });
        let frames = kernel_frames(seen.context.kstack).chain(user_frames(seen.record.pid, seen.context.ustack));
        let mut stack: Vec<String> = frames.map(|frame| frame.name(&mut self.symbols[trace])).collect();
        // The outermost first.
        stack.reverse();
        let duration = shape.duration.and_then(|index| seen.event.value(index, seen.payload));
        if let Some(Value::Number(Number::Unsigned(duration))) = duration {
            self.on_track(seen, time.saturating_sub(duration), BEGIN, &stack);
            self.on_track(seen, time, END, &[]);
        } else if !stack.is_empty() {
            self.on_track(seen, time, INSTANT, &stack);
        }
        if let Some(turn) = self.part.running.record(seen) {
            self.end_turn((trace, seen.source.cpu), &turn);
        }
    }

    fn end_turn(&mut self, cpu: TraceCpu, turn: &Turn) {
        self.part.endless += end_turn(&mut self.others, self.traces, self.known, cpu, turn);
    }

    /// Something on the thread's own track, with what it had called.
    fn on_track(&mut self, seen: &Seen<'_>, time: u64, kind: u64, stack: &[String]) {
        let (trace, tid) = (seen.source.trace, seen.record.tid);
        self.part.tracks.insert((trace, seen.record.pid, tid));
        packet(&mut self.others, trace, |packet| {
            packet.number(field::TIMESTAMP, time);
            packet.nested(field::TRACK_EVENT, |event| {
                event.number(9, kind);
                event.number(11, track_id(trace, tid));
                if kind != END {
                    event.text(23, seen.event.name.as_bytes());
                }
                if !stack.is_empty() {
                    event.nested(55, |callstack| {
                        stack.iter().for_each(|name| callstack.nested(1, |frame| frame.text(1, name.as_bytes())));
                    });
                }
            });
        });
    }

    fn gap(&mut self, gap: &Gap) {
        let (trace, cpu) = (gap.source.trace, gap.source.cpu);
        if let Some(turn) = self.part.running.gap(gap) {
            self.end_turn((trace, cpu), &turn);
        }
        // `lost_events`
        self.bundles.entry((trace, cpu)).or_default().number(3, 1);
        let text = match gap.kind {
            GapKind::Lost(records) => format!("cpu {cpu}: {records} records lost"),
            GapKind::Overrun(subbufs) => format!("cpu {cpu}: {subbufs} sub-buffers overrun"),
        };
        let time = boottime(self.traces, gap.until);
        packet(&mut self.others, 0, |packet| {
            packet.number(field::TIMESTAMP, time);
            packet.nested(field::TRACK_EVENT, |event| {
                event.number(9, INSTANT);
                event.number(11, LOSSES);
                event.text(23, text.as_bytes());
            });
        });
    }

    fn finish(mut self) -> Part {
        let mut stream = Message::default();
        for ((trace, cpu), bundle) in self.bundles {
            packet(&mut stream, trace, |packet| {
                packet.nested(field::FTRACE_EVENTS, |message| {
                    message.number(1, cpu.into());
                    message.append(&bundle);
                });
            });
        }
        stream.append(&self.others);
        self.part.packets = stream.into_bytes();
        self.part
    }
}

fn push_value(message: &mut Message, field: u32, value: Value<'_>, is_generic: bool) {
    match value {
        Value::Number(Number::Signed(number)) => message.signed(field, number),
        Value::Number(Number::Unsigned(number) | Number::Address(number)) => message.number(field, number),
        Value::Text(text) => message.text(field, text),
        Value::Texts(_) => {
            let mut text = Vec::new();
            json::push_value(&mut text, value);
            message.text(field, &text);
        }
        // Descriptions of generic events have no lists.
        Value::List(..) if is_generic => {
            let elements: Vec<_> = value.elements().map(|number| number.wide().to_string()).collect();
            message.text(field, elements.join(",").as_bytes());
        }
        Value::List(..) => value.elements().for_each(|number| match number {
            Number::Signed(number) => message.signed(field, number),
            Number::Unsigned(number) | Number::Address(number) => message.number(field, number),
        }),
    }
}
