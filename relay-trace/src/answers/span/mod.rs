//! Spans: the time between two records that belong together. `grammar.rs` is how they are written, `known.rs` those with a name, `matching.rs` puts two
//! events together, `sched.rs` follows threads.
//!
//! Workers take out of each slice what the ends have (`Told`); one thread matches that in the order of time.

mod grammar;
mod known;
mod matching;
mod sched;

use std::{collections::HashMap, sync::Arc};

use anyhow::{Result, bail};

pub use self::{
    grammar::{Definition, parse},
    known::{KNOWN, Known},
};
use self::{
    grammar::{KeyFields, Kind},
    matching::{End, Matcher},
    sched::Threads,
};
use super::key::{Key, Keys, raw};
use crate::{
    read::{
        choice::{Choice, comm},
        names::Names,
        pipeline,
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
    /// The values of its keys; none where it is of the scheduler.
    pub keys: &'s [Key],
    /// The fields that were asked for.
    pub fields: Vec<Option<Key>>,
    /// Records were lost meanwhile: it may be two.
    pub crossed: bool,
}

/// What became of the ends of spans.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Account {
    /// Records that began one.
    pub starts: u64,
    /// Records that ended one.
    pub ends: u64,
    /// Spans.
    pub ended: u64,
    /// STARTs whose place another took.
    pub replaced: u64,
    /// STARTs that were left out while a span was open.
    pub ignored: u64,
    /// STARTs for which there was no room any more.
    pub given_up: u64,
    /// STARTs whose END was not recorded, as the next record shows.
    pub inferred: u64,
    /// Spans that had not ended with the trace.
    pub open: u64,
    /// For how long the oldest of them was open then, in nanoseconds.
    pub oldest_open: Option<u64>,
    /// ENDs without a START.
    pub never_began: u64,
    /// Of the spans, those in whose time records were lost: they are not counted among durations.
    pub crossed: u64,
}

/// What to look for in some traces.
#[derive(Debug)]
pub struct Spans<'t> {
    traces: &'t [Trace],
    definitions: Vec<Wanted>,
    /// The fields to keep.
    fields: Vec<String>,
}

#[derive(Debug)]
struct Wanted {
    definition: Definition,
    start: Choice,
    end: Choice,
}

/// What a slice has of the ends.
#[derive(Debug, Default)]
struct Told {
    ends: Vec<(SourceId, usize, What, End)>,
    gaps: Vec<Gap>,
    damages: Vec<Damage>,
    done: u64,
    last: u64,
}

#[derive(Debug)]
enum What {
    /// Of two events, the keys as END and as START.
    Ends {
        end: Option<Arc<[Key]>>,
        start: Option<Arc<[Key]>>,
    },
    Sched(sched::Told),
}

impl<'t> Spans<'t> {
    /// Finds what spans mean in traces, of which `fields` are kept: `end_NAME` is END's, NAME is START's, or END's where START has none.
    ///
    /// # Errors
    /// When an event or a key is not in the traces.
    pub fn new(traces: &'t [Trace], definitions: Vec<Definition>, fields: Vec<String>) -> Result<Self> {
        let mut wanted = Vec::new();
        for definition in definitions {
            let choice = |list: &str| {
                Choice::new(traces, &[list.to_owned()], &[]).map_err(|error| {
                    let needs = definition.events().join(" -e ");
                    error.context(format!(
                        "the span {} needs events that the trace does not have; record with -e {needs}",
                        definition.name
                    ))
                })
            };
            let (start, end) = match &definition.kind {
                Kind::Ends(ends) => (choice(&ends.start)?, choice(&ends.end)?),
                Kind::Sched(_) => (choice("sched:sched_switch")?, choice("sched:sched_switch")?),
            };
            if let Kind::Ends(ends) = &definition.kind {
                check_keys(traces, &start, ends.keys.iter().map(|key| &*key.start))?;
                check_keys(traces, &end, ends.keys.iter().map(|key| &*key.end))?;
            }
            wanted.push(Wanted { definition, start, end });
        }
        let spans = Self { traces, definitions: wanted, fields };
        spans.fields.iter().try_for_each(|name| spans.check_field(name))?;
        Ok(spans)
    }

