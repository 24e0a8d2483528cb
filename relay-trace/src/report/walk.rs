//! What both walks through a trace take out of its records.

use super::{grid::Grid, threads::ThreadNotes};
use crate::read::{
    filter::comm,
    names::Names,
    slices::Seen,
    value::{Number, Value},
};

/// A record, as far as levels, lanes and durations need it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brief {
    /// Of the page.
    pub(super) time: u64,
    pub(super) cpu: u32,
    pub(super) event: u16,
    pub(super) tid: u32,
    pub(super) what: Action,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Other,
    /// A CPU goes from one thread to another; the first could go on running.
    Switch {
        prev: u32,
        could_run: bool,
        next: u32,
    },
    /// A thread could run from now on.
    Wake(u32),
    /// It lasted so long.
    Lasted(u64),
}

pub(super) fn brief(grid: &Grid, seen: &Seen<'_>, names: &Names, told: &mut ThreadNotes) -> Brief {
    told.tell(seen.record.tid, Some(seen.record.pid), comm(seen, names));
    let value = |name: &str| seen.event.value(seen.event.field(name)?, seen.payload);
    let number = |name: &str| match value(name) {
        Some(Value::Number(number)) => u32::try_from(number.wide()).ok(),
        _ => None,
    };
    let mut name = |tid: u32, of: &str| {
        if let (true, Some(Value::Text(text))) = (tid != 0, value(of)) {
            told.tell(tid, None, text);
        }
    };
    let what = match seen.event.name.as_str() {
        "sched:sched_switch" => match (number("prev_pid"), number("next_pid"), value("prev_state")) {
            (Some(prev), Some(next), Some(Value::Number(state))) => {
                name(prev, "prev_comm");
                name(next, "next_comm");
                // The lowest bits are those of sleeping; those above say that it was preempted.
                Action::Switch { prev, could_run: state.wide() & 0xff == 0, next }
            }
            _ => Action::Other,
        },
        "sched:sched_wakeup" | "sched:sched_wakeup_new" => number("pid").map_or(Action::Other, Action::Wake),
        _ => match value("duration_ns") {
            Some(Value::Number(Number::Unsigned(duration))) => Action::Lasted(duration),
            _ => Action::Other,
        },
    };
    Brief { time: grid.time(seen.time), cpu: seen.source.cpu, event: seen.event.id, tid: seen.record.tid, what }
}

/// What each CPU runs, by its switches. How long the first had run that a switch tells of is not known, nor what ran through a loss: 0, as if it had been idle.
#[derive(Debug)]
pub(super) struct OnCpu {
    now: Vec<(u32, u64)>,
}

impl OnCpu {
    pub(super) fn new(cpus: usize) -> Self {
        Self { now: vec![(0, 0); cpus] }
    }

    /// What a CPU runs.
    pub(super) fn thread(&self, cpu: usize) -> u32 {
        self.now.get(cpu).map_or(0, |(thread, _)| *thread)
    }

    /// From a time on a CPU runs another thread; returns what it has run until then, and since when.
    pub(super) fn switch(&mut self, cpu: usize, next: u32, time: u64) -> (u32, u64) {
        self.now.get_mut(cpu).map_or((0, 0), |now| std::mem::replace(now, (next, time)))
    }

    /// What all run at the end.
    pub(super) fn rest(&self) -> impl Iterator<Item = (usize, (u32, u64))> {
        self.now.iter().copied().enumerate()
    }
}
