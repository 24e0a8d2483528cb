//! What the scheduler's records say of each thread: that it runs, that it could run, or that it sleeps.
//!
//! A thread could run from the wake-up that ended its sleep, or from the switch that took the CPU from it while it could. A wake-up of a thread that runs or
//! could run changes nothing, nor does its migration. The idle task, thread 0, is one number on all CPUs and has no spans.

use std::collections::HashMap;

use super::{SpanAccount, grammar::Sched, matching::End};
use crate::answers::key::Key;

/// A record of the scheduler.
#[derive(Debug)]
pub(super) enum SchedRecord {
    /// A CPU goes from one thread to another.
    Switch { prev: u32, prev_comm: Key, state: String, next: u32, next_comm: Key },
    /// A thread could run from now on.
    Wake { tid: u32, comm: Key },
}

/// What one thread does.
#[derive(Debug, Default)]
struct Thread {
    running: Option<End>,
    /// It could run since then.
    runnable: Option<End>,
    /// It does not run since then.
    off: Option<End>,
}

/// All threads of one trace.
#[derive(Debug, Default)]
pub(super) struct SchedThreads {
    threads: HashMap<u32, Thread>,
    pub(super) account: SpanAccount,
}

impl SchedThreads {
    /// Takes a record, and gives the spans of one kind that end with it.
    pub(super) fn take(&mut self, kind: Sched, told: &SchedRecord, at: &End, spans: &mut dyn FnMut(&End, &End)) {
        match told {
            SchedRecord::Switch { prev, prev_comm, state, next, next_comm } => {
                self.out(kind, *prev, state, &End { tid: *prev, comm: prev_comm.clone(), ..at.clone() }, spans);
                self.into(kind, *next, &End { tid: *next, comm: next_comm.clone(), ..at.clone() }, spans);
            }
            SchedRecord::Wake { tid, comm } if *tid != 0 => {
                let thread = self.threads.entry(*tid).or_default();
                if thread.running.is_none() && thread.runnable.is_none() {
                    thread.runnable = Some(End { tid: *tid, comm: comm.clone(), ..at.clone() });
                    self.account.starts += u64::from(kind == Sched::Runq);
                }
            }
            SchedRecord::Wake { .. } => {}
        }
    }

    /// A thread leaves a CPU.
    fn out(&mut self, kind: Sched, tid: u32, state: &str, at: &End, spans: &mut dyn FnMut(&End, &End)) {
        if tid == 0 {
            return;
        }
        let thread = self.threads.entry(tid).or_default();
        self.account.ends += u64::from(kind == Sched::Oncpu);
        match thread.running.take() {
            Some(start) if kind == Sched::Oncpu => {
                self.account.ended += 1;
                spans(&start, at);
            }
            Some(_) => {}
            None => {
                self.account.never_began += u64::from(kind == Sched::Oncpu);
                // It was switched to without a record: when is not known, nor how long it had waited.
                let (waited, slept) = (thread.runnable.is_some(), thread.off.is_some());
                self.account.inferred += u64::from((kind == Sched::Runq && waited) || (kind == Sched::Offcpu && slept));
            }
        }
        (thread.runnable, thread.off) = (None, None);
        if state.starts_with(['X', 'Z']) {
            self.threads.remove(&tid);
            return;
        }
        self.account.starts += u64::from(kind == Sched::Offcpu);
        thread.off = Some(at.clone());
        if state.starts_with('R') {
            self.account.starts += u64::from(kind == Sched::Runq);
            thread.runnable = Some(at.clone());
        }
    }

