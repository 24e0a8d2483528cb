//! `cargo xtask vm`: the tests on kernels that this machine does not run, in QEMU without KVM: Debian's cloud kernels, four CPUs, and one of
//! them on arm64.
//!
//! In the guest there is what the tests call: relayd, the programs that it is compared with, a shell and some tools. There is no compiler;
//! tests that need more than there is are listed as ignored.

mod guest;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use xtask::ebpf;

use crate::{
    cargo,
    debian::{Apt, Suite},
    exec, setup,
    targets::{self, Target},
    tests,
};

/// A kernel that tests run on.
struct Kernel {
    name: &'static str,
    /// The suite of Debian that it is in, the package that depends on its newest build,
    suite: Suite,
    package: &'static str,
    /// and how the names begin of what leads from there to the package that has the image.
    chain: &'static [&'static str],
    /// What is added to its command line.
    options: &'static str,
    machine: &'static Machine,
}

/// An emulated machine.
struct Machine {
    /// As Debian calls it.
    architecture: &'static str,
    qemu: &'static [&'static str],
    console: &'static str,
    target: Target,
    /// The tests that tell something new there, by the beginning of their names.
    tests: &'static [&'static str],
}

const V6_1: Kernel = Kernel {
    name: "6.1",
    suite: Suite::Own,
    package: "linux-image-cloud-amd64",
    chain: &["linux-image-6.1."],
    options: "",
    machine: &X86_64,
};
const V6_12: Kernel =
    Kernel { name: "6.12", package: "linux-image-6.12-cloud-amd64", chain: &["linux-image-6.12."], ..V6_1 };
const KERNELS: [Kernel; 5] = [
    V6_1,
    V6_12,
    // Programs are preempted wherever the kernel does not forbid it.
    Kernel { name: "6.12-full", options: "preempt=full", ..V6_12 },
    // Debian's newest, whatever it is by now.
    Kernel { name: "7.2", suite: Suite::Other("sid"), chain: &["linux-image-", "linux-binary-"], ..V6_1 },
    Kernel { name: "arm64", package: "linux-image-6.12-cloud-arm64", machine: &ARM64, ..V6_12 },
];
const X86_64: Machine = Machine {
    architecture: "amd64",
    qemu: &["qemu-system-x86_64", "-cpu", "max"],
    console: "ttyS0",
    target: targets::X86_64,
    tests: &TESTS,
};
const ARM64: Machine = Machine {
    architecture: "arm64",
    // Not `max`: it would spend its time on signing pointers.
    qemu: &["qemu-system-aarch64", "-machine", "virt", "-cpu", "neoverse-n1"],
    console: "ttyAMA0",
    target: targets::EMULATED_ARM64,
    tests: &ARM64_TESTS,
};
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
/// What depends on the order of memory, on registers, or on how calls are made.
const ARM64_TESTS: [&str; 9] = [
    "channel::",
    "clients::",
    "corrupt::writers",
    "overwrite::snapshots",
    "probes::system_calls",
    "probes::kprobes_and_trampolines",
    "probes::a_duration",
    "probes::a_raw_tracepoint",
    "choices::a_condition",
];
/// The last: there is no way out of it.
const IN_LOCKDOWN: &str = "test='kernel --include-ignored --exact --color never environment::a_kernel_in_lockdown_is_named'; \
    mount -t securityfs securityfs /sys/kernel/security && echo confidentiality > /sys/kernel/security/lockdown && $test && \
    umount /sys/kernel/security && $test";
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

/// Runs the tests whose names contain one of `filter`, or those that tell something new there, on a kernel, or on all.
pub(crate) fn run(kernel: Option<&str>, filter: &[String]) -> Result<()> {
    let chosen: Vec<_> = KERNELS.iter().filter(|known| kernel.is_none_or(|name| name == known.name)).collect();
    if chosen.is_empty() {
        bail!("no such kernel; there are {}", names());
    }
    if let Some(kernel) = chosen.iter().find(|kernel| !kernel.machine.can_be_made_here()) {
        bail!("the guest of {} is made of an x86-64 machine's programs, and this is none", kernel.name);
    }
    run_on(&images(&chosen)?, filter)
}

/// Runs them as a part of all tests: on a machine that can. Otherwise says why not.
pub(crate) fn run_if_possible() -> Result<()> {
    let (here, elsewhere): (Vec<_>, Vec<_>) = KERNELS.iter().partition(|kernel| kernel.machine.can_be_made_here());
    for kernel in elsewhere {
        eprintln!("xtask: not run: the tests on {}, whose guest is made of an x86-64 machine's programs", kernel.name);
    }
    match images(&here) {
        Ok(images) => run_on(&images, &[]),
        Err(error) => {
            eprintln!("xtask: not run: the tests on other kernels in QEMU ({}): {error:#}", names());
            Ok(())
        }
    }
}

