//! Whether this process may record where it runs: what stands in its way, told apart, and what to change.
//!
//! The kernel answers most of it with the same `EPERM`. What the machine has for each kind of probe is not asked here.

use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags, accessat, statvfs};

use crate::{
    host::{self, Namespace, is_in_own},
    sys::open_sampler,
};
use relay_channel::{
    machine,
    sys::{MapCreate, create_map},
};

/// One thing that recording needs.
#[derive(Clone, Debug)]
pub struct Requirement {
    /// What.
    pub name: &'static str,
    /// It is there.
    pub ok: bool,
    /// What there is, or what is wrong and what to change.
    pub detail: String,
}

/// All that recording needs.
///
/// ```
/// for condition in relay_daemon::environment::conditions() {
///     println!("{}: {}", condition.name, condition.detail);
/// }
/// ```
#[must_use]
pub fn conditions() -> Vec<Requirement> {
    let condition = |name, found: Result<String>| {
        let ok = found.is_ok();
        Requirement { name, ok, detail: found.unwrap_or_else(|error| format!("{error:#}")) }
    };
    let capabilities = condition(CAPABILITIES, capabilities());
    // Without capabilities they are refused anyway.
    let system_calls = capabilities.ok.then(|| condition("system calls", system_calls()));
    let rest = [condition("lockdown", lockdown()), condition("tracefs", tracefs()), condition("bpffs", bpffs())];
    [condition(KERNEL, kernel()), capabilities].into_iter().chain(system_calls).chain(rest).collect()
}

/// The name of the condition that this process has the rights.
pub const CAPABILITIES: &str = "capabilities";
/// Programs that exchange words of memory, and get to know what was there, arm64 compiles since 5.18 (arch/arm64/net/bpf_jit_comp.c, commit
/// 1902472b4fa9); cookies of perf events came with 5.15.
const OLDEST: (u32, u32) = if cfg!(target_arch = "aarch64") { (5, 18) } else { (5, 15) };
/// What a kernel must be to load relayd's programs.
pub const KERNEL: &str = if cfg!(target_arch = "aarch64") { "kernel 5.18 or later" } else { "kernel 5.15 or later" };

fn kernel() -> Result<String> {
    let (_, kernel) = host::host_and_kernel();
    check_version(host::kernel_version()).with_context(|| kernel.clone())?;
    Ok(kernel)
}

fn check_version(version: Option<(u32, u32)>) -> Result<()> {
    if version.is_none_or(|version| version < OLDEST) {
        let (major, minor) = OLDEST;
        bail!("{} needs Linux {major}.{minor}: boot a newer one", std::env::consts::ARCH);
    }
    Ok(())
}

fn capabilities() -> Result<String> {
    const NEEDED: &str = "CAP_BPF and CAP_PERFMON";
    if is_in_own(Namespace::User) {
        // Whatever capabilities a process has in one, they do not reach as far.
        bail!(
            "{NEEDED} of the host are needed, and this is a user namespace: run relayd, or the container, as the host's root"
        );
    }
    // What is effective, and what can ever be.
    let (effective, bounding) = (lacking("CapEff:"), lacking("CapBnd:"));
    if !bounding.is_empty() {
        bail!(
            "this container or service may not have {}: start it with --privileged or --cap-add BPF --cap-add PERFMON, or in a unit \
             add them to CapabilityBoundingSet=",
            bounding.join(" and ")
        );
    }
    if !effective.is_empty() {
        bail!("{} missing: run as root", effective.join(" and "));
    }
    Ok(NEEDED.to_owned())
}

const SYS_ADMIN: u32 = 21;

fn capability_set(name: &str) -> u64 {
    status(name).and_then(|hex| u64::from_str_radix(&hex, 16).ok()).unwrap_or(0)
}

/// Which of the capabilities that are needed a set of this process lacks.
fn lacking(set: &str) -> Vec<&'static str> {
    let set = capability_set(set);
    let has = |capability: u32| set >> capability & 1 == 1 || set >> SYS_ADMIN & 1 == 1;
    [(39, "CAP_BPF"), (38, "CAP_PERFMON")].into_iter().filter(|(bit, _)| !has(*bit)).map(|(_, name)| name).collect()
}

