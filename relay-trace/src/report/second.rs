//! The second walk: lanes of the busiest threads, and the records of chosen stretches, one by one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Result;
use serde_json::{Value as Json, json};

use super::{
    PageSpec,
    block::{Block, zigzag},
    first::First,
    grid::Grid,
    levels::{each_bucket, shade},
    threads::{ThreadNotes, Threads},
    walk::{Action, Brief, OnCpu, brief},
};
use crate::{
    read::{
        pipeline,
        schema::EventClass,
        slices::{Item, Seen, Slice, Slicer},
        symbolize::Symbols,
        trace::Trace,
        value::Value,
    },
    show::{
        json,
        text::{ByEvent, Words},
    },
};

/// Fields of a switch that the page makes of the threads.
const OF_THREADS: [&str; 4] = ["prev_comm", "prev_pid", "next_comm", "next_pid"];
const SWITCH: &str = "sched:sched_switch";
/// Buckets of a thread's lane, at most.
const LANE: usize = 4096;

/// A value of a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Cell {
    Number(i128),
    Text(String),
}

/// A record that is kept.
struct Row {
    brief: Brief,
    cells: Vec<Cell>,
}

/// A slice's records: what all lanes need, and which of them are kept.
struct Part {
    briefs: Vec<(Brief, Option<Vec<Cell>>)>,
    /// CPU, since and until.
    gaps: Vec<(usize, u64, u64)>,
    done: u64,
}

/// What came of it.
pub(super) struct Second {
    pub(super) lanes: Block,
    /// By stretch: its block, deflated, and how many records it has.
    pub(super) stretches: BTreeMap<usize, (Vec<u8>, u64)>,
}

struct Folding<'f> {
    grid: Grid,
    threads: &'f mut Threads,
    events: &'f HashMap<u16, u64>,
    trace: &'f Trace,
    running: OnCpu,
    lanes: Lanes,
    /// The stretch that is open, what its CPUs ran when it began, and its records by CPU.
    stretch: usize,
    init: Vec<u64>,
    rows: Vec<Vec<Row>>,
    done: BTreeMap<usize, (Vec<u8>, u64)>,
}

impl Second {
    pub(super) fn walk(
        request: &mut PageSpec<'_>,
        grid: Grid,
        mut slicer: Slicer<'_>,
        first: &mut First,
        events: &HashMap<u16, u64>,
        wanted: &BTreeSet<usize>,
    ) -> Result<Self> {
        let (traces, filter) = (request.traces, request.filter);
        let busiest = first.threads.busiest(64);
        let mut folding = Folding {
            grid,
            lanes: Lanes::new(grid, busiest),
            threads: &mut first.threads,
            events,
            trace: &traces[0],
            running: OnCpu::new(grid.cpus),
            stretch: 0,
            init: Vec::new(),
            rows: (0..grid.cpus).map(|_| Vec::new()).collect(),
            done: BTreeMap::new(),
        };
        folding.begin(0);
        let worker = || {
            let mut cells = Cells { symbols: traces[0].symbols(), words: ByEvent::new(traces) };
            move |slice: Slice| {
                let mut part = Part { briefs: Vec::new(), gaps: Vec::new(), done: slice.done };
                filter.show(&slice, traces, |item, names| match item {
                    Item::Record(seen) => {
                        let record = brief(&grid, &seen, names, &mut ThreadNotes::default());
                        let is_kept = wanted.contains(&grid.bucket(record.time, grid.stretches));
                        part.briefs.push((record, is_kept.then(|| cells.of(&seen))));
                    }
                    Item::Gap(gap) => {
                        part.gaps.push((gap.source.cpu as usize, grid.time(gap.since), grid.time(gap.until)))
                    }
                });
                part
            }
        };
        pipeline::run(
            move || slicer.next(u64::MAX),
            worker,
            |part: Part| {
                (request.progress)(part.done);
                let mut gaps = part.gaps.into_iter().peekable();
                for (brief, cells) in part.briefs {
                    while let Some(gap) = gaps.next_if(|(.., until)| *until <= brief.time) {
                        folding.lose(gap);
                    }
                    folding.record(brief, cells)?;
                }
                gaps.for_each(|gap| folding.lose(gap));
                Ok(())
            },
        )?;
        folding.end()?;
        for (_, (thread, since)) in folding.running.rest() {
            folding.lanes.ran(thread, since, grid.span);
        }
        let Folding { lanes, done, .. } = folding;
        Ok(Self { lanes: lanes.block(), stretches: done })
    }
}

