//! What `relayd list` shows: it is there, and it can be recorded.

use std::{fs, io::Write as _, process::Command};

use relay_tests::{fail, relayd, succeed, text};
use serde_json::Value;

/// The lines that `relayd list ARGUMENTS` prints.
fn list(arguments: &[&str]) -> Vec<String> {
    let output = succeed(relayd().arg("list").args(arguments));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

/// What `relayd list ARGUMENTS` says when it fails, as it must.
fn refusal(arguments: &[&str]) -> String {
    let said = fail(relayd().arg("list").args(arguments), 1);
    assert!(!said.contains("panicked"), "{said}");
    said
}

pub(crate) fn every_tracepoint_is_listed() {
    let tracefs = relay_channel::machine::tracefs().unwrap();
    let mut expected = Vec::new();
    for line in fs::read_to_string(tracefs.join("available_events")).unwrap().lines() {
        let (category, name) = line.split_once(':').unwrap();
        // Those that the kernel makes no tracepoints of.
        let folder = tracefs.join("events").join(category).join(name);
        if folder.join("enable").exists() && !matches!(category, "synthetic" | "user_events" | "user_events_multi") {
            expected.push(line.to_owned());
        }
    }
    expected.sort_unstable();
    assert!(expected.len() > 100, "{}", expected.len());
    assert_eq!(list(&[]), expected);
    assert_eq!(list(&["tracepoint:*:*"]), expected);
}

pub(crate) fn arguments_are_listed_as_they_can_be_written() {
    let listed = list(&["-v", "sched:sched_switch"]);
    assert_eq!(listed[0], "sched:sched_switch");
    for field in ["    char[16] prev_comm", "    pid_t prev_pid", "    pid_t next_pid"] {
        assert!(listed.iter().any(|line| line == field), "{field} is not in {listed:#?}");
    }
    for event in ["rawtracepoint:sched_switch", "syscall:openat"] {
        let line = succeed(relayd().args(["list", "--json", "-v", event]));
        let listed: Value = serde_json::from_slice(&line.stdout).unwrap();
        assert_eq!(listed["event"], event);
        let names = listed["arguments"].as_array().unwrap().iter().map(|argument| argument["name"].as_str().unwrap());
        let names: Vec<_> = names.collect();
        assert!(!names.is_empty());
        records(&format!("{event}({})", names.join(",")));
    }
}

/// All of them are attached and recorded.
fn records(events: &str) {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("trace");
    succeed(relayd().args(["trace", "-q", "-d", "50ms", "-e", events, "-o"]).arg(&output));
    assert!(output.join("metadata").exists(), "{events}");
}

pub(crate) fn what_is_listed_can_be_recorded() {
    for pattern in ["rawtracepoint:*", "syscall:*", "sched:*", "uprobe:libc:mal*", "profile:*"] {
        let names = list(&[pattern]);
        assert!(names.is_sorted() && !names.is_empty(), "{pattern}: {names:?}");
        // Those that are named in full must be attached.
        records(&names[..names.len().min(20)].join(","));
    }
}

pub(crate) fn a_word_finds_every_kind_that_there_is() {
    let listed = list(&["openat"]);
    for event in ["syscall:openat", "syscalls:sys_enter_openat", "syscalls:sys_exit_openat"] {
        assert!(listed.iter().any(|line| line == event), "{event} is not in {listed:#?}");
    }
    let listed = list(&["sched_swit*"]);
    for event in ["sched:sched_switch", "rawtracepoint:sched_switch"] {
        assert!(listed.iter().any(|line| line == event), "{event} is not in {listed:#?}");
    }
}

pub(crate) fn a_wrong_pattern_offers_the_nearest() {
    for (pattern, expected) in [
        ("sched:sched_swich", "did you mean sched:sched_switch"),
        ("no such thing", "nothing has 'no such thing' in its name"),
        ("schedswitch", "did you mean sched_switch"),
        ("syscall:opennat", "did you mean openat"),
        ("rawtracepoint:sched_swich", "did you mean sched_switch"),
        ("uprobe:libc:maloc*", "did you mean malloc"),
        ("struct:task_struc", "did you mean task_struct"),
        ("nosuchcategory:*", "no tracepoint matches"),
        ("sched:sched_switch(prev_pid)", "give the name alone"),
    ] {
        let said = refusal(&[pattern]);
        assert!(said.contains(expected), "{pattern}: {said}");
    }
}

pub(crate) fn a_reader_that_has_seen_enough_is_no_error() {
    let relayd = relayd().get_program().to_string_lossy().into_owned();
    let script = format!("set -o pipefail; '{relayd}' list -v | head -1");
    let output = succeed(Command::new("bash").args(["-c", &script]));
    assert_eq!(text(&output.stdout).lines().count(), 1);
    assert_eq!(text(&output.stderr), "");
}

pub(crate) fn kinds_that_the_kernel_lacks_are_refused_with_what_would_work() {
    use relay_daemon::host::{has_kprobes, has_trampolines};
    for (pattern, has, other) in
        [("kprobe:vfs_*", has_kprobes(), has_trampolines()), ("fexit:vfs_read", has_trampolines(), has_kprobes())]
    {
        if has {
            assert!(list(&[pattern]).iter().any(|line| line.ends_with(":vfs_read")));
        } else {
            let said = refusal(&[pattern]);
            let hint = if other { "would work here" } else { "syscall: work here" };
            assert!(said.contains("this kernel") && said.contains(hint), "{pattern}: {said}");
        }
    }
    // A word leaves them out.
    let kprobes = list(&["open"]).iter().filter(|line| line.starts_with("kprobe:")).count();
    assert_eq!(kprobes > 0, has_kprobes());
}

/// Needs a kernel with kprobes.
pub(crate) fn functions_are_listed_with_their_parameters() {
    let names = list(&["kprobe:*"]);
    assert!(names.len() > 1000 && names.is_sorted(), "{}", names.len());
    let listed = list(&["-v", "kprobe:vfs_read", "kretprobe:vfs_read"]);
    for line in ["kprobe:vfs_read", "    size_t count", "kretprobe:vfs_read", "    ssize_t retval"] {
        assert!(listed.iter().any(|listed| listed == line), "{line} is not in {listed:#?}");
    }
    assert!(refusal(&["kprobe:vfs_raed"]).contains("did you mean vfs_read"));
    records("kprobe:vfs_read(count),kretprobe:vfs_read(retval)");
}

pub(crate) fn a_structure_has_members_with_offsets() {
    let listed = list(&["struct:list_head"]);
    assert_eq!(listed, ["     0    struct list_head *next", "     8    struct list_head *prev"]);
    assert_eq!(list(&["-v", "struct list_head"]), listed);
}

pub(crate) fn calls_of_32_bits_are_listed() {
    assert_eq!(list(&["compat:*"]), ["compat:sys_enter", "compat:sys_exit"]);
    let listed = list(&["-v", "compat:sys_enter"]);
    assert!(listed.iter().any(|line| line == "    long id"), "{listed:#?}");
}

/// A probe that is somebody's own, through tracefs.
struct Others(std::path::PathBuf);

impl Drop for Others {
    fn drop(&mut self) {
        let _ = fs::OpenOptions::new()
            .append(true)
            .open(&self.0)
            .and_then(|mut file| file.write_all(b"-:relaytest/theirs\n"));
    }
}

pub(crate) fn probes_that_others_have_made_are_no_tracepoints() {
    let events = relay_channel::machine::tracefs().unwrap().join("uprobe_events");
    let others = Others(events.clone());
    // At the first byte of the file nothing ever runs.
    fs::OpenOptions::new().append(true).open(&events).unwrap().write_all(b"p:relaytest/theirs /bin/true:0\n").unwrap();
    assert!(!list(&[]).iter().any(|line| line.starts_with("relaytest:")));
    let said = fail(relayd().args(["trace", "-d", "1ms", "-o", "/nosuch/x", "-e", "relaytest:theirs"]), 1);
    assert!(said.contains("relaytest:theirs is a probe that somebody has made"), "{said}");
    drop(others);
    assert!(!fs::read_to_string(events).unwrap().contains("relaytest"));
}

pub(crate) fn functions_in_files_of_any_name_are_listed_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("a, \"b\" (c) if d");
    let source = folder.path().join("source.c");
    fs::write(&source, "__attribute__((noinline)) int work(int n) { __asm__ volatile(\"\"); return n; }\nint main(void) { return work(0); }\n").unwrap();
    succeed(Command::new("cc").arg("-o").arg(&program).arg(&source));
    let quoted = program.to_str().unwrap().replace('"', "\\\"");
    let event = format!("uprobe:\"{quoted}\":work");
    assert_eq!(list(&[&event]), std::slice::from_ref(&event));
    let trace = relay_tests::record(&[
        "-e",
        &format!("{event}(arg0) if arg0 == 0,sched:sched_process_exit"),
        "--",
        program.to_str().unwrap(),
    ]);
    let lines = trace.print(&["-e", &event]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["event"], format!("uprobe:{}:work", program.display()));
}

/// The loader takes the newest version of a function for whoever does not ask for another.
pub(crate) fn one_version_of_a_function_is_recorded() {
    let old = list(&["uprobe:libc:memcpy@GLIBC_2.2.5"]);
    assert!(old.len() == 1 && old[0].ends_with(":memcpy@GLIBC_2.2.5"), "{old:?}");
    records("uprobe:libc:memcpy@GLIBC_2.2.5(arg2)");
    let said = refusal(&["uprobe:libc:memcpy@GLIBC_1"]);
    assert!(said.contains("memcpy@GLIBC_2.2.5"), "{said}");
}
