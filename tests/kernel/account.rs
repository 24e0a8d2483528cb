//! The account: what the kernel says it ran is what relayd says it recorded, filtered and lost, to the event.

use std::{process::Command, sync::OnceLock};

use relay_channel::machine;
use relay_tests::{Trace, record, repeats, succeed, text, total};

/// A system-call storm on every CPU, into buffers of 8 KiB: first by an ordinary task, which waits while the reader runs, then
/// by one that the reader has to wait for.
fn storm(arguments: &[&str]) -> Trace {
    let dd = "dd if=/dev/zero of=/dev/null bs=1 status=none";
    let (first, second) = (repeats(200_000), repeats(100_000));
    let storm = |cpu| format!("taskset -c {cpu} sh -c '{dd} count={first}; chrt -f 10 {dd} count={second}' &");
    let storms: String = machine::online_cpus().unwrap().into_iter().map(storm).collect();
    let events = ["-e", "raw_syscalls:*,sched:*,irq:*", "-b", "4K", "-n", "2", "--bpf-stats"];
    record(&[arguments, &events, &["--", "sh", "-c", &format!("{storms} wait")]].concat())
}

fn check(trace: &Trace) {
    let total = |name| trace.total(name);
    assert!(total("recorded") > 10_000, "{}", trace.summary);
    trace.adds_up();
    for cpu in trace.session["cpus"].as_array().unwrap() {
        assert!(cpu["recorded"].as_u64().unwrap() > 0, "no storm on {cpu}");
    }
    assert_eq!(trace.babeltrace().len() as u64, total("recorded") - total("overrun"), "{}", trace.summary);
}

/// A trace in which records were lost, for more than one test.
fn lossy() -> &'static Trace {
    static TRACE: OnceLock<Trace> = OnceLock::new();
    let trace = TRACE.get_or_init(|| storm(&[]));
    assert!(trace.total("lost") > 0, "the buffers were not too small: {}", trace.summary);
    trace
}

pub(crate) fn a_storm_in_no_overwrite_mode_adds_up() {
    let trace = lossy();
    check(trace);
    assert_eq!(trace.total("overrun"), 0, "{}", trace.summary);
}

pub(crate) fn a_storm_in_overwrite_mode_adds_up() {
    let trace = storm(&["--overwrite"]);
    check(&trace);
    assert!(trace.total("overrun") > 0, "{}", trace.summary);
}

pub(crate) fn losses_are_placed_in_time() {
    let trace = lossy();
    assert_eq!(discarded(trace), trace.total("lost"), "{}", trace.summary);
}

/// More tasks than the CPU has turns for: a reader that waited for its own among them would lose most of it.
pub(crate) fn a_reader_among_many_tasks_loses_nothing() {
    let crowd =
        "for i in $(seq 60); do taskset -c 0 dd if=/dev/zero of=/dev/null bs=1 count=10000 status=none & done; wait";
    let trace = record(&["-e", "raw_syscalls:*,sched:*", "--", "sh", "-c", crowd]);
    assert!(trace.total("recorded") > 2_000_000, "{}", trace.summary);
    assert_eq!(trace.total("lost"), 0, "{}", trace.summary);
}

/// A file name too long for a sub-buffer, and nothing after it that could tell of the loss.
pub(crate) fn the_last_loss_is_told_by_a_packet_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = folder.path().to_path_buf();
    while program.as_os_str().len() < 3980 {
        program.push("d".repeat(100));
    }
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    std::fs::copy("/bin/true", &program).unwrap();
    let trace = record(&["-e", "sched:sched_process_exec", "-b", "4K", "--", program.to_str().unwrap()]);
    let too_big = total(&trace.session, "lost_too_big");
    assert_eq!((too_big, trace.total("lost")), (1, 1), "{}", trace.summary);
    assert_eq!(discarded(&trace), 1);
}

/// Events that babeltrace2 says were discarded.
fn discarded(trace: &Trace) -> u64 {
    let output = succeed(Command::new("babeltrace2").arg(&trace.path));
    // «WARNING: Tracer discarded 17 events between […] and […] in trace …»
    let warnings = text(&output.stderr);
    warnings.lines().filter_map(|line| line.split_once("discarded ")?.1.split(' ').next()?.parse::<u64>().ok()).sum()
}
