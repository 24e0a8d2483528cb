//! Traces: how tests have them made, and what is in them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use relay_channel::machine;
use relay_common::trace::CONTENT_SIZE_AT;
use relay_trace::read::packet::{HEADER, Record, Records};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    babeltrace, babeltrace_named,
    process::{Ended, Running},
    relayd, succeed, text, wait_until,
};

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
    Trace::new(folder, path, &output.stdout)
}

/// `relayd trace` at work. Dropping it kills it.
#[derive(Debug)]
pub struct Recording {
    /// The trace's directory.
    pub path: PathBuf,
    /// The command.
    pub relayd: Running,
    folder: tempfile::TempDir,
}

impl Recording {
    /// Starts `relayd trace --json ARGUMENTS`, and waits until it has begun the trace.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("trace");
        let mut relayd = Running::start(relayd().args(["trace", "--json", "-o"]).arg(&path).args(arguments));
        relayd.wait_until("there is a session.json", |_| session_file(&path).exists());
        Self { path, relayd, folder }
    }

    /// Waits until it ends, and returns what it has left.
    ///
    /// # Panics
    /// When that is not a summary.
    #[must_use]
    pub fn end(self) -> (Ended, Trace) {
        let ended = self.relayd.end();
        let trace = Trace::new(self.folder, self.path, ended.stdout.as_bytes());
        (ended, trace)
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn finish(self) -> Trace {
        let (ended, trace) = self.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        trace
    }

    /// Tells it to end, and waits until it has.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn stop(self) -> Trace {
        self.relayd.signal(Signal::INT);
        self.finish()
    }
}

impl Trace {
    fn new(folder: tempfile::TempDir, path: PathBuf, summary: &[u8]) -> Self {
        let summary = serde_json::from_slice(summary).expect("the summary is JSON");
        Self { session: session(&path), path, summary, _folder: folder }
    }

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
    /// When it fails, or prints what is not JSON.
    #[must_use]
    pub fn print(&self, arguments: &[&str]) -> Vec<Value> {
        print(&self.path, arguments)
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
        let causes = ["recorded", "filtered", "suppressed", "entries", "unpaired", "lost", "other_calls"];
        let accounted: u64 = causes.iter().map(|name| self.total(name)).sum();
        assert_eq!(self.runs() + self.total("notes"), accounted, "runs are not what became of them: {}", self.summary);
    }

    /// The trace as babeltrace2 reads it, a line an event.
    #[must_use]
    pub fn babeltrace(&self) -> Vec<String> {
        babeltrace(&self.path)
    }

    /// The same with fields' names.
    #[must_use]
    pub fn named(&self) -> Vec<String> {
        babeltrace_named(&self.path)
    }
}

/// A trace's `session.json`.
#[must_use]
pub fn session_file(trace: &Path) -> PathBuf {
    trace.join(".relayd/session.json")
}

/// What is in it.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn session(trace: &Path) -> Value {
    let file = session_file(trace);
    let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// What all CPUs of a session have together of a count.
///
/// # Panics
/// When one has none of that name.
#[must_use]
pub fn total(session: &Value, count: &str) -> u64 {
    let cpus = session["cpus"].as_array().unwrap_or_else(|| panic!("no CPUs in {session}"));
    cpus.iter().map(|cpu| cpu[count].as_u64().unwrap_or_else(|| panic!("no {count} in {cpu}"))).sum()
}

/// Waits until a recorder has begun this trace.
pub fn wait_until_it_records(trace: &Path) {
    wait_until("there is a session.json", || session_file(trace).exists());
}

/// Runs `relayd verify`, which must find nothing.
///
/// # Panics
/// When it finds something.
pub fn verify(trace: &Path) {
    let verified = text(&succeed(relayd().arg("verify").arg(trace)).stdout);
    assert!(verified.contains("all adds up"), "{verified}");
}

/// What `relayd print --json ARGUMENTS` prints of a trace.
///
/// # Panics
/// When it fails, or prints what is not JSON.
#[must_use]
pub fn print(trace: &Path, arguments: &[&str]) -> Vec<Value> {
    json_lines(&succeed(relayd().args(["print", "--json"]).arg(trace).args(arguments)).stdout)
}

/// A value a line.
///
/// # Panics
/// When a line is not JSON.
#[must_use]
pub fn json_lines(bytes: &[u8]) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text(bytes).lines().map(parse).collect()
}

/// The little-endian number of `N` bytes at a place.
///
/// # Panics
/// When the bytes end before.
#[must_use]
pub fn number_at<const N: usize>(bytes: &[u8], at: impl TryInto<usize>) -> u64 {
    let at = at.try_into().ok().expect("a place in memory");
    let mut word = [0; 8];
    word[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(word)
}

/// Looks at the records of a CPU, in the order of its file.
///
/// # Panics
/// When the file is damaged.
pub fn for_each_record(trace: &Path, cpu: u32, mut look: impl FnMut(&Record<'_>)) {
    let file = fs::read(trace.join(format!("cpu{cpu}"))).unwrap_or_default();
    let mut rest = &file[..];
    while !rest.is_empty() {
        let bits = number_at::<8>(rest, CONTENT_SIZE_AT);
        let (packet, next) = rest.split_at(usize::try_from(bits / 8).expect("it is in memory"));
        Records::new(packet, HEADER).for_each(|record| look(&record.expect("a record")));
        rest = next;
    }
}

/// The numbers of [`crate::channel::Numbers`] in this process, by thread, in the order of the files.
///
/// # Panics
/// When the trace is damaged.
#[must_use]
pub fn numbers(trace: &Path) -> BTreeMap<u32, Vec<u64>> {
    let mut found: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for cpu in machine::online_cpus().expect("the list of CPUs") {
        for_each_record(trace, cpu, |record| {
            // Not what kills the recorder.
            if record.pid == std::process::id() && record.tid != record.pid {
                // After the system call's number.
                found.entry(record.tid).or_default().push(number_at::<8>(record.payload, 8_usize));
            }
        });
    }
    found
}
