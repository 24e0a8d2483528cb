//! Records as JSON lines. `docs/reading.md` has the schema, which does not change: keys are only added.

use super::{
    text::{ByEvent, Frame, Style, Words, kernel_frames, may_go_on, push_list, push_number, push_texts, user_frames},
    time::WallClock,
};
use crate::{
    form::builds,
    read::{
        filter::comm,
        names::Names,
        slices::{Gap, GapKind, Item, Seen},
        symbolize::Symbols,
        trace::Trace,
        value::{Number, Value, texts},
    },
};

/// Writes records as JSON, an object a line.
#[derive(Debug)]
pub struct JsonWriter<'t> {
    style: &'t Style,
    wall: WallClock,
    symbols: Vec<Symbols>,
    words: ByEvent<Words>,
    /// Of each trace, as JSON, when there are several.
    hosts: Vec<String>,
}

impl<'t> JsonWriter<'t> {
    /// A writer for records of these traces.
    #[must_use]
    pub fn new(traces: &'t [Trace], style: &'t Style) -> Self {
        let host = |trace: &Trace| {
            let mut text = Vec::new();
            push_text(&mut text, trace.session.host.as_bytes());
            String::from_utf8_lossy(&text).into_owned()
        };
        Self {
            style,
            wall: style.wall.clone(),
            symbols: traces.iter().map(Trace::symbols).collect(),
            words: ByEvent::new(traces),
            hosts: if traces.len() > 1 { traces.iter().map(host).collect() } else { Vec::new() },
        }
    }

    /// Writes a record or a loss.
    pub fn write(&mut self, item: &Item<'_>, names: &Names, text: &mut Vec<u8>) {
        match item {
            Item::Record(seen) => self.record(seen, names, text),
            Item::Gap(gap) => self.gap(gap, text),
        }
    }

    fn record(&mut self, seen: &Seen<'_>, names: &Names, text: &mut Vec<u8>) {
        let trace = seen.source.trace;
        self.place(trace, seen.time, seen.source.cpu, text);
        text.extend_from_slice(b",\"pid\":");
        push_number(text, seen.record.pid);
        text.extend_from_slice(b",\"tid\":");
        push_number(text, seen.record.tid);
        text.extend_from_slice(b",\"comm\":");
        push_text(text, comm(seen, names));
        text.extend_from_slice(b",\"event\":");
        push_text(text, seen.event.name.as_bytes());
        self.context(seen, names, text);
        text.extend_from_slice(b",\"fields\":{");
        let shown = |name: &String| self.style.fields.is_empty() || self.style.fields.contains(name);
        let mut first = true;
        for (field, value) in seen.event.values(seen.payload).filter(|(field, _)| shown(&field.name)) {
            push_key(text, &mut first, &field.name);
            push_value(text, value);
            if let Value::Texts(of) = value
                && texts(of).1
            {
                push_key(text, &mut first, &format!("{}_cut", field.name));
                text.extend_from_slice(b"true");
            }
        }
        text.push(b'}');
        if !seen.event.print_format.has_words() {
            text.extend_from_slice(b"}\n");
            return;
        }
        text.extend_from_slice(b",\"words\":{");
        let mut first = true;
        let words = self.words.of(trace, seen.event, Words::default);
        for (index, (field, value)) in seen.event.values(seen.payload).enumerate() {
            if !shown(&field.name) || !seen.event.print_format.has_words_for(index) {
                continue;
            }
            if let Some(word) = words.of(seen.event, index, value, seen.payload, &self.symbols[trace]) {
                push_key(text, &mut first, &field.name);
                push_text(text, &word);
            }
        }
        text.extend_from_slice(b"}}\n");
    }

    fn context(&mut self, seen: &Seen<'_>, names: &Names, text: &mut Vec<u8>) {
        let context = &seen.context;
        if let Some(uid) = context.uid {
            text.extend_from_slice(b",\"uid\":");
            push_number(text, uid);
        }
        if let Some(cgroup) = context.cgroup {
            text.extend_from_slice(b",\"cgroup\":");
            push_number(text, cgroup);
            if let Some(path) = names.cgroup(cgroup) {
                text.extend_from_slice(b",\"cgroup_path\":");
                push_text(text, path.as_bytes());
            }
        }
        let symbols = &mut self.symbols[seen.source.trace];
        if !context.kstack.is_empty() {
            push_stack(text, "kstack", kernel_frames(context.kstack), symbols);
        }
        if !context.ustack.is_empty() {
            push_stack(text, "ustack", user_frames(seen.record.pid, context.ustack), symbols);
        }
    }

