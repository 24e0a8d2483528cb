//! How long things lasted: a map of time and length, percentiles, and the longest, of each kind.

use std::{cmp::Reverse, collections::BinaryHeap};

use serde_json::json;

use super::{block::Block, grid::Grid};
use crate::answers::spread::Spread;

/// Kinds that are shown, at most: those with most time.
const KINDS: usize = 12;
/// Of each.
const LONGEST: usize = 100;
/// Columns of time, and rows of length: eight to each power of two.
const COLUMNS: usize = 128;
const ROWS: usize = 256;

/// Something that lasted: how long, when it began, of which thread, and on which CPU it ended.
pub(super) type Lasted = (u64, u64, u32, u32);

/// What lasted, of one kind.
#[derive(Debug)]
pub(super) struct Durations {
    name: String,
    map: Vec<u64>,
    spread: Spread,
    longest: BinaryHeap<Reverse<Lasted>>,
}

impl Durations {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            map: vec![0; COLUMNS * ROWS],
            spread: Spread::default(),
            longest: BinaryHeap::new(),
        }
    }

    pub(super) fn add(&mut self, grid: &Grid, lasted: Lasted) {
        let (length, begin, ..) = lasted;
        let end = u128::from((begin + length).min(grid.span - 1));
        let column = usize::try_from(end * COLUMNS as u128 / u128::from(grid.span)).unwrap_or(0).min(COLUMNS - 1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 64 * 8")]
        let row = ((length.max(1) as f64).log2() * 8.0) as usize;
        self.map[column * ROWS + row.min(ROWS - 1)] += 1;
        self.spread.add(length.into());
        self.longest.push(Reverse(lasted));
        if self.longest.len() > LONGEST {
            self.longest.pop();
        }
    }

    /// When the longest began, and when they ended.
    pub(super) fn ends_of_longest(&self, count: usize) -> impl Iterator<Item = u64> {
        self.sorted().into_iter().take(count).flat_map(|(length, begin, ..)| [begin + length, begin])
    }

    fn sorted(&self) -> Vec<Lasted> {
        let mut longest: Vec<Lasted> = self.longest.iter().map(|Reverse(lasted)| *lasted).collect();
        longest.sort_unstable_by(|a, b| b.cmp(a));
        longest
    }
}

/// The block of all kinds.
pub(super) fn block(mut kinds: Vec<Durations>) -> Block {
    kinds.retain(|kind| kind.spread.numbers() > 0);
    kinds.sort_by_key(|kind| Reverse(kind.spread.sum()));
    kinds.truncate(KINDS);
    let mut block =
        Block::new(json!({"kind": "dist", "names": kinds.iter().map(|kind| &kind.name).collect::<Vec<_>>()}));
    let stats = kinds.iter().map(|Durations { spread, .. }| {
        let [p50, p90, p99, p999] = [500, 900, 990, 999].map(|thousandths| spread.quantile(thousandths));
        json!({"n": spread.numbers(), "sum": spread.sum() as f64, "min": spread.min() as f64, "p50": p50 as f64, "p90": p90 as f64,
            "p99": p99 as f64, "p999": p999 as f64, "max": spread.max() as f64})
    });
    block.set("stats", stats.collect());
    for (index, kind) in kinds.iter().enumerate() {
        block.column(&format!("h{index}"), &kind.map, false);
        let longest = kind.sorted();
        let mut column = |name: &str, of: fn(&Lasted) -> u64| {
            block.column(&format!("{name}{index}"), &longest.iter().map(of).collect::<Vec<_>>(), false);
        };
        column("t", |lasted| lasted.1);
        column("d", |lasted| lasted.0);
        column("th", |lasted| lasted.2.into());
        column("c", |lasted| lasted.3.into());
    }
    block
}
