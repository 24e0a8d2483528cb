//! `.relayd/tasks.json`: the names of threads, by thread id: of those that there were when recording began, and of those that have come
//! since, as the kernel tells perf of them (`PERF_RECORD_COMM`, `PERF_RECORD_FORK`).

use std::{collections::BTreeMap, fs, io, path::Path};

use anyhow::{Context as _, Result};
use perf_event::{Builder, Sampler, data::Record, events::Software};

use super::session::replace;

pub(super) const FILE: &str = "tasks.json";
/// Bytes in which the kernel tells one CPU's names, about 50 each, between two [`Tasks::poll`]s.
const ROOM: usize = 64 * 1024;

/// What has been seen so far.
#[derive(Default)]
pub(super) struct Tasks {
    names: BTreeMap<u32, String>,
    samplers: Vec<Sampler>,
}

impl Tasks {
    /// Begins to collect what threads on `cpus` are called, and what those are called that there are by now.
    pub(super) fn watch(cpus: &[u32]) -> Self {
        let mut tasks = Self::default();
        for &cpu in cpus {
            match sampler(cpu) {
                Ok(sampler) => tasks.samplers.push(sampler),
                // Offline.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => log::info!("what threads on cpu {cpu} are called is not told: {error}"),
            }
        }
        tasks.look();
        tasks
    }

    /// Adds what a recorder that was killed had saved: its threads may be gone.
    pub(super) fn add_known(&mut self, folder: &Path) {
        match read(folder) {
            Ok(known) => {
                for (thread, name) in known {
                    self.names.entry(thread).or_insert(name);
                }
            }
            Err(error) => log::warn!("threads may have no names: {error:#}"),
        }
    }

    /// Adds what the kernel has told since. To be called every second or so.
    pub(super) fn poll(&mut self) {
        for sampler in &mut self.samplers {
            while let Some(record) = sampler.next_record() {
                match record.parse_record() {
                    // A thread that has just come bears its maker's name; its own is told apart.
                    Ok(Record::Fork(fork)) => {
                        if let Some(name) = self.names.get(&fork.ptid).cloned() {
                            self.names.entry(fork.tid).or_insert(name);
                        }
                    }
                    Ok(Record::Comm(told)) => drop(self.names.insert(told.tid, name(&told.comm))),
                    _ => {}
                }
            }
        }
    }

    /// Writes all that is known into the trace's own folder.
    pub(super) fn save(&mut self, folder: &Path) -> Result<()> {
        self.poll();
        self.look();
        let path = folder.join(FILE);
        let text = serde_json::to_vec(&self.names).context("writing the threads' names as JSON")?;
        replace(&path, &text).with_context(|| format!("writing {}", path.display()))
    }

    /// Adds the threads that there are and that are not known.
    fn look(&mut self) {
        for process in numbers("/proc") {
            for thread in numbers(&format!("/proc/{process}/task")) {
                // It may have ended meanwhile.
                if !self.names.contains_key(&thread)
                    && let Ok(comm) = fs::read(format!("/proc/{process}/task/{thread}/comm"))
                {
                    self.names.insert(thread, name(comm.strip_suffix(b"\n").unwrap_or(&comm)));
                }
            }
        }
    }
}

fn name(comm: &[u8]) -> String {
    String::from_utf8_lossy(comm.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Has the kernel tell what threads on a CPU are called.
fn sampler(cpu: u32) -> io::Result<Sampler> {
    let cpu = usize::try_from(cpu).map_err(io::Error::other)?;
    let mut builder = Builder::new(Software::DUMMY);
    builder.any_pid().one_cpu(cpu).comm(true).task(true);
    let mut sampler = builder.build()?.sampled(ROOM)?;
    sampler.enable()?;
    Ok(sampler)
}

/// The names of a trace's threads; none when it has not kept them.
///
/// # Errors
/// When the file cannot be read, or is damaged.
pub fn read(folder: &Path) -> Result<BTreeMap<u32, String>> {
    let path = folder.join(FILE);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// The entries of a folder that are numbers.
fn numbers(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
