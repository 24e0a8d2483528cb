//! `cargo xtask vm`: the tests on kernels that this machine does not run, in QEMU: Debian's cloud kernels, one of them on arm64.
//!
//! In the guest there is what the tests call: relayd, the programs that it is compared with, a shell and some tools. There is no compiler;
//! tests that need more than there is are listed as ignored. `vm/guest.rs` makes the guest, `vm/boot.rs` runs it.

mod boot;
mod guest;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use relay_build::ebpf;

use self::boot::{Boot, Outcome};
use crate::{
    CannotRun,
    debian::{self, Apt},
    dist, setup,
    suite::TestResults,
    targets::{self, Target},
    tests::{self, Programs},
};

/// A kernel that tests run on.
struct Kernel {
    name: &'static str,
    /// The suite of Debian that it is in, the package that depends on its newest build,
    suite: debian::Suite,
    package: &'static str,
    /// and how the names begin of what leads from there to the package that has the image.
    chain: &'static [&'static str],
    /// What is added to its command line.
    options: &'static str,
    machine: &'static Machine,
    /// The tests that tell something new there, by the beginnings of their names.
    tests: &'static [&'static [&'static str]],
}

/// An emulated machine.
struct Machine {
    /// As Debian calls it.
    architecture: &'static str,
    /// What is built for it.
    target: Target,
    qemu: &'static [&'static str],
    console: &'static str,
}

/// The oldest: all but what is about preemption, which it has in system calls alone.
const V6_1: Kernel = Kernel {
    name: "6.1",
    suite: debian::Suite::Own,
    package: "linux-image-cloud-amd64",
    chain: &["linux-image-6.1."],
    options: "",
    machine: &X86_64,
    tests: &[&LOADED, &EVERY_PROBE, &LISTED, &HOTPLUG, &GUARDED, &READ],
};
const V6_12: Kernel = Kernel {
    name: "6.12",
    package: "linux-image-6.12-cloud-amd64",
    chain: &["linux-image-6.12."],
    tests: &[&LOADED, &SOME_PROBES],
    ..V6_1
};
const KERNELS: [Kernel; 5] = [
    V6_1,
    V6_12,
    // Programs are preempted wherever the kernel does not forbid it.
    Kernel { name: "6.12-full", options: "preempt=full", tests: &[&GUARDED, &PREEMPTED, &READ], ..V6_12 },
    // Debian's newest, whatever it is by now.
    Kernel {
        name: "7.2",
        suite: debian::Suite::Other("sid"),
        chain: &["linux-image-", "linux-binary-"],
        tests: &[&LOADED, &EVERY_PROBE, &HOTPLUG, &GUARDED],
        ..V6_1
    },
    Kernel { name: "arm64", package: "linux-image-6.12-cloud-arm64", machine: &ARM64, tests: &[&ON_ARM64], ..V6_12 },
];
const X86_64: Machine = Machine {
    architecture: "amd64",
    target: targets::X86_64,
    qemu: &["qemu-system-x86_64", "-cpu", "max"],
    console: "ttyS0",
};
const ARM64: Machine = Machine {
    architecture: "arm64",
    target: targets::ARM64,
    // Not `max`: it would spend its time on signing pointers.
    qemu: &["qemu-system-aarch64", "-machine", "virt", "-cpu", "neoverse-n1"],
    console: "ttyAMA0",
};
/// Every program of ours, as its verifier sees it and its compiler compiles it.
const LOADED: [&str; 7] = [
    "channel::",
    "clients::",
    "library::what",
    "examples::klog",
    "choices::a_condition",
    "flight::a_session_records",
    "flight::a_running",
];
/// Every kind of hook, on the oldest and the newest.
const EVERY_PROBE: [&str; 3] = ["probes::", "calls::", "flight::a_slow"];
/// Of them what the kernel's version changes, between those.
const SOME_PROBES: [&str; 6] = [
    "probes::system_calls",
    "probes::kprobes_and_trampolines",
    "probes::durations",
    "probes::returns_that",
    "calls::",
    "flight::a_slow",
];
/// Functions that can be attached to, of which the running kernel may have none.
const LISTED: [&str; 1] = ["list::functions"];
/// CPUs that come and go.
const HOTPLUG: [&str; 1] = ["trace::a_cpu"];
/// What keeps programs apart from one another.
const GUARDED: [&str; 1] = ["guards::"];
/// Programs in tasks that are preempted.
const PREEMPTED: [&str; 3] = ["clients::", "contexts::every_call_of_a_function", "flight::a_record_stops"];
/// Readers beside writers.
const READ: [&str; 3] = ["overwrite::", "corrupt::", "long::"];
/// What depends on the order of memory, on registers, or on how calls are made; and on more than two CPUs, of which there are enough there.
const ON_ARM64: [&str; 11] = [
    "calls::",
    "channel::",
    "clients::",
    "corrupt::writers",
    "overwrite::snapshots",
    "probes::system_calls",
    "probes::kprobes_and_trampolines",
    "probes::a_duration",
    "probes::a_raw_tracepoint",
    "choices::a_condition",
    "trace::cpu_numbers",
];
/// The last: there is no way out of it.
const IN_LOCKDOWN: &str = "test='kernel --include-ignored --exact --color never environment::a_kernel_in_lockdown_is_named'; \
    mount -t securityfs securityfs /sys/kernel/security && echo confidentiality > /sys/kernel/security/lockdown && $test && \
    umount /sys/kernel/security && $test";
