//! `cargo xtask unit-test` and `kernel`: the unprivileged tests by cargo, and those on the running kernel as root. `cargo xtask account`: the long one.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use relay_build::ebpf;

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
    let programs = Programs::build(None)?;
    let mut tests = as_root(&programs.kernel)?;
    tests.env("RELAYD", programs.relayd).env("RELAYD_TOOLS", ebpf::tools_dir());
    // The tests share one kernel, and measure its tracepoints: one at a time.
    exec(tests.arg("--test-threads=1").args(filter))
}

/// Runs the tests that need no root, whose names contain `filter`. Nothing is loaded into a kernel, so where no eBPF program can be built none is.
pub(crate) fn unit(filter: &[String]) -> Result<()> {
    setup::test_tools()?;
    let mut tests = cargo();
    tests.args(["test", "--locked", "--no-fail-fast", "--"]).args(filter);
    if ebpf::toolchain().and_then(|_| ebpf::linker()).is_err() {
        tests.env("RELAYD_SKIP_EBPF", "1");
    }
    exec(&mut tests)
}

/// The environment variable that says how much checks repeat, and its values.
const SIZE: &str = "RELAY_TESTS";
const TENTH: &str = "tenth";
const HUNDREDTH: &str = "hundredth";
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

/// That, as a container's shell is given it.
pub(crate) fn assignment() -> String {
    format!("{SIZE}={}", if is_tenth() { TENTH } else { ALL })
}

/// That, as a guest's is: where it is emulated, all takes tens of times as long.
pub(crate) fn assignment_in_guest(is_emulated: bool) -> String {
    let size = match (is_full(), is_emulated) {
        (false, _) => HUNDREDTH,
        (true, true) => TENTH,
        (true, false) => ALL,
    };
    format!("{SIZE}={size}")
}

/// Checks the account of `records` records in each mode.
pub(crate) fn account(records: u64) -> Result<()> {
    setup::ebpf_toolchain()?;
    let mut tests = as_root(&one_of_tests("test", &["--test", "kernel", "--release"])?)?;
    exec(tests.args(["--test-threads=1", "--nocapture", "long::"]).env("RELAY_RECORDS", records.to_string()))
}

/// What a shell runs to run the kernel tests, which it has as `kernel`, whose names contain this. That none does is a failure.
pub(crate) fn in_shell(filter: &str) -> String {
    format!("kernel --list '{filter}' | grep -c . > /dev/null && kernel --test-threads=1 --color never '{filter}'")
}

/// What tests on a kernel take.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The tests themselves.
    pub(crate) kernel: PathBuf,
    pub(crate) relayd: PathBuf,
    pub(crate) kleak: PathBuf,
}

/// The packages of `cargo test`, and the tests: what they depend on is built once if all are named each time, since features are united.
const TOGETHER: [&str; 8] = [
    "relay-build",
    "relay-channel",
    "relay-common",
    "relay-daemon",
    "relay-trace",
    "xtask",
    "example-kleak",
    "relay-tests",
];

fn together(cargo: &mut Command) -> &mut Command {
    cargo.args(TOGETHER.iter().flat_map(|package| ["--package", package]))
}

impl Programs {
    /// cargo that builds them for this machine, or for another.
    pub(crate) fn command(target: Option<Target>) -> Command {
        let mut build = target.map_or_else(cargo, Target::cargo);
        together(build.args(["build", "--locked"]));
        if let Some(target) = target {
            // A target directory of its own: cargo locks it while it builds, and the other checks would wait.
            build.arg("--target-dir").arg(ebpf::target_dir().join("guest").join(target.triple));
            // Exports are tested where there is Python, and Parquet's package takes long to build.
            build.arg("--no-default-features");
        }
        build.args(["--bin", "relayd", "--bin", "kleak", "--test", "kernel"]);
        build
    }

    /// Builds them for this machine, or for another.
    pub(crate) fn build(target: Option<Target>) -> Result<Self> {
        let built = executables(&mut Self::command(target))?;
        let program = |name: &str| {
            let is_it = |path: &&PathBuf| {
                let stem = path.file_name().unwrap_or_default().to_string_lossy();
                stem.split('-').next() == Some(name)
            };
            built.iter().find(is_it).cloned().with_context(|| format!("cargo has built no {name}"))
        };
        Ok(Self { kernel: program("kernel")?, relayd: program("relayd")?, kleak: program("kleak")? })
    }
}

/// Builds the benchmarks, and returns their program.
pub(crate) fn benchmarks() -> Result<PathBuf> {
    one_of_tests("bench", &["--bench", "bench"])
}

/// The same, built as the tests are: where instructions in the kernel are counted.
pub(crate) fn instructions() -> Result<PathBuf> {
    let built = executables(together(cargo().args(["build", "--locked"])).args(["--bench", "bench"]))?;
    built.into_iter().next().context("cargo has built no benchmark")
}

/// Builds a program of the tests' package, and returns it.
fn one_of_tests(command: &str, arguments: &[&str]) -> Result<PathBuf> {
    let mut build = cargo();
    build.args([command, "--locked", "--package", "relay-tests", "--no-run"]).args(arguments);
    executables(&mut build)?.pop().with_context(|| format!("{build:?} has built no program"))
}

/// Runs cargo, and returns the programs that it has built, or that were up to date.
fn executables(cargo: &mut Command) -> Result<Vec<PathBuf>> {
    let output = cargo.args(["--message-format=json-render-diagnostics"]).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("running {cargo:?}"))?;
    if !output.status.success() {
        bail!("{cargo:?} failed: {}", output.status);
    }
    // One line of JSON for every artifact.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let program = |line: &str| Some(PathBuf::from(line.split_once("\"executable\":\"")?.1.split_once('"')?.0));
    Ok(text.lines().filter_map(program).collect())
}
