//! Runs a guest: boots it, shows its console, and tells how it ended.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use relay_build::ebpf;

use super::{Machine, guest};
use crate::{exec, make_folder_of, suite::TestResults, tests};

/// A kernel that is booted, how its machine is emulated, and what is added to its command line.
pub(super) struct Boot<'a> {
    pub(super) image: &'a Path,
    pub(super) accelerator: &'a [&'a str],
    pub(super) line: &'a str,
}

/// How a guest ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// It said nothing of the tests' result. Known: its console shows that it was patching its own code.
    Hung {
        is_known: bool,
    },
}

/// Longest that the tests may take on one kernel, in seconds: the chosen ones, and all.
const TIME_LIMIT: [&str; 2] = ["1200", "14400"];
/// A guest that says nothing for so long hangs: no test takes half of that, nor of the second where sizes are larger.
const SILENCE: [Duration; 2] = [Duration::from_secs(240), Duration::from_secs(1200)];
/// After that a guest is asked where its CPUs are, and has so long to say so.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// What a kernel prints every half a minute while one of its CPUs hangs, and how often that is waited for.
const LOCKUP: (&str, u32) = ("BUG: soft lockup", 3);
/// What QEMU is told of every guest.
const GUEST: [&str; 8] = ["-m", "3G", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"];
/// What the guest prints at its end, before the number of failed runs.
pub(super) const RESULT: &str = "relayd-vm-failures:";
/// Functions of which one is on the stack of a kernel that patches its own code (arch/x86/kernel/alternative.c and traps.c, arch/arm64/kernel/patching.c).
const PATCHING: [&str; 6] =
    ["text_poke", "do_int3", "exc_int3", "int3: 0000", "arch_jump_label_transform", "aarch64_insn_patch_text"];

impl Boot<'_> {
    /// Boots, shows what is printed, and notes which tests have finished.
    pub(super) fn run(&self, machine: &Machine, initrd: &Path, finished: &mut TestResults) -> Result<Outcome> {
        let monitor = initrd.with_file_name(format!("monitor-{}", std::process::id()));
        let mut qemu = Command::new("timeout");
        qemu.arg(TIME_LIMIT[usize::from(tests::is_full())]).args(machine.qemu).args(self.accelerator);
        qemu.args(GUEST).arg("-monitor").arg(format!("unix:{},server,nowait", monitor.display()));
        // An interrupt that nothing has asked for makes it say where its CPUs are, and end.
        let line = "panic=-1 quiet loglevel=5 unknown_nmi_panic=1 panic_print=0x40";
        qemu.arg("-append").arg(format!("console={} {line} {}", machine.console, self.line));
        qemu.arg("-kernel").arg(self.image).arg("-initrd").arg(initrd);
        let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("running QEMU")?;
        let outcome = watch(&mut child, &monitor, finished);
        child.wait().context("waiting for QEMU")?;
        outcome
    }
}

fn watch(child: &mut Child, monitor: &Path, finished: &mut TestResults) -> Result<Outcome> {
    let console = BufReader::new(child.stdout.take().context("the guest's console")?);
    let (said, lines) = mpsc::channel();
    thread::spawn(move || console.split(b'\n').map_while(Result::ok).try_for_each(|line| said.send(line)));
    let (mut failed, mut lockups, mut is_patching, mut is_asked) = (None, 0, false, false);
    let silence = SILENCE[usize::from(tests::is_full())];
    loop {
        match lines.recv_timeout(if is_asked { LAST_WORDS } else { silence }) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line).replace('\r', "");
                println!("{line}");
                finished.read(&line);
                is_patching |= PATCHING.iter().any(|function| line.contains(function));
                lockups += u32::from(line.contains(LOCKUP.0));
                failed = line.strip_prefix(RESULT).map(|count| count.trim() != "0").or(failed);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) if is_asked => stop(child)?,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                eprintln!("xtask: the guest has said nothing for {} s", silence.as_secs());
                lockups = LOCKUP.1;
            }
        }
        if lockups >= LOCKUP.1 && !is_asked {
            is_asked = true;
            ask(monitor);
        }
    }
    Ok(match failed {
        Some(false) => Outcome::Passed,
        Some(true) => Outcome::Failed,
        None => Outcome::Hung { is_known: is_patching },
    })
}

/// How a guest runs an image: by KVM where that boots it, else emulated.
pub(super) fn accelerator(machine: &Machine, image: &Path, folder: &Path) -> Result<&'static [&'static str]> {
    const KVM: &[&str] = &["-accel", "kvm", "-cpu", "host", "-smp", "4"];
    let is_here = machine.target.is_here() && File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if is_here && boots(machine, image, folder, KVM)? {
        return Ok(KVM);
    }
    Ok(match machine.architecture {
        "arm64" => &["-accel", "tcg,thread=multi", "-smp", "4"],
        // One thread for all CPUs: with one for each, a CPU can run what another is patching, as the kernel does when a tracepoint is enabled.
        // Each waits for its turn, and whoever waits for all CPUs waits for all turns: so two.
        _ => &["-accel", "tcg,thread=single", "-smp", "2"],
    })
}

/// Whether a kernel comes to its first program. There are machines whose KVM starts guests and never runs them. The answer is kept.
fn boots(machine: &Machine, image: &Path, folder: &Path, accelerator: &[&str]) -> Result<bool> {
    let host = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading which kernel runs here")?;
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let answer = ebpf::cache_dir().join("kvm").join(format!("{name} on {}", host.trim()));
    if let Ok(known) = fs::read_to_string(&answer) {
        return Ok(known == "yes");
    }
    let initrd = guest::initrd(machine, crate::debian::Suite::Own, folder, &[], &[], &TestResults::default())?;
    let mut qemu = Command::new("timeout");
    qemu.arg("30").args(machine.qemu).args(accelerator).args(GUEST).args(["-monitor", "none", "-append"]);
    qemu.arg(format!("console={} panic=-1 quiet", machine.console)).arg("-kernel").arg(image);
    let output = qemu.arg("-initrd").arg(initrd).stdin(Stdio::null()).output().context("running QEMU")?;
    let boots = String::from_utf8_lossy(&output.stdout).contains(RESULT);
    make_folder_of(&answer)?;
    fs::write(&answer, if boots { "yes" } else { "no" }).with_context(|| format!("writing {}", answer.display()))?;
    Ok(boots)
}

/// Has every CPU of the guest interrupted, so that it says what it was doing. A guest that cannot says nothing.
fn ask(monitor: &Path) {
    let asked = UnixStream::connect(monitor).and_then(|mut monitor| monitor.write_all(b"nmi\n").map(|()| monitor));
    match asked {
        // The monitor must have read it before it is closed.
        Ok(_monitor) => thread::sleep(Duration::from_secs(1)),
        Err(error) => eprintln!("xtask: asking the guest where it hangs: {error}"),
    }
}

/// Ends a guest: `timeout` passes it on.
fn stop(timeout: &Child) -> Result<()> {
    exec(Command::new("kill").arg(timeout.id().to_string()))
}
