//! `cargo xtask vm`: the tests on kernels that this machine does not run, in QEMU without KVM: Debian's cloud kernels, four CPUs.
//!
//! In the guest there is what the tests call: relayd, the programs that it is compared with, a shell and some tools. There is no compiler;
//! tests that need more than there is are listed as ignored.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use xtask::ebpf;

use crate::{cargo, exec, find, setup, tests};

/// The kernels: version, and the Debian package that depends on its newest build.
const KERNELS: [(&str, &str); 2] = [("6.1", "linux-image-cloud-amd64"), ("6.12", "linux-image-6.12-cloud-amd64")];
/// The tests that tell something new on another kernel, by the beginning of their names.
const TESTS: [&str; 14] = [
    "channel::",
    "clients::",
    "overwrite::",
    "corrupt::",
    "long::",
    "trace::a_cpu",
    "trace::cpu_numbers",
    "probes::",
    "choices::a_condition",
    "list::functions",
    "flight::a_session_records",
    "flight::a_record_stops",
    "flight::a_running",
    "flight::a_slow",
];
/// The real ones, where busybox's differ, or have another name once they are copied.
const PROGRAMS: [&str; 12] =
    ["babeltrace2", "bash", "bpftrace", "cat", "dd", "ldd", "ls", "perf", "sh", "sleep", "timeout", "true"];
/// What babeltrace2 and the tests open by its path.
const FILES: [&str; 2] = ["/etc/passwd", "/usr/lib/x86_64-linux-gnu/babeltrace2"];
/// Longest that the tests may take on one kernel, in seconds.
const TIME_LIMIT: &str = "900";
/// A guest that says nothing for so long hangs: no test takes half of that.
const SILENCE: Duration = Duration::from_secs(200);
/// How often a kernel is booted at most.
const BOOTS: u32 = 5;
/// What a kernel prints every half a minute while one of its CPUs hangs, and how often that is waited for.
const LOCKUP: (&str, u32) = ("BUG: soft lockup", 3);
/// What the guest prints at its end, before the number of failed runs.
const RESULT: &str = "relayd-vm-failures:";

/// Runs the tests whose names contain one of `filter`, or those of [`TESTS`], on a kernel, or on all.
pub(crate) fn run(kernel: Option<&str>, filter: &[String]) -> Result<()> {
    setup::ebpf_toolchain()?;
    run_on(&images(kernel)?, filter)
}

/// Runs them as a part of all tests: on a machine that can. Otherwise says why not.
pub(crate) fn run_if_possible() -> Result<()> {
    match images(None) {
        Ok(images) => run_on(&images, &[]),
        Err(error) => {
            let kernels = KERNELS.map(|(version, _)| version).join(" and ");
            eprintln!("xtask: not run: the tests on Linux {kernels}, in QEMU: {error:#}");
            Ok(())
        }
    }
}

/// The images of one kernel, or of all.
fn images(kernel: Option<&str>) -> Result<Vec<PathBuf>> {
    setup::test_tools()?;
    setup::vm_tools()?;
    let chosen: Vec<_> = KERNELS.iter().filter(|(version, _)| kernel.is_none_or(|kernel| kernel == *version)).collect();
    if chosen.is_empty() {
        bail!("no such kernel; there are {}", KERNELS.map(|(version, _)| version).join(" and "));
    }
    chosen.into_iter().map(|(_, package)| kernel_image(package)).collect()
}

fn run_on(images: &[PathBuf], filter: &[String]) -> Result<()> {
    let filter: Vec<&str> =
        if filter.is_empty() { TESTS.to_vec() } else { filter.iter().map(String::as_str).collect() };
    exec(cargo().args(["build", "--locked", "--release", "--package", "relay-daemon", "--package", "example-kleak"]))?;
    let built = ebpf::target_dir().join("release");
    let programs = [
        (tests::kernel_tests(&["--release"])?, "kernel"),
        (built.join("relayd"), "relayd"),
        (built.join("kleak"), "kleak"),
    ];
    let runs: Vec<_> = filter.iter().map(|name| format!("kernel --test-threads=1 --color never '{name}'")).collect();
    let initrd = initrd(&programs, &runs)?;
    for image in images {
        // An emulated kernel hangs now and then, while it patches its own code: seen once in some ten runs of 6.1, at tests that had passed
        // before and passed after.
        let mut boots = 1;
        while boot(image, &initrd, &["-accel", "tcg,thread=multi", "-smp", "4"])? == Outcome::NoEnd {
            if boots == BOOTS {
                bail!("the tests on {} did not come to their end, {BOOTS} times", image.display());
            }
            boots += 1;
        }
    }
    Ok(())
}

/// Counts the instructions of a record on the newer kernel, on one CPU whose clock advances by a nanosecond with each instruction.
pub(crate) fn count_instructions() -> Result<()> {
    setup::ebpf_toolchain()?;
    let image = images(KERNELS.last().map(|(version, _)| *version))?.pop().context("no kernel")?;
    exec(cargo().args(["build", "--locked", "--release", "--package", "relay-daemon"]))?;
    let programs = [(tests::benchmarks()?, "bench"), (ebpf::target_dir().join("release/relayd"), "relayd")];
    let initrd = initrd(&programs, &["mount -t tracefs tracefs /sys/kernel/tracing && bench --count".to_owned()])?;
    match boot(&image, &initrd, &["-accel", "tcg,thread=single", "-icount", "shift=0", "-smp", "1"])? {
        Outcome::Passed => Ok(()),
        Outcome::NoEnd => bail!("the guest did not come to its end"),
    }
}

