//! The machine that the tests share with others: what is theirs of it, and how busy it is.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::programs::loaded_links;
use relay_channel::machine;
use rustix::{
    mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount},
    thread::UnshareFlags,
};

const TRACEFS: &str = "/sys/kernel/tracing";

/// Gives this process, and what it starts, mounts of its own: an empty BPF file system, without anybody else's session, and tracefs in its
/// place and nowhere else. What tests mount or leave goes with the last of these processes.
///
/// # Errors
/// When this process has more than one thread, or no right to mount.
pub fn own_mounts() -> Result<()> {
    #[expect(deprecated, reason = "mounts are not what makes it unsafe: files are")]
    rustix::thread::unshare(UnshareFlags::NEWNS).context("making a mount namespace")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("keeping its mounts from others")?;
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    // The newest first: one may cover another.
    for line in mounts.lines().rev() {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if kind == "bpf" || kind == "tracefs" && place != TRACEFS {
            unmount(place, UnmountFlags::DETACH).with_context(|| format!("unmounting {place}"))?;
        }
    }
    machine::bpffs().and(machine::tracefs()).map(drop)
}

/// The processes of this name that the tests have started, by what they alone share: the mounts.
///
/// # Panics
/// When /proc cannot be read.
#[must_use]
pub fn own_processes(name: &str) -> Vec<PathBuf> {
    let mounts = |process: &Path| fs::metadata(process.join("ns/mnt")).map(|namespace| namespace.ino()).ok();
    let own = mounts(Path::new("/proc/self"));
    let is_own = |process: &PathBuf| {
        let found = fs::read_to_string(process.join("comm")).unwrap_or_default();
        found.trim_end() == name && mounts(process) == own
    };
    let processes = fs::read_dir("/proc").expect("/proc is there").filter_map(|entry| Some(entry.ok()?.path()));
    processes.filter(is_own).collect()
}

/// What `/proc/PID/fdinfo` says under a key, like `map_id`, of each file of a process that has it.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn files_of(pid: u32, key: &str) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the process is there").filter_map(io::Result::ok);
    // One that is closed meanwhile is not there.
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix(':').map(|value| value.trim().to_owned());
    texts.filter_map(|text| text.lines().find_map(value)).collect()
}

/// The BPF links that a process holds.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn links_of(pid: u32) -> Vec<u32> {
    files_of(pid, "link_id").iter().map(|id| id.parse().expect("a number")).collect()
}

/// How many of these links the kernel still has.
#[must_use]
pub fn count_loaded(links: &[u32]) -> usize {
    // Others' come and go meanwhile.
    loaded_links().flatten().filter(|link| links.contains(&link.id())).count()
}

/// How busy the machine is, from now on. Told when this is dropped by a test that fails: rates, shares and durations may have failed by it.
#[derive(Debug)]
pub struct Load {
    before: Option<Times>,
}

/// What all CPUs have spent since the machine was booted, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    all: u64,
    idle: u64,
    stolen: u64,
}

impl Times {
    fn now() -> Option<Self> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        // user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in user and nice.
        let times: Vec<u64> = line.split_whitespace().take(8).map_while(|time| time.parse().ok()).collect();
        let [_, _, _, idle, waiting, _, _, stolen] = times[..] else { return None };
        Some(Self { all: times.iter().sum(), idle: idle + waiting, stolen })
    }
}

impl Load {
    /// Watches from now on.
    #[must_use]
    pub fn watch() -> Self {
        Self { before: Times::now() }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        write!(f, "load average {}", load.trim_end())?;
        if let (Some(before), Some(now)) = (self.before, Times::now()) {
            let all = now.all.saturating_sub(before.all).max(1);
            let percent = |now: u64, before: u64| 100 * now.saturating_sub(before) / all;
            let (idle, stolen) = (percent(now.idle, before.idle), percent(now.stolen, before.stolen));
            write!(f, "; of the CPUs' time since the test began {idle} % was idle and {stolen} % was stolen")?;
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{self}");
        }
    }
}
