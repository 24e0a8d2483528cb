//! From the lists of `-e` and `--limit` to the events of a session, each with its condition and its limit.

use anyhow::{Context as _, Result, anyhow, bail};
use relay_common::recipe::Recipe;

use super::{Condition, Event, Finder};
use crate::values::layout::{Hidden, RecordedValue, Stored};
use relay_trace::condition::{
    expression::{Expression, ExpressionError, FieldSubject, Source, TextSource},
    spec::{self, Argument, ProbeKind, Read, Spec},
    subjects::{of_task, recorded, unknown},
};

/// The highest rate that a limit can have, a second.
const FASTEST: u64 = 1_000_000_000;

/// The events of the lists, in the order in which they were asked for.
///
/// # Errors
/// What there is not, or is not understood.
pub fn select(lists: &[String], latency: bool, limits: &[String]) -> Result<Vec<Event>> {
    let finder = Finder::new(latency)?;
    let mut events: Vec<Event> = Vec::new();
    let mut conditions: Vec<Option<String>> = Vec::new();
    for spec in spec::parse(lists)? {
        for mut event in finder.find(&spec)? {
            let is_same = |other: &Event| other.name == event.name && other.probe.place() == event.probe.place();
            if let Some(same) = events.iter().position(is_same) {
                let first = &mut events[same];
                if conditions[same] != spec.condition || first.text != event.text {
                    bail!("{} is selected twice, with different arguments or conditions: '{}'", event.name, spec.text);
                }
                first.explicit |= event.explicit;
                continue;
            }
            if let Some(text) = &spec.condition {
                event.condition = Some(condition(&finder, &spec, &event, text)?);
            }
            conditions.push(spec.condition.clone());
            events.push(event);
        }
    }
    limits.iter().try_for_each(|limit| set_limit(&mut events, limit))?;
    let is_return =
        |event: &Event| matches!(event.kind, ProbeKind::Kretprobe | ProbeKind::Fexit | ProbeKind::Uretprobe);
    if latency && !events.iter().any(is_return) {
        log::warn!("--latency is for kretprobe, fexit and uretprobe; none is selected");
    }
    Ok(events)
}

/// Adds other events: the record of one of them ends the recording.
pub fn end_at(events: &mut Vec<Event>, others: Vec<Event>) {
    for other in others {
        let is_same = |known: &&mut Event| {
            known.name == other.name
                && known.text == other.text
                && known.condition.is_none()
                && other.condition.is_none()
        };
        if let Some(known) = events.iter_mut().find(is_same) {
            known.is_trigger = true;
            known.explicit |= other.explicit;
            continue;
        }
        events.push(Event { is_trigger: true, ..other });
    }
}

/// Compiles an event's condition.
fn condition(finder: &Finder, spec: &Spec, event: &Event, text: &str) -> Result<Condition> {
    let refuse = |error: &ExpressionError| anyhow!("'{}': {}", spec.target, error.render());
    let expression = Expression::parse(text).map_err(|error| refuse(&error))?;
    let mut hidden = Hidden::beside(event.values.as_ref());
    let mut resolve = |name: &str| {
        if let Some(subject) = recorded(&event.format.fields, name) {
            return Ok(subject);
        }
        match find_hidden(finder, event, name, &mut hidden) {
            Ok(Some(subject)) => Ok(subject),
            Ok(None) => of_task(name).ok_or_else(|| unknown(&event.name, &event.format.fields, name)),
            Err(error) => of_task(name).ok_or_else(|| format!("{error:#}")),
        }
    };
    let mut recipe = Recipe::EMPTY;
    let patterns = expression.compile(&mut resolve, &mut recipe).map_err(|error| refuse(&error))?;
    let tests = recipe.tests[..usize::from(recipe.n_tests)].to_vec();
    Ok(Condition { tests, patterns, hidden: hidden.into_fetches() })
}

/// Something that is not recorded.
fn find_hidden(finder: &Finder, event: &Event, name: &str, hidden: &mut Hidden) -> Result<Option<FieldSubject>> {
    // Of a pair, what was at the entry is gone.
    if event.pair.is_some() {
        return Ok(None);
    }
    let argument = Argument { name: None, path: name.to_owned(), read: Read::AsTyped };
    let Some(value) = event.probe.hidden(finder, &argument)? else { return Ok(None) };
    let at = hidden.add(&value)?;
    Ok(Some(subject_of(&value, at)))
}

/// `EVENT=RATE/s`
fn set_limit(events: &mut [Event], limit: &str) -> Result<()> {
    let form = || format!("--limit '{limit}': give EVENT=RATE/s, like 'sched:sched_switch=10000/s'");
    let (name, rate) = limit.rsplit_once('=').with_context(form)?;
    let rate = rate.trim().strip_suffix("/s").unwrap_or(rate.trim());
    let rate: u64 = rate.parse().ok().filter(|rate| (1..=FASTEST).contains(rate)).with_context(form)?;
    let pattern = glob::Pattern::new(name.trim()).with_context(form)?;
    let mut found = false;
    for event in events.iter_mut().filter(|event| pattern.matches(&event.name)) {
        found = true;
        event.limit = Some(rate);
    }
    if !found {
        let names: Vec<_> = events.iter().take(5).map(|event| event.name.as_str()).collect();
        bail!("--limit '{limit}': no selected event is named so; there are: {}", names.join(", "));
    }
    Ok(())
}

/// A value that only the condition needs.
fn subject_of(value: &RecordedValue, at: u16) -> FieldSubject {
    match value.content {
        Stored::Number { size, signed, .. } => FieldSubject::Integer { source: Source::Payload(at), size, signed },
        Stored::Text(len) => FieldSubject::Text { source: TextSource::Fixed { at, len } },
        Stored::Strings => FieldSubject::Other("a list of texts".to_owned()),
        Stored::String => FieldSubject::Text { source: TextSource::Located { at, relative: false } },
        Stored::Bytes(_) => FieldSubject::Other("bytes".to_owned()),
    }
}