    /// A thread gets a CPU.
    fn into(&mut self, kind: Sched, tid: u32, at: &End, spans: &mut dyn FnMut(&End, &End)) {
        if tid == 0 {
            return;
        }
        let thread = self.threads.entry(tid).or_default();
        if kind == Sched::Oncpu {
            self.account.starts += 1;
            // Its leaving was not seen.
            self.account.replaced += u64::from(thread.running.is_some());
        }
        let (runnable, off) = (thread.runnable.take(), thread.off.take());
        thread.running = Some(at.clone());
        let start = match kind {
            Sched::Oncpu => return,
            Sched::Runq => runnable,
            Sched::Offcpu => off,
        };
        self.account.ends += 1;
        match start {
            Some(start) => {
                self.account.ended += 1;
                spans(&start, at);
            }
            None => self.account.never_began += 1,
        }
    }

    /// The trace has ended.
    pub(super) fn finish(&mut self, kind: Sched, last: u64) {
        let open = self.threads.values().filter_map(|thread| match kind {
            Sched::Oncpu => thread.running.as_ref(),
            Sched::Runq => thread.runnable.as_ref(),
            Sched::Offcpu => thread.off.as_ref(),
        });
        let times: Vec<u64> = open.map(|start| start.time).collect();
        self.account.open = times.len() as u64;
        self.account.oldest_open = times.iter().min().map(|oldest| last.saturating_sub(*oldest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u64) -> End {
        End { time, cpu: 0, tid: 0, comm: Key::Number(0), fields: Box::new([]), kept: None }
    }

    fn switch(prev: u32, state: &str, next: u32) -> SchedRecord {
        let comm = |tid: u32| Key::Number(tid.into());
        SchedRecord::Switch { prev, prev_comm: comm(prev), state: state.to_owned(), next, next_comm: comm(next) }
    }

    fn wake(tid: u32) -> SchedRecord {
        SchedRecord::Wake { tid, comm: Key::Number(tid.into()) }
    }

    /// Spans as thread, start and end.
    fn run(kind: Sched, records: &[(u64, SchedRecord)]) -> (Vec<(u32, u64, u64)>, SpanAccount) {
        let (mut threads, mut found) = (SchedThreads::default(), Vec::new());
        for (time, told) in records {
            threads.take(kind, told, &at(*time), &mut |start, end| found.push((end.tid, start.time, end.time)));
        }
        threads.finish(kind, 100);
        (found, threads.account)
    }

    #[test]
    fn a_thread_runs_could_run_and_sleeps() {
        let records = || {
            [
                (10, switch(1, "S", 2)),
                (15, wake(1)),
                (16, wake(1)),
                (20, switch(2, "R+", 1)),
                (30, switch(1, "D", 2)),
                (40, switch(2, "X", 0)),
            ]
        };
        assert_eq!(run(Sched::Runq, &records()).0, [(1, 15, 20), (2, 20, 30)]);
        assert_eq!(run(Sched::Offcpu, &records()).0, [(1, 10, 20), (2, 20, 30)]);
        assert_eq!(run(Sched::Oncpu, &records()).0, [(2, 10, 20), (1, 20, 30), (2, 30, 40)]);
        let (_, account) = run(Sched::Offcpu, &records());
        assert_eq!((account.open, account.oldest_open), (1, Some(70)), "thread 1 sleeps; 2 is dead");
    }

    #[test]
    fn a_switch_that_was_not_seen_makes_no_span() {
        let records = || [(10, switch(1, "S", 2)), (15, wake(1)), (40, switch(1, "S", 3)), (50, switch(3, "R", 1))];
        let (spans, account) = run(Sched::Runq, &records());
        assert_eq!((spans, account.inferred), (vec![], 1));
        assert_eq!(run(Sched::Offcpu, &records()).0, [(1, 40, 50)]);
        for kind in [Sched::Runq, Sched::Offcpu, Sched::Oncpu] {
            let (spans, account) = run(kind, &records());
            assert_eq!(account.ends, account.ended + account.never_began, "{kind:?}");
            assert_eq!(account.ended, spans.len() as u64);
            let starts = account.ended + account.replaced + account.inferred + account.open;
            assert_eq!(account.starts, starts, "{kind:?}: {account:?}");
        }
    }
}
