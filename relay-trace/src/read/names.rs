//! Names of threads and cgroups: what the recorder has kept of the kernel's notices, and what the records of scheduling and renaming tell on the
//! way.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use super::{schema::EventClass, value::Value};
use crate::form::tasks::{Name, Noted, TaskNote, shortened};

/// The names of a trace's threads, and of its cgroups. Cheap to copy.
#[derive(Clone, Debug, Default)]
pub struct Names {
    history: Arc<History>,
    /// What records have told so far, of threads that the history does not know.
    told: Arc<HashMap<u32, Name>>,
    cgroups: Arc<BTreeMap<u64, String>>,
}

/// What threads were called, and when.
#[derive(Debug, Default)]
struct History {
    /// From when on, and which name: thread by thread, in the order of time.
    names: Vec<(u64, Name)>,
    of: HashMap<u32, Range<usize>>,
}

/// Where an event tells a thread's name: indices of fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    tid: usize,
    name: usize,
    /// The name is the last part of a path.
    is_path: bool,
}

impl History {
    fn new(told: Vec<TaskNote>) -> Self {
        let named = told.into_iter().filter_map(|told| match told.what {
            Noted::Named(thread, name) => Some((thread, told.time, name)),
            Noted::Missing { .. } => None,
        });
        let mut named: Vec<_> = named.collect();
        // Of several at one time the last holds.
        named.sort_by_key(|(thread, time, _)| (*thread, *time));
        let mut of: HashMap<u32, Range<usize>> = HashMap::new();
        for (index, (thread, ..)) in named.iter().enumerate() {
            of.entry(*thread).or_insert(index..index).end = index + 1;
        }
        Self { names: named.into_iter().map(|(_, time, name)| (time, name)).collect(), of }
    }

    fn of(&self, thread: u32) -> &[(u64, Name)] {
        self.of.get(&thread).and_then(|range| self.names.get(range.clone())).unwrap_or_default()
    }

    /// The name that a thread has at a time.
    fn at(&self, thread: u32, time: u64) -> Option<&Name> {
        let names = self.of(thread);
        let after = names.partition_point(|(since, _)| *since <= time);
        names.get(after.checked_sub(1)?).map(|(_, name)| name)
    }
}

impl Names {
    /// Of what the recorder was told, of the names that threads had last where that was all that was kept, and of ids and paths of cgroups.
    #[must_use]
    pub fn new(told: Vec<TaskNote>, last: BTreeMap<u32, String>, cgroups: BTreeMap<u64, String>) -> Self {
        let last = last.into_iter().map(|(thread, name)| (thread, shortened(name.as_bytes()))).collect();
        Self { history: Arc::new(History::new(told)), told: Arc::new(last), cgroups: Arc::new(cgroups) }
    }

    /// The path of a cgroup in the unified hierarchy, if it is known.
    #[must_use]
    pub fn cgroup(&self, id: u64) -> Option<&str> {
        self.cgroups.get(&id).map(String::as_str)
    }

    /// The name that a thread has at a time in nanoseconds of the trace's own clock, if it is known.
    #[must_use]
    pub fn get(&self, thread: u32, time: u64) -> Option<&[u8]> {
        let first = || self.history.of(thread).first().map(|(_, name)| name);
        // Before the first notice: the kernel's notices were not had then, and nobody knows better.
        let name = self.history.at(thread, time).or_else(|| self.told.get(&thread)).or_else(first)?;
        Some(&name[..memchr::memchr(0, name).unwrap_or(name.len())])
    }

    /// The name that a thread had last, if it is known.
    #[must_use]
    pub fn last(&self, thread: u32) -> Option<&[u8]> {
        self.get(thread, u64::MAX)
    }

    /// Takes what has become known since, of a trace that is being recorded.
    pub fn update(&mut self, told: Vec<TaskNote>) {
        self.history = Arc::new(History::new(told));
    }

    /// Names a thread that nothing else names.
    pub(super) fn set(&mut self, thread: u32, name: &[u8]) {
        Arc::make_mut(&mut self.told).insert(thread, shortened(name));
    }

    /// Takes what a record of this time tells of threads that nothing else names.
    #[inline]
    pub fn learn(&mut self, tellings: &[Telling], event: &EventClass, payload: &[u8], time: u64) {
        for telling in tellings {
            if let Some((thread, name)) = telling.told(event, payload) {
                let name = shortened(name);
                // The idle threads share one id.
                if thread != 0 && self.history.at(thread, time).is_none() && self.told.get(&thread) != Some(&name) {
                    Arc::make_mut(&mut self.told).insert(thread, name);
                }
            }
        }
    }
}

impl Telling {
    /// What an event tells of names: `prev_comm` is that of `prev_pid`, and so on.
    #[must_use]
    pub fn all(event: &EventClass) -> Vec<Self> {
        let mut all = Vec::new();
        for (name, field) in event.fields.iter().enumerate() {
            let (tid, is_path) = match field.name.strip_suffix("comm") {
                // task:task_rename
                Some("new") => ("pid".to_owned(), false),
                Some(prefix) => (format!("{prefix}pid"), false),
                None if field.name == "filename" && event.name == "sched:sched_process_exec" => {
                    ("pid".to_owned(), true)
                }
                None => continue,
            };
            if let Some(tid) = event.field(&tid) {
                all.push(Self { tid, name, is_path });
            }
        }
        all
    }

    fn told<'a>(&self, event: &EventClass, payload: &'a [u8]) -> Option<(u32, &'a [u8])> {
        let Value::Number(tid) = event.value(self.tid, payload)? else { return None };
        let Value::Text(name) = event.value(self.name, payload)? else { return None };
        let name = if self.is_path { name.rsplit(|byte| *byte == b'/').next()? } else { name };
        Some((u32::try_from(tid.wide()).ok()?, name))
    }
}
