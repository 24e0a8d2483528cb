//! What CPUs ran, by `sched:sched_switch`.
//!
//! A switch tells what begins to run, and the next one of that CPU what has run until then. Where these differ, switches between them were not
//! recorded: they were lost, left out by a condition, or are those of relayd's own threads. When the first of the two stopped is then not known.

use std::collections::BTreeMap;

use crate::read::{
    slices::{Gap, Seen},
    value::Value,
};

/// A CPU of a trace.
pub(super) type TraceCpu = (usize, u32);

/// A thread that a CPU was switched to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Its number; zero of the idle task.
    pub(super) tid: i128,
    pub(super) name: Vec<u8>,
    /// Times of the common clock.
    pub(super) begin: u64,
    /// `None`: not known.
    pub(super) end: Option<u64>,
}

/// What is known of CPUs after a part of the traces.
#[derive(Debug, Default)]
pub(super) struct Running {
    cpus: BTreeMap<TraceCpu, Known>,
}

/// Of one CPU: what ran until the first switch of the part, and what runs since the last.
#[derive(Debug)]
struct Known {
    /// `None`: there was a loss before.
    first: Option<(i128, u64)>,
    last: Option<Turn>,
}

impl Running {
    /// Takes a record; where it is a switch, returns what has run until then, if that is in this part.
    pub(super) fn record(&mut self, seen: &Seen<'_>) -> Option<Turn> {
        if seen.event.name != "sched:sched_switch" {
            return None;
        }
        let value = |name: &str| seen.event.value(seen.event.field(name)?, seen.payload);
        let (Some(Value::Number(prev)), Some(Value::Number(next)), Some(Value::Text(name))) =
            (value("prev_pid"), value("next_pid"), value("next_comm"))
        else {
            return None;
        };
        let turn = Turn { tid: next.wide(), name: name.to_vec(), begin: seen.time, end: None };
        self.add((seen.source.trace, seen.source.cpu), Some((prev.wide(), seen.time)), Some(turn))
    }

    /// Takes a loss: what ran before is not what runs after.
    pub(super) fn gap(&mut self, gap: &Gap) -> Option<Turn> {
        self.add((gap.source.trace, gap.source.cpu), None, None)
    }

    /// Adds what a later part knows; returns what has run from one part into the other.
    pub(super) fn append(&mut self, later: Self) -> Vec<(TraceCpu, Turn)> {
        let add = |(cpu, known): (TraceCpu, Known)| Some((cpu, self.add(cpu, known.first, known.last)?));
        later.cpus.into_iter().filter_map(add).collect()
    }

    fn add(&mut self, cpu: TraceCpu, until: Option<(i128, u64)>, next: Option<Turn>) -> Option<Turn> {
        let Some(known) = self.cpus.get_mut(&cpu) else {
            self.cpus.insert(cpu, Known { first: until, last: next });
            return None;
        };
        let mut turn = std::mem::replace(&mut known.last, next)?;
        turn.end = until.filter(|(prev, _)| *prev == turn.tid).map(|(_, time)| time);
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(tid: i128, begin: u64) -> Option<Turn> {
        Some(Turn { tid, name: Vec::new(), begin, end: None })
    }

    fn ended(tid: i128, begin: u64, end: Option<u64>) -> Option<Turn> {
        Some(Turn { tid, name: Vec::new(), begin, end })
    }

    #[test]
    fn a_turn_ends_where_its_thread_is_switched_away_from() {
        let cpu = (0, 1);
        let mut first = Running::default();
        assert_eq!(first.add(cpu, Some((9, 10)), turn(1, 10)), None);
        assert_eq!(first.add(cpu, Some((1, 20)), turn(2, 20)), ended(1, 10, Some(20)));
        // Something else runs: nobody has told of the switch to it.
        assert_eq!(first.add(cpu, Some((3, 30)), turn(4, 30)), ended(2, 20, None));
        assert_eq!(first.add((0, 2), Some((4, 31)), turn(5, 31)), None, "another CPU");
        let mut later = Running::default();
        later.add(cpu, Some((4, 40)), turn(6, 40));
        assert_eq!(first.append(later), [(cpu, ended(4, 30, Some(40)).unwrap())]);
        let mut lossy = Running::default();
        lossy.add(cpu, None, None);
        lossy.add(cpu, Some((6, 60)), turn(7, 60));
        assert_eq!(first.append(lossy), [(cpu, ended(6, 40, None).unwrap())], "what was lost may have been switches");
        let mut last = Running::default();
        last.add(cpu, Some((7, 70)), turn(8, 70));
        assert_eq!(first.append(last), [(cpu, ended(7, 60, Some(70)).unwrap())]);
    }
}
