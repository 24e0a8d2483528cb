//! Collects `.relayd/tasks`: what threads are called, from when on, as the kernel tells perf of it (`PERF_RECORD_COMM`, `PERF_RECORD_FORK`), and what those
//! are called that there were when recording began. And `.relayd/cgroups.json`, for records that name cgroups by their ids: the paths of the
//! cgroups (`PERF_RECORD_CGROUP`).

use std::{collections::BTreeMap, fs, io, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::Result;
use perf_event::{Builder, Clock, SampleFlag, Sampler, data::Record, events::Software};
use relay_channel::machine::OnlineCpus;
use relay_common::recipe::context;

use super::history::{History, Notice};
use crate::{
    host::{Executed, Namespace, is_in_own},
    kernel::choice::cgroup_root,
};
use relay_trace::form::{
    clock::Instant,
    folder::Folder,
    tasks::{Name, append, read, read_cgroups, shortened, write, write_cgroups},
};

/// Bytes in which the kernel tells one CPU's names between two [`Tasks::poll`]s: a process that comes, executes a program and ends takes about 250.
const ROOM: usize = 512 * 1024;
/// As many as every user may have (`kernel.perf_event_mlock_kb`), whatever else asks for such room.
const LESS_ROOM: usize = 64 * 1024;
/// A notice is no longer, in bytes: the longest has a path.
const LONGEST_NOTICE: usize = 4096 + 256;
/// A name that a thread has since it executed a program (`PERF_RECORD_MISC_COMM_EXEC`, include/uapi/linux/perf_event.h).
const EXECUTED: u16 = 1 << 13;
/// How long a CPU takes, at most, from the time of a notice to telling it, in nanoseconds.
const SETTLED: u64 = 10_000_000;

/// What has been seen so far.
pub(crate) struct Tasks {
    history: History,
    executed: Executed,
    /// In a PID namespace, `/proc` and perf call threads otherwise than records do.
    knows_threads: bool,
    /// By id; only where records have ids of cgroups.
    cgroups: Option<BTreeMap<u64, String>>,
    /// Nobody is told anything where there is none.
    online: Option<OnlineCpus>,
    /// By CPU.
    sources: BTreeMap<u32, Source>,
    /// Up to when everything was told, in nanoseconds of the monotonic clock.
    told: u64,
    /// How many notices were lost, and not said to be; 0 when it is not known how many.
    lost: Option<u64>,
}

/// What one CPU tells.
struct Source {
    sampler: Sampler,
    /// Bytes.
    room: usize,
    /// The time of the last notice.
    last: u64,
}

impl Tasks {
    /// Nothing, of a session with this context, but what there will be when it is saved.
    pub(crate) fn new(context: u32) -> Self {
        let names_cgroups = context & context::CGROUP != 0;
        Self {
            history: History::default(),
            executed: Executed::default(),
            knows_threads: !is_in_own(Namespace::Pid),
            cgroups: names_cgroups.then(BTreeMap::new),
            online: None,
            sources: BTreeMap::new(),
            told: 0,
            lost: None,
        }
    }

    /// Begins to collect what threads are called, and what those are called that there are by now.
    pub(crate) fn watch(context: u32) -> Self {
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
        match OnlineCpus::open() {
            Ok(online) => tasks.online = Some(online),
            Err(error) => log::warn!("what threads are called later is not told: {error:#}"),
        }
        tasks.told = now();
        tasks.follow_cpus();
        tasks.look_at_threads();
        tasks
    }

    /// Has every CPU tell that is online by now; says whether there are more of them.
    fn follow_cpus(&mut self) -> bool {
        let Some(Ok(online)) = self.online.as_ref().map(OnlineCpus::now) else { return false };
        // The kernel has taken the event from a CPU that went offline; when that comes back, it needs another.
        self.sources.retain(|cpu, _| online.contains(cpu));
        let before = self.sources.len();
        for cpu in online {
            if self.sources.contains_key(&cpu) {
                continue;
            }
            match self.source(cpu, ROOM).or_else(|_| self.source(cpu, LESS_ROOM)) {
                Ok(source) => drop(self.sources.insert(cpu, source)),
                // Offline by now.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => {
                    log::warn!("what threads are called later is not told: asking for it on CPU {cpu}: {error}");
                    // As if nobody had been asked.
                    self.online = None;
                    self.sources.clear();
                    return false;
                }
            }
        }
        self.sources.len() > before
    }

    /// Has the kernel tell what threads on a CPU are called, and what cgroups are made.
    fn source(&self, cpu: u32, room: usize) -> io::Result<Source> {
        let cpu = usize::try_from(cpu).map_err(io::Error::other)?;
        let mut builder = Builder::new(Software::DUMMY);
        builder.any_pid().one_cpu(cpu).comm(self.knows_threads).task(self.knows_threads).cgroup(self.cgroups.is_some());
        // The clock of the records (kernel/bpf/helpers.c, `bpf_ktime_get_ns`; kernel/events/core.c, `perf_event_set_clock`: both read
        // `ktime_get_mono_fast_ns`).
        builder.clockid(Clock::MONOTONIC).sample_id_all(true).sample(SampleFlag::TIME);
        let mut sampler = builder.build()?.sampled(room)?;
        sampler.enable()?;
        Ok(Source { sampler, room, last: now() })
    }

    /// Adds what a recorder that was killed had saved: its threads may be gone.
    pub(crate) fn add_known(&mut self, folder: &Folder) {
        let warn = |error: anyhow::Error| log::warn!("threads or cgroups may have no names: {error:#}");
        let known = read(folder).map_err(warn).unwrap_or_default();
        let last = known.iter().map(|told| told.time).max().unwrap_or(0);
        if self.online.is_some() {
            self.history.add_missing(last, self.told, 0);
        } else {
            self.told = last;
        }
        self.history.add_known(known);
        if let Some(cgroups) = &mut self.cgroups {
            for (id, path) in read_cgroups(folder).map_err(warn).unwrap_or_default() {
                cgroups.entry(id).or_insert(path);
            }
        }
    }

    /// Adds what the kernel has told since, and writes it into the trace's own folder. To be called every second or so.
    pub(crate) fn poll(&mut self, folder: &Path) {
        self.take();
        self.history.settle(now().saturating_sub(SETTLED));
        let written = match self.history.take_new() {
            Some(new) if new.is_empty() => return,
            Some(new) => append(folder, &new),
            None => Ok(()),
        };
        // It may have been removed, or be as long as it can be.
        if let Err(error) = written.or_else(|_| write(folder, &self.history.all())) {
            log::info!("names of threads are kept at the end: {error:#}");
        }
    }

    /// Which threads have executed a program while this was watching.
    pub(crate) fn executed(&mut self) -> &Executed {
        self.take();
        &self.executed
    }

    /// Takes what the kernel has told since.
    fn take(&mut self) {
        let (since, mut is_whole) = (now(), true);
        for Source { sampler, room, last } in self.sources.values_mut() {
            let (mut taken, first) = (0, *last);
            while let Some(record) = sampler.next_record() {
                taken += size_of::<[u32; 2]>() + record.len();
                // What `sample_id_all` adds at the end: the time alone was asked for.
                let time = record.to_contiguous().last_chunk().map_or(since, |time| u64::from_le_bytes(*time));
                let is_exec = record.misc() & EXECUTED != 0;
                match record.parse_record() {
                    Ok(Record::Fork(fork)) => self.history.add(time, fork.tid, Notice::MadeBy(fork.ptid)),
                    Ok(Record::Exit(exit)) => {
                        self.executed.remove(&exit.tid);
                        self.history.add(time, exit.tid, Notice::Ended);
                    }
                    Ok(Record::Comm(told)) => {
                        if is_exec {
                            self.executed.insert(told.tid, time);
                        }
                        self.history.add(time, told.tid, Notice::Named(name(&told.comm)));
                    }
                    Ok(Record::CGroup(told)) => {
                        if let Some(cgroups) = &mut self.cgroups {
                            cgroups.insert(told.id, String::from_utf8_lossy(up_to_nul(&told.path)).into_owned());
                        }
                    }
                    Ok(Record::Lost(lost)) => {
                        self.history.add_missing(*last, time, lost.lost);
                        self.lost = Some(self.lost.unwrap_or(0) + lost.lost);
                        is_whole = false;
                    }
                    _ => {}
                }
                *last = time;
            }
            // That notices are lost is told with the next that is not, which may never come.
            if taken + LONGEST_NOTICE > *room {
                self.history.add_missing(first, now(), 0);
                self.lost = self.lost.or(Some(0));
                is_whole = false;
            }
        }
        if self.follow_cpus() {
            self.history.add_missing(self.told, now(), 0);
            is_whole = false;
        }
        if self.online.is_some() {
            self.told = since;
        }
        if !is_whole {
            self.history.settle(since);
            self.look_at_threads();
        }
    }

    /// Writes all that is known into a trace's own folder.
    pub(crate) fn save(&mut self, folder: &Path) -> Result<()> {
        self.take();
        if self.online.is_none() && self.knows_threads {
            self.history.add_missing(self.told, now(), 0);
            self.history.settle(u64::MAX);
            self.look_at_threads();
        }
        self.history.settle(u64::MAX);
        self.look_at_cgroups();
        if let Some(lost) = self.lost.take() {
            let lost = if lost > 0 { lost.to_string() } else { "some".to_owned() };
            log::warn!(
                "{lost} of the kernel's notices of threads' names were lost: some records may be shown with a name of another time (--context comm records names)"
            );
        }
        write(folder, &self.history.all())?;
        self.cgroups.as_ref().map_or(Ok(()), |cgroups| write_cgroups(folder, cgroups))
    }

    /// A piece has ended at a time, and was saved: what was before is not needed for the next.
    pub(crate) fn begin_piece(&mut self, end: u64) {
        // What programs had begun by then may be earlier.
        self.history.forget(end.saturating_sub(SETTLED));
    }

    /// Adds the threads that there are and that are not known, or are called otherwise by now.
    fn look_at_threads(&mut self) {
        let time = now();
        for process in numbers("/proc").into_iter().filter(|_| self.knows_threads) {
            for thread in numbers(&format!("/proc/{process}/task")) {
                // It may have ended meanwhile.
                if let Ok(comm) = fs::read(format!("/proc/{process}/task/{thread}/comm")) {
                    let name = name(own(comm.strip_suffix(b"\n").unwrap_or(&comm)));
                    if !self.history.has(thread, &name) {
                        self.history.add(time, thread, Notice::Named(name));
                    }
                }
            }
        }
    }

    /// Adds the cgroups that there are and that are not known.
    fn look_at_cgroups(&mut self) {
        // Where there is no unified hierarchy, ids mean nothing either. In a namespace paths begin elsewhere; perf tells them from the root.
        if let (Some(cgroups), Ok(root), false) = (&mut self.cgroups, cgroup_root(), is_in_own(Namespace::Cgroup)) {
            add_cgroups(&root, &root, cgroups);
        }
    }
}