fn images<'k>(kernels: &[&'k Kernel]) -> Result<Vec<(&'k Kernel, PathBuf)>> {
    kernels.iter().map(|kernel| Ok((*kernel, kernel.image()?))).collect()
}

fn names() -> String {
    KERNELS.map(|kernel| kernel.name).join(", ")
}

fn run_on(images: &[(&Kernel, PathBuf)], filter: &[String]) -> Result<()> {
    setup::test_tools()?;
    setup::vm_tools()?;
    for (kernel, image) in images {
        let Machine { target, tests: worthwhile, .. } = *kernel.machine;
        target.set_up()?;
        target.build(&["relay-daemon", "example-kleak"])?;
        let programs = [
            (tests::kernel_tests_for(target)?, "kernel"),
            (target.program("relayd"), "relayd"),
            (target.program("kleak"), "kleak"),
        ];
        let runs: Vec<_> = if filter.is_empty() {
            worthwhile.iter().copied().map(tests::in_shell).chain([IN_LOCKDOWN.to_owned()]).collect()
        } else {
            filter.iter().map(|name| tests::in_shell(name)).collect()
        };
        let initrd = guest::initrd(kernel.machine, &programs, &runs)?;
        // An emulated kernel hangs now and then, while it patches its own code: seen once in some ten runs of 6.1, at tests that had passed
        // before and passed after.
        let mut boots = 1;
        while kernel.machine.boot(image, &initrd, &["-accel", "tcg,thread=multi", "-smp", "4"], kernel.options)?
            == Outcome::NoEnd
        {
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
    setup::test_tools()?;
    setup::vm_tools()?;
    let kernel = KERNELS.iter().find(|kernel| kernel.name == "6.12").context("no kernel")?;
    let image = kernel.image()?;
    exec(cargo().args(["build", "--locked", "--release", "--package", "relay-daemon"]))?;
    let programs = [(tests::benchmarks()?, "bench"), (ebpf::target_dir().join("release/relayd"), "relayd")];
    let runs = ["mount -t tracefs tracefs /sys/kernel/tracing && bench --count".to_owned()];
    let initrd = guest::initrd(kernel.machine, &programs, &runs)?;
    match kernel.machine.boot(
        &image,
        &initrd,
        &["-accel", "tcg,thread=single", "-icount", "shift=0", "-smp", "1"],
        "",
    )? {
        Outcome::Passed => Ok(()),
        Outcome::NoEnd => bail!("the guest did not come to its end"),
    }
}

impl Kernel {
    /// Downloads and unpacks it, unless that was done before, and returns its image.
    fn image(&self) -> Result<PathBuf> {
        let apt = Apt::new(self.machine.architecture, self.suite)?;
        let (package, folder) = apt.unpack_newest(self.package, self.chain)?;
        let version = package.trim_start_matches("linux-image-").trim_start_matches("linux-binary-");
        let places = [format!("boot/vmlinuz-{version}"), format!("usr/lib/modules/{version}/vmlinuz")];
        let image = places.iter().map(|place| folder.join(place)).find(|image| image.is_file());
        image.with_context(|| format!("{package} has no image of a kernel at {}", places.join(" or ")))
    }
}

/// How a guest ended.
#[derive(PartialEq, Eq)]
enum Outcome {
    Passed,
    /// It said nothing of the tests' result.
    NoEnd,
}

impl Machine {
    /// The x86-64 guest has this machine's own perf and bpftrace; arm64 programs are cross-compiled and Debian's.
    fn can_be_made_here(&self) -> bool {
        self.architecture == "arm64" || cfg!(target_arch = "x86_64")
    }

    /// Boots a kernel, shows what it prints, and fails when a test has.
    fn boot(&self, image: &Path, initrd: &Path, options: &[&str], line: &str) -> Result<Outcome> {
        let mut qemu = Command::new("timeout");
        qemu.arg(TIME_LIMIT).args(self.qemu).args(options).args(["-m", "3G", "-nodefaults", "-no-reboot"]);
        qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-append"]);
        qemu.arg(format!("console={} panic=-1 quiet {line}", self.console));
        qemu.arg("-kernel").arg(image).arg("-initrd").arg(initrd);
        let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("running QEMU")?;
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
        child.wait().context("waiting for QEMU")?;
        match failed {
            Some(false) => Ok(Outcome::Passed),
            Some(true) => bail!("tests have failed on {}", image.display()),
            None => {
                eprintln!("xtask: the tests on {} did not come to their end", image.display());
                Ok(Outcome::NoEnd)
            }
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
