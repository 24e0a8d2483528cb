//! `cargo xtask vm`: the tests on kernels that this machine does not run, in QEMU without KVM: Debian's cloud kernels, four CPUs.
//!
//! What is there is what the tests bring with them: relayd, busybox, no babeltrace2 and no perf. Tests that need those are listed as
//! ignored.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use xtask::ebpf;

use crate::{cargo, exec, setup, tests};

/// The kernels: version, and the Debian package that depends on its newest build.
const KERNELS: [(&str, &str); 2] = [("6.1", "linux-image-cloud-amd64"), ("6.12", "linux-image-6.12-cloud-amd64")];
/// The tests that need nothing but a kernel, by the beginning of their names.
const TESTS: [&str; 6] = ["channel::", "clients::", "overwrite::", "corrupt::", "long::", "trace::cpu_numbers"];
/// What the guest prints at its end, before the number of failed runs.
const RESULT: &str = "relayd-vm-failures:";

/// Runs the tests whose names contain one of `filter`, or those of [`TESTS`], on a kernel, or on all.
pub(crate) fn run(kernel: Option<&str>, filter: &[String]) -> Result<()> {
    setup::ebpf_toolchain()?;
    setup::vm_tools()?;
    let filter: Vec<&str> =
        if filter.is_empty() { TESTS.to_vec() } else { filter.iter().map(String::as_str).collect() };
    exec(cargo().args(["build", "--locked", "--release", "--package", "relay-daemon", "--package", "example-kleak"]))?;
    let programs = ebpf::target_dir().join("release");
    let initrd =
        initrd(&[tests::kernel_tests(&["--release"])?, programs.join("relayd"), programs.join("kleak")], &filter)?;
    let chosen: Vec<_> = KERNELS.iter().filter(|(version, _)| kernel.is_none_or(|kernel| kernel == *version)).collect();
    if chosen.is_empty() {
        bail!("no such kernel; there are {}", KERNELS.map(|(version, _)| version).join(" and "));
    }
    for (_, package) in chosen {
        boot(&kernel_image(package)?, &initrd)?;
    }
    Ok(())
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

/// Packs programs, what they are linked with, and busybox.
fn initrd(programs: &[PathBuf], filter: &[&str]) -> Result<PathBuf> {
    let root = folder().join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    for folder in ["bin", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("making {}", root.display()))?;
    }
    let mut files = vec![(PathBuf::from("/bin/busybox"), root.join("bin/busybox"))];
    for (program, name) in programs.iter().zip(["kernel", "relayd", "kleak"]) {
        files.push((program.clone(), root.join("bin").join(name)));
    }
    // The real one: it calls what the probes are on.
    files.push((PathBuf::from("/bin/true"), root.join("bin/true")));
    let linked = Command::new("ldd").args(programs).output().context("running ldd")?;
    for path in String::from_utf8_lossy(&linked.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        files.push((PathBuf::from(path), root.join(&path[1..])));
    }
    for (from, to) in files.iter().filter(|(from, _)| !from.to_string_lossy().ends_with(':')) {
        fs::create_dir_all(to.parent().unwrap_or(&root))?;
        fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    }
    let init = root.join("init");
    fs::write(&init, script(filter)).with_context(|| format!("writing {}", init.display()))?;
    let initrd = folder().join("initrd");
    let pack = format!("chmod +x init && find . | cpio -o -H newc --quiet | gzip -1 > {}", initrd.display());
    exec(Command::new("sh").current_dir(&root).args(["-c", &pack]))?;
    Ok(initrd)
}

/// What runs in the guest.
fn script(filter: &[&str]) -> String {
    let runs: String =
        filter.iter().map(|name| format!("kernel --test-threads=1 '{name}' || failures=$((failures+1))\n")).collect();
    format!(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin\n\
         export PATH=/bin RELAYD=/bin/relayd RUST_BACKTRACE=0\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp\n\
         uname -r\nfailures=0\n{runs}echo {RESULT} $failures\npoweroff -f\n"
    )
}

/// Boots a kernel, shows what it prints, and fails when a test has.
fn boot(image: &Path, initrd: &Path) -> Result<()> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "1500M", "-smp", "4", "-nodefaults", "-no-reboot"]);
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-append", "console=ttyS0 panic=-1 quiet"]);
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(initrd);
    let output = qemu.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("running qemu-system-x86_64")?;
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    println!("{text}");
    if text.lines().any(|line| line == format!("{RESULT} 0")) {
        return Ok(());
    }
    bail!("tests have failed on {}", image.display());
}

fn folder() -> PathBuf {
    ebpf::target_dir().join("vm")
}
