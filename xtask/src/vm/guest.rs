//! What is in a guest: an initramfs with the programs, and the script that runs them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{Machine, boot::RESULT};
use crate::{
    copy,
    debian::{self, Apt},
    exec, find, root,
    suite::Suite,
    tests,
};

/// The real ones, where busybox's differ, or have another name once they are copied.
const PROGRAMS: [&str; 12] =
    ["babeltrace2", "bash", "bpftrace", "cat", "dd", "ldd", "ls", "perf", "sh", "sleep", "timeout", "true"];
/// What babeltrace2 opens by its path.
const PLUGINS: &str = "/usr/lib/x86_64-linux-gnu/babeltrace2/plugins";

/// What tests on arm64 are compared with, and busybox.
const ARM64_PACKAGES: [&str; 7] =
    ["babeltrace2", "bash", "busybox-static", "coreutils", "dash", "libc-bin", "util-linux"];

/// Packs programs under their names, what they are compared with, busybox, what is to be run, and the names of the tests that need not be, in
/// a folder of the guest's own.
pub(super) fn initrd(
    machine: &Machine,
    folder: &Path,
    programs: &[(PathBuf, &str)],
    runs: &[String],
    finished: &Suite,
) -> Result<PathBuf> {
    let root = folder.join("root");
    root::make(&root, programs, |root| match machine.architecture {
        "arm64" => of_packages(
            root,
            &Apt::new(machine.architecture, debian::Suite::Own)?.unpack_with_dependencies(&ARM64_PACKAGES)?,
        ),
        _ => of_this_machine(root, programs),
    })?;
    let init = root.join("init");
    fs::write(&init, script(runs)).with_context(|| format!("writing {}", init.display()))?;
    let names: String = finished.passed().map(|name| format!("{name}\n")).collect();
    fs::write(root.join("finished"), names).context("writing which tests have finished")?;
    let initrd = folder.join("initrd");
    // Not compressed: the emulated CPU would take longer than the host's disk.
    let pack = "chmod +x init && find . | cpio -o -H newc --quiet > \"$1\"";
    exec(Command::new("sh").current_dir(&root).args(["-c", pack, "sh"]).arg(&initrd))?;
    Ok(initrd)
}

/// A root of Debian's packages, but for what is only read by people.
fn of_packages(root: &Path, packages: &Path) -> Result<()> {
    root::fill_with(packages, root)?;
    let shared = root.join("usr/share");
    fs::remove_dir_all(&shared).with_context(|| format!("removing {}", shared.display()))
}

/// A root of [`PROGRAMS`], as this machine has them, with what these and ours are linked with.
fn of_this_machine(root: &Path, ours: &[(PathBuf, &str)]) -> Result<()> {
    for folder in ["usr/bin", "usr/lib", "usr/lib64"] {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("making {}", root.display()))?;
    }
    // As Debian has it.
    for folder in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{folder}"), root.join(folder)).with_context(|| format!("linking {folder}"))?;
    }
    let mut files = vec![(PathBuf::from("/bin/busybox"), root.join("bin/busybox"))];
    for name in PROGRAMS {
        // What is not installed is said by the tests that need it.
        files.extend(find(name).map(|program| (program, root.join("bin").join(name))));
    }
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    for plugin in fs::read_dir(PLUGINS).with_context(|| format!("reading {PLUGINS}"))? {
        let plugin = plugin?.path();
        files.push((plugin.clone(), inside(&plugin)));
    }
    let programs = files.iter().map(|(from, _)| from).chain(ours.iter().map(|(from, _)| from));
    let linked = Command::new("ldd").args(programs).output().context("running ldd")?;
    for path in String::from_utf8_lossy(&linked.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        if !path.ends_with(':') {
            files.push((PathBuf::from(path), inside(Path::new(path))));
        }
    }
    files.iter().try_for_each(|(from, to)| copy(from, to))
}

/// What runs in the guest.
fn script(runs: &[String]) -> String {
    let runs: String = runs.iter().map(|run| format!("{run} || failures=$((failures+1))\n")).collect();
    let size = tests::assignment_in_guest();
    format!(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin 2>/dev/null\n\
         export PATH=/bin:/usr/bin RELAYD=/usr/bin/relayd RUST_BACKTRACE=0 RELAY_TESTS_FINISHED=/finished {size}\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp; mount -t debugfs debugfs /sys/kernel/debug\n\
         uname -r\nfailures=0\n\
         {runs}echo {RESULT} $failures\npoweroff -f\n"
    )
}
