//! Matches what slices tell, in the order of time, and knows which spans crossed a loss.

use std::{collections::HashMap, sync::Arc};

use anyhow::Result;

use super::{
    EndKind, Ended, SliceEnds, Span, SpanAccount, Spans,
    grammar::SpanKind,
    matching::{End, Matcher},
    sched::SchedThreads,
};
use crate::{
    answers::key::Key,
    read::slices::{Gap, SourceId},
};

/// Matches, in the order of time.
#[derive(Debug)]
pub struct Fold<'f> {
    spans: &'f Spans<'f>,
    /// By definition and trace: what belongs together is of one host.
    matchers: HashMap<(usize, usize), Matcher>,
    threads: HashMap<(usize, usize), SchedThreads>,
    gaps: Gaps,
    crossed: Vec<u64>,
    /// The process of each thread of a trace, as far as ends have told, where spans are shown as records.
    pids: HashMap<(usize, u32), u32>,
    last: u64,
}

impl<'f> Fold<'f> {
    /// Nothing is open.
    #[must_use]
    pub fn new(spans: &'f Spans<'f>) -> Self {
        let crossed = vec![0; spans.definitions.len()];
        Self {
            spans,
            matchers: HashMap::new(),
            threads: HashMap::new(),
            gaps: Gaps::default(),
            crossed,
            pids: HashMap::new(),
            last: 0,
        }
    }

    /// Takes what the next slice has told, and gives the spans that end in it, each with what was remarked of the record that ended it.
    ///
    /// # Errors
    /// What `give` says.
    pub fn take(&mut self, told: SliceEnds, mut give: impl FnMut(&Span<'_>, usize) -> Result<()>) -> Result<()> {
        self.gaps.add(&told.gaps);
        self.last = self.last.max(told.last);
        told.ends.into_iter().try_for_each(|ended| self.one(ended, &mut give))
    }

    fn one(&mut self, ended: Ended, give: &mut dyn FnMut(&Span<'_>, usize) -> Result<()>) -> Result<()> {
        let Ended { source, definition, what, end: at, mark } = ended;
        let Some(wanted) = self.spans.definitions.get(definition) else { return Ok(()) };
        if let Some(kept) = &at.kept {
            self.pids.insert((source.trace, kept.tid), kept.pid);
        }
        let (gaps, crossed, fields, pids) = (&self.gaps, &mut self.crossed[definition], &self.spans.fields, &self.pids);
        let one_cpu = match &wanted.definition.kind {
            SpanKind::Ends(ends) => ends.keys.iter().any(|key| key.start == ["cpu"]),
            SpanKind::Sched(_) => false,
        };
        let mut result = Ok(());
        let mut ended = |keys: &[Key], start: &End, end: &End, about: &End| {
            if result.is_err() {
                return;
            }
            let source = SourceId { trace: source.trace, cpu: end.cpu };
            let is_crossed = gaps.any_between(source, one_cpu, start.time, end.time);
            *crossed += u64::from(is_crossed);
            let span = Span {
                definition,
                start: start.time,
                end: end.time,
                start_cpu: start.cpu,
                source,
                comm: &about.comm,
                tid: about.tid,
                pid: pids.get(&(source.trace, about.tid)).copied(),
                keys,
                fields: fields.iter().enumerate().map(|(at, name)| field(name, at, start, end, about)).collect(),
                crossed: is_crossed,
                ends: [start, end],
            };
            result = give(&span, mark);
        };
        match (what, &wanted.definition.kind) {
            (EndKind::Ends { end, start }, SpanKind::Ends(ends)) => {
                let matcher =
                    self.matchers.entry((definition, source.trace)).or_insert_with(|| Matcher::new(ends.matching));
                let mut two = |keys: &Arc<[Key]>, start: &End, end: &End| ended(keys, start, end, start);
                // An event that is both ends one and begins the next, not itself.
                if let Some(keys) = end {
                    matcher.end(&keys, at.clone(), start.is_none(), &mut two);
                }
                if let Some(keys) = start {
                    matcher.start(&keys, at, &mut two);
                }
            }
            (EndKind::Sched(told), SpanKind::Sched(kind)) => {
                let threads = self.threads.entry((definition, source.trace)).or_default();
                threads.take(*kind, &told, &at, &mut |start, end| ended(&[], start, end, end));
            }
            _ => {}
        }
        result
    }

    /// What became of all ends, by definition: there are no more.
    #[must_use]
    pub fn finish(mut self) -> Vec<SpanAccount> {
        let mut accounts = vec![SpanAccount::default(); self.spans.definitions.len()];
        for ((index, _), matcher) in &mut self.matchers {
            matcher.finish(self.last);
            accounts[*index].add(&matcher.account);
        }
        for ((index, _), threads) in &mut self.threads {
            if let SpanKind::Sched(kind) = self.spans.definitions[*index].definition.kind {
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
