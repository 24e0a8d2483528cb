//! `cargo xtask unit-test` and `kernel`: the unprivileged tests by cargo, and those on the running kernel as root. `cargo xtask account`: the long one.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use xtask::ebpf;

use crate::{CannotRun, as_root, cargo, exec, find, is_root, setup, targets::Target};

/// Runs the tests that need no root and those on the running kernel, whose names contain `filter`.
pub(crate) fn named(filter: &[String]) -> Result<()> {
    unit(filter)?;
    kernel(filter)
}

/// Runs those that need the running kernel, and the examples of the library for eBPF programs, whose names contain `filter`.
pub(crate) fn kernel(filter: &[String]) -> Result<()> {
    setup::ebpf_toolchain()?;
    setup::test_tools()?;
    if !is_root() && find("sudo").is_none() {
        return Err(CannotRun).context("these tests need root, and there is no sudo");
    }
    exec(cargo().args(["test", "--locked", "--doc", "--package", "relay-ebpf", "--"]).args(filter))?;
    exec(cargo().args(["build", "--locked", "--package", "relay-daemon", "--package", "example-kleak"]))?;
    let mut tests = as_root(&kernel_tests(&[])?)?;
    tests.env("RELAYD", ebpf::target_dir().join("debug/relayd")).env("RELAYD_TOOLS", ebpf::tools_dir());
    // The tests share one kernel, and measure its tracepoints: one at a time.
    exec(tests.arg("--test-threads=1").args(filter))
}

/// Runs the tests that need no root, whose names contain `filter`. Nothing is loaded into a kernel, so where no eBPF program can be built none is.
pub(crate) fn unit(filter: &[String]) -> Result<()> {
    let mut tests = cargo();
    tests.args(["test", "--locked", "--"]).args(filter);
    if ebpf::toolchain().and_then(|_| ebpf::linker()).is_err() {
        tests.env("RELAYD_SKIP_EBPF", "1");
    }
    exec(&mut tests)
}

/// The environment variable that says how much checks repeat, and its values.
const SIZE: &str = "RELAY_TESTS";
const TENTH: &str = "tenth";
const ALL: &str = "all";

/// The variable's value for a run at full size, or a quick one.
pub(crate) fn size(full: bool) -> (&'static str, &'static str) {
    (SIZE, if full { ALL } else { TENTH })
}

/// Whether kills, snapshots, records and the like are to be at a tenth.
pub(crate) fn is_tenth() -> bool {
    has_size(TENTH)
}

/// Whether guests run every test that they can, and the explorer one more interrupt.
pub(crate) fn is_full() -> bool {
    has_size(ALL)
}

fn has_size(size: &str) -> bool {
    env::var_os(SIZE).is_some_and(|set| set == size)
}

/// That, as a shell's assignment.
pub(crate) fn assignment() -> String {
    format!("{SIZE}={}", if is_tenth() { TENTH } else { ALL })
}

/// Checks the account of `records` records in each mode.
pub(crate) fn account(records: u64) -> Result<()> {
    setup::ebpf_toolchain()?;
    let mut tests = as_root(&kernel_tests(&["--release"])?)?;
    exec(tests.args(["--test-threads=1", "--nocapture", "long::"]).env("RELAY_RECORDS", records.to_string()))
}

/// What a shell runs to run the kernel tests, which it has as `kernel`, whose names contain this. That none does is a failure.
pub(crate) fn in_shell(filter: &str) -> String {
    format!("kernel --list '{filter}' | grep -c . > /dev/null && kernel --test-threads=1 --color never '{filter}'")
}

/// Builds the tests on the running kernel for this machine, and returns their program.
fn kernel_tests(profile: &[&str]) -> Result<PathBuf> {
    built(cargo().args(["test", "--locked", "--test", "kernel"]).args(profile))
}

/// Builds them for another machine.
pub(crate) fn kernel_tests_for(target: Target) -> Result<PathBuf> {
    built(target.cargo("test").args(["--test", "kernel"]))
}

/// Builds the benchmarks, and returns their program.
pub(crate) fn benchmarks() -> Result<PathBuf> {
    built(cargo().args(["bench", "--locked", "--bench", "bench"]))
}

/// Builds a program of the tests' package, and returns it.
fn built(cargo: &mut Command) -> Result<PathBuf> {
    cargo.args(["--package", "relay-tests", "--no-run", "--message-format=json"]).stderr(Stdio::inherit());
    let output = cargo.output().with_context(|| format!("running {cargo:?}"))?;
    let text = String::from_utf8(output.stdout)?;
    // One line of JSON for every artifact; of these, one such program.
    let is_it = |line: &&str| line.contains("\"kind\":[\"test\"]") || line.contains("\"kind\":[\"bench\"]");
    let binary = text.lines().filter(is_it).find_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        Some(PathBuf::from(rest.split_once('"')?.0))
    });
    binary.filter(|_| output.status.success()).with_context(|| format!("{cargo:?} has failed"))
}
