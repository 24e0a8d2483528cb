//! `cargo xtask test`: the unprivileged tests by cargo, then those on the running kernel as root, then
//! those of other kernels in virtual machines. `cargo xtask account`: the long one.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result};
use xtask::ebpf;

use crate::{as_root, cargo, exec, is_root, setup, vm};

/// Runs all tests whose names contain `filter`.
pub(crate) fn run(filter: &[String]) -> Result<()> {
    setup::ebpf_toolchain()?;
    setup::test_tools()?;
    exec(cargo().args(["test", "--locked", "--"]).args(filter))?;
    exec(cargo().args(["test", "--locked", "--doc", "--package", "relay-ebpf", "--"]).args(filter))?;
    if is_root() {
        let examples = ["test", "--locked", "--doc", "--package", "relay-daemon", "--", "--ignored"];
        exec(cargo().args(examples).args(filter))?;
    } else {
        eprintln!("xtask: not run, since they need root: the examples in the documentation of relay-daemon");
    }
    exec(cargo().args(["build", "--locked", "--package", "relay-daemon", "--package", "example-kleak"]))?;
    let mut tests = as_root(&kernel_tests(&[])?)?;
    // The tests share one kernel, and measure its tracepoints: one at a time.
    exec(tests.arg("--test-threads=1").args(filter).env("RELAYD", ebpf::target_dir().join("debug/relayd")))?;
    if filter.is_empty() { vm::run_if_possible() } else { Ok(()) }
}

/// Checks the account of `records` records in each mode.
pub(crate) fn account(records: u64) -> Result<()> {
    setup::ebpf_toolchain()?;
    let mut tests = as_root(&kernel_tests(&["--release"])?)?;
    exec(tests.args(["--test-threads=1", "--nocapture", "long::"]).env("RELAY_RECORDS", records.to_string()))
}

/// Builds the tests on the running kernel, and returns their program.
pub(crate) fn kernel_tests(profile: &[&str]) -> Result<PathBuf> {
    built("test", &[&["--test", "kernel"], profile].concat())
}

/// Builds the benchmarks, and returns their program.
pub(crate) fn benchmarks() -> Result<PathBuf> {
    built("bench", &["--bench", "bench"])
}

/// Builds a program of the tests' package of this kind, and returns it.
fn built(kind: &str, arguments: &[&str]) -> Result<PathBuf> {
    let build = [kind, "--locked", "--package", "relay-tests", "--no-run", "--message-format=json"];
    let output = cargo().args(build).args(arguments).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("building the {kind} program of relay-tests"))?;
    let text = String::from_utf8(output.stdout)?;
    // One line of JSON for every artifact; of these, one such program.
    let kind = format!("\"kind\":[\"{kind}\"]");
    let binary = text.lines().filter(|line| line.contains(&kind)).find_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        Some(PathBuf::from(rest.split_once('"')?.0))
    });
    binary.filter(|_| output.status.success()).with_context(|| format!("cargo {} failed", arguments.join(" ")))
}
