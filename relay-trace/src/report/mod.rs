//! A trace as one page that a browser shows without a network: its facts and account as HTML; levels of detail of everything, and records one by one where there is room,
//! as data that the page's own script reads.
//!
//! Two walks: the first makes levels ([`levels`](self)), durations and sums; the second the lanes of the threads that were busiest, and the records of chosen stretches of
//! time: around losses, the longest spans, both ends, and evenly.

mod block;
mod durations;
mod first;
mod grid;
mod html;
mod levels;
mod second;
mod threads;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write,
};

use anyhow::Result;
use serde_json::json;

use self::{
    block::{Block, base64, base64_len, gzip},
    first::First,
    grid::Grid,
    second::Second,
};
use crate::{
    answers::span::{SpanAccount, Spans},
    export::stacks::{StackNode, Stacks},
    read::{
        filter::Filter,
        slices::{Slicer, Window},
        stream::Damage,
        trace::Trace,
    },
};

/// Events whose density is in the page: the most frequent.
const EVENTS: usize = 200;
/// A frame with less than this part of all is added to its caller.
const SMALLEST: u64 = 20_000;
/// Of the longest of each kind, so many have their records in the page.
const AROUND: usize = 12;
/// Bytes that a record that is kept takes in the page, about; measured on system calls and scheduling.
const A_RECORD: u64 = 7;
/// Bytes of the page itself, about.
const PAGE: usize = 120_000;

/// What the page is to show.
#[expect(missing_debug_implementations, reason = "functions have none")]
pub struct PageSpec<'t> {
    /// One trace.
    pub traces: &'t [Trace],
    /// Cuts it into slices, twice.
    pub slicer: &'t dyn Fn() -> Result<Slicer<'t>>,
    /// Which time.
    pub window: Window,
    /// Which records are wanted.
    pub filter: &'t Filter,
    /// Whether these are all.
    pub is_whole: bool,
    /// Which spans are wanted.
    pub spans: Option<&'t Spans<'t>>,
    /// Bytes of the page, about, at most.
    pub size: usize,
    /// Told how many bytes are done, twice.
    pub progress: &'t mut dyn FnMut(u64),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Reported {
    /// What could not be read.
    pub damages: Vec<Damage>,
    /// What became of the ends of spans.
    pub spans: Vec<(String, SpanAccount)>,
    /// Records,
    pub records: u64,
    /// and those that are in the page one by one.
    pub kept: u64,
}

/// Writes the page.
///
/// # Errors
/// When a file cannot be read, or `output` not be written.
pub fn write(mut request: PageSpec<'_>, output: &mut dyn Write) -> Result<Reported> {
    let trace = &request.traces[0];
    let grid = Grid::new(trace, request.window)?;
    let slicer = (request.slicer)()?;
    let mut first = First::walk(&mut request, grid, slicer)?;
    let events: Vec<u16> = trace.schema.events().map(|event| event.id).collect();
    let numbers: HashMap<u16, u64> = events.iter().copied().zip(0..).collect();
    let order = stretches(&first, &grid);
    let wanted = wanted(&order, first.records, grid.stretches, request.size);
    let slicer = (request.slicer)()?;
    let Second { lanes, mut stretches } = Second::walk(&mut request, grid, slicer, &mut first, &numbers, &wanted)?;

    let mut blocks: Vec<(String, Vec<u8>)> = vec![
        ("thread".to_owned(), lanes.pack()?),
        ("event".to_owned(), density(&first.density, &numbers).pack()?),
        ("flame".to_owned(), flame(&std::mem::take(&mut first.stacks).named(request.traces, None)).pack()?),
    ];
    let per_cpu = first.levels.per_cpu();
    let has_switches = first.has_switches;
    let levels = std::mem::replace(&mut first.levels, levels::Levels::new(Grid { cpus: 0, ..grid }));
    blocks.push(("cpu".to_owned(), levels.block(has_switches).pack()?));
    blocks.push(("dist".to_owned(), durations::block(std::mem::take(&mut first.kinds)).pack()?));
    let taken =
        PAGE + blocks.iter().map(|(_, block)| base64_len(block.len())).sum::<usize>() + 24 * first.threads.all.len();
    keep(&mut stretches, &order, request.size.saturating_sub(taken));
    let kept: u64 = stretches.values().map(|(_, records)| records).sum();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let total = |event: &u16| first.density.get(event).map_or(0, |parts| parts.iter().sum::<u64>());
    let meta = json!({
        "version": 1,
        "facts": {"path": trace.path.display().to_string()},
        "t0": grid.start.to_string(),
        "span": grid.span,
        "ncpu": grid.cpus,
        "nt": grid.stretches,
        "records": first.records,
        "whole": kept,
        "tiles": stretches.keys().map(|stretch| json!([stretch, ""])).collect::<Vec<_>>(),
        "events": events.iter().map(|id| json!([trace.schema.event(*id).map_or("", |event| &event.name), total(id)])).collect::<Vec<_>>(),
        "threads": first.threads.all.iter().map(|thread| {
            json!([thread.tid, text(&thread.name), thread.pid.map_or(-1, i64::from), thread.ran, thread.records])
        }).collect::<Vec<_>>(),
        "cpus": per_cpu,
        "lost": first.losses.iter().map(|(since, until, cpu, count, is_overrun)| {
            json!([since, until, cpu, count, if *is_overrun { "overrun" } else { "lost" }])
        }).collect::<Vec<_>>(),
        "has": {"sched": has_switches},
    });
    blocks.push(("meta".to_owned(), gzip(&[&serde_json::to_vec(&meta)?])?));
    blocks.extend(stretches.into_iter().map(|(stretch, (block, _))| (format!("tile{stretch}"), block)));
    let page = html::Page {
        trace,
        grid: &grid,
        records: first.records,
        kept,
        losses: first.losses.len(),
        is_whole: request.is_whole,
    };
    let (before, after) = page.parts();
    output.write_all(before.as_bytes())?;
    for (name, block) in &blocks {
        writeln!(output, "<script type=\"application/x-relayd\" id=\"b-{name}\">{}</script>", base64(block))?;
    }
    output.write_all(after.as_bytes())?;
    let names = request.spans.into_iter().flat_map(Spans::definitions).map(|definition| definition.name.clone());
    let spans = names.zip(first.accounts).collect();
    Ok(Reported { damages: first.damages, spans, records: first.records, kept })
}

