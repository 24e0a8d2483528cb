//! `cargo xtask test`: the unprivileged tests by cargo, then those on the running kernel as root.

use anyhow::{Context as _, Result, bail};
use xtask::ebpf;

use crate::{as_root, cargo, exec, setup};

/// Runs all tests whose names contain `filter`.
pub(crate) fn run(filter: &[String]) -> Result<()> {
    setup::ebpf_toolchain()?;
    setup::test_tools()?;
    exec(cargo().args(["test", "--locked", "--"]).args(filter))?;
    exec(cargo().args(["build", "--locked", "--package", "relay-daemon"]))?;
    let build =
        ["test", "--locked", "--package", "relay-tests", "--test", "kernel", "--no-run", "--message-format=json"];
    let output =
        cargo().args(build).stderr(std::process::Stdio::inherit()).output().context("building the kernel tests")?;
    let text = String::from_utf8(output.stdout)?;
    // One line of JSON for every artifact; of these, one test binary.
    let binary = text.lines().filter(|line| line.contains("\"kind\":[\"test\"]")).find_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        Some(rest.split_once('"')?.0.to_owned())
    });
    let Some(binary) = binary.filter(|_| output.status.success()) else { bail!("building the kernel tests failed") };
    let mut tests = as_root(binary.as_ref())?;
    // The tests share one kernel, and measure its tracepoints: one at a time.
    exec(tests.arg("--test-threads=1").args(filter).env("RELAYD", ebpf::target_dir().join("debug/relayd")))
}