    /// Refuses a field that no span has.
    fn check_field(&self, name: &str) -> Result<()> {
        let plain = name.strip_prefix("end_").unwrap_or(name);
        if OF_SPAN.contains(&plain) {
            return Ok(());
        }
        let is_end = |trace: usize, id: u16| {
            self.definitions.iter().any(|wanted| wanted.start.has_event(trace, id) || wanted.end.has_event(trace, id))
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
    ) -> Result<(Vec<Account>, Vec<Damage>)> {
        let mut fold = Fold::new(self);
        let mut damages = Vec::new();
        let worker = || {
            let mut keys = Keys::new(self.traces);
            move |slice: Slice| self.told(&mut keys, slice)
        };
        pipeline::run(
            move || slicer.next(u64::MAX),
            worker,
            |mut told: Told| {
                progress(told.done);
                damages.append(&mut told.damages);
                fold.take(told, &mut span)
            },
        )?;
        Ok((fold.finish(), damages))
    }

    fn told(&self, keys: &mut Keys, mut slice: Slice) -> Told {
        let mut told = Told {
            damages: std::mem::take(&mut slice.damages),
            gaps: slice.known_gaps().copied().collect(),
            done: slice.done,
            ..Told::default()
        };
        Choice::default().show(&slice, self.traces, |item, names| {
            let Item::Record(seen) = item else { return };
            told.last = seen.time;
            for (index, wanted) in self.definitions.iter().enumerate() {
                if let Some(what) = wanted.what(keys, &seen, names) {
                    told.ends.push((seen.source, index, what, self.end(keys, &seen, names)));
                }
            }
        });
        told
    }

    fn end(&self, keys: &mut Keys, seen: &Seen<'_>, names: &Names) -> End {
        let field = |name: &String| keys.of(seen, names, name.strip_prefix("end_").unwrap_or(name));
        End {
            time: seen.time,
            cpu: seen.source.cpu,
            tid: seen.record.tid,
            comm: Key::Text(String::from_utf8_lossy(comm(seen, names)).into_owned()),
            fields: self.fields.iter().map(field).collect(),
        }
    }
}

/// Refuses keys that no event of a side has.
fn check_keys<'k>(traces: &[Trace], choice: &Choice, keys: impl Iterator<Item = &'k [String]>) -> Result<()> {
    let events = || {
        traces.iter().enumerate().flat_map(move |(index, trace)| {
            trace.schema.events().filter(move |event| choice.has_event(index, event.id))
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

impl Wanted {
    /// What a record is to this span.
    fn what(&self, keys: &mut Keys, seen: &Seen<'_>, names: &Names) -> Option<What> {
        let Kind::Ends(ends) = &self.definition.kind else { return scheduler(keys, seen, names).map(What::Sched) };
        let key = |choice: &Choice, of: fn(&KeyFields) -> &Vec<String>| {
            if !choice.takes(seen, names) {
                return None;
            }
            let key = |key| of(key).iter().find_map(|name| raw(seen, names, name));
            ends.keys.iter().map(key).collect::<Option<Arc<[Key]>>>()
        };
        let (end, start) = (key(&self.end, |key| &key.end), key(&self.start, |key| &key.start));
        (end.is_some() || start.is_some()).then_some(What::Ends { end, start })
    }
}

/// What a record of the scheduler says.
fn scheduler(keys: &mut Keys, seen: &Seen<'_>, names: &Names) -> Option<sched::Told> {
    let number = |name| match raw(seen, names, name) {
        Some(Key::Number(number)) => u32::try_from(number).ok(),
        _ => None,
    };
    match seen.event.name.as_str() {
        "sched:sched_switch" => Some(sched::Told::Switch {
            prev: number("prev_pid")?,
            prev_comm: raw(seen, names, "prev_comm")?,
            // The kernel's words: its numbers change.
            state: keys.of(seen, names, "prev_state")?.to_string(),
            next: number("next_pid")?,
            next_comm: raw(seen, names, "next_comm")?,
        }),
        "sched:sched_wakeup" | "sched:sched_wakeup_new" => {
            Some(sched::Told::Wake { tid: number("pid")?, comm: raw(seen, names, "comm")? })
        }
        _ => None,
    }
}

/// Matches, in the order of time.
struct Fold<'f> {
    spans: &'f Spans<'f>,
    /// By definition and trace: what belongs together is of one host.
    matchers: HashMap<(usize, usize), Matcher>,
    threads: HashMap<(usize, usize), Threads>,
    gaps: Gaps,
    crossed: Vec<u64>,
    last: u64,
}

impl<'f> Fold<'f> {
    fn new(spans: &'f Spans<'f>) -> Self {
        let crossed = vec![0; spans.definitions.len()];
        Self { spans, matchers: HashMap::new(), threads: HashMap::new(), gaps: Gaps::default(), crossed, last: 0 }
    }

    fn take(&mut self, told: Told, give: &mut dyn FnMut(&Span<'_>) -> Result<()>) -> Result<()> {
        self.gaps.add(&told.gaps);
        self.last = self.last.max(told.last);
        let mut result = Ok(());
        for (source, index, what, at) in told.ends {
            let Some(wanted) = self.spans.definitions.get(index) else { continue };
            let (gaps, crossed, fields) = (&self.gaps, &mut self.crossed[index], &self.spans.fields);
            let one_cpu = match &wanted.definition.kind {
                Kind::Ends(ends) => ends.keys.iter().any(|key| key.start == ["cpu"]),
                Kind::Sched(_) => false,
            };
            let mut ended = |keys: &[Key], start: &End, end: &End, about: &End| {
                if result.is_err() {
                    return;
                }
                let is_crossed = gaps.any_between(source, one_cpu, start.time, end.time);
                *crossed += u64::from(is_crossed);
                let span = Span {
                    definition: index,
                    start: start.time,
                    end: end.time,
                    start_cpu: start.cpu,
                    source,
                    comm: &about.comm,
                    tid: about.tid,
                    keys,
                    fields: fields.iter().enumerate().map(|(at, name)| field(name, at, start, end, about)).collect(),
                    crossed: is_crossed,
                };
                result = give(&span);
            };
            match (what, &wanted.definition.kind) {
                (What::Ends { end, start }, Kind::Ends(ends)) => {
                    let matcher =
                        self.matchers.entry((index, source.trace)).or_insert_with(|| Matcher::new(ends.matching));
                    let mut two = |keys: &Arc<[Key]>, start: &End, end: &End| ended(keys, start, end, start);
                    // An event that is both ends one and begins the next, not itself.
                    if let Some(keys) = end {
                        matcher.end(&keys, at.clone(), start.is_none(), &mut two);
                    }
                    if let Some(keys) = start {
                        matcher.start(&keys, at, &mut two);
                    }
                }
                (What::Sched(told), Kind::Sched(kind)) => {
                    let threads = self.threads.entry((index, source.trace)).or_default();
                    threads.take(*kind, &told, &at, &mut |start, end| ended(&[], start, end, end));
                }
                _ => {}
            }
        }
        result
    }

    fn finish(mut self) -> Vec<Account> {
        let mut accounts = vec![Account::default(); self.spans.definitions.len()];
        for ((index, _), matcher) in &mut self.matchers {
            matcher.finish(self.last);
            accounts[*index].add(&matcher.account);
        }
        for ((index, _), threads) in &mut self.threads {
            if let Kind::Sched(kind) = self.spans.definitions[*index].definition.kind {
                threads.finish(kind, self.last);
            }
            accounts[*index].add(&threads.account);
        }
        for (account, crossed) in accounts.iter_mut().zip(self.crossed) {
            account.crossed = crossed;
        }
        accounts
    }
}

/// A field of a span.
fn field(name: &str, at: usize, start: &End, end: &End, about: &End) -> Option<Key> {
    let number = |number: u32| Some(Key::Number(number.into()));
    match name {
        "comm" => Some(about.comm.clone()),
        "tid" => number(about.tid),
        "cpu" => number(end.cpu),
        "start_cpu" => number(start.cpu),
        _ if name.starts_with("end_") => end.fields.get(at).cloned().flatten(),
        _ => [start, end].iter().find_map(|side| side.fields.get(at).cloned().flatten()),
    }
}

impl Account {
    fn add(&mut self, other: &Self) {
        let Self {
            starts,
            ends,
            ended,
            replaced,
            ignored,
            given_up,
            inferred,
            open,
            oldest_open,
            never_began,
            crossed,
        } = other;
        self.starts += starts;
        self.ends += ends;
        self.ended += ended;
        self.replaced += replaced;
        self.ignored += ignored;
        self.given_up += given_up;
        self.inferred += inferred;
        self.open += open;
        self.oldest_open = self.oldest_open.max(*oldest_open);
        self.never_began += never_began;
        self.crossed += crossed;
    }
}

/// Where records were lost: for each CPU, in the order of time.
#[derive(Debug, Default)]
struct Gaps {
    of: HashMap<SourceId, Vec<(u64, u64)>>,
}

impl Gaps {
    /// Adds those that are not known yet; of each CPU they come in order.
    fn add(&mut self, gaps: &[Gap]) {
        for gap in gaps {
            let of = self.of.entry(gap.source).or_default();
            if of.last().is_none_or(|(since, until)| *since < gap.since || *until < gap.until) {
                of.push((gap.since, gap.until));
            }
        }
    }

    /// Whether records were lost between two times: on a CPU, or on any of its trace.
    fn any_between(&self, source: SourceId, one_cpu: bool, start: u64, end: u64) -> bool {
        let is_meant = |of: &SourceId| if one_cpu { *of == source } else { of.trace == source.trace };
        self.of.iter().filter(|(of, _)| is_meant(of)).any(|(_, gaps)| {
            let first = gaps.partition_point(|(_, until)| *until <= start);
            gaps.get(first).is_some_and(|(since, _)| *since < end)
        })
    }
}
