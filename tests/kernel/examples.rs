//! The two clients that relayd ships: klog and kleak.

use std::{fs, path::PathBuf, process::Command};

use relay_daemon::EXAMPLE;
use relay_tests::{Ended, Running, fail, relayd, succeed, text};
use rustix::process::Signal;

/// Starts a client, waits until it says that it is ready, lets it see what `during` does, and tells it to end.
fn beside<T>(client: &mut Command, during: impl FnOnce() -> T) -> (T, Ended) {
    let mut client = Running::start(client);
    client.wait_until_it_says(": ready: ");
    let done = during();
    client.signal(Signal::INT);
    let ended = client.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    (done, ended)
}

/// The lines that `relayd klog` shows while a program of this name runs a few times, and what it says.
fn klog(arguments: &[&str], name: &str) -> (Vec<String>, String) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join(name);
    fs::copy("/bin/true", &program).unwrap();
    let run = || (0..20).for_each(|_| drop(succeed(&mut Command::new(&program))));
    let ((), ended) = beside(relayd().arg("klog").args(arguments), run);
    (ended.stdout.lines().map(str::to_owned).collect(), ended.stderr)
}

/// The time that a line begins with.
fn time(line: &str) -> f64 {
    line.strip_prefix('[').and_then(|line| line.split_once(']')).unwrap().0.trim().parse().unwrap()
}

pub(crate) fn klog_shows_what_programs_log_in_the_order_of_time() {
    let (lines, said) = klog(&[], "klog-probe");
    let ours: Vec<&String> = lines.iter().filter(|line| line.contains("] klog-probe[")).collect();
    assert_eq!(ours.len(), 40, "{lines:#?}");
    for pair in ours.chunks(2) {
        let process = pair[0].split(['[', ']']).nth(3).unwrap();
        assert!(pair[0].ends_with(&format!("klog-probe[{process}] started")), "{pair:?}");
        assert!(pair[1].ends_with(&format!("klog-probe[{process}] ended")), "{pair:?}");
    }
    let times: Vec<f64> = lines.iter().map(|line| time(line)).collect();
    assert!(times.is_sorted(), "{lines:#?}");
    assert_eq!(said.lines().last().unwrap(), format!("relayd: {} lines, 0 lost", lines.len()));
}

pub(crate) fn klog_runs_the_object_that_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let object = folder.path().join("klog.o");
    fs::write(&object, EXAMPLE).unwrap();
    let (lines, _) = klog(&[object.to_str().unwrap()], "given-object");
    assert!(lines.iter().any(|line| line.contains("given-object")), "{lines:#?}");
    fs::write(&object, "no object").unwrap();
    let error = fail(relayd().arg("klog").arg(&object), 1);
    assert!(error.contains("loading the eBPF object"), "{error}");
    let error = fail(relayd().args(["klog", "/nowhere.o"]), 1);
    assert!(error.contains("reading /nowhere.o: No such file"), "{error}");
}

/// kleak, as `cargo xtask test` built it.
fn kleak() -> Command {
    let built = PathBuf::from(relayd().get_program()).with_file_name("kleak");
    Command::new(built)
}

/// Bytes and allocations that kleak says were not freed by the calls that make an eventfd, of which this test makes five hundred.
fn leaked_eventfds(close: bool) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let make = || -> Vec<_> {
        let make = |_| rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
        let made = (0..500).map(make).collect();
        if close { Vec::new() } else { made }
    };
    let (held, _) = beside(kleak().args(["record", "-o"]).arg(folder.path()), make);
    drop(held);
    let report = text(&succeed(kleak().arg("report").arg(folder.path())).stdout);
    assert!(report.lines().last().unwrap().contains(" allocations were not freed, "), "{report}");
    let line = report.lines().find(|line| line.contains("eventfd"));
    let mut words = line.unwrap_or("0 0").split_whitespace().map(|word| word.parse().unwrap_or(0));
    (words.next().unwrap(), words.next().unwrap())
}

pub(crate) fn kleak_lists_what_was_not_freed_by_call_site() {
    let (bytes, allocations) = leaked_eventfds(false);
    // A hundred bytes or so each.
    assert!((490..=510).contains(&allocations) && bytes >= 32 * allocations, "{allocations} of {bytes} bytes");
    let (_, allocations) = leaked_eventfds(true);
    assert!(allocations < 10, "{allocations} are listed, all of which were freed");
}
