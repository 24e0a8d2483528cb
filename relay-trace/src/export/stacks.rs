//! The stacks of records, or of spans, each with its weight: what flame graphs are made of.

use std::collections::HashMap;

use anyhow::{Result, bail};

use super::{Exported, Job, Piece};
use crate::{
    read::{
        filter::comm,
        names::Names,
        slices::{Item, Seen, Slice},
        symbolize::Symbols,
        trace::Trace,
        value::Value,
    },
    show::stack::{clean, folded},
    similar::did_you_mean,
};

/// What spans weigh, unless something else is asked for.
const DURATION: &str = "duration_ns";

/// What stacks weigh.
#[derive(Debug, Default)]
pub struct Stacks {
    /// Functions, the outermost first after the thread's name, and what all records with this stack weigh together; sorted.
    pub lines: Vec<(Vec<String>, u64)>,
    /// The field that is the weight; none where records are counted.
    pub field: Option<String>,
}

/// A frame of all stacks put together, in preorder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackNode {
    /// How many frames are outside of it.
    pub depth: usize,
    /// The function.
    pub name: String,
    /// What stacks that go through it weigh,
    pub total: u64,
    /// and those that end in it.
    pub own: u64,
}

/// Trace, thread name, kernel stack, and process and user stack, as they lie in the records.
type Key = (usize, Vec<u8>, Vec<u8>, (u32, Vec<u8>));

/// Stacks as they lie in the records, and what has none.
#[derive(Debug, Default)]
pub(crate) struct Weighed {
    stacks: HashMap<Key, u64>,
    without: u64,
    weightless: u64,
}

impl Weighed {
    /// Adds a record that weighs its `field`, or one.
    pub(crate) fn add(&mut self, seen: &Seen<'_>, names: &Names, field: Option<&str>) {
        let (kernel, user) = (seen.context.kstack, seen.context.ustack);
        if kernel.is_empty() && user.is_empty() {
            self.without += 1;
            return;
        }
        let number = |field: &str| match seen.event.value(seen.event.field(field)?, seen.payload)? {
            Value::Number(number) => u64::try_from(number.wide()).ok(),
            Value::Text(_) | Value::Texts(_) | Value::List(..) => None,
        };
        let Some(weight) = field.map_or(Some(1), number) else {
            self.weightless += 1;
            return;
        };
        let key = (seen.source.trace, comm(seen, names).to_vec(), kernel.to_vec(), (seen.record.pid, user.to_vec()));
        let sum = self.stacks.entry(key).or_default();
        *sum = sum.saturating_add(weight);
    }

    /// Adds what another has.
    pub(crate) fn append(&mut self, other: Self) {
        self.without += other.without;
        self.weightless += other.weightless;
        for (stack, weight) in other.stacks {
            let sum = self.stacks.entry(stack).or_default();
            *sum = sum.saturating_add(weight);
        }
    }

    /// The functions.
    pub(crate) fn named(self, traces: &[Trace], field: Option<String>) -> Stacks {
        let mut symbols: Vec<Symbols> = traces.iter().map(Trace::symbols).collect();
        let mut lines: HashMap<Vec<String>, u64> = HashMap::new();
        for ((trace, name, kernel, (process, user)), weight) in self.stacks {
            let mut line = vec![clean(&String::from_utf8_lossy(&name))];
            line.extend(folded(&kernel, (process, &user), &mut symbols[trace]).split(';').map(str::to_owned));
            let sum = lines.entry(line).or_default();
            *sum = sum.saturating_add(weight);
        }
        let mut lines: Vec<_> = lines.into_iter().collect();
        lines.sort_unstable();
        Stacks { lines, field }
    }
}

