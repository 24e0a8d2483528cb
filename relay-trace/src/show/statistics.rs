//! What a trace has, in numbers: by event and CPU, over time, and of one field.

use std::{
    collections::{BTreeMap, HashMap},
    ops::AddAssign,
};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use super::text::Words;
use crate::read::{
    choice::{Choice, comm},
    names::Names,
    pipeline,
    slices::{GapKind, Item, Seen, Slice, Slicer},
    trace::Trace,
    value::{Number, Value},
};

/// Of how many values of `--by` numbers are kept; the rest are one.
pub const GROUPS: usize = 1000;
/// What the rest is called.
pub const REST: &str = "(others)";
/// Bars over time, at most.
const BARS: usize = 4096;

/// How often something was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
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
pub struct Lost {
    /// Records that were lost between packets.
    pub records: u64,
    /// Sub-buffers that were overwritten unread.
    pub subbufs: u64,
}

/// What one value of the field of `--by` has.
#[derive(Clone, Debug)]
pub struct Group {
    /// Records.
    pub records: u64,
    /// The values of `--hist`'s field; below zero they count as zero.
    pub values: Option<Histogram<u64>>,
    /// The sum of the values.
    pub sum: i128,
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
pub struct Statistics {
    /// By trace, event and CPU.
    pub counts: BTreeMap<(usize, u16, u32), Count>,
    /// By trace and CPU.
    pub lost: BTreeMap<(usize, u32), Lost>,
    /// Records over time.
    pub over_time: OverTime,
    /// By value of the field of `--by`; all under the empty text without it.
    pub groups: HashMap<String, Group>,
    /// Places that could not be read.
    pub damages: Vec<crate::read::stream::Damage>,
}

/// Which fields are looked at.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    /// The numbers of this one.
    pub values: Option<String>,
    /// Separately for each value of this one.
    pub by: Option<String>,
}

impl Count {
    fn add(&mut self, time: u64, bytes: u64) {
        if self.records == 0 {
            self.first = time;
        }
        self.records += 1;
        self.bytes += bytes;
        self.last = time;
    }
}

impl AddAssign for Count {
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

impl Group {
    fn new(has_values: bool) -> Result<Self> {
        // Two digits: a value is known to a hundredth.
        let values = has_values.then(|| Histogram::new(2)).transpose().context("making a histogram")?;
        Ok(Self { records: 0, values, sum: 0 })
    }

    fn add(&mut self, value: Option<i128>) -> Result<()> {
        self.records += 1;
        if let (Some(values), Some(value)) = (&mut self.values, value) {
            let counted = u64::try_from(value.max(0)).unwrap_or(u64::MAX);
            values.record(counted).context("counting a value")?;
            self.sum = self.sum.saturating_add(value);
        }
        Ok(())
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        self.records += other.records;
        self.sum = self.sum.saturating_add(other.sum);
        if let (Some(values), Some(more)) = (&mut self.values, &other.values) {
            values.add(more).context("adding up histograms")?;
        }
        Ok(())
    }
}

/// Counts what `choice` takes of the traces. `progress` is told how many bytes are done.
///
/// # Errors
/// When a file cannot be read.
pub fn count(
    traces: &[Trace],
    mut slicer: Slicer<'_>,
    choice: &Choice,
    fields: &Fields,
    mut progress: impl FnMut(u64),
) -> Result<Statistics> {
    let mut all = Statistics::default();
    let worker = || {
        let mut counter = Counter::new(traces, choice, fields);
        move |slice: Slice| counter.count(slice)
    };
    pipeline::run(
        move || slicer.next(u64::MAX),
        worker,
        |part: Result<(Statistics, u64)>| {
            let (part, done) = part?;
            progress(done);
            all.merge(part)
        },
    )?;
    Ok(all)
}

impl Statistics {
    fn merge(&mut self, part: Self) -> Result<()> {
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
        for (name, group) in part.groups {
            let known = self.groups.contains_key(&name) || self.groups.len() < GROUPS;
            let name = if known { name } else { REST.to_owned() };
            match self.groups.get_mut(&name) {
                Some(all) => all.merge(&group)?,
                None => drop(self.groups.insert(name, group)),
            }
        }
        self.damages.extend(part.damages);
        Ok(())
    }
}

/// Counts slices.
struct Counter<'t> {
    traces: &'t [Trace],
    choice: &'t Choice,
    fields: &'t Fields,
    symbols: Vec<crate::read::symbolize::Symbols>,
    words: Vec<Vec<Words>>,
}

