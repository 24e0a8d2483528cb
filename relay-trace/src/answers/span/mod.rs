//! Spans: the time between two records that belong together. `grammar.rs` is how they are written, `known.rs` those with a name, `matching.rs` puts two
//! events together, `sched.rs` follows threads, `fold.rs` hands both what records tell. `event.rs` makes a span a record like any other.
//!
//! Workers take out of each slice what the ends have ([`SliceEnds`]); one thread matches that in the order of time ([`Fold`]).

mod account;
mod event;
mod fold;
mod grammar;
mod known;
mod matching;
mod sched;

use std::sync::Arc;

use anyhow::{Result, bail};

pub use self::{
    account::SpanAccount,
    event::{AsRecord, OF_EVERY},
    fold::Fold,
    grammar::{Definition, parse},
    known::{KNOWN, Known},
};
use self::{
    event::SpanEvents,
    grammar::{KeyFields, SpanKind},
    matching::{End, WaitingStart},
};
use super::key::{Key, Keys, raw};
use crate::{
    read::{
        filter::{Filter, comm},
        names::Names,
        pipeline,
        schema::EventClass,
        slices::{Gap, Item, Seen, Slice, Slicer, SourceId},
        stream::Damage,
        trace::Trace,
    },
    similar::did_you_mean,
};

/// What a span has beside the fields of its ends.
const OF_SPAN: [&str; 9] = ["comm", "tid", "cpu", "start_cpu", "event", "uid", "cgroup", "kstack", "ustack"];
/// What every record has.
const OF_TASK: [&str; 4] = ["tid", "pid", "cpu", "comm"];

/// A span that has ended.
#[derive(Debug)]
pub struct Span<'s> {
    /// Which definition.
    pub definition: usize,
    /// When it began, in nanoseconds of the common clock.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// Where it began.
    pub start_cpu: u32,
    /// Where it ended.
    pub source: SourceId,
    /// The thread that it is about: its name, and its number.
    pub comm: &'s Key,
    /// Likewise.
    pub tid: u32,
    /// Its process, where that is known.
    pub pid: Option<u32>,
    /// The values of its keys; none where it is of the scheduler.
    pub keys: &'s [Key],
    /// The fields that were asked for.
    pub fields: Vec<Option<Key>>,
    /// Records were lost meanwhile: it may be two.
    pub crossed: bool,
    /// Its ends, where they are kept.
    ends: [&'s End; 2],
}

/// What to look for in some traces.
#[derive(Debug)]
pub struct Spans<'t> {
    traces: &'t [Trace],
    definitions: Vec<WantedSpan>,
    /// The fields to keep.
    fields: Vec<String>,
    /// What they are as records, where that is wanted.
    events: Option<SpanEvents>,
}

#[derive(Debug)]
struct WantedSpan {
    definition: Definition,
    start: Filter,
    /// None where it is START's.
    end: Option<Filter>,
}

/// What a slice has of the ends.
#[derive(Debug, Default)]
pub struct SliceEnds {
    ends: Vec<Ended>,
    gaps: Vec<Gap>,
    last: u64,
}

/// A record that is an end.
#[derive(Debug)]
struct Ended {
    source: SourceId,
    definition: usize,
    what: EndKind,
    end: End,
    /// Whatever the one that looked at the slice has to say of it.
    mark: usize,
}

/// Takes out of slices what the ends have; each thread has one.
#[expect(missing_debug_implementations, reason = "keys have none")]
pub struct Extractor<'s> {
    spans: &'s Spans<'s>,
    keys: Keys,
}

#[derive(Debug)]
enum EndKind {
    /// Of two events, the keys as END and as START.
    Ends {
        end: Option<Arc<[Key]>>,
        start: Option<Arc<[Key]>>,
    },
    Sched(sched::SchedRecord),
}

