//! What each CPU did, in buckets of time: how many records, how busy, and who ran most.

use serde_json::json;

use super::{block::Block, grid::Grid};

/// What a CPU has in the bucket that is open, of one level.
#[derive(Clone, Debug, Default)]
struct Open {
    bucket: usize,
    /// Threads and their nanoseconds.
    ran: Vec<(u32, u64)>,
}

/// One level: for each CPU and bucket the thread with most time, and its share of the busy time in 255ths.
#[derive(Debug)]
struct Level {
    buckets: usize,
    open: Vec<Open>,
    top: Vec<u64>,
    share: Vec<u64>,
}

/// All CPUs.
#[derive(Debug)]
pub(super) struct Levels {
    grid: Grid,
    records: Vec<u64>,
    busy: Vec<u64>,
    levels: Vec<Level>,
}

impl Levels {
    pub(super) fn new(grid: Grid) -> Self {
        let level = |buckets: usize| Level {
            buckets,
            open: vec![Open::default(); grid.cpus],
            top: vec![0; grid.cpus * buckets],
            share: vec![0; grid.cpus * buckets],
        };
        let cells = grid.cpus * grid.buckets;
        Self {
            grid,
            records: vec![0; cells],
            busy: vec![0; cells],
            levels: grid.levels().into_iter().map(level).collect(),
        }
    }

    /// A record.
    pub(super) fn record(&mut self, cpu: usize, time: u64) {
        let cell = cpu * self.grid.buckets + self.grid.bucket(time, self.grid.buckets);
        if let Some(records) = self.records.get_mut(cell) {
            *records += 1;
        }
    }

    /// A CPU ran a thread; times of a CPU come in order.
    pub(super) fn ran(&mut self, cpu: usize, thread: u32, from: u64, to: u64) {
        if thread == 0 || cpu >= self.grid.cpus {
            return;
        }
        let grid = self.grid;
        each_bucket(&grid, grid.buckets, from, to, |bucket, time| self.busy[cpu * grid.buckets + bucket] += time);
        for level in &mut self.levels {
            let buckets = level.buckets;
            each_bucket(&grid, buckets, from, to, |bucket, time| {
                if level.open[cpu].bucket != bucket {
                    level.close(cpu);
                    level.open[cpu].bucket = bucket;
                }
                let ran = &mut level.open[cpu].ran;
                match ran.iter_mut().find(|(of, _)| *of == thread) {
                    Some((_, all)) => *all += time,
                    None => ran.push((thread, time)),
                }
            });
        }
    }

    /// Records of each CPU.
    pub(super) fn per_cpu(&self) -> Vec<u64> {
        self.records.chunks(self.grid.buckets).map(|cpu| cpu.iter().sum()).collect()
    }

    pub(super) fn block(mut self, has_switches: bool) -> Block {
        let Grid { cpus, buckets, width, .. } = self.grid;
        let levels: Vec<usize> = self.levels.iter().map(|level| level.buckets).collect();
        let mut block = Block::new(
            json!({"kind": "cpu", "n": cpus, "nb": buckets, "bw": width, "levels": levels, "sched": has_switches}),
        );
        block.column("events", &self.records, false);
        let busy: Vec<u64> = self.busy.iter().map(|time| shade(*time, width)).collect();
        block.column("busy", &busy, false);
        for level in &mut self.levels {
            (0..cpus).for_each(|cpu| level.close(cpu));
            block.column(&format!("top{}", level.buckets), &level.top, false);
            block.column(&format!("share{}", level.buckets), &level.share, false);
        }
        block
    }
}

impl Level {
    /// The bucket that is open is done.
    fn close(&mut self, cpu: usize) {
        let Open { bucket, ran } = &mut self.open[cpu];
        let cell = cpu * self.buckets + *bucket;
        let all: u64 = ran.iter().map(|(_, time)| time).sum();
        if let Some((thread, most)) = ran.iter().max_by_key(|(_, time)| *time).filter(|_| all > 0) {
            self.top[cell] = (*thread).into();
            self.share[cell] = shade(*most, all);
        }
        ran.clear();
    }
}

/// A part of a whole in 255ths; what is there at all is 1.
pub(super) fn shade(part: u64, of: u64) -> u64 {
    (u128::from(part) * 255).div_ceil(u128::from(of.max(1))).min(255).try_into().unwrap_or(255)
}

/// Gives each bucket that a time reaches into, and how long it is in it.
pub(super) fn each_bucket(grid: &Grid, buckets: usize, from: u64, to: u64, mut give: impl FnMut(usize, u64)) {
    let width = grid.width_of(buckets);
    let mut at = from;
    while at < to {
        let bucket = grid.bucket(at, buckets);
        let end = if bucket + 1 == buckets { to } else { to.min((bucket as u64 + 1) * width) };
        if end <= at {
            break;
        }
        give(bucket, end - at);
        at = end;
    }
}
