//! What threads were called, and when, as far as the kernel's notices tell: in the order of time, and no more than there is room for.

use std::collections::{HashMap, HashSet};

use relay_trace::form::tasks::{MOST, Name, Noted, TaskNote};

/// What is told of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It has this name from now on.
    Named(Name),
    /// Another thread, by its id, has made it: until it is told apart it has that one's name.
    MadeBy(u32),
    /// It has ended: its id may become another's.
    Ended,
}

/// What has been told so far.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Names and ends (`None`) of threads, in the order of time.
    told: Vec<(u64, u32, Option<Name>)>,
    /// Where notices are missing.
    missing: Vec<TaskNote>,
    /// The threads that there are.
    now: HashMap<u32, Name>,
    /// What came last: another CPU may still tell what came before it.
    waiting: Vec<(u64, u32, Notice)>,
    /// How many of `told` and of `missing` have been taken; none after older ones were dropped.
    taken: Option<(usize, usize)>,
}

impl History {
    /// Takes a notice, of a time in nanoseconds of the monotonic clock.
    pub(crate) fn add(&mut self, time: u64, thread: u32, notice: Notice) {
        self.waiting.push((time, thread, notice));
    }

    /// Notices between two times are missing; 0 when it is not known how many.
    pub(crate) fn add_missing(&mut self, since: u64, until: u64, notices: u64) {
        self.missing.push(TaskNote { time: until, what: Noted::Missing { since: since.min(until), notices } });
    }

    /// Adds what was known before.
    pub(crate) fn add_known(&mut self, known: Vec<TaskNote>) {
        for told in known {
            match told.what {
                Noted::Named(thread, name) => self.add(told.time, thread, Notice::Named(name)),
                Noted::Missing { .. } => self.missing.push(told),
            }
        }
    }

    /// Whether a thread has this name, as far as is known.
    pub(crate) fn has(&self, thread: u32, name: &Name) -> bool {
        self.now.get(&thread) == Some(name)
    }

    /// Whatever happened up to a time has been told: it is put in order.
    pub(crate) fn settle(&mut self, until: u64) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by_key(|(time, ..)| *time);
        let late = waiting.split_off(waiting.partition_point(|(time, ..)| *time <= until));
        self.waiting = late;
        for (time, thread, notice) in waiting {
            let name = match notice {
                Notice::Named(name) => Some(name),
                Notice::MadeBy(maker) => match self.now.get(&maker) {
                    Some(name) => Some(*name),
                    None => continue,
                },
                Notice::Ended => None,
            };
            let before = match name {
                Some(name) => self.now.insert(thread, name),
                None => self.now.remove(&thread),
            };
            if before != name {
                self.told.push((time, thread, name));
            }
        }
        if self.told.len() > MOST {
            let oldest = self.told[self.told.len() / 2].0;
            self.forget(oldest);
            self.add_missing(0, oldest, 0);
        }
    }

    /// Forgets what was before a time, but the names that threads had then.
    pub(crate) fn forget(&mut self, before: u64) {
        let kept = self.told.split_off(self.told.partition_point(|(time, ..)| *time < before));
        let mut seen = HashSet::new();
        let mut old = std::mem::take(&mut self.told);
        old.reverse();
        old.retain(|(_, thread, name)| seen.insert(*thread) && name.is_some());
        old.reverse();
        old.extend(kept);
        self.told = old;
        self.missing.retain(|missing| missing.time >= before);
        self.taken = None;
    }

    /// All that is to be kept of it.
    pub(crate) fn all(&self) -> Vec<TaskNote> {
        self.since(0, 0)
    }

    /// What has come since this was called last; `None` when it is to be taken as a whole.
    pub(crate) fn take_new(&mut self) -> Option<Vec<TaskNote>> {
        let taken = self.taken.replace((self.told.len(), self.missing.len()));
        taken.map(|(told, missing)| self.since(told, missing))
    }

    fn since(&self, told: usize, missing: usize) -> Vec<TaskNote> {
        let named = self.told[told..]
            .iter()
            .filter_map(|(time, thread, name)| Some(TaskNote { time: *time, what: Noted::Named(*thread, (*name)?) }));
        self.missing[missing..].iter().copied().chain(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use relay_trace::form::tasks::shortened;

    use super::*;

    fn named(name: &str) -> Notice {
        Notice::Named(shortened(name.as_bytes()))
    }

    fn told(time: u64, thread: u32, name: &str) -> TaskNote {
        TaskNote { time, what: Noted::Named(thread, shortened(name.as_bytes())) }
    }

    #[test]
    fn a_thread_has_its_makers_name_until_it_is_told_apart() {
        let mut history = History::default();
        // CPUs are looked at one after the other, so notices come in any order.
        history.add(40, 2, named("cat"));
        history.add(10, 1, named("bash"));
        history.add(30, 2, Notice::MadeBy(1));
        history.add(20, 1, named("dash"));
        history.add(35, 3, Notice::MadeBy(9));
        history.add(50, 1, named("late"));
        history.settle(45);
        assert_eq!(history.all(), [told(10, 1, "bash"), told(20, 1, "dash"), told(30, 2, "dash"), told(40, 2, "cat")]);
        assert!(
            history.has(2, &shortened(b"cat")) && !history.has(3, &[0; 16]) && !history.has(1, &shortened(b"late"))
        );
    }

    #[test]
    fn what_is_new_is_taken_once() {
        let mut history = History::default();
        history.add(1, 1, named("a"));
        history.settle(1);
        assert_eq!(history.take_new(), None);
        history.add(2, 1, named("a"));
        history.add(3, 1, named("b"));
        history.add_missing(2, 3, 7);
        history.settle(3);
        let missing = TaskNote { time: 3, what: Noted::Missing { since: 2, notices: 7 } };
        assert_eq!(history.take_new(), Some(vec![missing, told(3, 1, "b")]));
        assert_eq!(history.take_new(), Some(Vec::new()));
        history.forget(4);
        assert_eq!(history.take_new(), None);
    }

    #[test]
    fn what_is_forgotten_leaves_the_names_of_threads_that_live() {
        let mut history = History::default();
        for (time, thread, notice) in
            [(1, 1, named("a")), (2, 1, named("b")), (3, 2, named("c")), (4, 2, Notice::Ended), (5, 1, named("d"))]
        {
            history.add(time, thread, notice);
        }
        history.settle(u64::MAX);
        history.forget(5);
        assert_eq!(history.all(), [told(2, 1, "b"), told(5, 1, "d")]);
    }

    #[test]
    fn there_is_room_for_so_many_and_what_was_dropped_is_said() {
        let mut history = History::default();
        for time in 0..=MOST as u64 {
            history.add(time, 1, Notice::Named(std::array::from_fn(|i| if i < 8 { time.to_le_bytes()[i] } else { 0 })));
        }
        history.settle(u64::MAX);
        let all = history.all();
        let oldest = MOST as u64 / 2;
        assert_eq!(all[0], TaskNote { time: oldest, what: Noted::Missing { since: 0, notices: 0 } });
        assert_eq!(all.len() as u64, 2 + MOST as u64 + 1 - oldest);
    }
}