impl<'t> Spans<'t> {
    /// Finds what spans mean in traces, of which `fields` are kept: `end_NAME` is END's, NAME is START's, or END's where START has none.
    ///
    /// # Errors
    /// When an event or a key is not in the traces.
    pub fn new(traces: &'t [Trace], definitions: Vec<Definition>, fields: Vec<String>) -> Result<Self> {
        let find = |definition: Definition| {
            let filter = |list: &str| {
                Filter::new(traces, &[list.to_owned()], &[]).map_err(|error| {
                    let needs = definition.events().join(" -e ");
                    error.context(format!(
                        "the span {} needs events that the trace does not have; record with -e {needs}",
                        definition.name
                    ))
                })
            };
            let (start, end) = definition.sides(traces);
            let wanted = (filter(&start)?, (start != end).then(|| filter(&end)).transpose()?);
            let wanted = WantedSpan { start: wanted.0, end: wanted.1, definition };
            if let SpanKind::Ends(ends) = &wanted.definition.kind {
                check_keys(traces, &wanted.start, ends.keys.iter().map(|key| &*key.start))?;
                check_keys(traces, wanted.end(), ends.keys.iter().map(|key| &*key.end))?;
            }
            Ok(wanted)
        };
        let definitions = definitions.into_iter().map(find).collect::<Result<_>>()?;
        let spans = Self { traces, definitions, fields, events: None };
        spans.fields.iter().try_for_each(|name| spans.check_field(name))?;
        Ok(spans)
    }

    /// Likewise, but of both ends all fields are kept: each span can be shown as a record ([`Span::as_record`]).
    ///
    /// # Errors
    /// When an event or a key is not in the traces, or there are too many kinds of ends.
    pub fn as_records(traces: &'t [Trace], definitions: Vec<Definition>) -> Result<Self> {
        let mut spans = Self::new(traces, definitions, Vec::new())?;
        spans.events = Some(SpanEvents::new(&spans)?);
        Ok(spans)
    }

    /// What spans are as records, each with its trace: one for every two events that can be the ends of one. None unless they are kept as such.
    pub fn events(&self) -> impl Iterator<Item = (usize, &EventClass)> {
        self.events.iter().flat_map(SpanEvents::all)
    }

    /// Refuses a field that no span has.
    fn check_field(&self, name: &str) -> Result<()> {
        let plain = name.strip_prefix("end_").unwrap_or(name);
        if OF_SPAN.contains(&plain) {
            return Ok(());
        }
        let is_end = |trace: usize, id: u16| {
            self.definitions
                .iter()
                .any(|wanted| [&wanted.start, wanted.end()].iter().any(|side| side.has_event(trace, id)))
        };
        let events = self
            .traces
            .iter()
            .enumerate()
            .flat_map(|(index, trace)| trace.schema.events().filter(move |event| is_end(index, event.id)));
        let known: Vec<&str> = events.flat_map(|event| &event.fields).map(|field| field.name.as_str()).collect();
        if known.contains(&plain) {
            return Ok(());
        }
        let near = did_you_mean(plain, known.iter().copied().chain(OF_SPAN));
        bail!(
            "no end of the spans has a field '{plain}'{near}; there are {}, and {} of the span; end_NAME is that of the END",
            known.join(", "),
            OF_SPAN.join(", ")
        );
    }

    /// The definitions.
    pub fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.definitions.iter().map(|wanted| &wanted.definition)
    }

    /// Goes through the traces and gives each span when it ends. Returns what became of all ends, by definition, and what could not be read. `progress` is told how
    /// many bytes are done.
    ///
    /// # Errors
    /// When a file cannot be read, or what `span` says.
    pub fn run(
        &self,
        mut slicer: Slicer<'_>,
        mut progress: impl FnMut(u64),
        mut span: impl FnMut(&Span<'_>) -> Result<()>,
    ) -> Result<(Vec<SpanAccount>, Vec<Damage>)> {
        let mut fold = Fold::new(self);
        let mut damages = Vec::new();
        let worker = || {
            let mut extractor = Extractor::new(self);
            move |mut slice: Slice| {
                let told = extractor.take(&slice, |_, _| 0);
                (told, std::mem::take(&mut slice.damages), slice.done)
            }
        };
        pipeline::run(
            move || slicer.next(u64::MAX),
            worker,
            |(told, mut found, done)| {
                progress(done);
                damages.append(&mut found);
                fold.take(told, |of, _| span(of))
            },
        )?;
        Ok((fold.finish(), damages))
    }
}

impl<'s> Extractor<'s> {
    /// One for these spans.
    #[must_use]
    pub fn new(spans: &'s Spans<'_>) -> Self {
        Self { spans, keys: Keys::new(spans.traces) }
    }

