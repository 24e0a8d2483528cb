//! What this machine has that a channel and its programs take: CPUs, memory, file systems, limits.

use std::{
    fs,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::fs::FileExt as _,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    mount::MountFlags,
    process::{Resource, Rlimit},
};

/// CPUs that may ever come online.
///
/// ```
/// use relay_channel::machine;
///
/// assert!(machine::possible_cpus()?.len() >= machine::online_cpus()?.len());
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// When sysfs cannot be read.
pub fn possible_cpus() -> Result<Vec<u32>> {
    cpu_list("/sys/devices/system/cpu/possible")
}

/// CPUs that are online now.
///
/// ```
/// assert!(!relay_channel::machine::online_cpus()?.is_empty());
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// When sysfs cannot be read.
pub fn online_cpus() -> Result<Vec<u32>> {
    OnlineCpus::open()?.now()
}

/// The kernel's list of CPUs that are online, to be asked again and again.
///
/// ```
/// # use relay_channel::machine::{OnlineCpus, online_cpus};
/// let cpus = OnlineCpus::open()?;
/// assert_eq!(cpus.now()?, online_cpus()?);
/// assert_eq!(cpus.now()?, online_cpus()?);
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug)]
pub struct OnlineCpus(fs::File);

impl OnlineCpus {
    const PATH: &str = "/sys/devices/system/cpu/online";
    /// The most that sysfs has in a file, in bytes.
    const MOST: usize = 4096;

    /// Opens the list.
    ///
    /// # Errors
    /// When sysfs is not there.
    pub fn open() -> Result<Self> {
        Ok(Self(fs::File::open(Self::PATH).with_context(|| format!("opening {}", Self::PATH))?))
    }

    /// The CPUs that are online now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn now(&self) -> Result<Vec<u32>> {
        let mut text = [0; Self::MOST];
        // From its beginning sysfs makes it anew (fs/seq_file.c, `seq_read_iter`).
        let len = self.0.read_at(&mut text, 0).with_context(|| format!("reading {}", Self::PATH))?;
        let text = String::from_utf8_lossy(&text[..len]);
        parse_cpu_list(&text).with_context(|| format!("{} holds {text:?}, not a list of CPUs", Self::PATH))
    }
}

fn cpu_list(path: &str) -> Result<Vec<u32>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    parse_cpu_list(&text).with_context(|| format!("{path} holds {text:?}, not a list of CPUs"))
}

/// Parses `0-3,5`.
fn parse_cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

/// The NUMA node of a CPU, if the kernel says.
///
/// ```
/// if let Some(node) = relay_channel::machine::numa_node(0) {
///     println!("cpu 0 is on node {node}");
/// }
/// ```
#[must_use]
pub fn numa_node(cpu: u32) -> Option<u32> {
    let entries = fs::read_dir(format!("/sys/devices/system/cpu/cpu{cpu}")).ok()?;
    entries.flatten().find_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok())
}

/// Bytes of memory that can be had without swapping.
///
/// ```
/// assert!(relay_channel::machine::available_memory()? > 1 << 20);
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// When `/proc/meminfo` does not say.
pub fn available_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kib.context("/proc/meminfo has no MemAvailable")? * 1024)
}

/// Where tracefs is; mounts it when it is not.
///
/// # Errors
/// When it can neither be found nor mounted.
pub fn tracefs() -> Result<PathBuf> {
    find_or_mount("tracefs", &["/sys/kernel/tracing", "/sys/kernel/debug/tracing"])
}

/// Where the BPF file system is; mounts it when it is not.
///
/// # Errors
/// When it can neither be found nor mounted.
pub fn bpffs() -> Result<PathBuf> {
    find_or_mount("bpf", &["/sys/fs/bpf"])
}

/// The mount point of a file system, if it is mounted at all; one of `preferred` rather than another.
///
/// ```
/// assert!(relay_channel::machine::find_mount("proc", &["/proc"]).is_some());
/// ```
#[must_use]
pub fn find_mount(kind: &str, preferred: &[&str]) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let points: Vec<&str> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_, point, found) = (fields.next()?, fields.next()?, fields.next()?);
            (found == kind).then_some(point)
        })
        .collect();
    preferred.iter().find(|path| points.contains(path)).or(points.first()).map(PathBuf::from)
}

fn find_or_mount(kind: &str, places: &[&str]) -> Result<PathBuf> {
    if let Some(path) = find_mount(kind, places) {
        return Ok(path);
    }
    let place = Path::new(places[0]);
    if !rustix::process::geteuid().is_root() {
        bail!("{kind} is not mounted: as root, mount -t {kind} {kind} {}", place.display());
    }
    // Nobody else is to make folders in it.
    let private = (kind == "bpf").then_some(c"mode=0700");
    match rustix::mount::mount(kind, place, kind, MountFlags::empty(), private) {
        Ok(()) => {
            log::info!("mounted {kind} on {}", place.display());
            Ok(place.to_path_buf())
        }
        Err(error) => Err(error).with_context(|| {
            let at = place.display();
            format!(
                "{kind} is not mounted, and cannot be on {at} (as root: mount -t {kind} {kind} {at}; in a container: --volume {at}:{at})"
            )
        }),
    }
}

/// Raises the limit that many maps and links run into, that of open files.
///
/// ```
/// relay_channel::machine::raise_limits();
/// ```
pub fn raise_limits() {
    let files = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: files.maximum, maximum: files.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, wanted) {
        log::debug!("the limit of open files stays at {:?}: {error}", files.current);
    }
}

/// What the kernel has counted of an eBPF program.
///
/// ```
/// use relay_channel::machine::ProgramCounts;
///
/// fn is_exact(counts: &ProgramCounts) -> bool {
///     counts.recursion_misses == 0
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ProgramCounts {
    /// How often it was not run because another program was running on the CPU.
    pub recursion_misses: u64,
    /// How often it ran, while statistics of BPF programs were enabled (`BPF_ENABLE_STATS`).
    pub runs: u64,
}

/// What the kernel has counted of an eBPF program.
///
/// ```
/// use std::os::fd::AsFd as _;
///
/// fn runs(program: &aya::programs::RawTracePoint) -> anyhow::Result<u64> {
///     Ok(relay_channel::machine::program_counts(program.fd()?.as_fd())?.runs)
/// }
/// ```
///
/// # Errors
/// When `/proc` does not say.
pub fn program_counts(program: BorrowedFd<'_>) -> Result<ProgramCounts> {
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let count = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse().ok()).with_context(|| format!("{path} has no {key}"))
    };
    Ok(ProgramCounts { recursion_misses: count("recursion_misses")?, runs: count("run_cnt")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_have_ranges_and_gaps() {
        assert_eq!(parse_cpu_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_cpu_list("\n"), Some(vec![]));
        assert_eq!(parse_cpu_list("0-x"), None);
    }
}
