//! A span as a record: of the event `span:NAME`, whose fields are the span's own and those of its two ends.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result};

use super::{Span, Spans, matching::End};
use crate::{
    answers::key::Key,
    form::format::{Display, Element, FieldKind},
    read::{
        packet::Record,
        schema::{EventClass, OwnField},
        slices::{Seen, SourceId},
        trace::Trace,
        value::{Number, Value},
    },
};

/// The fields that every span has, beside those of its ends: how long it was, in nanoseconds; where it began; and whether records were lost meanwhile (1), so that it may
/// be two.
pub const OF_EVERY: [OwnField; 3] = [own("duration_ns", 8), own("start_cpu", 4), own("crossed", 1)];

const fn own(name: &'static str, size: usize) -> OwnField {
    OwnField { name, kind: FieldKind::Integer(Element { size, signed: false, display: Display::Decimal }), size }
}

/// What the names of their events begin with.
const PREFIX: &str = "span:";

/// By definition and trace, and the events that are START and END.
type SpanOfEvents = (usize, usize, u16, u16);

/// The events of all spans that there can be.
#[derive(Debug)]
pub(super) struct SpanEvents {
    events: Vec<(usize, EventClass)>,
    of: HashMap<SpanOfEvents, usize>,
}

/// A span as a record of an event.
#[derive(Clone, Copy, Debug)]
pub struct AsRecord<'r> {
    /// The record.
    pub seen: Seen<'r>,
    /// The thread of START's record, its process before it.
    pub began: (u32, u32),
    /// The thread at END: of the scheduler's spans the one that they are about, else that of END's record.
    pub ended: (u32, u32),
}

impl AsRecord<'_> {
    /// What the span is called.
    #[must_use]
    pub fn name(&self) -> &str {
        self.seen.event.name.strip_prefix(PREFIX).unwrap_or(&self.seen.event.name)
    }

    /// When it began, in nanoseconds of the common clock.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.seen.time.saturating_sub(self.number(0))
    }

    /// Where it began.
    #[must_use]
    pub fn start_cpu(&self) -> u64 {
        self.number(1)
    }

    /// Whether records were lost meanwhile: it may be two.
    #[must_use]
    pub fn is_crossed(&self) -> bool {
        self.number(2) != 0
    }

    /// Whether it goes from one thread or CPU to another.
    #[must_use]
    pub fn moves(&self) -> bool {
        self.began != self.ended || self.start_cpu() != u64::from(self.seen.source.cpu)
    }

    /// The thread that it is about, in a few words.
    #[must_use]
    pub fn title(&self) -> Vec<u8> {
        let mut title = self.seen.context.comm.unwrap_or_default().to_vec();
        title.extend_from_slice(format!("-{}", self.seen.record.tid).as_bytes());
        if self.is_crossed() {
            title.extend_from_slice(b" (crossed a loss)");
        }
        title
    }

    /// One of the fields of every span.
    fn number(&self, index: usize) -> u64 {
        match self.seen.event.value(index, self.seen.payload) {
            Some(Value::Number(Number::Unsigned(number))) => number,
            _ => 0,
        }
    }
}

impl SpanEvents {
    /// One for every two events that can be the ends of a span. Their ids follow those of the trace's own.
    pub(super) fn new(spans: &Spans<'_>) -> Result<Self> {
        let (mut events, mut of) = (Vec::new(), HashMap::new());
        for (trace, Trace { schema, .. }) in spans.traces.iter().enumerate() {
            let mut id = schema.ids();
            for (definition, wanted) in spans.definitions.iter().enumerate() {
                let name = format!("{PREFIX}{}", wanted.definition.name);
                for start in schema.events().filter(|event| wanted.start.has_event(trace, event.id)) {
                    for end in schema.events().filter(|event| wanted.end().has_event(trace, event.id)) {
                        let few = u16::try_from(id).with_context(|| {
                            format!("the ends of the span {} are too many events", wanted.definition.name)
                        })?;
                        id += 1;
                        of.insert((definition, trace, start.id, end.id), events.len());
                        events.push((trace, joined(few, &name, start, end)));
                    }
                }
            }
        }
        Ok(Self { events, of })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (usize, &EventClass)> {
        self.events.iter().map(|(trace, event)| (*trace, event))
    }
}

/// The event of spans with these ends. END's fields are called `end_NAME` where START has the name.
fn joined(id: u16, name: &str, start: &EventClass, end: &EventClass) -> EventClass {
    let own = EventClass::of(id, name.to_owned(), &OF_EVERY);
    let mut taken: HashSet<String> = OF_EVERY.iter().map(|field| field.name.to_owned()).collect();
    let mut names = |event: &EventClass, prefix: &str| {
        let free = |field: &str| {
            let mut name = field.to_owned();
            while !taken.insert(name.clone()) {
                name = format!("{prefix}{name}");
            }
            name
        };
        event.fields.iter().map(|field| field.name.as_str()).map(free).collect::<Vec<_>>()
    };
    let (of_start, of_end) = (names(start, "start_"), names(end, "end_"));
    own.followed_by(start, of_start).followed_by(end, of_end)
}

impl Span<'_> {
    /// Shows the span as a record: at its END, of the thread that it is about, with what stood before START's fields. None where records were not kept.
    pub fn as_record<T>(&self, spans: &Spans<'_>, show: impl FnOnce(&AsRecord<'_>) -> T) -> Option<T> {
        let trace = self.source.trace;
        let schema = &spans.traces.get(trace)?.schema;
        let [start, end] = self.ends.map(|End { kept, .. }| kept.as_ref().map(|kept| kept.record()));
        let (start, end) = (start?, end?);
        let events = spans.events.as_ref()?;
        let (_, event) = events.events.get(*events.of.get(&(self.definition, trace, start.id, end.id))?)?;
        let (start_event, mut context, start_payload) = schema.open(&start).ok()?;
        let (end_event, _, end_payload) = schema.open(&end).ok()?;
        let duration = self.end.saturating_sub(self.start);
        let own = [&duration.to_le_bytes()[..], &self.start_cpu.to_le_bytes(), &[u8::from(self.crossed)]].concat();
        let payload = EventClass::join(&[
            (&EventClass::of(0, String::new(), &OF_EVERY), &own),
            (start_event, start_payload),
            (end_event, end_payload),
        ]);
        let comm = match self.comm {
            Key::Text(comm) => comm.as_bytes(),
            Key::Number(_) => b"",
        };
        context.comm = Some(comm);
        // Threads whose process no record has told are most often its first.
        let pid = self.pid.unwrap_or(self.tid);
        let record = Record { timestamp: end.timestamp, id: event.id, tid: self.tid, pid, payload: &payload };
        let source = SourceId { trace, cpu: self.source.cpu };
        let seen = Seen { time: self.end, source, record, event, context, payload: &payload };
        let is_sched = self.keys.is_empty();
        let ended = if is_sched { (pid, self.tid) } else { (end.pid, end.tid) };
        Some(show(&AsRecord { seen, began: (start.pid, start.tid), ended }))
    }
}