    /// Goes through a slice. `see` is shown everything in it, and what it returns of a record comes along with the spans that the record ends.
    pub fn take(&mut self, slice: &Slice, mut see: impl FnMut(&Item<'_>, &Names) -> usize) -> SliceEnds {
        let Self { spans, keys } = self;
        let mut told = SliceEnds { gaps: slice.known_gaps().copied().collect(), ..SliceEnds::default() };
        Filter::default().show(slice, spans.traces, |item, names| {
            let mark = see(&item, names);
            let Item::Record(seen) = item else { return };
            told.last = seen.time;
            // All that one record ends has its bytes in common.
            let mut kept = None;
            for (definition, wanted) in spans.definitions.iter().enumerate() {
                if let Some(what) = wanted.what(keys, &seen, names) {
                    if spans.events.is_some() && kept.is_none() {
                        kept = Some(Arc::new(WaitingStart::new(&seen)));
                    }
                    let end = spans.end(keys, &seen, names, kept.clone());
                    told.ends.push(Ended { source: seen.source, definition, what, end, mark });
                }
            }
        });
        told
    }
}

impl Spans<'_> {
    fn end(&self, keys: &mut Keys, seen: &Seen<'_>, names: &Names, kept: Option<Arc<WaitingStart>>) -> End {
        let field = |name: &String| keys.of(seen, names, name.strip_prefix("end_").unwrap_or(name));
        End {
            time: seen.time,
            cpu: seen.source.cpu,
            tid: seen.record.tid,
            comm: Key::Text(String::from_utf8_lossy(comm(seen, names)).into_owned()),
            fields: self.fields.iter().map(field).collect(),
            kept,
        }
    }
}

/// Refuses keys that no event of a side has.
fn check_keys<'k>(traces: &[Trace], filter: &Filter, keys: impl Iterator<Item = &'k [String]>) -> Result<()> {
    let events = || {
        traces.iter().enumerate().flat_map(move |(index, trace)| {
            trace.schema.events().filter(move |event| filter.has_event(index, event.id))
        })
    };
    for names in keys {
        let has = |name: &String| OF_TASK.contains(&name.as_str()) || events().any(|event| event.field(name).is_some());
        if !names.iter().any(has) {
            let known: Vec<&str> = events().flat_map(|event| &event.fields).map(|field| field.name.as_str()).collect();
            let near = names.first().map_or(String::new(), |name| did_you_mean(name, known.iter().copied()));
            let event = events().next().map_or("the event", |event| event.name.as_str());
            bail!(
                "{event} has no field '{}' to match by{near}; there are {}, and {}",
                names.join("|"),
                known.join(", "),
                OF_TASK.join(", ")
            );
        }
    }
    Ok(())
}

impl WantedSpan {
    fn end(&self) -> &Filter {
        self.end.as_ref().unwrap_or(&self.start)
    }

    /// What a record is to this span.
    fn what(&self, keys: &mut Keys, seen: &Seen<'_>, names: &Names) -> Option<EndKind> {
        let SpanKind::Ends(ends) = &self.definition.kind else {
            return scheduler(keys, seen, names).map(EndKind::Sched);
        };
        let key = |filter: &Filter, of: fn(&KeyFields) -> &Vec<String>| {
            if !filter.takes(seen, names) {
                return None;
            }
            let key = |key| of(key).iter().find_map(|name| raw(seen, names, name));
            ends.keys.iter().map(key).collect::<Option<Arc<[Key]>>>()
        };
        let (end, start) = (key(self.end(), |key| &key.end), key(&self.start, |key| &key.start));
        (end.is_some() || start.is_some()).then_some(EndKind::Ends { end, start })
    }
}

/// What a record of the scheduler says.
fn scheduler(keys: &mut Keys, seen: &Seen<'_>, names: &Names) -> Option<sched::SchedRecord> {
    let number = |name| match raw(seen, names, name) {
        Some(Key::Number(number)) => u32::try_from(number).ok(),
        _ => None,
    };
    match seen.event.name.as_str() {
        "sched:sched_switch" => Some(sched::SchedRecord::Switch {
            prev: number("prev_pid")?,
            prev_comm: raw(seen, names, "prev_comm")?,
            // The kernel's words: its numbers change.
            state: keys.of(seen, names, "prev_state")?.to_string(),
            next: number("next_pid")?,
            next_comm: raw(seen, names, "next_comm")?,
        }),
        "sched:sched_wakeup" | "sched:sched_wakeup_new" => {
            Some(sched::SchedRecord::Wake { tid: number("pid")?, comm: raw(seen, names, "comm")? })
        }
        _ => None,
    }
}