/// Downloads and unpacks a kernel, unless that was done before, and returns its image.
fn kernel_image(metapackage: &str) -> Result<PathBuf> {
    let depends = Command::new("apt-cache").args(["depends", metapackage]).output().context("running apt-cache")?;
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.with_context(|| format!("apt knows no package {metapackage}"))?;
    let folder = folder().join(package);
    let image = folder.join("boot").join(package.replacen("linux-image", "vmlinuz", 1));
    if !image.exists() {
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        exec(Command::new("apt-get").current_dir(&folder).args(["download", package]))?;
        let unpack = format!("dpkg -x {package}_*.deb . && rm {package}_*.deb");
        exec(Command::new("sh").current_dir(&folder).args(["-c", &unpack]))?;
    }
    Ok(image)
}

/// Packs programs under their names, those of [`PROGRAMS`], what all of them are linked with, busybox, and what is to be run.
fn initrd(programs: &[(PathBuf, &str)], runs: &[String]) -> Result<PathBuf> {
    let root = folder().join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    for folder in ["proc", "sys", "dev", "tmp", "usr/bin", "usr/lib", "usr/lib64"] {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("making {}", root.display()))?;
    }
    // As Debian has it.
    for folder in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{folder}"), root.join(folder)).with_context(|| format!("linking {folder}"))?;
    }
    let mut files = vec![(PathBuf::from("/bin/busybox"), PathBuf::from("bin/busybox"))];
    files.extend(programs.iter().map(|(program, name)| (program.clone(), Path::new("bin").join(name))));
    for name in PROGRAMS {
        // What is not installed is said by the tests that need it.
        files.extend(find(name).map(|program| (program, Path::new("bin").join(name))));
    }
    for path in FILES.map(Path::new) {
        let is_dir = path.is_dir();
        let inside = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_path_buf();
        if is_dir {
            for plugin in fs::read_dir(path.join("plugins")).with_context(|| format!("reading {}", path.display()))? {
                let plugin = plugin?.path();
                files.push((plugin.clone(), inside(&plugin)));
            }
        } else {
            files.push((path.to_path_buf(), inside(path)));
        }
    }
    let linked = Command::new("ldd").args(files.iter().map(|(from, _)| from)).output().context("running ldd")?;
    for path in String::from_utf8_lossy(&linked.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        if !path.ends_with(':') {
            files.push((PathBuf::from(path), PathBuf::from(&path[1..])));
        }
    }
    for (from, to) in files.iter().map(|(from, to)| (from, root.join(to))) {
        fs::create_dir_all(to.parent().unwrap_or(&root))?;
        fs::copy(from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    }
    let init = root.join("init");
    fs::write(&init, script(runs)).with_context(|| format!("writing {}", init.display()))?;
    let initrd = folder().join("initrd");
    // Not compressed: the emulated CPU would take longer than the host's disk.
    let pack = format!("chmod +x init && find . | cpio -o -H newc --quiet > {}", initrd.display());
    exec(Command::new("sh").current_dir(&root).args(["-c", &pack]))?;
    Ok(initrd)
}

/// What runs in the guest.
fn script(runs: &[String]) -> String {
    let runs: String = runs.iter().map(|run| format!("{run} || failures=$((failures+1))\n")).collect();
    format!(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin 2>/dev/null\n\
         export PATH=/bin RELAYD=/bin/relayd RUST_BACKTRACE=0\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp\n\
         uname -r\nfailures=0\n\
         {runs}echo {RESULT} $failures\npoweroff -f\n"
    )
}

/// How a guest ended.
#[derive(PartialEq, Eq)]
enum Outcome {
    Passed,
    /// It said nothing of the tests' result.
    NoEnd,
}

/// Boots a kernel, shows what it prints, and fails when a test has.
fn boot(image: &Path, initrd: &Path, machine: &[&str]) -> Result<Outcome> {
    let mut qemu = Command::new("timeout");
    qemu.args([TIME_LIMIT, "qemu-system-x86_64"]);
    qemu.args(machine).args(["-cpu", "max", "-m", "3G", "-nodefaults", "-no-reboot"]);
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-append", "console=ttyS0 panic=-1 quiet"]);
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(initrd);
    let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("running qemu-system-x86_64")?;
    let console = BufReader::new(child.stdout.take().context("the guest's console")?);
    let (said, lines) = mpsc::channel();
    thread::spawn(move || console.split(b'\n').map_while(Result::ok).try_for_each(|line| said.send(line)));
    let (mut failed, mut lockups) = (None, 0);
    loop {
        let line = match lines.recv_timeout(SILENCE) {
            Ok(line) => String::from_utf8_lossy(&line).replace('\r', ""),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                eprintln!("xtask: the guest has said nothing for {} s", SILENCE.as_secs());
                stop(&child)?;
                continue;
            }
        };
        println!("{line}");
        lockups += u32::from(line.contains(LOCKUP.0));
        if lockups == LOCKUP.1 {
            stop(&child)?;
        }
        failed = line.strip_prefix(RESULT).map(|count| count.trim() != "0").or(failed);
    }
    child.wait().context("waiting for qemu-system-x86_64")?;
    match failed {
        Some(false) => Ok(Outcome::Passed),
        Some(true) => bail!("tests have failed on {}", image.display()),
        None => {
            eprintln!("xtask: the tests on {} did not come to their end", image.display());
            Ok(Outcome::NoEnd)
        }
    }
}

/// Ends a guest: `timeout` passes it on.
fn stop(timeout: &Child) -> Result<()> {
    exec(Command::new("kill").arg(timeout.id().to_string()))
}

fn folder() -> PathBuf {
    ebpf::target_dir().join("vm")
}
