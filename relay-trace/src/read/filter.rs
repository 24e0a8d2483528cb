//! Which records are wanted, in the terms in which they were recorded: events with conditions, processes, CPUs.

use std::collections::HashSet;

use anyhow::{Result, anyhow, bail};
use relay_common::recipe::Recipe;

use super::{
    names::Names,
    schema::EventClass,
    slices::{Item, Seen, Slice},
    trace::Trace,
    value::Value,
};
use crate::condition::{
    expression::{self, Expression},
    spec::{self, ProbeKind, Spec},
    subjects::{of_task, recorded, unknown},
};

/// Which records of some traces are wanted.
#[derive(Debug, Default)]
pub struct Filter {
    /// By trace and event; empty when every event is wanted.
    events: Vec<Vec<WantedEvent>>,
    pids: HashSet<u32>,
}

/// Whether an event is wanted.
#[derive(Clone, Debug, Default)]
enum WantedEvent {
    #[default]
    No,
    Yes,
    /// When one of these holds.
    If(Vec<Expression>),
}

impl Filter {
    /// Finds what `lists` (as after `relayd trace -e`) mean in the traces. No list means every event, no process every process.
    ///
    /// # Errors
    /// When a list is not understood, means nothing, or has a condition that the event cannot have.
    pub fn new(traces: &[Trace], lists: &[String], pids: &[u32]) -> Result<Self> {
        let specs = spec::parse(lists)?;
        let mut events: Vec<Vec<WantedEvent>> = Vec::new();
        if !specs.is_empty() {
            events = traces.iter().map(|trace| vec![WantedEvent::No; trace.schema.ids()]).collect();
        }
        for spec in &specs {
            let name = name(spec)?;
            let pattern = glob::Pattern::new(&name).map_err(|error| anyhow!("the event pattern '{name}': {error}"))?;
            let mut found = false;
            for (trace, wanted) in traces.iter().zip(&mut events) {
                for event in trace.schema.events().filter(|event| event.name == name || pattern.matches(&event.name)) {
                    found = true;
                    let condition = spec.condition.as_deref().map(|text| check(trace, event, text)).transpose()?;
                    wanted[usize::from(event.id)].add(condition);
                }
            }
            if !found {
                bail!("{}", not_found(traces, &name));
            }
        }
        Ok(Self { events, pids: pids.iter().copied().collect() })
    }

    /// The events that can be wanted.
    pub fn events_of<'t>(&self, traces: &'t [Trace]) -> impl Iterator<Item = &'t EventClass> {
        traces
            .iter()
            .enumerate()
            .flat_map(move |(index, trace)| trace.schema.events().filter(move |event| self.has_event(index, event.id)))
    }

    /// Whether records of a process can be wanted.
    #[must_use]
    pub fn has_process(&self, pid: u32) -> bool {
        self.pids.is_empty() || self.pids.contains(&pid)
    }

    /// Whether an event can be wanted.
    #[must_use]
    pub fn has_event(&self, trace: usize, id: u16) -> bool {
        !matches!(self.wanted(trace, id), WantedEvent::No)
    }

    /// Whether a record is wanted.
    #[inline]
    #[must_use]
    pub fn takes(&self, seen: &Seen<'_>, names: &Names) -> bool {
        if !self.has_process(seen.record.pid) {
            return false;
        }
        match self.wanted(seen.source.trace, seen.record.id) {
            WantedEvent::Yes => true,
            WantedEvent::No => false,
            WantedEvent::If(conditions) => {
                let mut value = |name: &str| value_of(seen, names, name);
                conditions.iter().any(|condition| condition.evaluate(&mut value) == Some(true))
            }
        }
    }

    /// Shows what is wanted of a slice in the order of time, and every loss, with the names that threads have then.
    pub fn show<'s>(&self, slice: &'s Slice, traces: &'s [Trace], mut show: impl FnMut(Item<'s>, &Names)) {
        let mut names = slice.names.clone();
        slice.merged(traces, |item| {
            let trace = item.source().trace;
            let (Some(names), Some(of)) = (names.get_mut(trace), traces.get(trace)) else { return };
            if let Item::Record(seen) = &item {
                names.learn(of.tellings_of(seen.event), seen.event, seen.payload, seen.record.timestamp);
                if !self.takes(seen, names) {
                    return;
                }
            }
            show(item, names);
        });
    }

    fn wanted(&self, trace: usize, id: u16) -> &WantedEvent {
        match self.events.get(trace) {
            Some(events) => events.get(usize::from(id)).unwrap_or(&WantedEvent::No),
            None => &WantedEvent::Yes,
        }
    }
}

