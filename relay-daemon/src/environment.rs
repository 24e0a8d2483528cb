//! Whether this process may record where it runs: what stands in its way, told apart, and what to change.
//!
//! The kernel answers most of it with the same `EPERM`. What the machine has for each kind of probe is not asked here.

use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use crate::{
    machine,
    sys::{MapCreate, create_map, open_sampler},
};

/// One thing that recording needs.
#[derive(Clone, Debug)]
pub struct Condition {
    /// What.
    pub name: &'static str,
    /// It is there.
    pub ok: bool,
    /// What there is, or what is wrong and what to change.
    pub detail: String,
}

/// Tells what there is, or what is wrong.
type Look = fn() -> Result<String>;

/// All that recording needs.
///
/// ```
/// for condition in relay_daemon::environment::conditions() {
///     println!("{}: {}", condition.name, condition.detail);
/// }
/// ```
#[must_use]
pub fn conditions() -> Vec<Condition> {
    let mut looks: Vec<(&'static str, Look)> = vec![("kernel 5.15 or later", kernel), ("capabilities", capabilities)];
    // Without, they are refused anyway.
    if capabilities().is_ok() {
        looks.push(("system calls", system_calls));
    }
    let places: [(&str, Look); 3] = [("lockdown", lockdown), ("tracefs", tracefs), ("bpffs", bpffs)];
    looks.extend(places);
    let condition = |(name, look): (&'static str, Look)| {
        let found = look();
        let ok = found.is_ok();
        Condition { name, ok, detail: found.unwrap_or_else(|error| format!("{error:#}")) }
    };
    looks.into_iter().map(condition).collect()
}

fn kernel() -> Result<String> {
    let (_, kernel) = machine::host_and_kernel();
    if machine::kernel_version().is_none_or(|version| version < (5, 15)) {
        bail!("{kernel}: boot a newer one");
    }
    Ok(kernel)
}

fn capabilities() -> Result<String> {
    let missing = Capabilities::read().missing();
    let needed = "CAP_BPF and CAP_PERFMON";
    if is_user_namespace() {
        // Whatever capabilities a process has in one, they do not reach as far.
        bail!(
            "{needed} of the host are needed, and this is a user namespace: run relayd, or the container, as the host's root"
        );
    }
    match missing {
        (_, missing) if !missing.is_empty() => {
            let missing = missing.join(" and ");
            bail!(
                "this container or service may not have {missing}: start it with --privileged or \
                 --cap-add BPF --cap-add PERFMON, or in a unit add them to CapabilityBoundingSet="
            )
        }
        (missing, _) if !missing.is_empty() => bail!("{} missing: run as root", missing.join(" and ")),
        _ => Ok(needed.to_owned()),
    }
}

/// Tries the two that may be forbidden.
fn system_calls() -> Result<String> {
    let map = || {
        const ARRAY: u32 = 2;
        create_map(MapCreate { map_type: ARRAY, key_size: 4, value_size: 8, max_entries: 1, ..MapCreate::default() })
    };
    let event = || open_sampler(1, machine::online_cpus().ok().and_then(|cpus| cpus.first().copied()).unwrap_or(0));
    allowed("bpf", map())?;
    allowed("perf_event_open", event())?;
    Ok("bpf and perf_event_open".to_owned())
}

fn allowed<T>(call: &str, result: io::Result<T>) -> Result<()> {
    let Err(error) = result else { return Ok(()) };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_filtered = field(&status, "Seccomp:") == Some("2");
    let advice = if is_filtered {
        "a seccomp filter is the likely cause: start the container with --security-opt seccomp=unconfined or a profile that \
         allows bpf and perf_event_open, or in a unit add both to SystemCallFilter="
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "a security module is the likely cause (SELinux, AppArmor): its log tells (dmesg, ausearch)"
    } else {
        "the kernel was built without (CONFIG_BPF_SYSCALL, CONFIG_PERF_EVENTS)"
    };
    bail!("{call} is refused ({error}): {advice}")
}

fn lockdown() -> Result<String> {
    let Ok(levels) = fs::read_to_string("/sys/kernel/security/lockdown") else {
        return Ok("none that can be seen".to_owned());
    };
    // All levels, that which is in force in brackets.
    match levels.split_whitespace().find_map(|level| level.strip_prefix('[')?.strip_suffix(']')) {
        Some("confidentiality") => bail!(
            "the kernel is locked down (confidentiality) and lets nobody read its memory or its events: boot it with \
             lockdown=integrity, or none"
        ),
        level => Ok(level.unwrap_or("none").to_owned()),
    }
}

fn tracefs() -> Result<String> {
    let events = machine::tracefs()?.join("events");
    match fs::read_dir(&events) {
        Ok(_) => Ok(events.parent().unwrap_or(&events).display().to_string()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read: run as root", events.display())),
    }
}

fn bpffs() -> Result<String> {
    let path = machine::bpffs()?;
    let shown = path.display();
    if statvfs(&path).is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        bail!(
            "{shown} is mounted read-only: as root: mount -o remount,rw {shown}; in a container: --volume {shown}:{shown}"
        );
    }
    access(&path, Access::WRITE_OK).with_context(|| format!("{shown} cannot be written to: run as root"))?;
    Ok(shown.to_string())
}

/// The sets of this process, from `/proc/self/status`.
struct Capabilities {
    effective: u64,
    /// More than these it can never have.
    bounding: u64,
}

impl Capabilities {
    const SYS_ADMIN: u32 = 21;
    const NEEDED: [(u32, &str); 2] = [(39, "CAP_BPF"), (38, "CAP_PERFMON")];

    fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let set = |name| field(&status, name).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
        Self { effective: set("CapEff:"), bounding: set("CapBnd:") }
    }

    /// What is needed and not effective; and what of that cannot be.
    fn missing(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        let lacking = |set: u64| {
            let has = |capability: u32| set >> capability & 1 == 1 || set >> Self::SYS_ADMIN & 1 == 1;
            Self::NEEDED.into_iter().filter(|(bit, _)| !has(*bit)).map(|(_, name)| name).collect()
        };
        (lacking(self.effective), lacking(self.bounding))
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Whether this is another user namespace than that of the machine's root.
fn is_user_namespace() -> bool {
    // PROC_USER_INIT_INO in include/linux/proc_ns.h.
    const INITIAL: &str = "user:[4026531837]";
    fs::read_link("/proc/self/ns/user").is_ok_and(|namespace| namespace.as_os_str() != INITIAL)
}
