//! `.relayd/tasks.json`: the names of threads, by thread id: of those that there were when recording began, and of those that have come
//! since, as the kernel tells perf of them (`PERF_RECORD_COMM`, `PERF_RECORD_FORK`). And `.relayd/cgroups.json`, for records that name
//! cgroups by their ids: the paths of the cgroups (`PERF_RECORD_CGROUP`).

use std::{collections::BTreeMap, fs, io, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::Result;
use perf_event::{Builder, Sampler, data::Record, events::Software};
use relay_common::recipe::context;

use crate::{
    host::{Namespace, is_in_own},
    kernel::choice::cgroup_root,
};
use relay_trace::form::{
    folder::Folder,
    tasks::{CGROUPS_FILE, FILE, read, read_cgroups, write},
};

/// Bytes in which the kernel tells one CPU's names, about 50 each, between two [`Tasks::poll`]s.
const ROOM: usize = 64 * 1024;

/// What has been seen so far.
pub(crate) struct Tasks {
    names: BTreeMap<u32, String>,
    /// In a PID namespace, `/proc` and perf call threads otherwise than records do.
    knows_threads: bool,
    /// By id; only where records have ids of cgroups.
    cgroups: Option<BTreeMap<u64, String>>,
    samplers: Vec<Sampler>,
}

impl Tasks {
    /// Nothing, of a session with this context, but what there will be when it is saved.
    pub(crate) fn new(context: u32) -> Self {
        let names_cgroups = context & context::CGROUP != 0;
        Self {
            names: BTreeMap::new(),
            knows_threads: !is_in_own(Namespace::Pid),
            cgroups: names_cgroups.then(BTreeMap::new),
            samplers: Vec::new(),
        }
    }

    /// Begins to collect what threads on `cpus` are called, and what those are called that there are by now.
    pub(crate) fn watch(context: u32, cpus: &[u32]) -> Self {
        let mut tasks = Self::new(context);
        if !tasks.knows_threads {
            log::warn!(
                "threads have names only where events tell them: this container counts its processes by itself (start it with --pid=host)"
            );
        }
        if tasks.cgroups.is_some() && is_in_own(Namespace::Cgroup) {
            log::warn!(
                "cgroups that are there already have no names: this container has a root of its own (start it with --cgroupns=host)"
            );
        }
        if !tasks.knows_threads && tasks.cgroups.is_none() {
            return tasks;
        }
        for &cpu in cpus {
            match tasks.sampler(cpu) {
                Ok(sampler) => tasks.samplers.push(sampler),
                // Offline.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => log::info!("what threads on cpu {cpu} are called is not told: {error}"),
            }
        }
        tasks.look();
        tasks
    }

    /// Has the kernel tell what threads on a CPU are called, and what cgroups are made.
    fn sampler(&self, cpu: u32) -> io::Result<Sampler> {
        let cpu = usize::try_from(cpu).map_err(io::Error::other)?;
        let mut builder = Builder::new(Software::DUMMY);
        builder.any_pid().one_cpu(cpu).comm(self.knows_threads).task(self.knows_threads).cgroup(self.cgroups.is_some());
        let mut sampler = builder.build()?.sampled(ROOM)?;
        sampler.enable()?;
        Ok(sampler)
    }

    /// Adds what a recorder that was killed had saved: its threads may be gone.
    pub(crate) fn add_known(&mut self, folder: &Folder) {
        let warn = |error: anyhow::Error| log::warn!("threads or cgroups may have no names: {error:#}");
        for (thread, name) in read(folder).map_err(warn).unwrap_or_default() {
            self.names.entry(thread).or_insert(name);
        }
        if let Some(cgroups) = &mut self.cgroups {
            for (id, path) in read_cgroups(folder).map_err(warn).unwrap_or_default() {
                cgroups.entry(id).or_insert(path);
            }
        }
    }

    /// Adds what the kernel has told since. To be called every second or so.
    pub(crate) fn poll(&mut self) {
        for sampler in &mut self.samplers {
            while let Some(record) = sampler.next_record() {
                match record.parse_record() {
                    // A thread that has just come bears its maker's name; its own is told apart.
                    Ok(Record::Fork(fork)) => {
                        if let Some(name) = self.names.get(&fork.ptid).cloned() {
                            self.names.entry(fork.tid).or_insert(name);
                        }
                    }
                    Ok(Record::CGroup(told)) => {
                        if let Some(cgroups) = &mut self.cgroups {
                            cgroups.insert(told.id, text(&told.path));
                        }
                    }
                    Ok(Record::Comm(told)) => drop(self.names.insert(told.tid, text(&told.comm))),
                    _ => {}
                }
            }
        }
    }

    /// Writes all that is known into the trace's own folder.
    pub(crate) fn save(&mut self, folder: &Path) -> Result<()> {
        self.poll();
        self.look();
        write(folder, FILE, &self.names)?;
        self.cgroups.as_ref().map_or(Ok(()), |cgroups| write(folder, CGROUPS_FILE, cgroups))
    }

    /// Adds the threads and cgroups that there are and that are not known.
    fn look(&mut self) {
        for process in numbers("/proc").into_iter().filter(|_| self.knows_threads) {
            for thread in numbers(&format!("/proc/{process}/task")) {
                // It may have ended meanwhile.
                if !self.names.contains_key(&thread)
                    && let Ok(comm) = fs::read(format!("/proc/{process}/task/{thread}/comm"))
                {
                    self.names.insert(thread, text(comm.strip_suffix(b"\n").unwrap_or(&comm)));
                }
            }
        }
        // Where there is no unified hierarchy, ids mean nothing either. In a namespace paths begin elsewhere; perf tells them from the root.
        if let (Some(cgroups), Ok(root), false) = (&mut self.cgroups, cgroup_root(), is_in_own(Namespace::Cgroup)) {
            add_cgroups(&root, &root, cgroups);
        }
    }
}

/// Adds a cgroup and those below it, by the inode numbers of their folders.
fn add_cgroups(root: &Path, folder: &Path, cgroups: &mut BTreeMap<u64, String>) {
    // It may have gone meanwhile.
    let (Ok(metadata), Ok(entries)) = (fs::metadata(folder), fs::read_dir(folder)) else { return };
    let path = folder.strip_prefix(root).unwrap_or(folder);
    cgroups.entry(metadata.ino()).or_insert_with(|| format!("/{}", path.display()));
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        add_cgroups(root, &entry.path(), cgroups);
    }
}

/// Up to the NUL.
fn text(comm: &[u8]) -> String {
    String::from_utf8_lossy(comm.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// The entries of a folder that are numbers.
fn numbers(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