impl Folding<'_> {
    fn record(&mut self, brief: Brief, cells: Option<Vec<Cell>>) -> Result<()> {
        let stretch = self.grid.bucket(brief.time, self.grid.stretches);
        if stretch > self.stretch {
            self.end()?;
            self.begin(stretch);
        }
        self.lanes.record(self.threads, &brief);
        let cpu = brief.cpu as usize;
        if let Some(cells) = cells
            && let Some(rows) = self.rows.get_mut(cpu)
        {
            rows.push(Row { brief, cells });
        }
        if let Action::Switch { next, .. } = brief.what {
            let (thread, since) = self.running.switch(cpu, self.threads.number(next), brief.time);
            self.lanes.ran(thread, since, brief.time);
        }
        Ok(())
    }

    fn lose(&mut self, (cpu, since, until): (usize, u64, u64)) {
        let (thread, from) = self.running.switch(cpu, 0, until);
        self.lanes.ran(thread, from, since);
    }

    fn begin(&mut self, stretch: usize) {
        self.stretch = stretch;
        self.init = (0..self.grid.cpus).map(|cpu| self.running.thread(cpu).into()).collect();
    }

    /// Makes the block of the stretch that is open.
    fn end(&mut self) -> Result<()> {
        let count = self.rows.iter().map(Vec::len).sum::<usize>();
        if count == 0 {
            return Ok(());
        }
        let mut block = Block::new(json!({"k": self.stretch}));
        let counts: Vec<u64> = self.rows.iter().map(|rows| rows.len() as u64).collect();
        block.column("n", &counts, false);
        block.column("init", &self.init, false);
        let begin = self.stretch as u64 * self.grid.width_of(self.grid.stretches);
        let [mut steps, mut events, mut threads, mut next, mut states] = [const { Vec::new() }; 5];
        for (rows, init) in self.rows.iter().zip(&self.init) {
            let (mut last, mut runs) = (begin, *init);
            for Row { brief, .. } in rows {
                steps.push(brief.time - last);
                last = brief.time;
                events.push(self.events.get(&brief.event).copied().unwrap_or(0));
                let thread = i64::from(self.threads.number(brief.tid));
                threads.push(zigzag(thread - runs.cast_signed()));
                if let Action::Switch { could_run, next: to, .. } = brief.what {
                    runs = self.threads.number(to).into();
                    next.push(runs);
                    states.push(u64::from(!could_run));
                }
            }
        }
        for (name, numbers) in [("dt", &steps), ("ev", &events), ("th", &threads), ("next", &next), ("state", &states)]
        {
            block.column(name, numbers, false);
        }
        self.fields(&mut block);
        self.done.insert(self.stretch, (block.pack()?, count as u64));
        self.rows.iter_mut().for_each(Vec::clear);
        Ok(())
    }

    /// A column for each field of each event, in the order of the records.
    fn fields(&self, block: &mut Block) {
        let mut by_event: BTreeMap<u16, Vec<&Row>> = BTreeMap::new();
        for row in self.rows.iter().flatten() {
            by_event.entry(row.brief.event).or_default().push(row);
        }
        let mut strings = Strings::default();
        let mut described: Vec<Json> = Vec::new();
        for (id, rows) in by_event {
            let (Some(event), Some(number)) = (self.trace.schema.event(id), self.events.get(&id)) else { continue };
            let names = event.fields.iter().map(|field| &*field.name).filter(|name| is_shown(event, name));
            let columns = names.enumerate().map(|(index, name)| {
                let cells: Vec<&Cell> = rows.iter().filter_map(|row| row.cells.get(index)).collect();
                let (kind, numbers) = strings.column(&cells);
                block.column(&format!("{number}.{name}"), &numbers, kind == "u");
                json!([name, kind])
            });
            let columns: Vec<Json> = columns.collect();
            described.push(json!([number, columns]));
        }
        block.set("events", Json::Array(described));
        block.set("strings", json!(strings.all));
    }
}

fn is_shown(event: &EventClass, field: &str) -> bool {
    event.name != SWITCH || !OF_THREADS.contains(&field)
}

/// The texts of a stretch, each once.
#[derive(Default)]
struct Strings {
    all: Vec<String>,
    numbers: HashMap<String, u64>,
}

impl Strings {
    /// A column of numbers, `i` with a sign, `u` without; or of texts, `s`.
    fn column(&mut self, cells: &[&Cell]) -> (&'static str, Vec<u64>) {
        let numbers = |fits: fn(i128) -> Option<u64>| -> Option<Vec<u64>> {
            let number = |cell: &&Cell| if let Cell::Number(number) = cell { fits(*number) } else { None };
            cells.iter().map(number).collect()
        };
        if let Some(numbers) = numbers(|number| i64::try_from(number).ok().map(zigzag)) {
            return ("i", numbers);
        }
        if let Some(numbers) = numbers(|number| u64::try_from(number).ok()) {
            return ("u", numbers);
        }
        let text = |cell: &&Cell| {
            let text = match cell {
                Cell::Number(number) => number.to_string(),
                Cell::Text(text) => text.clone(),
            };
            *self.numbers.entry(text).or_insert_with_key(|text| {
                self.all.push(text.clone());
                self.all.len() as u64 - 1
            })
        };
        ("s", cells.iter().map(text).collect())
    }
}