/// Runs the tests whose names contain one of `filter`, or those that tell something new there, on a kernel, or on all.
pub(crate) fn run(kernel: Option<&str>, filter: &[String]) -> Result<()> {
    let chosen: Vec<_> = KERNELS.iter().filter(|known| kernel.is_none_or(|name| name == known.name)).collect();
    if chosen.is_empty() {
        bail!("no such kernel; there are {}", names());
    }
    if let Some(kernel) = chosen.iter().find(|kernel| !kernel.machine.can_be_made_here()) {
        return Err(CannotRun).context(format!(
            "the guest of {} is made of an x86-64 machine's programs, and this is none",
            kernel.name
        ));
    }
    setup::test_tools()?;
    setup::vm_tools()?;
    chosen.into_iter().try_for_each(|kernel| run_on(kernel, filter))
}

fn names() -> String {
    KERNELS.map(|kernel| kernel.name).join(", ")
}

/// Runs the tests on one kernel.
fn run_on(kernel: &Kernel, filter: &[String]) -> Result<()> {
    let image = kernel.image()?;
    let built = Programs::build(kernel.machine.other_target()?)?;
    // The program that users are given, where its machine is quick enough; but whoever tries a test waits for its build.
    let relayd = if kernel.machine.target.is_here() && filter.is_empty() { dist::program()? } else { built.relayd };
    let programs = [(built.kernel, "kernel"), (relayd, "relayd"), (built.kleak, "kleak")];
    let names = if !filter.is_empty() {
        filter.iter().map(String::as_str).collect()
    } else if tests::is_full() {
        vec![""]
    } else {
        kernel.tests.concat()
    };
    let folder = folder(kernel.name);
    let accelerator = boot::accelerator(kernel.machine, &image, &folder)?;
    let size = tests::assignment_in_guest(!accelerator.contains(&"kvm"));
    let mut runs = vec![format!("export {size}")];
    runs.extend(names.into_iter().map(tests::in_shell));
    if filter.is_empty() {
        runs.push(IN_LOCKDOWN.to_owned());
    }
    let mut finished = TestResults::default();
    let guest = Boot { image: &image, accelerator, line: kernel.options };
    for is_second in [false, true] {
        let initrd = guest::initrd(kernel.machine, kernel.suite, &folder, &programs, &runs, &finished)?;
        match guest.run(kernel.machine, &initrd, &mut finished)? {
            Outcome::Passed => return finished.report_left_out(kernel.name),
            Outcome::Failed => bail!("tests have failed on {}", kernel.name),
            Outcome::Hung { is_known: true } if !is_second => {
                say(
                    kernel,
                    "hung while it patched its own code, as emulated kernels do now and then: it is booted once more",
                );
            }
            Outcome::Hung { is_known: true } => bail!("the guest of {} hung twice", kernel.name),
            Outcome::Hung { is_known: false } => bail!(
                "the guest of {} did not come to its end, and its console does not show the known lock-up of an emulated kernel that patches its code",
                kernel.name
            ),
        }
    }
    Ok(())
}

fn say(kernel: &Kernel, text: &str) {
    eprintln!("xtask: {}: {text}", kernel.name);
}

/// Counts the instructions of a record on a kernel, on one CPU whose clock advances by a nanosecond with each instruction; by another relayd too,
/// if one is given.
pub(crate) fn count_instructions(kernel: &str, beside: Option<&Path>) -> Result<()> {
    let is_it = |known: &&Kernel| known.name == kernel && known.machine.target.is_here();
    let kernel = KERNELS.iter().find(is_it).with_context(|| format!("no such kernel here; there are {}", names()))?;
    setup::ebpf_toolchain()?;
    setup::test_tools()?;
    setup::vm_tools()?;
    let image = kernel.image()?;
    // Programs in the kernel are the same in every build of relayd, and what the load takes by itself is taken off.
    let mut programs = vec![(tests::instructions()?, "bench"), (Programs::build(None)?.relayd, "relayd")];
    let mut runs = vec!["mount -t tracefs tracefs /sys/kernel/tracing && bench --count".to_owned()];
    if let Some(beside) = beside {
        programs.push((beside.to_owned(), "beside"));
        runs.push(format!("echo {} && RELAYD=/usr/bin/beside bench --count", beside.display()));
    }
    let folder = folder("icount");
    let initrd = guest::initrd(kernel.machine, kernel.suite, &folder, &programs, &runs, &TestResults::default())?;
    let accelerator = &["-accel", "tcg,thread=single", "-icount", "shift=0", "-smp", "1"];
    let guest = Boot { image: &image, accelerator, line: kernel.options };
    match guest.run(kernel.machine, &initrd, &mut TestResults::default())? {
        Outcome::Passed => Ok(()),
        Outcome::Failed => bail!("the benchmark has failed"),
        Outcome::Hung { .. } => bail!("the guest did not come to its end"),
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

impl Machine {
    /// What its programs are built for, if not for this machine.
    fn other_target(&self) -> Result<Option<Target>> {
        if self.target.is_here() {
            setup::ebpf_toolchain()?;
            return Ok(None);
        }
        self.target.set_up()?;
        Ok(Some(self.target))
    }

    /// The x86-64 guest has this machine's own perf and bpftrace; arm64 programs are cross-compiled and Debian's.
    fn can_be_made_here(&self) -> bool {
        self.architecture == "arm64" || cfg!(target_arch = "x86_64")
    }
}

/// Where a guest is made: several may run.
fn folder(kernel: &str) -> PathBuf {
    ebpf::target_dir().join("vm").join(kernel)
}