/// In nanoseconds of the monotonic clock.
fn now() -> u64 {
    Instant::now().monotonic
}

/// What a thread itself is called of what `/proc` shows: of a kernel worker that is followed by what it works or has worked for
/// (kernel/workqueue.c, `wq_worker_comm`).
fn own(comm: &[u8]) -> &[u8] {
    // A rescuer has the name of its queue after this, with any signs in it.
    let of_worker = comm.strip_prefix(b"kworker/").filter(|rest| !rest.starts_with(b"R-"));
    let end = of_worker.and_then(|rest| rest.iter().position(|byte| matches!(byte, b'-' | b'+')));
    end.map_or(comm, |end| &comm[..b"kworker/".len() + end])
}

fn up_to_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn name(comm: &[u8]) -> Name {
    shortened(up_to_nul(comm))
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

/// The entries of a folder that are numbers.
fn numbers(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_called_by_its_own_name() {
        for (shown, called) in [
            ("kworker/0:1-events", "kworker/0:1"),
            ("kworker/u8:2+flush-254:0", "kworker/u8:2"),
            ("kworker/1:0H", "kworker/1:0H"),
            ("kworker/R-rcu_g", "kworker/R-rcu_g"),
            ("a-b+c", "a-b+c"),
        ] {
            assert_eq!(own(shown.as_bytes()), called.as_bytes());
        }
    }
}
