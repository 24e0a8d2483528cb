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
    suite::TestResults,
};

/// The real ones, where busybox's differ, or have another name once they are copied.
const PROGRAMS: [&str; 17] = [
    "babeltrace2",
    "bash",
    "bpftrace",
    "cat",
    "chrt",
    "dd",
    "ldd",
    "ls",
    "mount",
    "perf",
    "setpriv",
    "sh",
    "sleep",
    "timeout",
    "true",
    "umount",
    "unshare",
];
/// What babeltrace2 opens by its path.
const PLUGINS: &str = "/usr/lib/x86_64-linux-gnu/babeltrace2/plugins";
/// Libraries in a folder of packages, and what loads them.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// What tests on arm64 are compared with, and busybox.
const ARM64_PACKAGES: [&str; 7] =
    ["babeltrace2", "bash", "busybox-static", "coreutils", "dash", "libc-bin", "util-linux"];
/// What tests on a kernel of another suite are compared with, and what ours are linked with.
const X86_64_PACKAGES: [&str; 14] = [
    "babeltrace2",
    "base-files",
    "bash",
    "bpftrace",
    "busybox-static",
    "coreutils",
    "dash",
    "libc-bin",
    "libc6",
    "libgcc-s1",
    "linux-perf",
    "mount",
    "strace",
    "util-linux",
];

/// Where the programs of an x86-64 guest are taken from.
enum Source {
    /// This machine, as it is.
    Machine,
    /// A folder of unpacked packages.
    Packages(PathBuf),
}

/// Packs programs under their names, what they are compared with, busybox, what is to be run, and the names of the tests that need not be, in
/// a folder of the guest's own.
pub(super) fn initrd(
    machine: &Machine,
    suite: debian::Suite,
    folder: &Path,
    programs: &[(PathBuf, &str)],
    runs: &[String],
    finished: &TestResults,
) -> Result<PathBuf> {
    let root = folder.join("root");
    let packages = |names: &[&str]| Apt::new(machine.architecture, suite)?.unpack_with_dependencies(names);
    root::make(&root, programs, |root| match (machine.architecture, suite) {
        ("arm64", _) => of_packages(root, &packages(&ARM64_PACKAGES)?),
        (_, debian::Suite::Own) => of_programs(root, &Source::Machine, programs),
        (_, debian::Suite::Other(_)) => of_programs(root, &Source::Packages(packages(&X86_64_PACKAGES)?), programs),
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

/// A root of [`PROGRAMS`] with what these and ours are linked with.
fn of_programs(root: &Path, source: &Source, ours: &[(PathBuf, &str)]) -> Result<()> {
    for folder in ["etc", "usr/bin", "usr/lib", "usr/lib64"] {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("making {}", root.display()))?;
    }
    fs::write(root.join("etc/group"), "daemon:x:1:\n").context("writing the guest's groups")?;
    // As Debian has it.
    for folder in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{folder}"), root.join(folder)).with_context(|| format!("linking {folder}"))?;
    }
    let mut files = vec![(source.find("busybox").context("there is no busybox")?, root.join("bin/busybox"))];
    for name in PROGRAMS {
        // What is not installed is said by the tests that need it.
        files.extend(source.find(name).map(|program| (program, root.join("bin").join(name))));
    }
    let plugins = source.path(PLUGINS);
    for plugin in fs::read_dir(&plugins).with_context(|| format!("reading {}", plugins.display()))? {
        let plugin = plugin?.path();
        files.push((plugin.clone(), source.inside(&plugin, root)));
    }
    let programs = files.iter().map(|(from, _)| from).chain(ours.iter().map(|(from, _)| from));
    for library in source.libraries(programs)? {
        let to = source.inside(&library, root);
        files.push((library, to));
    }
    files.iter().try_for_each(|(from, to)| copy(from, to))
}

impl Source {
    /// Where it has what this machine has at `path`.
    fn path(&self, path: &str) -> PathBuf {
        match self {
            Self::Machine => PathBuf::from(path),
            Self::Packages(folder) => folder.join(path.trim_start_matches('/')),
        }
    }

    /// Where the guest has what this has at `path`.
    fn inside(&self, path: &Path, root: &Path) -> PathBuf {
        let within = match self {
            Self::Machine => path.strip_prefix("/"),
            Self::Packages(folder) => path.strip_prefix(folder).or_else(|_| path.strip_prefix("/")),
        };
        root.join(within.unwrap_or(path))
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::Machine => find(name),
            Self::Packages(_) => Some(self.path("/usr/bin").join(name)).filter(|path| path.is_file()),
        }
    }

    /// The shared libraries that programs are linked with, and what loads them.
    fn libraries<'p>(&self, programs: impl Iterator<Item = &'p PathBuf>) -> Result<Vec<PathBuf>> {
        let Self::Packages(folder) = self else {
            let output = Command::new("ldd").args(programs).output().context("running ldd")?;
            return Ok(paths(&output.stdout));
        };
        // As ldd does it, with the packages' own loader.
        let loader = folder.join(LOADER);
        let mut found = vec![folder.join("usr/lib64/ld-linux-x86-64.so.2")];
        for program in programs {
            let mut list = Command::new(&loader);
            list.arg("--library-path").arg(folder.join(LIBRARIES)).arg("--list").arg(program);
            let output = list.output().with_context(|| format!("running {}", loader.display()))?;
            // What is static or a script has none.
            found.extend(paths(&output.stdout).into_iter().filter(|path| path.starts_with(folder)));
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}

/// The paths that ldd or the loader has listed.
fn paths(listed: &[u8]) -> Vec<PathBuf> {
    let text = String::from_utf8_lossy(listed);
    let words = text.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    words.map(PathBuf::from).collect()
}

/// What runs in the guest.
fn script(runs: &[String]) -> String {
    let runs: String = runs.iter().map(|run| format!("{run} || failures=$((failures+1))\n")).collect();
    format!(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin 2>/dev/null\n\
         export PATH=/bin:/usr/bin RELAYD=/usr/bin/relayd RUST_BACKTRACE=0 RELAY_TESTS_FINISHED=/finished\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp; mount -t debugfs debugfs /sys/kernel/debug\n\
         ln -s /proc/self/fd /dev/fd\n\
         echo 2 > /proc/sys/kernel/perf_event_paranoid\n\
         uname -r\nfailures=0\n\
         {runs}echo {RESULT} $failures\npoweroff -f\n"
    )
}
