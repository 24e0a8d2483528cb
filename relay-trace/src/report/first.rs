//! The first walk through a trace: levels, durations, threads, stacks, losses.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{
    PageSpec,
    durations::Durations,
    grid::Grid,
    levels::Levels,
    threads::{ThreadNotes, Threads},
    walk::{Action, Brief, OnCpu, brief},
};
use crate::{
    answers::{
        key::Key,
        span::{Extractor, Fold, SpanAccount, Spans},
    },
    export::stacks::Weighed,
    read::{
        pipeline,
        slices::{Gap, GapKind, Item, Slice, Slicer},
        stream::Damage,
    },
};

/// Buckets of an event's density.
const DENSITY: usize = 512;

/// What came of it.
#[derive(Debug)]
pub(super) struct First {
    pub(super) levels: Levels,
    pub(super) threads: Threads,
    /// By event: records in each of 512 parts of the time.
    pub(super) density: BTreeMap<u16, Vec<u64>>,
    pub(super) kinds: Vec<Durations>,
    pub(super) stacks: Weighed,
    /// Since, until, CPU, how many, and whether they are sub-buffers.
    pub(super) losses: Vec<(u64, u64, u32, u64, bool)>,
    pub(super) has_switches: bool,
    pub(super) records: u64,
    pub(super) damages: Vec<Damage>,
    pub(super) accounts: Vec<SpanAccount>,
}

struct Part {
    briefs: Vec<Brief>,
    gaps: Vec<Gap>,
    told: ThreadNotes,
    stacks: Weighed,
    spans: Option<crate::answers::span::SliceEnds>,
    damages: Vec<Damage>,
    done: u64,
}

impl First {
    pub(super) fn walk(request: &mut PageSpec<'_>, grid: Grid, mut slicer: Slicer<'_>) -> Result<Self> {
        let (traces, filter, spans) = (request.traces, request.filter, request.spans);
        let mut all = Self::new(grid, spans);
        let mut fold = spans.map(Fold::new);
        let mut running = OnCpu::new(grid.cpus);
        let mut lasted: BTreeMap<u16, Durations> = BTreeMap::new();
        let worker = || {
            let mut extractor = spans.map(Extractor::new);
            move |mut slice: Slice| {
                let spans = extractor.as_mut().map(|extractor| extractor.take(&slice, |_, _| 0));
                let (mut briefs, mut gaps, mut told, mut stacks) =
                    (Vec::new(), Vec::new(), ThreadNotes::default(), Weighed::default());
                filter.show(&slice, traces, |item, names| match item {
                    Item::Record(seen) => {
                        briefs.push(brief(&grid, &seen, names, &mut told));
                        stacks.add(&seen, names, None);
                    }
                    Item::Gap(gap) => gaps.push(*gap),
                });
                Part {
                    briefs,
                    gaps,
                    told,
                    stacks,
                    spans,
                    damages: std::mem::take(&mut slice.damages),
                    done: slice.done,
                }
            }
        };
        pipeline::run(
            move || slicer.next(u64::MAX),
            worker,
            |mut part: Part| {
                (request.progress)(part.done);
                all.damages.append(&mut part.damages);
                all.threads.learn(part.told);
                all.stacks.append(part.stacks);
                all.records += part.briefs.len() as u64;
                let mut gaps = part.gaps.iter().peekable();
                for record in &part.briefs {
                    while let Some(gap) = gaps.next_if(|gap| grid.time(gap.until) <= record.time) {
                        all.gap(&grid, &mut running, gap);
                    }
                    all.record(&grid, &mut running, record, &mut lasted, |event| {
                        traces[0].schema.event(event).map_or("", |event| &event.name)
                    });
                }
                gaps.for_each(|gap| all.gap(&grid, &mut running, gap));
                let (Some(fold), Some(told)) = (&mut fold, part.spans) else { return Ok(()) };
                fold.take(told, |span, _| {
                    if let (Some(kind), false) = (all.kinds.get_mut(span.definition), span.crossed) {
                        let (number, begin) = (all.threads.number(span.tid), grid.time(span.start));
                        kind.add(&grid, (span.end.saturating_sub(span.start), begin, number, span.source.cpu));
                        if let (Some(thread), Key::Text(name)) = (all.threads.of(number), span.comm)
                            && thread.name.is_empty()
                        {
                            thread.name = name.clone().into_bytes();
                        }
                    }
                    Ok(())
                })
            },
        )?;
        for (cpu, (thread, since)) in running.rest() {
            all.ran(cpu, thread, since, grid.span);
        }
        all.kinds.extend(lasted.into_values());
        all.accounts = fold.map(Fold::finish).unwrap_or_default();
        Ok(all)
    }

    fn new(grid: Grid, spans: Option<&Spans<'_>>) -> Self {
        let kinds = spans
            .into_iter()
            .flat_map(Spans::definitions)
            .map(|definition| Durations::new(&format!("span {}", definition.name)));
        Self {
            levels: Levels::new(grid),
            threads: Threads::new(),
            density: BTreeMap::new(),
            kinds: kinds.collect(),
            stacks: Weighed::default(),
            losses: Vec::new(),
            has_switches: false,
            records: 0,
            damages: Vec::new(),
            accounts: Vec::new(),
        }
    }

    fn record<'n>(
        &mut self,
        grid: &Grid,
        running: &mut OnCpu,
        record: &Brief,
        lasted: &mut BTreeMap<u16, Durations>,
        name: impl Fn(u16) -> &'n str,
    ) {
        let cpu = record.cpu as usize;
        self.levels.record(cpu, record.time);
        let number = self.threads.number(record.tid);
        if let Some(thread) = self.threads.of(number) {
            thread.records += 1;
        }
        let part = usize::try_from(u128::from(record.time) * DENSITY as u128 / u128::from(grid.span)).unwrap_or(0);
        if let Some(count) = self.density.entry(record.event).or_insert_with(|| vec![0; DENSITY]).get_mut(part) {
            *count += 1;
        }
        match record.what {
            Action::Switch { next, .. } => {
                self.has_switches = true;
                let (thread, since) = running.switch(cpu, self.threads.number(next), record.time);
                self.ran(cpu, thread, since, record.time);
            }
            Action::Lasted(duration) => {
                let kind = lasted.entry(record.event).or_insert_with(|| Durations::new(name(record.event)));
                kind.add(grid, (duration, record.time.saturating_sub(duration), number, record.cpu));
            }
            Action::Wake(_) | Action::Other => {}
        }
    }

    fn gap(&mut self, grid: &Grid, running: &mut OnCpu, gap: &Gap) {
        let (since, until, cpu) = (grid.time(gap.since), grid.time(gap.until), gap.source.cpu);
        let (count, is_overrun) = match gap.kind {
            GapKind::Lost(records) => (records, false),
            GapKind::Overrun(subbufs) => (subbufs, true),
        };
        self.losses.push((since, until, cpu, count, is_overrun));
        let (thread, from) = running.switch(cpu as usize, 0, until);
        self.ran(cpu as usize, thread, from, since);
    }

    fn ran(&mut self, cpu: usize, thread: u32, from: u64, to: u64) {
        if thread == 0 || to <= from {
            return;
        }
        self.levels.ran(cpu, thread, from, to);
        if let Some(thread) = self.threads.of(thread) {
            thread.ran += to - from;
        }
    }
}
