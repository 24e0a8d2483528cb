//! What the tracer asks this host: the kernel's version and what it can do, this boot, and the namespaces that this process is in.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use relay_trace::form::clock::Instant;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// From now on what this thread, and those that it starts, make in file systems belongs to this group. What they run does not inherit that.
///
/// ```
/// let ours = rustix::process::getegid().as_raw();
/// relay_daemon::host::make_files_of_group(ours)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// `EPERM` without CAP_SETGID.
pub fn make_files_of_group(gid: u32) -> io::Result<()> {
    crate::sys::make_files_of_group(gid)
}

/// The kernel's name for this boot.
///
/// ```
/// assert_eq!(relay_daemon::host::boot_id()?.len(), 36);
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
/// use relay_daemon::host::new_uuid;
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
/// assert!(relay_daemon::host::kernel_version().is_some_and(|version| version >= (5, 15)));
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
/// let (_host, kernel) = relay_daemon::host::host_and_kernel();
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
/// # use relay_daemon::host::{Namespace, is_in_own};
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

/// When threads have executed a program last, in nanoseconds of the monotonic clock, by number: of those that are there, as far as it was told.
pub(crate) type Executed = HashMap<u32, u64>;

/// Which threads there are, by the numbers that eBPF programs see.
#[derive(Debug)]
pub(crate) struct LiveThreads {
    /// Nanoseconds of the boot clock at which threads began; `None` of one that is not there.
    began: HashMap<u64, Option<u64>>,
    /// By how much the boot clock is ahead of the monotonic one.
    ahead: u64,
    /// In a PID namespace `/proc` has other numbers: there every thread is taken to be there.
    is_blind: bool,
}

impl LiveThreads {
    pub(crate) fn now() -> Self {
        let now = Instant::now();
        let ahead = now.boottime.saturating_sub(now.monotonic);
        Self { began: HashMap::new(), ahead, is_blind: is_in_own(Namespace::Pid) }
    }

    /// Whether the thread that had this number at a time, in nanoseconds of the monotonic clock, is still there.
    pub(crate) fn has(&mut self, thread: u64, at: u64) -> bool {
        // The idle tasks have no number.
        if self.is_blind || thread == 0 {
            return true;
        }
        let began = self.began.entry(thread).or_insert_with(|| {
            let stat = fs::read_to_string(format!("/proc/{thread}/stat")).ok()?;
            // The 22nd field, in clock ticks; the name, which may hold anything, is the 2nd.
            let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
            Some(ticks.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second()))
        });
        began.is_some_and(|began| began <= at.saturating_add(self.ahead))
    }
}

/// The folder in which `/proc` tells of a process.
pub(crate) fn process_folder(process: u32) -> PathBuf {
    Path::new("/proc").join(process.to_string())
}

/// Opens what is at a path as a process sees it, which `/proc` tells of in this folder: below its root, whatever links say, and without waiting for a pipe's
/// other end. `itself`: not what the last part of the path links to.
pub(crate) fn open_in_root(process: &Path, path: &Path, itself: bool) -> Option<File> {
    let root = File::open(process.join("root")).ok()?;
    let last = if itself { OFlags::NOFOLLOW } else { OFlags::empty() };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | last;
    let file = File::from(
        openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS).ok()?,
    );
    file.metadata().ok()?.is_file().then_some(file)
}

/// Whether the kernel has kprobes.
///
/// ```
/// println!("{}", relay_daemon::host::has_kprobes());
/// ```
#[must_use]
pub fn has_kprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/kprobe/type").exists()
}

/// Whether the kernel has uprobes, which USDT probes need too.
///
/// ```
/// println!("{}", relay_daemon::host::has_uprobes());
/// ```
#[must_use]
pub fn has_uprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/uprobe/type").exists()
}

/// The type of perf events of a source, by its name in sysfs.
pub(crate) fn perf_source(name: &str) -> Result<u32> {
    let path = Path::new("/sys/bus/event_source/devices").join(name).join("type");
    let text = fs::read_to_string(&path)
        .map_err(|_| anyhow!("this kernel has no {name}s ({} is not there: it was built without)", path.display()))?;
    text.trim().parse().with_context(|| format!("reading {}", path.display()))
}

/// Whether this process may put uprobes into programs. Kernels with the fix of CVE-2025-38466 want CAP_SYS_ADMIN for that, and CAP_PERFMON does not do.
///
/// ```
/// println!("{}", relay_daemon::host::may_probe_programs());
/// ```
#[must_use]
pub fn may_probe_programs() -> bool {
    let Ok(kind) = perf_source("uprobe") else { return false };
    // The rights are looked at first (kernel/events/core.c, `perf_uprobe_event_init`); then this is at the first byte of an ELF file, where nothing runs.
    let opened = crate::sys::open_probe(kind, 0, c"/proc/self/exe", 0);
    opened.err().is_none_or(|error| error.kind() != io::ErrorKind::PermissionDenied)
}

/// Whether the kernel loads programs for the entries and exits of its functions (fentry, fexit). It needs CAP_BPF to tell.
///
/// ```
/// println!("{}", relay_daemon::host::has_trampolines());
/// ```
#[must_use]
pub fn has_trampolines() -> bool {
    aya::sys::is_program_supported(aya::programs::ProgramType::Tracing).unwrap_or(false)
}
