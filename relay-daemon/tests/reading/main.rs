//! Readers and exports, on the recorded traces in `tests/traces`: what they print to the letter, and what they make of damage. None of it
//! needs root, or a kernel that can record.
//!
//! After a wanted change: `INSTA_UPDATE=always cargo test -p relay-daemon --test reading`, and read the difference. The traces are recorded
//! anew by `tests/traces/record.sh`.
#![allow(clippy::unwrap_used, reason = "a test")]

mod archives;
mod choices;
mod damage;
mod following;
mod golden;
mod hostile;
mod kills;
mod spans;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// Every trace, and of each that of which most tests are made.
const TRACES: [&str; 5] = ["mixed", "lossy", "overwrite", "stacks", "calls"];
const MIXED: &str = "mixed";

/// `relayd COMMAND PATH`, in the folder of the traces.
fn relayd_on(command: &str, path: impl AsRef<Path>) -> Command {
    let mut relayd = Command::new(env!("CARGO_BIN_EXE_relayd"));
    relayd.current_dir(folder()).env("TZ", "UTC").env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    relayd.stdin(Stdio::null()).arg(command).arg(path.as_ref());
    relayd
}

/// How often something random is done that is done `full` times at full size, as `RELAY_TESTS` says.
fn repeats(full: u32) -> u32 {
    match std::env::var("RELAY_TESTS").as_deref() {
        Err(_) | Ok("all") => full,
        Ok("tenth") => (full / 10).max(1),
        Ok("hundredth") => (full / 100).max(1),
        Ok(other) => panic!("RELAY_TESTS={other}: it can be all, tenth or hundredth"),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces")
}

/// A copy of a trace, to be damaged.
fn copied(trace: &str) -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("trace");
    copy(&folder().join(trace), &path);
    (temporary, path)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() { copy(&from, &to) } else { fs::copy(from, to).map(drop).unwrap() }
    }
}

/// Runs a command that must succeed, and returns what it prints.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must fail with status 1, and returns what it says on stderr.
fn fail(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {}{}", text(&output.stderr), text(&output.stdout));
    text(&output.stderr)
}

/// All that a command says, and how it ends.
fn said(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    format!("{}{}status {}", text(&stdout), text(&stderr), status.code().unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What `print --json ARGUMENTS` prints of a trace.
fn print(path: impl AsRef<Path>, arguments: &[&str]) -> Vec<Value> {
    values(&succeed(relayd_on("print", path).arg("--json").args(arguments)))
}

fn values(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn records(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line.get("event").is_some()).collect()
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn assert_sorted(lines: &[Value]) {
    for pair in lines.windows(2) {
        assert!(number(&pair[0], "time") <= number(&pair[1], "time"), "{} comes before {}", pair[0], pair[1]);
    }
}

fn session(trace: &str) -> Value {
    serde_json::from_slice(&fs::read(folder().join(trace).join(".relayd/session.json")).unwrap()).unwrap()
}

/// The sum of what a trace's account says of its CPUs under these names.
fn total(trace: &str, names: &[&str]) -> u64 {
    let session = session(trace);
    let cpus = session["cpus"].as_array().unwrap();
    cpus.iter().flat_map(|cpu| names.iter().map(move |name| number(cpu, name))).sum()
}

fn in_files(trace: &str) -> u64 {
    total(trace, &["recorded"]) - total(trace, &["overrun", "unwritten"])
}
