//! The account: what the kernel says it ran is what relayd says it recorded, filtered and lost, to the event.

use std::process::Command;

use relay_daemon::machine;
use relay_tests::{Trace, record, succeed, text};

/// A system-call storm on every CPU, into buffers far too small for it.
fn storm(arguments: &[&str]) -> Trace {
    let storm = |cpu| format!("taskset -c {cpu} dd if=/dev/zero of=/dev/null bs=1 count=300000 status=none &");
    let storms: String = machine::online_cpus().unwrap().into_iter().map(storm).collect();
    let events = ["-e", "raw_syscalls:*,sched:*,irq:*", "-b", "4K", "-n", "2", "--bpf-stats"];
    record(&[arguments, &events, &["--", "sh", "-c", &format!("{storms} wait")]].concat())
}

fn check(trace: &Trace) {
    let total = |name| trace.total(name);
    assert!(total("recorded") > 10_000, "{}", trace.summary);
    assert_eq!(trace.runs(), total("recorded") + total("filtered") + total("lost"), "{}", trace.summary);
    for cpu in trace.session["cpus"].as_array().unwrap() {
        assert!(cpu["recorded"].as_u64().unwrap() > 0, "no storm on {cpu}");
    }
    assert_eq!(trace.babeltrace().len() as u64, total("recorded") - total("overrun"), "{}", trace.summary);
}

pub(crate) fn a_storm_in_no_overwrite_mode_adds_up() {
    let trace = storm(&[]);
    check(&trace);
    assert!(trace.total("lost") > 0, "the buffers were not too small: {}", trace.summary);
    assert_eq!(trace.total("overrun"), 0, "{}", trace.summary);
}

pub(crate) fn a_storm_in_overwrite_mode_adds_up() {
    let trace = storm(&["--overwrite"]);
    check(&trace);
    assert!(trace.total("overrun") > 0, "{}", trace.summary);
}

pub(crate) fn losses_are_placed_in_time() {
    let trace = storm(&[]);
    let output = succeed(Command::new("babeltrace2").arg(&trace.path));
    // «WARNING: Tracer discarded 17 events between […] and […] in trace …»
    let discarded: u64 = text(&output.stderr)
        .lines()
        .filter_map(|line| line.split_once("discarded ")?.1.split(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(discarded, trace.total("lost"), "{}\n{}", trace.summary, text(&output.stderr));
}
