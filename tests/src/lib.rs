//! Helpers of the kernel tests: relayd as a command, and the programs that it is compared with.
#![forbid(unsafe_code)]

pub mod channel;
pub mod crowd;
pub mod image;
pub mod machine;
pub mod process;
pub mod trace;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

pub use process::{Ended, Running};
pub use trace::{Recording, Trace, record, session, session_file, total, verify, wait_until_it_records};

/// How long a condition may take to come that has no reason not to: far longer than on an emulated CPU that is busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// relayd, as `cargo xtask test` built it.
#[must_use]
pub fn relayd() -> Command {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/relayd");
    Command::new(std::env::var_os("RELAYD").map_or(built, PathBuf::from))
}

/// Runs a command to its end; panics when it does not succeed.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stderr),
        text(&output.stdout)
    );
    output
}

/// Runs a command that must fail with `code`, and returns what it says on stderr.
pub fn fail(command: &mut Command, code: i32) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert_eq!(output.status.code(), Some(code), "{command:?}: {}{}", text(&output.stderr), text(&output.stdout));
    text(&output.stderr)
}

/// Waits until something is so; panics when it is not after two minutes.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How often a test repeats what it does `full` times: a tenth of that where `RELAY_TESTS=tenth` asks for a quick run; guests, which are
/// emulated, are given `hundredth`.
///
/// # Panics
/// When `RELAY_TESTS` asks for anything else but `all`.
#[must_use]
pub fn repeats(full: u32) -> u32 {
    match std::env::var("RELAY_TESTS").as_deref() {
        Err(_) | Ok("all") => full,
        Ok("tenth") => (full / 10).max(1),
        Ok("hundredth") => (full / 100).max(1),
        Ok(other) => panic!("RELAY_TESTS={other}: it can be all, tenth or hundredth"),
    }
}

/// Bytes as text.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The C library that a program is linked with.
///
/// # Panics
/// When it is with none.
#[must_use]
pub fn library_of(program: &str) -> String {
    let linked = text(&succeed(Command::new("ldd").arg(program)).stdout);
    let line = linked.lines().find(|line| line.contains("libc.so")).unwrap_or_else(|| panic!("no libc in {linked}"));
    let path = line.split_whitespace().find(|word| word.starts_with('/')).expect("its path");
    fs::canonicalize(path).expect("it is there").display().to_string()
}

/// Where `cargo xtask` has installed Python packages.
///
/// # Panics
/// When nobody has said where.
#[must_use]
pub fn python_packages() -> PathBuf {
    let tools = std::env::var_os("RELAYD_TOOLS").expect("cargo xtask kernel says where its tools are");
    Path::new(&tools).join("python")
}

/// A script of tests/python, with those packages.
#[must_use]
pub fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script));
    command.env("PYTHONPATH", python_packages());
    command
}

/// A trace as babeltrace2 reads it, with the names of all fields. It must have nothing to complain of but discarded events.
#[must_use]
pub fn babeltrace_named(path: &Path) -> Vec<String> {
    read_by_babeltrace(path, &["--clock-seconds"])
}

/// A trace as babeltrace2 reads it, a line an event. It must have nothing to complain of but discarded events.
///
/// # Panics
/// When it does.
#[must_use]
pub fn babeltrace(path: &Path) -> Vec<String> {
    read_by_babeltrace(path, &["--clock-seconds", "--names=none"])
}

fn read_by_babeltrace(path: &Path, options: &[&str]) -> Vec<String> {
    let output = succeed(Command::new("babeltrace2").args(options).arg(path));
    let warnings = text(&output.stderr);
    let complaints: Vec<_> = warnings.lines().filter(|line| !line.is_empty() && !line.contains("discarded")).collect();
    assert!(complaints.is_empty(), "babeltrace2 complains: {complaints:#?}");
    text(&output.stdout).lines().map(str::to_owned).collect()
}
