//! What users meet at the command line: errors that help, exit codes, signals.

use std::{fs, process::Command, time::Duration};

use relay_channel::pins;
use relay_tests::{Recording, babeltrace, fail, record, relayd, session, session_file, succeed, text, total};
use rustix::process::Signal;
use serde_json::Value;

/// `relayd trace` into `folder/trace`.
fn trace(folder: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = relayd();
    command.args(["trace", "-o"]).arg(folder.path().join("trace")).args(arguments);
    command
}

/// Checks that `relayd trace ARGUMENTS` fails with 1, says `expected`, and leaves nothing behind.
fn refuses(arguments: &[&str], expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let said = fail(&mut trace(&folder, arguments), 1);
    assert!(said.contains(expected), "{arguments:?} says {said}");
    assert!(!said.contains("panicked") && !said.contains("stack backtrace"), "{said}");
    assert!(!folder.path().join("trace").exists(), "{arguments:?} leaves a directory");
}

pub(crate) fn frequent_errors_are_said_to_the_letter() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letter"), "not ours").unwrap();
    let full = folder.path().to_str().unwrap();
    let wrong: [(&[&str], &str); 8] = [
        (
            &["trace"],
            "no event is given: name at least one with -e, like -e sched:sched_switch; relayd list shows what there is",
        ),
        (&["trace", "-e", "syscall:opena"], "there is no system call 'opena'; did you mean openat, open, openat2?"),
        (
            &["trace", "-e", "sched:sched_switch if prev_pdi == 3"],
            "'sched:sched_switch': in the condition, column 1: sched:sched_switch has no field 'prev_pdi'; did you mean prev_pid, ",
        ),
        (
            &["trace", "-e", "sched:sched_switch(prev_pid)"],
            "'sched:sched_switch(prev_pid)': tracepoints are recorded as they are: leave out the parentheses",
        ),
        (
            &["trace", "-e", "sched:sched_switch", "-o", full],
            "DIR is not empty and is not a trace of relayd; give another with -o",
        ),
        (&["trace", "-e", "sched:sched_switch", "--group", "nosuch"], "there is no group 'nosuch'"),
        (&["snapshot", "nosuch"], "there is no session nosuch; "),
        (&["print", full], "DIR is not a trace of relayd: it has no .relayd"),
    ];
    for (arguments, expected) in wrong {
        let mut command = relayd();
        let said = fail(command.current_dir("/").args(arguments), 1).replace(full, "DIR");
        assert!(said.starts_with(&format!("relayd: {expected}")), "{arguments:?} says {said}");
        assert!(said.lines().count() <= 3, "{said}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

pub(crate) fn an_unknown_event_offers_the_nearest_name() {
    refuses(&["-e", "sched:sched_swich", "-d", "1s"], "did you mean sched:sched_switch");
    refuses(&["-e", "sched", "-d", "1s"], "-e 'sched:*'");
}

pub(crate) fn a_glob_that_matches_nothing_is_an_error() {
    refuses(&["-e", "sched:*,nosuchthing:*", "-d", "1s"], "no tracepoint matches 'nosuchthing:*'");
}

pub(crate) fn sizes_that_cannot_be_are_refused() {
    let event = ["-e", "sched:sched_switch", "-d", "1s"];
    for (size, expected) in [
        (&["-b", "0"][..], "--subbuf-size must be from 1 to"),
        (&["-n", "0"], "--n-subbufs must be from 1 to"),
        (&["-b", "1G"], "--subbuf-size must be from 1 to"),
        (&["-b", "16M", "-n", "64"], "is more than the"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let said = fail(&mut trace(&folder, &[&event[..], size].concat()), 2);
        assert!(said.contains(expected), "{size:?}: {said}");
    }
    // As much as one buffer can have, on CPUs without memory for it.
    let available = relay_channel::machine::available_memory().unwrap();
    let cpus = relay_channel::machine::online_cpus().unwrap().len() as u64;
    if available < cpus * (512 << 20) {
        refuses(&[&event[..], &["-b", "16M", "-n", "32"]].concat(), "MiB of memory");
    }
    let folder = tempfile::tempdir().unwrap();
    let said = fail(&mut trace(&folder, &[&event[..], &["-b", "many"]].concat()), 2);
    assert!(said.contains("--subbuf-size"), "{said}");
}

pub(crate) fn sizes_are_rounded_up_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["-e", "sched:sched_switch", "-d", "100ms", "-b", "5000", "-n", "3", "--json"];
    let output = succeed(&mut trace(&folder, &arguments));
    let said = text(&output.stderr);
    assert!(said.contains("--subbuf-size 5000 rounded up to 8192"), "{said}");
    assert!(said.contains("--n-subbufs 3 rounded up to 4"), "{said}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((summary["subbuf_size"].as_u64(), summary["n_subbufs"].as_u64()), (Some(8192), Some(4)));
}

pub(crate) fn a_directory_that_cannot_be_made_is_an_error() {
    let mut command = relayd();
    command.args(["trace", "-e", "sched:sched_switch", "-d", "1s", "-o", "/proc/nowhere/trace"]);
    let said = fail(&mut command, 1);
    assert!(said.contains("making the directory /proc/nowhere/trace"), "{said}");
}

pub(crate) fn an_existing_trace_is_replaced_only_by_force() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["-e", "sched:sched_switch", "-d", "100ms", "-q"];
    succeed(&mut trace(&folder, &arguments));
    let said = fail(&mut trace(&folder, &arguments), 1);
    assert!(said.contains("--force"), "{said}");
    let session = || fs::read(session_file(&folder.path().join("trace"))).unwrap();
    let before = session();
    succeed(trace(&folder, &arguments).arg("--force"));
    assert_ne!(before, session());
}

pub(crate) fn a_command_that_does_not_exist_is_an_error() {
    refuses(
        &["-e", "sched:sched_switch", "--", "no-such-command-anywhere"],
        "'no-such-command-anywhere' cannot be run",
    );
}

pub(crate) fn the_commands_exit_status_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let run = |command: &str| {
        let arguments = ["-e", "sched:sched_process_exit", "-q", "--force", "--", "sh", "-c", command];
        trace(&folder, &arguments).output().unwrap().status.code()
    };
    assert_eq!(run("exit 0"), Some(0));
    assert_eq!(run("exit 7"), Some(7));
    assert_eq!(run("kill -TERM $$"), Some(128 + 15));
}

/// A file system of 2 MiB.
pub(crate) struct SmallDisk(pub(crate) tempfile::TempDir);

impl SmallDisk {
    /// Of `size`, like 2M.
    pub(crate) fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        succeed(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path()));
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        succeed(Command::new("umount").arg(self.0.path()));
    }
}

