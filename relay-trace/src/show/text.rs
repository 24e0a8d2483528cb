//! Records as text, in the shape that users of ftrace know: `comm-tid [cpu] seconds: event: field=value …`.

use std::{collections::HashMap, io::Write as _};

use relay_common::recipe::context::MAX_FRAMES;

use super::{
    escape::{escaped, push_escaped, push_in_quotes, push_quoted},
    time::WallClock,
};
use crate::{
    form::builds,
    read::{
        filter::comm,
        names::Names,
        schema::{EventClass, USER_FRAME},
        slices::{Gap, GapKind, Item, Seen},
        symbolize::Symbols,
        trace::Trace,
        value::{Number, Value, texts},
    },
};

/// Values whose words are kept, for each field.
const KEPT: usize = 4096;
const NANOSECONDS: u64 = 1_000_000_000;

/// How times are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeForm {
    /// Seconds of the monotonic clock.
    Monotonic,
    /// Seconds after this.
    Since(u64),
    /// The time of the wall clock, as ISO 8601 has it.
    Wall,
}

/// How text looks.
#[derive(Clone, Debug)]
pub struct Style {
    /// How times are shown.
    pub time: TimeForm,
    /// What says when that was.
    pub wall: WallClock,
    /// Escape sequences for a terminal's colours.
    pub colours: bool,
    /// Fields that are shown; all when empty.
    pub fields: Vec<String>,
}

/// Writes records as text.
#[derive(Debug)]
pub struct TextWriter<'t> {
    style: &'t Style,
    wall: WallClock,
    symbols: Vec<Symbols>,
    events: ByEvent<Line>,
    /// Of each trace, when there are several.
    hosts: Vec<String>,
}

/// How an event's fields are shown.
#[derive(Debug)]
struct Line {
    /// ` name=`; empty when the field is not shown.
    labels: Vec<String>,
    words: Words,
}

/// The words of an event's values, as its print format has them.
#[derive(Debug, Default)]
pub struct Words {
    /// By field; what has been worked out already. `None`: it has no word.
    known: Vec<HashMap<i128, Option<Box<[u8]>>>>,
}

impl Words {
    /// The word of a value, if the event's print format has one.
    pub fn of<'w>(
        &'w mut self,
        event: &EventClass,
        field: usize,
        value: Value<'_>,
        payload: &[u8],
        symbols: &Symbols,
    ) -> Option<std::borrow::Cow<'w, [u8]>> {
        let decoder = event.print_format.decoder(field)?;
        let fields = |index| if index == field { Some(value) } else { event.value(index, payload) };
        let print = || decoder.print(&fields, symbols);
        let Value::Number(number) = value else { return print().map(Into::into) };
        if !decoder.is_alone() {
            return print().map(Into::into);
        }
        if self.known.len() <= field {
            self.known.resize_with(field + 1, HashMap::new);
        }
        let known = &mut self.known[field];
        if known.len() >= KEPT && !known.contains_key(&number.wide()) {
            return print().map(Into::into);
        }
        let word = known.entry(number.wide()).or_insert_with(|| print().map(Vec::into_boxed_slice));
        word.as_deref().map(Into::into)
    }
}

/// Something for each event of each trace, made when it is asked for first: spans are events that no trace has.
#[derive(Debug)]
pub(crate) struct ByEvent<T> {
    of: Vec<Vec<Option<T>>>,
}

impl<T> ByEvent<T> {
    pub(crate) fn new(traces: &[Trace]) -> Self {
        Self { of: traces.iter().map(|_| Vec::new()).collect() }
    }

    /// What belongs to an event of a trace.
    pub(crate) fn of(&mut self, trace: usize, event: &EventClass, make: impl FnOnce() -> T) -> &mut T {
        let (of, id) = (&mut self.of[trace], usize::from(event.id));
        if of.len() <= id {
            of.resize_with(id + 1, || None);
        }
        of[id].get_or_insert_with(make)
    }
}

impl Line {
    fn new(event: &EventClass, style: &Style) -> Self {
        let label = |name: &str| {
            let shown = style.fields.is_empty() || style.fields.iter().any(|field| field == name);
            if shown { format!(" {name}=") } else { String::new() }
        };
        Self { labels: event.fields.iter().map(|field| label(&field.name)).collect(), words: Words::default() }
    }
}

impl<'t> TextWriter<'t> {
    /// A writer for records of these traces.
    #[must_use]
    pub fn new(traces: &'t [Trace], style: &'t Style) -> Self {
        let hosts = if traces.len() > 1 {
            traces.iter().map(|trace| format!("{} ", escaped(&trace.session.host))).collect()
        } else {
            Vec::new()
        };
        Self {
            style,
            wall: style.wall.clone(),
            symbols: traces.iter().map(Trace::symbols).collect(),
            events: ByEvent::new(traces),
            hosts,
        }
    }

