//! An event that is to be recorded: who it is, where its programs are attached, what is recorded of it, and when.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use relay_common::{
    recipe::{Fetch, Pattern, Test},
    trace::Cookie,
};
use relay_trace::{
    condition::spec::ProbeKind,
    form::format::{self, Format},
};

use super::Probe;
use crate::values::layout::Layout;

/// An event that is to be recorded.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number in the trace: zero until `number` gives it one.
    pub id: u16,
    /// `category:name` of a tracepoint, `kind:…` of anything else.
    pub name: String,
    /// What the user has asked for.
    pub kind: ProbeKind,
    /// Named by the user in full: it must be attached. A pattern's events may turn out not to be attachable.
    pub explicit: bool,
    /// Where its programs are attached.
    pub(crate) probe: Arc<dyn Probe>,
    /// The fields of its records.
    pub format: Format,
    /// Their description: the kernel's as it stands, or one of the same form.
    pub text: String,
    /// The values that are fetched; `None` where a tracepoint's own fields are copied.
    pub values: Option<Layout>,
    /// How entry and return become one record, where they do.
    pub pair: Option<Pair>,
    /// Which records are kept.
    pub condition: Option<Condition>,
    /// How many records a second are kept at most.
    pub limit: Option<u64>,
    /// Its record ends the recording.
    pub is_trigger: bool,
}

/// How the entry that belongs to a return is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The input that is the same at both and less in calls that this one makes; `None` where there is none.
    pub frame: Option<u16>,
    /// Such calls are never inside one another.
    pub is_single: bool,
    /// One that succeeds returns when the program is executed ([`relay_common::recipe::flag::AT_EXEC`]).
    pub at_exec: bool,
}

/// Which records are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The comparisons.
    pub tests: Vec<Test>,
    /// The text patterns that they name, by their places in this list.
    pub patterns: Vec<Pattern>,
    /// The values that only they look at.
    pub hidden: Vec<Fetch>,
}

impl Event {
    /// What its programs are told when they run: of a pair, at the return.
    ///
    /// # Errors
    /// When the fields are longer than a record can be.
    pub(crate) fn cookie(&self) -> Result<Cookie> {
        let whole = Cookie { id: self.id, size: 0, last_loc: 0, relative: false, entry: false };
        if self.values.is_some() {
            return Ok(whole);
        }
        // Dynamic data lie in the order of their location words: the last ends the record.
        let last = format::dynamic(&self.format.fields).next_back();
        Ok(Cookie {
            size: u16::try_from(self.format.size())?,
            last_loc: last.map_or(Ok(0), |(field, ..)| u16::try_from(field.bytes.start))?,
            relative: last.is_some_and(|(.., relative)| relative),
            ..whole
        })
    }
}

/// Gives the events of a trace their numbers, from `first` on.
///
/// # Errors
/// When they are too many.
pub(crate) fn number(events: &mut [Event], first: u16) -> Result<()> {
    let last = usize::from(first) + events.len();
    for (id, event) in (usize::from(first)..).zip(events) {
        event.id =
            u16::try_from(id).with_context(|| format!("{last} events are too many for one trace: ids have 16 bits"))?;
    }
    Ok(())
}
