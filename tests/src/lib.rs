//! Helpers of the kernel tests: relayd as a command, and the programs that it is compared with.
#![forbid(unsafe_code)]

pub mod channel;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

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

/// Waits until something is so; panics when it is not after half a minute.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{what}: not after half a minute");
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

/// A finished trace and what relayd said of it.
#[derive(Debug)]
pub struct Trace {
    /// Its directory.
    pub path: PathBuf,
    /// The summary (`--json`).
    pub summary: Value,
    /// `session.json`.
    pub session: Value,
    _folder: tempfile::TempDir,
}

/// Records with `relayd trace --json ARGUMENTS`; a shell command after `--` is what it records.
///
/// # Panics
/// When relayd fails.
#[must_use]
pub fn record(arguments: &[&str]) -> Trace {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("trace");
    let output = succeed(relayd().args(["trace", "--json", "-o"]).arg(&path).args(arguments));
    let summary = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
    let session = fs::read(path.join(".relayd/session.json")).expect("there is a session.json");
    let session = serde_json::from_slice(&session).expect("session.json is JSON");
    Trace { path, summary, session, _folder: folder }
}

impl Trace {
    /// `relayd COMMAND TRACE`, to which arguments are to be added.
    #[must_use]
    pub fn relayd(&self, command: &str) -> Command {
        let mut relayd = relayd();
        relayd.arg(command).arg(&self.path);
        relayd
    }

    /// What `relayd print --json ARGUMENTS` prints.
    ///
    /// # Panics
    /// When it fails, or prints what is no JSON.
    #[must_use]
    pub fn print(&self, arguments: &[&str]) -> Vec<Value> {
        let output = succeed(self.relayd("print").arg("--json").args(arguments));
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// A total of the summary.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn total(&self, name: &str) -> u64 {
        self.summary[name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", self.summary))
    }

    /// How often the kernel ran the recording programs, by its own count.
    ///
    /// # Panics
    /// When it was not counted.
    #[must_use]
    pub fn runs(&self) -> u64 {
        let programs = self.session["programs"].as_array().expect("programs");
        programs.iter().map(|program| program["runs"].as_u64().expect("--bpf-stats was given")).sum()
    }

    /// That the account adds up, whatever was recorded: what the kernel has run, by its own count, is what became of it.
    ///
    /// # Panics
    /// When it does not, or the runs were not counted.
    pub fn adds_up(&self) {
        let causes = ["recorded", "filtered", "suppressed", "entries", "unpaired", "lost"];
        let accounted: u64 = causes.iter().map(|name| self.total(name)).sum();
        assert_eq!(self.runs(), accounted, "runs are not what became of them: {}", self.summary);
    }

    /// The trace as babeltrace2 reads it, a line an event.
    #[must_use]
    pub fn babeltrace(&self) -> Vec<String> {
        babeltrace(&self.path)
    }

    /// The trace as babeltrace2 reads it, with the names of all fields.
    #[must_use]
    pub fn named(&self) -> Vec<String> {
        babeltrace_named(&self.path)
    }
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