pub(crate) fn a_full_disk_stops_recording_and_the_trace_stays_valid() {
    let disk = SmallDisk::new("2M");
    let command = ["-e", "raw_syscalls:*", "-q", "--", "dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=100000000"];
    let said = fail(&mut trace(&disk.0, &command), 1);
    assert!(said.contains("No space left on device"), "{said}");
    let path = disk.0.path().join("trace");
    let session = session(&path);
    let total = |name| total(&session, name);
    assert!(session["error"].as_str().unwrap().contains("No space left on device"));
    assert!(total("recorded") > 10_000 && total("unwritten") > 0, "{session}");
    assert_eq!(babeltrace(&path).len() as u64, total("recorded") - total("unwritten"));
}

/// A recording of a storm that would not end by itself, of which something is in the files.
fn start_endless() -> Recording {
    let dd = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=1000000000"];
    let mut recording = Recording::start(&[&["-e", "raw_syscalls:*", "--"], &dd[..]].concat());
    let path = recording.path.clone();
    // On whichever CPU it runs.
    let files = relay_channel::machine::online_cpus().unwrap().into_iter().map(|cpu| path.join(format!("cpu{cpu}")));
    let files: Vec<_> = files.collect();
    recording.relayd.wait_until("a MiB is written", |_| {
        files.iter().any(|file| fs::metadata(file).is_ok_and(|file| file.len() >= 1 << 20))
    });
    recording
}

/// What a recording that was ended by a signal must have done.
fn check_ended(recording: Recording) {
    let trace = recording.finish();
    assert!(trace.total("recorded") > 10_000, "{}", trace.summary);
    assert_eq!(trace.babeltrace().len() as u64, trace.total("recorded"), "{}", trace.summary);
}

pub(crate) fn a_signal_ends_the_recording_in_order() {
    for which in [Signal::INT, Signal::TERM] {
        let recording = start_endless();
        recording.relayd.signal(which);
        check_ended(recording);
    }
}

pub(crate) fn a_second_signal_loses_nothing() {
    let recording = start_endless();
    let apart = Duration::from_millis(2);
    for _ in 0..5 {
        recording.relayd.signal(Signal::INT);
        std::thread::sleep(apart);
    }
    check_ended(recording);
}

pub(crate) fn check_says_what_the_machine_has() {
    let output = succeed(relayd().args(["check", "--json"]));
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    for name in ["capabilities", "tracefs", "bpffs", "tracepoint", "raw tracepoint", "kprobe, kretprobe"] {
        let finding = findings.as_array().unwrap().iter().find(|finding| finding["name"] == name);
        let finding = finding.unwrap_or_else(|| panic!("nothing of {name} in {findings}"));
        assert!(finding["ok"].is_boolean() && !finding["detail"].as_str().unwrap().is_empty(), "{finding}");
        // The tests that ran before this one have recorded.
        assert!(finding["ok"] == true || finding["needed"] == false, "{finding}");
    }
    let said = text(&succeed(relayd().arg("check")).stdout);
    assert!(said.contains("relayd trace can record here"), "{said}");
}

pub(crate) fn nothing_stays_behind_in_the_bpf_file_system() {
    // The mounts are the tests' own: nobody else's session is among these.
    let before = pins::list().unwrap();
    let trace = record(&["-e", "sched:sched_switch", "-d", "300ms"]);
    assert!(trace.total("recorded") > 0);
    assert_eq!(pins::list().unwrap(), before);
}