    /// Writes a record or a loss, a line each, and the frames of stacks on lines of their own.
    pub fn write(&mut self, item: &Item<'_>, names: &Names, text: &mut Vec<u8>) {
        match item {
            Item::Record(seen) => self.record(seen, names, text),
            Item::Gap(gap) => self.gap(gap, text),
        }
    }

    fn record(&mut self, seen: &Seen<'_>, names: &Names, text: &mut Vec<u8>) {
        let (trace, event) = (seen.source.trace, seen.event);
        self.host(trace, text);
        let name = comm(seen, names);
        text.extend(std::iter::repeat_n(b' ', 16usize.saturating_sub(name.len())));
        push_escaped(text, name);
        text.push(b'-');
        let before = text.len();
        push_number(text, seen.record.tid);
        let width = text.len() - before;
        text.extend(std::iter::repeat_n(b' ', 7usize.saturating_sub(width)));
        self.place(seen.source.cpu, seen.time, text);
        if self.style.colours {
            text.extend_from_slice(b"\x1b[36m");
        }
        push_escaped(text, event.name.as_bytes());
        if self.style.colours {
            text.extend_from_slice(b"\x1b[0m");
        }
        text.push(b':');
        let symbols = &mut self.symbols[trace];
        let line = self.events.of(trace, event, || Line::new(event, self.style));
        for (index, ((_, value), label)) in event.values(seen.payload).zip(&line.labels).enumerate() {
            if label.is_empty() {
                continue;
            }
            text.extend_from_slice(label.as_bytes());
            match line.words.of(event, index, value, seen.payload, symbols) {
                Some(word) if event.print_format.is_beside(index) => {
                    push_value(text, value);
                    text.push(b' ');
                    push_quoted(text, &word);
                }
                Some(word) => push_quoted(text, &word),
                None => push_value(text, value),
            }
        }
        if let Some(uid) = seen.context.uid {
            text.extend_from_slice(b" uid:");
            push_number(text, uid);
        }
        if let Some(cgroup) = seen.context.cgroup {
            text.extend_from_slice(b" cgroup:");
            match names.cgroup(cgroup) {
                Some(path) => push_quoted(text, path.as_bytes()),
                None => push_number(text, cgroup),
            }
        }
        text.push(b'\n');
        push_frames(text, kernel_frames(seen.context.kstack), symbols);
        push_frames(text, user_frames(seen.record.pid, seen.context.ustack), symbols);
    }

    fn gap(&mut self, gap: &Gap, text: &mut Vec<u8>) {
        self.host(gap.source.trace, text);
        text.extend_from_slice(b"                        ");
        self.place(gap.source.cpu, gap.until, text);
        if self.style.colours {
            text.extend_from_slice(b"\x1b[31m");
        }
        let millis = gap.until.saturating_sub(gap.since) as f64 / 1e6;
        // Writing to a Vec cannot fail.
        let _ = match gap.kind {
            GapKind::Lost(records) => write!(text, "LOST {records} records in the last {millis:.3} ms"),
            GapKind::Overrun(subbufs) => {
                write!(text, "OVERRUN {subbufs} sub-buffers of records, overwritten unread, up to here")
            }
        };
        if self.style.colours {
            text.extend_from_slice(b"\x1b[0m");
        }
        text.push(b'\n');
    }

    fn host(&self, trace: usize, text: &mut Vec<u8>) {
        if let Some(host) = self.hosts.get(trace) {
            text.extend_from_slice(host.as_bytes());
        }
    }

    /// ` [cpu] seconds: `
    fn place(&mut self, cpu: u32, time: u64, text: &mut Vec<u8>) {
        text.extend_from_slice(b" [");
        text.extend_from_slice(if cpu < 10 {
            b"00"
        } else if cpu < 100 {
            b"0"
        } else {
            b""
        });
        push_number(text, cpu);
        text.extend_from_slice(b"] ");
        push_time(text, self.style.time, &mut self.wall, time);
        text.extend_from_slice(b": ");
    }
}

/// Seconds with nine digits after the point, right-aligned to 15; or the time of the wall clock.
pub fn push_time(text: &mut Vec<u8>, form: TimeForm, wall: &mut WallClock, time: u64) {
    let (negative, shown) = match form {
        TimeForm::Monotonic => (false, time),
        TimeForm::Since(start) => (time < start, time.abs_diff(start)),
        TimeForm::Wall => return wall.push(text, time),
    };
    let mut seconds = itoa::Buffer::new();
    let seconds = seconds.format(shown / NANOSECONDS);
    text.extend(std::iter::repeat_n(b' ', 5usize.saturating_sub(seconds.len() + usize::from(negative))));
    if negative {
        text.push(b'-');
    }
    text.extend_from_slice(seconds.as_bytes());
    text.push(b'.');
    let mut digits = itoa::Buffer::new();
    // One more digit in front keeps the zeros.
    let digits = digits.format(shown % NANOSECONDS + NANOSECONDS);
    text.extend_from_slice(&digits.as_bytes()[1..]);
}

