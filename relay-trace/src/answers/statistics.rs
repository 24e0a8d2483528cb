//! What a trace has, in numbers: by event and CPU, over time, and of one field.

use std::{collections::BTreeMap, ops::AddAssign};

use anyhow::Result;

use super::totals::{self, TotalFields, Totals};
use crate::read::{
    filter::Filter,
    pipeline,
    slices::{GapKind, Item, Slice, Slicer},
    trace::Trace,
};

/// Bars over time, at most.
const BARS: usize = 4096;

/// How often something was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCount {
    /// Records.
    pub records: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
    /// The first one's time; the common clock.
    pub first: u64,
    /// The last one's time.
    pub last: u64,
}

/// What one CPU lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuLoss {
    /// Records that were lost between packets.
    pub records: u64,
    /// Sub-buffers that were overwritten unread.
    pub subbufs: u64,
}

/// Records over time.
#[derive(Clone, Debug, Default)]
pub struct OverTime {
    /// By time, in units of 2^`shift` ns.
    counts: BTreeMap<u64, u64>,
    shift: u32,
}

/// All numbers.
#[derive(Debug, Default)]
pub struct TraceStatistics {
    /// By trace, event and CPU.
    pub counts: BTreeMap<(usize, u16, u32), EventCount>,
    /// By trace and CPU.
    pub lost: BTreeMap<(usize, u32), CpuLoss>,
    /// Records over time.
    pub over_time: OverTime,
    /// By key.
    pub totals: Totals,
    /// Places that could not be read.
    pub damages: Vec<crate::read::stream::Damage>,
}

/// What a slice has.
#[derive(Debug, Default)]
struct Part {
    statistics: TraceStatistics,
    totals: totals::SliceTotals,
    /// Bytes of the traces that are done.
    done: u64,
}

impl EventCount {
    fn add(&mut self, time: u64, bytes: u64) {
        if self.records == 0 {
            self.first = time;
        }
        self.records += 1;
        self.bytes += bytes;
        self.last = time;
    }
}

impl AddAssign for EventCount {
    fn add_assign(&mut self, later: Self) {
        if self.records == 0 {
            self.first = later.first;
        }
        self.records += later.records;
        self.bytes += later.bytes;
        self.last = self.last.max(later.last);
    }
}

impl OverTime {
    /// A unit that is small for traces of that length, and not so small that every slice has to be halved many times.
    fn shift_of(traces: &[Trace]) -> u32 {
        let clock = |trace: &Trace| {
            let clock = trace.session.clock;
            clock.end.map(|end| (trace.common(clock.start.monotonic), trace.common(end.monotonic)))
        };
        let clocks: Vec<_> = traces.iter().filter_map(clock).collect();
        let first = clocks.iter().map(|(start, _)| *start).min().unwrap_or(0);
        let last = clocks.iter().map(|(_, end)| *end).max().unwrap_or(0);
        let units = last.saturating_sub(first) / (BARS as u64 * 64);
        u64::BITS - units.leading_zeros()
    }

    fn add(&mut self, time: u64, records: u64) {
        *self.counts.entry(time >> self.shift).or_default() += records;
        while self.counts.len() > BARS {
            self.shift += 1;
            let mut halved: BTreeMap<u64, u64> = BTreeMap::new();
            for (time, records) in std::mem::take(&mut self.counts) {
                *halved.entry(time >> 1).or_default() += records;
            }
            self.counts = halved;
        }
    }

    /// `bars` counts of equal spans between two times.
    #[must_use]
    pub fn bars(&self, from: u64, to: u64, bars: usize) -> Vec<u64> {
        let mut counts = vec![0; bars];
        let span = u128::from(to.saturating_sub(from)) + 1;
        for (time, records) in &self.counts {
            let at = u128::from((time << self.shift).saturating_sub(from).min(to.saturating_sub(from)));
            let bar = usize::try_from(at * bars as u128 / span).unwrap_or(0).min(bars.saturating_sub(1));
            if let Some(count) = counts.get_mut(bar) {
                *count += records;
            }
        }
        counts
    }
}

/// Counts what `filter` takes of the traces. `progress` is told how many bytes are done.
///
/// # Errors
/// When a file cannot be read.
pub fn count(
    traces: &[Trace],
    mut slicer: Slicer<'_>,
    filter: &Filter,
    fields: &TotalFields,
    mut progress: impl FnMut(u64),
) -> Result<TraceStatistics> {
    let shift = OverTime::shift_of(traces);
    let mut all =
        TraceStatistics { over_time: OverTime { shift, ..OverTime::default() }, ..TraceStatistics::default() };
    let worker = || {
        let mut counter = Counter { traces, filter, shift, totals: totals::Counter::new(traces, fields) };
        move |slice: Slice| counter.count(slice)
    };
    pipeline::run(
        move || slicer.next(u64::MAX),
        worker,
        |part: Part| {
            progress(part.done);
            all.merge(part);
            Ok(())
        },
    )?;
    Ok(all)
}

impl TraceStatistics {
    fn merge(&mut self, Part { statistics: part, totals, .. }: Part) {
        for (key, count) in part.counts {
            *self.counts.entry(key).or_default() += count;
        }
        for (key, lost) in part.lost {
            let all = self.lost.entry(key).or_default();
            all.records += lost.records;
            all.subbufs += lost.subbufs;
        }
        for (time, records) in part.over_time.counts {
            self.over_time.add(time << part.over_time.shift, records);
        }
        self.totals.add(totals);
        self.damages.extend(part.damages);
    }
}

/// Counts slices.
struct Counter<'t> {
    traces: &'t [Trace],
    filter: &'t Filter,
    shift: u32,
    totals: totals::Counter<'t>,
}

impl Counter<'_> {
    fn count(&mut self, mut slice: Slice) -> Part {
        let mut part = Part { done: slice.done, ..Part::default() };
        part.statistics.damages = std::mem::take(&mut slice.damages);
        part.statistics.over_time.shift = self.shift;
        self.filter.show(&slice, self.traces, |item, names| match item {
            Item::Gap(gap) => {
                let lost = part.statistics.lost.entry((gap.source.trace, gap.source.cpu)).or_default();
                match gap.kind {
                    GapKind::Lost(records) => lost.records += records,
                    GapKind::Overrun(subbufs) => lost.subbufs += subbufs,
                }
            }
            Item::Record(seen) => {
                let bytes = (crate::read::packet::BEFORE_PAYLOAD + seen.record.payload.len()) as u64;
                let key = (seen.source.trace, seen.event.id, seen.source.cpu);
                part.statistics.counts.entry(key).or_default().add(seen.time, bytes);
                part.statistics.over_time.add(seen.time, 1);
                self.totals.record(&seen, names, &mut part.totals);
            }
        });
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_over_time_have_every_record() {
        let mut over_time = OverTime::default();
        for time in 0..100_000 {
            over_time.add(1_000_000 + time * 1000, 1);
        }
        let bars = over_time.bars(1_000_000, 1_000_000 + 99_999_000, 10);
        assert_eq!(bars.iter().sum::<u64>(), 100_000);
        assert!(bars.iter().all(|bar| (9_900..10_100).contains(bar)), "{bars:?}");
        assert_eq!(over_time.bars(1_000_000, 1_000_000, 1), [100_000]);
    }
}