impl Stacks {
    /// Collects the stacks of records, which weigh their `field` or one; where spans are wanted, those of spans, as they began, which weigh their `field` or how long
    /// they were.
    ///
    /// # Errors
    /// When a file cannot be read, no event has the field, or nothing has a stack.
    pub(super) fn collect(job: Job<'_>, field: Option<&str>) -> Result<(Self, Exported)> {
        let (traces, filter, has_spans) = (job.traces, job.filter, job.spans.is_some());
        if let Some(field) = field {
            check(&job, field)?;
        }
        let field = field.or(has_spans.then_some(DURATION));
        let (mut all, mut crossed) = (Weighed::default(), 0);
        let worker = || {
            move |slice: &Slice| {
                let mut part = Weighed::default();
                filter.show(slice, traces, |item, names| {
                    if let (Item::Record(seen), false) = (item, has_spans) {
                        part.add(&seen, names, field);
                    }
                });
                part
            }
        };
        let mut done = job.run(worker, |piece| {
            match piece {
                Piece::Part(part) => all.append(part),
                // How long it was is not known.
                Piece::Span(span) if span.is_crossed() => crossed += 1,
                Piece::Span(span) => all.add(&span.seen, &Names::default(), field),
            }
            Ok(())
        })?;
        if all.stacks.is_empty() {
            match all.weightless {
                0 => bail!("no record has a stack: record with --context kstack,ustack"),
                _ => bail!("no record with a stack has the weight {}", field.unwrap_or_default()),
            }
        }
        let what = if has_spans {
            ["spans without a stack", "spans without the weight"]
        } else {
            ["records without a stack", "records without the weight"]
        };
        done.left_out =
            vec![(what[0], all.without), (what[1], all.weightless), ("spans that crossed a loss of records", crossed)];
        Ok((all.named(traces, field.map(str::to_owned)), done))
    }

    /// What weights are, for people.
    #[must_use]
    pub fn unit(&self) -> &str {
        self.field.as_deref().unwrap_or("records")
    }

    /// What all weigh.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lines.iter().fold(0, |sum, (_, weight)| sum.saturating_add(*weight))
    }

    /// All put together, callers before what they call.
    #[must_use]
    pub fn frames(&self) -> Vec<StackNode> {
        let mut frames: Vec<StackNode> = Vec::new();
        // Where the frames of the last stack are.
        let mut open: Vec<usize> = Vec::new();
        for (line, weight) in &self.lines {
            let same = open.iter().zip(line).take_while(|(at, name)| frames[**at].name == **name).count();
            open.truncate(same);
            for (depth, name) in line.iter().enumerate().skip(same) {
                open.push(frames.len());
                frames.push(StackNode { depth, name: name.clone(), total: 0, own: 0 });
            }
            for at in &open {
                frames[*at].total = frames[*at].total.saturating_add(*weight);
            }
            if let Some(last) = open.last() {
                frames[*last].own = frames[*last].own.saturating_add(*weight);
            }
        }
        frames
    }
}

/// Refuses a weight that nothing has.
fn check(job: &Job<'_>, field: &str) -> Result<()> {
    let records = job.filter.events_of(job.traces).filter(|_| job.spans.is_none());
    let spans = job.spans.into_iter().flat_map(|spans| spans.events().map(|(_, event)| event));
    let names: Vec<&str> =
        records.chain(spans).flat_map(|event| &event.fields).map(|field| field.name.as_str()).collect();
    if !names.contains(&field) {
        let near = did_you_mean(field, names.iter().copied());
        bail!("--weight: no event that is exported has a field '{field}'{near}; relayd stat names them");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_put_together() {
        let line = |text: &str, weight| (text.split(';').map(str::to_owned).collect(), weight);
        let mut lines = vec![line("a", 1), line("a b;x", 2), line("a;c", 4), line("a;c;d", 8), line("z;c", 16)];
        lines.sort_unstable();
        let stacks = Stacks { lines, field: None };
        let frame = |depth, name: &str, total, own| StackNode { depth, name: name.to_owned(), total, own };
        let expected = [
            frame(0, "a", 13, 1),
            frame(1, "c", 12, 4),
            frame(2, "d", 8, 8),
            frame(0, "a b", 2, 0),
            frame(1, "x", 2, 2),
            frame(0, "z", 16, 0),
            frame(1, "c", 16, 16),
        ];
        assert_eq!((stacks.frames(), stacks.total()), (expected.to_vec(), 31));
    }
}
