//! A value of a field, by which records are counted or matched.

use std::collections::HashMap;

use crate::{
    read::{
        filter::comm,
        names::Names,
        slices::Seen,
        symbolize::Symbols,
        trace::Trace,
        value::{Number, Value},
    },
    show::{
        json::push_value,
        stack,
        text::{ByEvent, Words},
    },
};

/// Stacks that are kept as text.
const STACKS: usize = 10_000;

/// A value of a field that is a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A number.
    Number(i128),
    /// A text, or a number as people read it.
    Text(String),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Makes keys of records, as people read them.
pub(super) struct Keys {
    symbols: Vec<Symbols>,
    words: ByEvent<Words>,
    stacks: HashMap<(usize, u32, Vec<u8>), String>,
}

impl Keys {
    pub(super) fn new(traces: &[Trace]) -> Self {
        Self {
            symbols: traces.iter().map(Trace::symbols).collect(),
            words: ByEvent::new(traces),
            stacks: HashMap::new(),
        }
    }

    /// A field's value, or what is known of the task. Numbers for which the kernel has words are these words.
    pub(super) fn of(&mut self, seen: &Seen<'_>, names: &Names, name: &str) -> Option<Key> {
        let trace = seen.source.trace;
        let Some(index) = seen.event.field(name) else {
            return match name {
                "kstack" => self.stack(trace, seen.context.kstack, (0, &[])),
                "ustack" => self.stack(trace, &[], (seen.record.pid, seen.context.ustack)),
                _ => of_task(seen, names, name),
            };
        };
        let value = seen.event.value(index, seen.payload)?;
        let words = self.words.of(trace, seen.event, Words::default);
        if let Some(word) = words.of(seen.event, index, value, seen.payload, &self.symbols[trace]) {
            return Some(text(&word));
        }
        match value {
            Value::Number(Number::Address(number)) => Some(Key::Text(format!("{number:#x}"))),
            value => plain(value),
        }
    }

    fn stack(&mut self, trace: usize, kernel: &[u8], (process, user): (u32, &[u8])) -> Option<Key> {
        if kernel.is_empty() && user.is_empty() {
            return None;
        }
        let bytes = (trace, process, [kernel, user].concat());
        if let Some(text) = self.stacks.get(&bytes) {
            return Some(Key::Text(text.clone()));
        }
        let text = stack::folded(kernel, (process, user), &mut self.symbols[trace]);
        if self.stacks.len() < STACKS {
            self.stacks.insert(bytes, text.clone());
        }
        Some(Key::Text(text))
    }
}

/// A field's value as it lies in the record, or what is known of the task: what two events can have in common.
pub(super) fn raw(seen: &Seen<'_>, names: &Names, name: &str) -> Option<Key> {
    match seen.event.field(name) {
        Some(index) => plain(seen.event.value(index, seen.payload)?),
        None => of_task(seen, names, name),
    }
}

/// A field's value as a number.
pub(super) fn number(seen: &Seen<'_>, name: &str) -> Option<i128> {
    match seen.event.value(seen.event.field(name)?, seen.payload)? {
        Value::Number(number) => Some(number.wide()),
        Value::Text(_) | Value::Texts(_) | Value::List(..) => None,
    }
}

fn of_task(seen: &Seen<'_>, names: &Names, name: &str) -> Option<Key> {
    let number = |number: u64| Some(Key::Number(number.into()));
    match name {
        "event" => Some(Key::Text(seen.event.name.clone())),
        "cpu" => number(seen.source.cpu.into()),
        "pid" => number(seen.record.pid.into()),
        "tid" => number(seen.record.tid.into()),
        "uid" => number(seen.context.uid?.into()),
        "cgroup" => number(seen.context.cgroup?),
        "comm" => Some(text(comm(seen, names))),
        _ => None,
    }
}

fn plain(value: Value<'_>) -> Option<Key> {
    match value {
        Value::Number(number) => Some(Key::Number(number.wide())),
        Value::Text(bytes) => Some(text(bytes)),
        Value::Texts(_) => {
            let mut shown = Vec::new();
            push_value(&mut shown, value);
            Some(text(&shown))
        }
        Value::List(..) => None,
    }
}

fn text(bytes: &[u8]) -> Key {
    Key::Text(String::from_utf8_lossy(bytes).into_owned())
}
