//! Names of threads and cgroups: what the recorder has kept of `/proc`, and what the records of scheduling and renaming tell on the way.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{schema::Event, value::Value};

/// A thread's name, with NULs at its end.
pub type Name = [u8; 16];

/// The names of a trace's threads at one moment, and of its cgroups. Cheap to copy.
#[derive(Clone, Debug, Default)]
pub struct Names {
    threads: Arc<HashMap<u32, Name>>,
    cgroups: Arc<BTreeMap<u64, String>>,
}

/// Where an event tells a thread's name: indices of fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    tid: usize,
    name: usize,
    /// The name is the last part of a path.
    is_path: bool,
}

impl Names {
    /// Of thread ids and names, and of ids and paths of cgroups.
    pub fn new(threads: impl IntoIterator<Item = (u32, String)>, cgroups: BTreeMap<u64, String>) -> Self {
        let threads = threads.into_iter().map(|(tid, name)| (tid, shortened(name.as_bytes()))).collect();
        Self { threads: Arc::new(threads), cgroups: Arc::new(cgroups) }
    }

    /// The path of a cgroup in the unified hierarchy, if it is known.
    #[must_use]
    pub fn cgroup(&self, id: u64) -> Option<&str> {
        self.cgroups.get(&id).map(String::as_str)
    }

    /// A thread's name, if it is known.
    #[must_use]
    pub fn get(&self, tid: u32) -> Option<&[u8]> {
        let name = self.threads.get(&tid)?;
        Some(&name[..memchr::memchr(0, name).unwrap_or(name.len())])
    }

    /// All that are known.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.threads.iter().map(|(tid, name)| (*tid, &name[..memchr::memchr(0, name).unwrap_or(name.len())]))
    }

    /// Takes what a record tells.
    #[inline]
    pub fn learn(&mut self, tellings: &[Telling], event: &Event, payload: &[u8]) {
        for telling in tellings {
            if let Some((tid, name)) = telling.told(event, payload) {
                self.set(tid, name);
            }
        }
    }

    /// From now on a thread has this name.
    #[inline]
    pub fn set(&mut self, tid: u32, name: &[u8]) {
        let name = shortened(name);
        // The idle threads share one id.
        if tid != 0 && self.threads.get(&tid) != Some(&name) {
            Arc::make_mut(&mut self.threads).insert(tid, name);
        }
    }
}

impl Telling {
    /// What an event tells of names: `prev_comm` is that of `prev_pid`, and so on.
    #[must_use]
    pub fn all(event: &Event) -> Vec<Self> {
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

    fn told<'a>(&self, event: &Event, payload: &'a [u8]) -> Option<(u32, &'a [u8])> {
        let Value::Number(tid) = event.value(self.tid, payload)? else { return None };
        let Value::Text(name) = event.value(self.name, payload)? else { return None };
        let name = if self.is_path { name.rsplit(|byte| *byte == b'/').next()? } else { name };
        Some((u32::try_from(tid.wide()).ok()?, name))
    }
}

/// As much of a name as the kernel keeps: 15 bytes.
fn shortened(name: &[u8]) -> Name {
    let mut short = [0; 16];
    let len = name.len().min(15);
    short[..len].copy_from_slice(&name[..len]);
    short
}