/// Makes cells of a record's fields: the kernel's words where there are any.
struct Cells {
    symbols: Symbols,
    words: ByEvent<Words>,
}

impl Cells {
    fn of(&mut self, seen: &Seen<'_>) -> Vec<Cell> {
        let words = self.words.of(seen.source.trace, seen.event, Words::default);
        let shown =
            seen.event.values(seen.payload).enumerate().filter(|(_, (field, _))| is_shown(seen.event, &field.name));
        let cell = |(index, (_, value))| {
            if let Some(word) = words.of(seen.event, index, value, seen.payload, &self.symbols) {
                return Cell::Text(String::from_utf8_lossy(&word).into_owned());
            }
            match value {
                Value::Number(number) => Cell::Number(number.wide()),
                Value::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
                Value::Texts(_) => {
                    let mut text = Vec::new();
                    json::push_value(&mut text, value);
                    Cell::Text(String::from_utf8_lossy(&text).into_owned())
                }
                Value::List(..) => {
                    let elements: Vec<_> = value.elements().map(|number| number.wide().to_string()).collect();
                    Cell::Text(format!("[{}]", elements.join(",")))
                }
            }
        };
        shown.map(cell).collect()
    }
}

/// The lanes of the busiest threads.
struct Lanes {
    grid: Grid,
    buckets: usize,
    threads: Vec<u32>,
    of: HashMap<u32, usize>,
    /// Since when each could run.
    waits: HashMap<u32, u64>,
    ran: Vec<u64>,
    waited: Vec<u64>,
    records: Vec<u64>,
}

impl Lanes {
    fn new(grid: Grid, threads: Vec<u32>) -> Self {
        let buckets = if threads.len() > 16 { grid.buckets.min(LANE) } else { grid.buckets };
        let cells = threads.len() * buckets;
        let of = threads.iter().copied().zip(0..).collect();
        let (ran, waited, records) = (vec![0; cells], vec![0; cells], vec![0; cells]);
        Self { grid, buckets, threads, of, waits: HashMap::new(), ran, waited, records }
    }

    fn record(&mut self, threads: &mut Threads, brief: &Brief) {
        if let Some(lane) = self.of.get(&threads.number(brief.tid)) {
            self.records[lane * self.buckets + self.grid.bucket(brief.time, self.buckets)] += 1;
        }
        match brief.what {
            Action::Wake(tid) => {
                let thread = threads.number(tid);
                if self.of.contains_key(&thread) {
                    self.waits.entry(thread).or_insert(brief.time);
                }
            }
            Action::Switch { prev, could_run, next } => {
                let prev = threads.number(prev);
                // It ran until now: a wake-up before has changed nothing.
                self.waits.remove(&prev);
                if could_run && self.of.contains_key(&prev) {
                    self.waits.insert(prev, brief.time);
                }
                let next = threads.number(next);
                if let (Some(since), Some(lane)) = (self.waits.remove(&next), self.of.get(&next)) {
                    let (first, waited) = (lane * self.buckets, &mut self.waited);
                    each_bucket(&self.grid, self.buckets, since, brief.time, |bucket, time| {
                        waited[first + bucket] += time
                    });
                }
            }
            Action::Lasted(_) | Action::Other => {}
        }
    }

    fn ran(&mut self, thread: u32, from: u64, to: u64) {
        if let Some(lane) = self.of.get(&thread) {
            let (first, ran) = (lane * self.buckets, &mut self.ran);
            each_bucket(&self.grid, self.buckets, from, to, |bucket, time| ran[first + bucket] += time);
        }
    }

    fn block(self) -> Block {
        let width = self.grid.width_of(self.buckets);
        let mut block = Block::new(json!({"kind": "thread", "n": self.threads.len(), "nb": self.buckets, "bw": width}));
        let shades = |times: &[u64]| times.iter().map(|time| shade(*time, width)).collect::<Vec<_>>();
        block.column("thread", &self.threads.iter().map(|thread| u64::from(*thread)).collect::<Vec<_>>(), false);
        block.column("run", &shades(&self.ran), false);
        block.column("rq", &shades(&self.waited), false);
        block.column("events", &self.records, false);
        block
    }
}