    fn gap(&mut self, gap: &Gap, text: &mut Vec<u8>) {
        self.place(gap.source.trace, gap.until, gap.source.cpu, text);
        text.extend_from_slice(b",\"since\":");
        push_number(text, gap.since);
        let (key, count): (&[u8], u64) = match gap.kind {
            GapKind::Lost(records) => (b",\"lost\":", records),
            GapKind::Overrun(subbufs) => (b",\"overrun_subbufs\":", subbufs),
        };
        text.extend_from_slice(key);
        push_number(text, count);
        text.extend_from_slice(b"}\n");
    }

    /// `{"time":…,"wall":…,"cpu":…`
    fn place(&mut self, trace: usize, time: u64, cpu: u32, text: &mut Vec<u8>) {
        text.extend_from_slice(b"{\"time\":");
        push_number(text, time);
        text.extend_from_slice(b",\"wall\":\"");
        self.wall.push(text, time);
        text.push(b'"');
        if let Some(host) = self.hosts.get(trace) {
            text.extend_from_slice(b",\"host\":");
            text.extend_from_slice(host.as_bytes());
        }
        text.extend_from_slice(b",\"cpu\":");
        push_number(text, cpu);
    }
}

fn push_key(text: &mut Vec<u8>, first: &mut bool, name: &str) {
    if !std::mem::take(first) {
        text.push(b',');
    }
    // The names of fields are identifiers.
    text.push(b'"');
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b"\":");
}

/// A value as JSON.
pub fn push_value(text: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Number(number) => push_any(text, number),
        Value::Text(of) => push_text(text, of),
        Value::Texts(of) => drop(push_texts(text, of, push_text)),
        Value::List(..) => push_list(text, value, push_any),
    }
}

fn push_any(text: &mut Vec<u8>, number: Number) {
    match number {
        Number::Unsigned(number) | Number::Address(number) => push_number(text, number),
        Number::Signed(number) => push_number(text, number),
    }
}

/// A JSON string. What is not UTF-8 becomes U+FFFD.
pub fn push_text(text: &mut Vec<u8>, of: &[u8]) {
    if of.iter().all(|byte| (b' '..=b'~').contains(byte) && !matches!(byte, b'"' | b'\\')) {
        text.push(b'"');
        text.extend_from_slice(of);
        text.push(b'"');
    } else {
        let json = serde_json::Value::from(String::from_utf8_lossy(of)).to_string();
        for c in json.chars() {
            match c {
                // A terminal that is shown JSON obeys these too.
                '\u{7f}'..='\u{9f}' => text.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
                _ => text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
}

fn push_stack(text: &mut Vec<u8>, key: &str, frames: impl Iterator<Item = Frame>, symbols: &mut Symbols) {
    text.extend_from_slice(format!(",\"{key}\":").as_bytes());
    let mut count = 0;
    for (index, frame) in frames.enumerate() {
        count += 1;
        text.push(if index == 0 { b'[' } else { b',' });
        match &frame {
            Frame::Kernel(address) | Frame::Address(_, address) => {
                text.extend_from_slice(b"{\"address\":");
                push_number(text, *address);
            }
            Frame::File(build_id, offset) => {
                text.extend_from_slice(b"{\"build_id\":\"");
                text.extend_from_slice(builds::hex(build_id).as_bytes());
                text.extend_from_slice(b"\",\"offset\":");
                push_number(text, *offset);
            }
        }
        text.extend_from_slice(b",\"name\":");
        push_text(text, frame.name(symbols).as_bytes());
        text.push(b'}');
    }
    text.push(b']');
    if may_go_on(count) {
        text.extend_from_slice(format!(",\"{key}_cut\":true").as_bytes());
    }
}