impl WantedEvent {
    fn add(&mut self, condition: Option<Expression>) {
        match (self, condition) {
            (Self::Yes, _) => {}
            (Self::If(conditions), Some(condition)) => conditions.push(condition),
            (wanted, Some(condition)) => *wanted = Self::If(vec![condition]),
            (wanted, None) => *wanted = Self::Yes,
        }
    }
}

/// An event's name in a trace.
fn name(spec: &Spec) -> Result<String> {
    if spec.arguments.is_some() {
        bail!("'{}': arguments are chosen when recording; --fields chooses what is shown", spec.text);
    }
    Ok(match spec.kind {
        ProbeKind::Tracepoint => spec.target.clone(),
        kind => format!("{}:{}", kind.name(), spec.target),
    })
}

fn not_found(traces: &[Trace], wanted: &str) -> String {
    let mut names: Vec<&str> = traces.iter().flat_map(|trace| trace.schema.events()).map(|e| e.name.as_str()).collect();
    names.retain(|name| !name.contains(char::is_control));
    names.sort_unstable();
    names.dedup();
    let near = crate::similar::did_you_mean(wanted, names.iter().copied());
    let listed = match names.len() {
        0..=10 => format!("; it has {}", names.join(", ")),
        more => format!("; it has {more} events, relayd stat names them"),
    };
    format!("no event of the trace is named '{wanted}'{}", if near.is_empty() { listed } else { near })
}

/// Parses a condition, and sees to it that the event can have it.
fn check(trace: &Trace, event: &EventClass, text: &str) -> Result<Expression> {
    let refuse = |error: &expression::ExpressionError| anyhow!("'{}': {}", event.name, error.render());
    let condition = Expression::parse(text).map_err(|error| refuse(&error))?;
    let mut resolve = |name: &str| {
        if name == "uid" && event.field(name).is_none() && !trace.session.context.iter().any(|c| c == "uid") {
            return Err("uid was not recorded: that takes --context uid".to_owned());
        }
        recorded(&event.fields, name).or_else(|| of_task(name)).ok_or_else(|| unknown(&event.name, &event.fields, name))
    };
    // The kernel's tests are not needed, but what makes them knows what compares with what.
    condition.compile(&mut resolve, &mut Recipe::EMPTY.clone()).map_err(|error| refuse(&error))?;
    Ok(condition)
}

/// What a name in a condition means for a record.
fn value_of(seen: &Seen<'_>, names: &Names, name: &str) -> Option<expression::Comparand> {
    if let Some(index) = seen.event.field(name) {
        return match seen.event.value(index, seen.payload)? {
            Value::Number(number) => Some(expression::Comparand::Integer(number.wide())),
            Value::Text(_) if seen.event.is_unreadable(index, seen.payload) => Some(expression::Comparand::Unreadable),
            Value::Text(text) => Some(expression::Comparand::Text(text.to_vec())),
            Value::Texts(_) | Value::List(..) => None,
        };
    }
    let number = |number: u32| Some(expression::Comparand::Integer(number.into()));
    match name {
        "pid" => number(seen.record.pid),
        "tid" => number(seen.record.tid),
        "cpu" => number(seen.source.cpu),
        "uid" => seen.context.uid.and_then(number),
        "comm" => Some(expression::Comparand::Text(comm(seen, names).to_vec())),
        _ => None,
    }
}

/// The name of a record's thread, as ftrace shows it: `<...>` when it is not known.
#[must_use]
pub fn comm<'n>(seen: &Seen<'n>, names: &'n Names) -> &'n [u8] {
    match seen.context.comm {
        Some(comm) => comm,
        None if seen.record.tid == 0 => b"<idle>",
        None => names.get(seen.record.tid, seen.record.timestamp).unwrap_or(b"<...>"),
    }
}
