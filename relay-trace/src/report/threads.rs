//! The threads of a page, numbered as they are seen: 0 is the idle task's.

use std::collections::HashMap;

/// What is known of a thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Thread {
    pub(super) tid: u32,
    pub(super) name: Vec<u8>,
    /// Its process, where a record of it tells.
    pub(super) pid: Option<u32>,
    /// Nanoseconds that it ran.
    pub(super) ran: u64,
    pub(super) records: u64,
}

#[derive(Debug)]
pub(super) struct Threads {
    pub(super) all: Vec<Thread>,
    numbers: HashMap<u32, u32>,
}

impl Threads {
    pub(super) fn new() -> Self {
        let idle = Thread { name: b"<idle>".to_vec(), ..Thread::default() };
        Self { all: vec![idle], numbers: HashMap::from([(0, 0)]) }
    }

    /// The number of a thread.
    pub(super) fn number(&mut self, tid: u32) -> u32 {
        *self.numbers.entry(tid).or_insert_with(|| {
            self.all.push(Thread { tid, ..Thread::default() });
            u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX)
        })
    }

    pub(super) fn of(&mut self, number: u32) -> Option<&mut Thread> {
        self.all.get_mut(number as usize)
    }

    /// Takes what a part of the trace tells of threads.
    pub(super) fn learn(&mut self, told: ThreadNotes) {
        for (tid, (pid, name)) in told.0.into_iter().filter(|(tid, _)| *tid != 0) {
            let number = self.number(tid);
            if let Some(thread) = self.of(number) {
                thread.pid = pid.or(thread.pid);
                if name != b"<...>" || thread.name.is_empty() {
                    thread.name = name;
                }
            }
        }
    }

    /// The busiest, by time where any ran, else by records.
    pub(super) fn busiest(&self, count: usize) -> Vec<u32> {
        let mut threads: Vec<(u64, u64, u32)> =
            (0..).zip(&self.all).skip(1).map(|(number, of)| (of.ran, of.records, number)).collect();
        threads.retain(|(ran, records, _)| ran + records > 0);
        threads.sort_unstable_by(|a, b| (b.0, b.1, a.2).cmp(&(a.0, a.1, b.2)));
        threads.into_iter().take(count).map(|(_, _, number)| number).collect()
    }
}

/// What a part of the trace tells of threads: process and last name.
#[derive(Debug, Default)]
pub(super) struct ThreadNotes(HashMap<u32, (Option<u32>, Vec<u8>)>);

impl ThreadNotes {
    pub(super) fn tell(&mut self, tid: u32, pid: Option<u32>, name: &[u8]) {
        let (known, last) = self.0.entry(tid).or_default();
        *known = pid.or(*known);
        if last != name {
            *last = name.to_vec();
        }
    }
}