/// A decimal number.
#[inline]
pub fn push_number(text: &mut Vec<u8>, number: impl itoa::Integer) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn push_value(text: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Number(number) => push_any(text, number),
        Value::Text(of) => push_quoted(text, of),
        Value::Texts(of) => {
            let is_cut = push_texts(text, of, push_in_quotes);
            if is_cut {
                let end = text.pop();
                text.extend_from_slice(b"...");
                text.extend(end);
            }
        }
        Value::List(..) => push_list(text, value, push_any),
    }
}

/// `["a","b"]`, each as `push` has it. Returns whether there were more.
pub(super) fn push_texts(text: &mut Vec<u8>, of: &[u8], push: impl Fn(&mut Vec<u8>, &[u8])) -> bool {
    let (texts, is_cut) = texts(of);
    text.push(b'[');
    for (index, of) in texts.enumerate() {
        if index > 0 {
            text.push(b',');
        }
        push(text, of);
    }
    text.push(b']');
    is_cut
}

/// `[1,2]` of a list, its numbers as `push` has them.
pub(super) fn push_list(text: &mut Vec<u8>, value: Value<'_>, push: impl Fn(&mut Vec<u8>, Number)) {
    text.push(b'[');
    for (index, element) in value.elements().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        push(text, element);
    }
    text.push(b']');
}

fn push_any(text: &mut Vec<u8>, number: Number) {
    match number {
        Number::Unsigned(number) => push_number(text, number),
        Number::Signed(number) => push_number(text, number),
        Number::Address(number) => push_hexadecimal(text, number),
    }
}

/// `0x…`
pub fn push_hexadecimal(text: &mut Vec<u8>, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.extend_from_slice(b"0x");
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        text.push(DIGITS[usize::try_from(number >> (4 * digit) & 15).unwrap_or(0)]);
    }
}

/// A frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An address in the kernel.
    Kernel(u64),
    /// A place in the file of a build id.
    File([u8; 20], u64),
    /// An address in a process that is in no file.
    Address(u32, u64),
}

/// The frames of a kernel stack.
pub fn kernel_frames(stack: &[u8]) -> impl Iterator<Item = Frame> + '_ {
    stack.as_chunks::<8>().0.iter().map(|address| Frame::Kernel(u64::from_le_bytes(*address)))
}

/// The frames of a process's stack.
pub fn user_frames(process: u32, stack: &[u8]) -> impl Iterator<Item = Frame> + '_ {
    stack.as_chunks::<USER_FRAME>().0.iter().map(move |frame| {
        let mut offset = [0; 8];
        offset.copy_from_slice(&frame[24..]);
        let offset = u64::from_le_bytes(offset);
        let mut build_id = [0; 20];
        build_id.copy_from_slice(&frame[4..24]);
        if frame[..4] == 1u32.to_le_bytes() { Frame::File(build_id, offset) } else { Frame::Address(process, offset) }
    })
}

/// Whether a stack of so many frames may have had more: it has as many as are recorded at most.
#[must_use]
pub fn may_go_on(frames: usize) -> bool {
    frames as u64 >= MAX_FRAMES
}

fn push_frames(text: &mut Vec<u8>, frames: impl Iterator<Item = Frame>, symbols: &mut Symbols) {
    const BEGIN: &[u8] = b"                  => ";
    let mut count = 0;
    for frame in frames {
        text.extend_from_slice(BEGIN);
        push_escaped(text, frame.name(symbols).as_bytes());
        text.push(b'\n');
        count += 1;
    }
    if may_go_on(count) {
        text.extend_from_slice(BEGIN);
        text.extend_from_slice(format!("... (no more than {MAX_FRAMES} frames are recorded)\n").as_bytes());
    }
}

impl Frame {
    /// What is known of it, as text.
    #[must_use]
    pub fn name(&self, symbols: &mut Symbols) -> String {
        match self {
            Self::Kernel(address) => symbols.kernel(*address).unwrap_or_else(|| format!("{address:#x}")),
            Self::File(build_id, offset) => symbols.user(&builds::hex(build_id), *offset),
            Self::Address(process, address) => {
                symbols.code(*process, *address).unwrap_or_else(|| format!("{address:#x} (no file)"))
            }
        }
    }
}
