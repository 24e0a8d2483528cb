//! What this machine is and has: CPUs, memory, file systems, clocks, limits.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::fs::FileExt as _,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::{
    mount::MountFlags,
    process::{Resource, Rlimit},
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};

/// CPUs that may ever come online.
///
/// ```
/// use relay_daemon::machine;
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
/// assert!(!relay_daemon::machine::online_cpus()?.is_empty());
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
/// # use relay_daemon::machine::{OnlineCpus, online_cpus};
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
/// if let Some(node) = relay_daemon::machine::numa_node(0) {
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
/// assert!(relay_daemon::machine::available_memory()? > 1 << 20);
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
/// assert!(relay_daemon::machine::find_mount("proc", &["/proc"]).is_some());
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
/// relay_daemon::machine::raise_limits();
/// ```
pub fn raise_limits() {
    let files = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: files.maximum, maximum: files.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, wanted) {
        log::debug!("the limit of open files stays at {:?}: {error}", files.current);
    }
}

/// One instant on three clocks, in nanoseconds: enough to place a trace in wall time, and beside another's.
///
/// ```
/// use relay_daemon::machine::Instant;
///
/// let (first, second) = (Instant::now(), Instant::now());
/// assert!(first.monotonic <= second.monotonic);
/// ```
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Instant {
    /// `CLOCK_MONOTONIC`, the clock of the records.
    pub monotonic: u64,
    /// `CLOCK_BOOTTIME`.
    pub boottime: u64,
    /// `CLOCK_REALTIME`, since 1970.
    pub realtime: u64,
}

impl Instant {
    /// Now. Of a few readings the tightest, so that a preemption in between does not shift the clocks.
    ///
    /// ```
    /// assert!(relay_daemon::machine::Instant::now().realtime > 0);
    /// ```
    #[must_use]
    pub fn now() -> Self {
        let read = |clock| {
            let time = clock_gettime(clock);
            u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
        };
        let mut best: Option<(u64, Self)> = None;
        for _ in 0..5 {
            let monotonic = read(ClockId::Monotonic);
            let (boottime, realtime) = (read(ClockId::Boottime), read(ClockId::Realtime));
            let width = read(ClockId::Monotonic) - monotonic;
            if best.is_none_or(|(least, _)| width < least) {
                best = Some((width, Self { monotonic: monotonic + width / 2, boottime, realtime }));
            }
        }
        best.map_or(Self { monotonic: 0, boottime: 0, realtime: 0 }, |(_, instant)| instant)
    }

    /// The instant at which the monotonic clock read this: one that is not long past, so that no clock has been set since.
    ///
    /// ```
    /// # use relay_daemon::machine::Instant;
    /// let now = Instant::now();
    /// assert_eq!(now.back_to(now.monotonic - 5).realtime, now.realtime - 5);
    /// ```
    #[must_use]
    pub fn back_to(self, monotonic: u64) -> Self {
        let back = self.monotonic.saturating_sub(monotonic);
        let (boottime, realtime) = (self.boottime.saturating_sub(back), self.realtime.saturating_sub(back));
        Self { monotonic: self.monotonic - back, boottime, realtime }
    }
}

/// From now on what this thread, and those that it starts, make in file systems belongs to this group. What they run does not inherit that.
///
/// ```
/// let ours = rustix::process::getegid().as_raw();
/// relay_daemon::machine::make_files_of_group(ours)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// `EPERM` without CAP_SETGID.
pub fn make_files_of_group(gid: u32) -> io::Result<()> {
    crate::sys::make_files_of_group(gid)
}

/// What the kernel has counted of an eBPF program.
///
/// ```
/// use relay_daemon::machine::ProgramCounts;
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
///     Ok(relay_daemon::machine::program_counts(program.fd()?.as_fd())?.runs)
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

/// The kernel's name for this boot.
///
/// ```
/// assert_eq!(relay_daemon::machine::boot_id()?.len(), 36);
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// When `/proc` cannot be read.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A new random UUID.
///
/// ```
/// use relay_daemon::machine::new_uuid;
///
/// assert_ne!(new_uuid()?, new_uuid()?);
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// When `/proc` cannot be read.
pub fn new_uuid() -> Result<[u8; 16]> {
    let path = "/proc/sys/kernel/random/uuid";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let digits = u128::from_str_radix(&text.trim().replace('-', ""), 16);
    Ok(digits.with_context(|| format!("{path} holds {text:?}"))?.to_be_bytes())
}

/// The running kernel's version, as major and minor number, if its release begins with them.
///
/// ```
/// assert!(relay_daemon::machine::kernel_version().is_some_and(|version| version >= (5, 15)));
/// ```
#[must_use]
pub fn kernel_version() -> Option<(u32, u32)> {
    let (_, release) = host_and_kernel();
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Host name and kernel release.
///
/// ```
/// let (_host, kernel) = relay_daemon::machine::host_and_kernel();
/// assert!(!kernel.is_empty());
/// ```
#[must_use]
pub fn host_and_kernel() -> (String, String) {
    let uname = rustix::system::uname();
    (uname.nodename().to_string_lossy().into_owned(), uname.release().to_string_lossy().into_owned())
}

/// Kinds of namespaces in which this process may see other numbers and names than the kernel, and eBPF programs, do.
#[derive(Clone, Copy, Debug)]
pub enum Namespace {
    /// Paths and levels of cgroups.
    Cgroup,
    /// Numbers of processes and threads.
    Pid,
    /// Users, and what capabilities are good for.
    User,
}

/// Whether this process is in a namespace of its own, as in a container, and not in the kernel's first.
///
/// ```
/// # use relay_daemon::machine::{Namespace, is_in_own};
/// println!("{}", is_in_own(Namespace::Pid));
/// ```
#[must_use]
pub fn is_in_own(namespace: Namespace) -> bool {
    // PROC_*_INIT_INO in include/linux/proc_ns.h.
    let (path, first) = match namespace {
        Namespace::Cgroup => ("/proc/self/ns/cgroup", "cgroup:[4026531835]"),
        Namespace::Pid => ("/proc/self/ns/pid", "pid:[4026531836]"),
        Namespace::User => ("/proc/self/ns/user", "user:[4026531837]"),
    };
    fs::read_link(path).is_ok_and(|namespace| namespace.as_os_str() != first)
}

/// Whether the kernel has kprobes.
///
/// ```
/// println!("{}", relay_daemon::machine::has_kprobes());
/// ```
#[must_use]
pub fn has_kprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/kprobe/type").exists()
}

/// Whether the kernel has uprobes, which USDT probes need too.
///
/// ```
/// println!("{}", relay_daemon::machine::has_uprobes());
/// ```
#[must_use]
pub fn has_uprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/uprobe/type").exists()
}

/// Whether the kernel loads programs for the entries and exits of its functions (fentry, fexit). It needs CAP_BPF to tell.
///
/// ```
/// println!("{}", relay_daemon::machine::has_trampolines());
/// ```
#[must_use]
pub fn has_trampolines() -> bool {
    aya::sys::is_program_supported(aya::programs::ProgramType::Tracing).unwrap_or(false)
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