/// Stretches in the order in which they are wanted.
fn stretches(first: &First, grid: &Grid) -> Vec<usize> {
    let losses = first.losses.iter().flat_map(|(since, until, ..)| [*since, *until]);
    let longest = first.kinds.iter().flat_map(|kind| kind.ends_of_longest(AROUND));
    let times = losses
        .chain(longest)
        .chain([0, grid.span - 1])
        .map(|time| grid.bucket(time.min(grid.span - 1), grid.stretches));
    let mut step = grid.stretches;
    let halves = std::iter::from_fn(|| {
        (step > 1).then(|| {
            let at = step;
            step /= 2;
            (at / 2..grid.stretches).step_by(at)
        })
    });
    let mut seen = BTreeSet::new();
    times.chain(halves.flatten()).filter(|stretch| seen.insert(*stretch)).collect()
}

/// Of these, those that may be kept: somewhat more than there is room for.
fn wanted(order: &[usize], records: u64, stretches: usize, size: usize) -> BTreeSet<usize> {
    let each = (records / stretches as u64).max(1).saturating_mul(A_RECORD);
    let room = usize::try_from(2 * size as u64 / each).unwrap_or(usize::MAX).max(16);
    order.iter().copied().take(room).collect()
}

/// Takes out those for which there is no room; one is always kept.
fn keep(stretches: &mut BTreeMap<usize, (Vec<u8>, u64)>, order: &[usize], mut room: usize) {
    // Of an element around a block.
    const AROUND: usize = 80;
    let mut kept = BTreeSet::new();
    for stretch in order {
        let Some((block, _)) = stretches.get(stretch) else { continue };
        let takes = base64_len(block.len()) + AROUND;
        if takes > room && !kept.is_empty() {
            break;
        }
        room = room.saturating_sub(takes);
        kept.insert(*stretch);
    }
    stretches.retain(|stretch, _| kept.contains(stretch));
}

/// How often the most frequent events were, over time.
fn density(of: &BTreeMap<u16, Vec<u64>>, numbers: &HashMap<u16, u64>) -> Block {
    let mut events: Vec<(&u16, &Vec<u64>)> = of.iter().collect();
    events.sort_by_key(|(_, parts)| std::cmp::Reverse(parts.iter().sum::<u64>()));
    events.truncate(EVENTS);
    let mut block = Block::new(json!({"kind": "event", "n": events.len()}));
    let ids: Vec<u64> = events.iter().map(|(id, _)| numbers.get(id).copied().unwrap_or(0)).collect();
    block.column("event", &ids, false);
    block.column("count", &events.iter().flat_map(|(_, parts)| parts.iter().copied()).collect::<Vec<_>>(), false);
    block
}

/// Frames in preorder: depth, name, and what ends in it. The total stays exact.
fn flame(stacks: &Stacks) -> Block {
    let all = stacks.total();
    let mut names: Vec<&str> = Vec::new();
    let mut numbers: HashMap<&str, u64> = HashMap::new();
    let [mut depths, mut of, mut own] = [const { Vec::<u64>::new() }; 3];
    let frames = stacks.frames();
    for StackNode { depth, name, total, own: ends } in &frames {
        let is_small = total.saturating_mul(SMALLEST) < all;
        match own.last_mut() {
            // Below one that is shown; what is below this one is as small.
            Some(last) if is_small => *last += ends,
            _ => {
                depths.push(*depth as u64);
                own.push(*ends);
                of.push(*numbers.entry(name).or_insert_with(|| {
                    names.push(name);
                    names.len() as u64 - 1
                }));
            }
        }
    }
    let mut block = Block::new(json!({"kind": "flame", "names": names, "title": "records with a stack"}));
    for (name, numbers) in [("depth", &depths), ("name", &of), ("own", &own)] {
        block.column(name, numbers, false);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_frames_are_their_callers() {
        let line = |text: &str, weight| (text.split(';').map(str::to_owned).collect(), weight);
        let lines = vec![line("a;b", 1_000_000), line("a;c;d", 1), line("a;e", 5)];
        let block = flame(&Stacks { lines, field: None });
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&block.pack().unwrap()[..]), &mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains(r#""names":["a","b"]"#), "{text}");
    }

    #[test]
    fn as_many_stretches_are_kept_as_there_is_room_for() {
        let mut all: BTreeMap<usize, (Vec<u8>, u64)> = (0..8).map(|stretch| (stretch, (vec![0; 300], 10))).collect();
        keep(&mut all, &[5, 0, 7, 1, 2, 3, 4, 6], 3 * 480);
        assert_eq!(all.keys().copied().collect::<Vec<_>>(), [0, 5, 7]);
        keep(&mut all, &[5, 0], 0);
        assert_eq!(all.keys().copied().collect::<Vec<_>>(), [5], "one at least");
    }
}