/// A line of `/proc/self/status`, by its beginning.
fn status(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
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
    let is_filtered = status("Seccomp:").is_some_and(|mode| mode == "2");
    let advice = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) if is_filtered => {
            ": a seccomp filter is the likely cause: start the container with --security-opt seccomp=unconfined or a profile that \
             allows bpf and perf_event_open, or in a unit add both to SystemCallFilter="
        }
        Some(libc::EACCES) if is_paranoid() => {
            ": kernel.perf_event_paranoid is above 2, with which Debian's kernels ask for CAP_SYS_ADMIN: \
             sysctl kernel.perf_event_paranoid=2"
        }
        Some(libc::EPERM | libc::EACCES) => {
            return Err(error).context(format!("{call} is refused{}", security_module()));
        }
        Some(libc::ENOSYS) => ": the kernel was built without (CONFIG_BPF_SYSCALL, CONFIG_PERF_EVENTS)",
        _ => "",
    };
    bail!("{call} is refused ({error}){advice}")
}

/// Whether perf events are for CAP_SYS_ADMIN alone, which this process has not: a patch of Debian's has such a level.
fn is_paranoid() -> bool {
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    level.trim().parse::<i32>().is_ok_and(|level| level > 2) && capability_set("CapEff:") >> SYS_ADMIN & 1 == 0
}

/// What a security module has to do with a refusal that nothing else explains.
fn security_module() -> String {
    // AppArmor's profile with its mode, like `docker-default (enforce)`, or SELinux's label.
    let confined = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    match confined.trim_matches(['\0', '\n', ' ']) {
        "" | "unconfined" => {
            " (a security module is the likely cause, SELinux or AppArmor: its log tells, by dmesg or ausearch)"
                .to_owned()
        }
        label => format!(
            " (relayd is confined as '{label}', which is the likely cause: start the container with --security-opt \
             apparmor=unconfined, or with SELinux --security-opt label=disable)"
        ),
    }
}

fn lockdown() -> Result<String> {
    const CONFIDENTIALITY: &str = "the kernel is locked down (confidentiality) and lets nobody read its memory or its events: boot it \
         with lockdown=integrity, or none";
    let Ok(levels) = fs::read_to_string("/sys/kernel/security/lockdown") else {
        // Containers do not see it, but its effect: EPERM, where a lack of rights is EACCES (`tracing_open_generic` in
        // kernel/trace/trace.c).
        let opened = machine::tracefs().map(|tracefs| fs::File::open(tracefs.join("available_events")));
        return match opened {
            Ok(Err(error)) if error.raw_os_error() == Some(libc::EPERM) => bail!(CONFIDENTIALITY),
            _ => Ok("none that can be seen".to_owned()),
        };
    };
    // All levels, that which is in force in brackets.
    match levels.split_whitespace().find_map(|level| level.strip_prefix('[')?.strip_suffix(']')) {
        Some("confidentiality") => bail!(CONFIDENTIALITY),
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
    // What relayd writes to, if it is there already.
    let own = Some(path.join("relayd")).filter(|own| own.exists()).unwrap_or_else(|| path.clone());
    accessat(CWD, &own, Access::WRITE_OK, AtFlags::EACCESS)
        .with_context(|| format!("{} cannot be written to: run as root", own.display()))?;
    // Security modules have their own mind of it, which access(2) does not ask for.
    if accessat(CWD, &path, Access::WRITE_OK, AtFlags::EACCESS).is_ok() {
        let tried = path.join(format!("relayd-check-{}", std::process::id()));
        fs::create_dir(&tried)
            .and_then(|()| fs::remove_dir(&tried))
            .with_context(|| format!("making {} is refused{}", tried.display(), security_module()))?;
    }
    Ok(shown.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_told_what_is_needed() {
        let (major, minor) = OLDEST;
        assert!(check_version(Some(OLDEST)).is_ok() && check_version(Some((major + 1, 0))).is_ok());
        let said = check_version(Some((major, minor - 1))).unwrap_err().to_string();
        assert!(said.contains(&format!("needs Linux {major}.{minor}")), "{said}");
        assert!(KERNEL.contains(&format!("{major}.{minor}")), "{KERNEL}");
    }
}