impl<'t> Counter<'t> {
    fn new(traces: &'t [Trace], choice: &'t Choice, fields: &'t Fields) -> Self {
        let words = |trace: &Trace| trace.schema.by_id().map(|_| Words::default()).collect();
        Self {
            traces,
            choice,
            fields,
            symbols: traces.iter().map(Trace::symbols).collect(),
            words: traces.iter().map(words).collect(),
        }
    }

    fn count(&mut self, mut slice: Slice) -> Result<(Statistics, u64)> {
        let mut part = Statistics { damages: std::mem::take(&mut slice.damages), ..Statistics::default() };
        let mut result = Ok(());
        self.choice.show(&slice, self.traces, |item, names| match item {
            Item::Gap(gap) => {
                let lost = part.lost.entry((gap.source.trace, gap.source.cpu)).or_default();
                match gap.kind {
                    GapKind::Lost(records) => lost.records += records,
                    GapKind::Overrun(subbufs) => lost.subbufs += subbufs,
                }
            }
            Item::Record(seen) if result.is_ok() => result = self.record(&seen, names, &mut part),
            Item::Record(_) => {}
        });
        result.map(|()| (part, slice.done))
    }

    fn record(&mut self, seen: &Seen<'_>, names: &Names, part: &mut Statistics) -> Result<()> {
        let bytes = (crate::read::packet::BEFORE_PAYLOAD + seen.record.payload.len()) as u64;
        let key = (seen.source.trace, seen.event.id, seen.source.cpu);
        part.counts.entry(key).or_default().add(seen.time, bytes);
        part.over_time.add(seen.time, 1);
        if self.fields.values.is_none() && self.fields.by.is_none() {
            return Ok(());
        }
        let value = match &self.fields.values {
            Some(name) => match number(seen, name) {
                Some(value) => Some(value),
                // The event does not have it.
                None => return Ok(()),
            },
            None => None,
        };
        let group = match &self.fields.by {
            Some(name) => match self.text(seen, names, name) {
                Some(text) => text,
                None => return Ok(()),
            },
            None => String::new(),
        };
        if !part.groups.contains_key(&group) {
            part.groups.insert(group.clone(), Group::new(value.is_some())?);
        }
        if let Some(group) = part.groups.get_mut(&group) {
            group.add(value)?;
        }
        Ok(())
    }

    /// A field's value, or what is known of the task, as people read it.
    fn text(&mut self, seen: &Seen<'_>, names: &Names, name: &str) -> Option<String> {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Some(index) = seen.event.field(name) else {
            return match name {
                "event" => Some(seen.event.name.clone()),
                "cpu" => Some(seen.source.cpu.to_string()),
                "pid" => Some(seen.record.pid.to_string()),
                "tid" => Some(seen.record.tid.to_string()),
                "uid" => seen.context.uid.map(|uid| uid.to_string()),
                "comm" => Some(lossy(comm(&seen.context, seen.record.tid, names))),
                _ => None,
            };
        };
        let value = seen.event.value(index, seen.payload)?;
        let trace = seen.source.trace;
        let words = &mut self.words[trace][usize::from(seen.event.id)];
        if let Some(word) = words.of(seen.event, index, value, &mut self.symbols[trace]) {
            return Some(lossy(&word));
        }
        match value {
            Value::Number(Number::Address(number)) => Some(format!("{number:#x}")),
            Value::Number(number) => Some(number.wide().to_string()),
            Value::Text(text) => Some(lossy(text)),
            Value::List(..) => None,
        }
    }
}

/// A field's value as a number.
fn number(seen: &Seen<'_>, name: &str) -> Option<i128> {
    match seen.event.value(seen.event.field(name)?, seen.payload)? {
        Value::Number(number) => Some(number.wide()),
        Value::Text(_) | Value::List(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_counted_where_it_lies() {
        let mut group = Group::new(true).unwrap();
        for value in [0, 1, 64, 64, 1 << 40, i128::from(u64::MAX), -5] {
            group.add(Some(value)).unwrap();
        }
        let values = group.values.as_ref().unwrap();
        assert_eq!((values.len(), values.count_at(0), values.count_at(1), values.count_at(64)), (7, 2, 1, 2));
        assert_eq!((values.count_at(1 << 40), values.count_at(u64::MAX)), (1, 1));
        let mut all = Group::new(true).unwrap();
        all.merge(&group).unwrap();
        all.merge(&group).unwrap();
        assert_eq!((all.records, all.values.unwrap().count_at(64)), (14, 4));
    }

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
