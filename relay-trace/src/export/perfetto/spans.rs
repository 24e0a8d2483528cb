//! Spans as slices on tracks of their own, with flows between the threads at their ends.

use std::collections::{BTreeMap, BTreeSet};

use super::{BEGIN, END, INSTANT, Message, boottime, field, packet, thread_track, track_id};
use crate::{
    answers::span::AsRecord,
    export::lanes::{Lane, Lanes},
    read::{
        trace::Trace,
        value::{Number, Value},
    },
    show::json,
};

/// The tracks of lanes are numbered from here on: no thread's number is as high.
const FIRST: u64 = 1 << 62;

/// Field numbers of `TrackEvent`.
mod event {
    pub(super) const ANNOTATION: u32 = 4;
    pub(super) const KIND: u32 = 9;
    pub(super) const TRACK: u32 = 11;
    pub(super) const NAME: u32 = 23;
    pub(super) const FLOW: u32 = 47;
    pub(super) const LAST_OF_FLOW: u32 = 48;
}

/// The tracks of spans.
pub(super) struct SpanTracks<'t> {
    traces: &'t [Trace],
    lanes: Lanes,
    tracks: BTreeMap<Lane, u64>,
    flows: u64,
}

impl<'t> SpanTracks<'t> {
    pub(super) fn new(traces: &'t [Trace]) -> Self {
        Self { traces, lanes: Lanes::default(), tracks: BTreeMap::new(), flows: 0 }
    }

    /// The packets of a span; `threads` are those that have a track.
    pub(super) fn packets(&mut self, span: &AsRecord<'_>, threads: &mut BTreeSet<(usize, u32, u32)>) -> Vec<u8> {
        let mut stream = Message::default();
        let trace = span.seen.source.trace;
        let (lane, is_new) = self.lanes.put(trace, span.name(), span.start(), span.seen.time);
        let next = FIRST + self.tracks.len() as u64;
        let track = *self.tracks.entry(lane).or_insert(next);
        if is_new {
            packet(&mut stream, trace, |packet| {
                packet.nested(field::TRACK_DESCRIPTOR, |of| {
                    of.number(1, track);
                    // Tracks of one name are shown as one.
                    of.text(2, format!("span {}", span.name()).as_bytes());
                });
            });
        }
        let title = span.title();
        self.event(&mut stream, trace, span.start(), |event| {
            event.number(event::KIND, BEGIN);
            event.number(event::TRACK, track);
            event.text(event::NAME, &title);
            for (field, value) in span.seen.event.values(span.seen.payload) {
                event.nested(event::ANNOTATION, |annotation| annotate(annotation, &field.name, value));
            }
        });
        self.event(&mut stream, trace, span.seen.time, |event| {
            event.number(event::KIND, END);
            event.number(event::TRACK, track);
        });
        if span.moves() {
            self.flow(&mut stream, span, threads);
        }
        stream.into_bytes()
    }

    /// From the thread that began it to the one that it ended with.
    fn flow(&mut self, stream: &mut Message, span: &AsRecord<'_>, threads: &mut BTreeSet<(usize, u32, u32)>) {
        self.flows += 1;
        let trace = span.seen.source.trace;
        let ends = [
            (span.start(), span.began, event::FLOW, "begins"),
            (span.seen.time, span.ended, event::LAST_OF_FLOW, "ends"),
        ];
        for (time, (pid, tid), flow, what) in ends {
            if threads.insert((trace, pid, tid)) {
                thread_track(stream, (trace, pid, tid));
            }
            self.event(stream, trace, time, |event| {
                event.number(event::KIND, INSTANT);
                event.number(event::TRACK, track_id(trace, tid));
                event.text(event::NAME, format!("{} {what}", span.name()).as_bytes());
                event.fixed(flow, self.flows);
            });
        }
    }

    fn event(&self, stream: &mut Message, trace: usize, time: u64, write: impl FnOnce(&mut Message)) {
        packet(stream, trace, |packet| {
            packet.number(field::TIMESTAMP, boottime(self.traces, time));
            packet.nested(field::TRACK_EVENT, write);
        });
    }
}

/// A `DebugAnnotation`.
fn annotate(annotation: &mut Message, name: &str, value: Value<'_>) {
    annotation.text(10, name.as_bytes());
    match value {
        Value::Number(Number::Signed(number)) => annotation.signed(4, number),
        Value::Number(Number::Unsigned(number) | Number::Address(number)) => annotation.number(3, number),
        Value::Text(text) => annotation.text(6, text),
        Value::Texts(_) => {
            let mut text = Vec::new();
            json::push_value(&mut text, value);
            annotation.text(6, &text);
        }
        Value::List(..) => {
            let elements: Vec<_> = value.elements().map(|number| number.wide().to_string()).collect();
            annotation.text(6, elements.join(",").as_bytes());
        }
    }
}
