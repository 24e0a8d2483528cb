//! System calls through two hooks: what their own tracepoints say, call by call.

use std::{path::Path, process::Command};

use relay_tests::{
    Trace,
    image::{image, write_program},
    record, relayd, session, succeed,
    trace::print,
};
use serde_json::Value;

use crate::flight::Flight;

/// Records of a command's, of these events: event, thread and fields, in their order.
fn calls_of(path: &Path, comm: &str, events: &[String]) -> Vec<(String, u64, Value)> {
    let lines = print(path, &[]).into_iter().filter(|line| line["comm"] == comm);
    let calls = lines.map(|line| {
        (line["event"].as_str().unwrap().to_owned(), line["tid"].as_u64().unwrap(), line["fields"].clone())
    });
    calls.filter(|(event, ..)| events.contains(event)).collect()
}

fn programs(session: &Value) -> Vec<&str> {
    session["programs"].as_array().unwrap().iter().map(|program| program["name"].as_str().unwrap()).collect()
}

/// By perf's hooks, or, where a task cannot be preempted inside and the registers are loads, by those with types.
fn are_through_two_hooks(session: &Value, kind: &str) -> bool {
    let of_kind = ["on_call", "on_enter", "on_leave"].map(|name| format!("{name}{kind}"));
    let programs = programs(session);
    let of_calls: Vec<_> = programs.iter().filter(|name| of_kind.iter().any(|known| known == *name)).collect();
    // Two sides are one program, or one each.
    !of_calls.is_empty() && of_calls.len() <= 2
}

/// One recorder in another: the outer one has programs of its own for a few of the events. What perf says of such: `compare`.
pub(crate) fn system_calls_through_two_hooks_are_what_their_own_tracepoints_say() {
    const CALLS: [&str; 4] = ["read", "lseek", "openat", "newfstat"];
    let few: Vec<String> =
        CALLS.iter().flat_map(|call| ["enter", "exit"].map(|side| format!("syscalls:sys_{side}_{call}"))).collect();
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    let program = relayd().get_program().to_str().unwrap().to_owned();
    let command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=500", "skip=1", "status=none"];
    let inside =
        [&program, "trace", "-e", "syscalls:*", "--bpf-stats", "-n", "16", "-o", inner.to_str().unwrap(), "--"];
    let trace = record(&[&["-e", &few.join(","), "-n", "16", "--"], &inside[..], &command[..]].concat());
    let (own, through) = (calls_of(&trace.path, "dd", &few), calls_of(&inner, "dd", &few));
    assert!(own.len() > 1000, "{} calls", own.len());
    assert_eq!(own, through);
    succeed(relayd().arg("verify").arg(&inner));
    // Calls that are newer than the table of numbers have tracepoints of their own.
    assert!(are_through_two_hooks(&session(&inner), ""), "{}", session(&inner));
}

/// Both sides of a call in one record.
pub(crate) fn pairs_through_two_hooks_have_the_values_of_their_calls() {
    let command = ["--", "dd", "if=/dev/zero", "of=/dev/null", "bs=7", "count=1", "status=none"];
    let trace = record(&[&["-e", "syscall:*", "--bpf-stats", "-n", "16"], &command[..]].concat());
    trace.adds_up();
    assert!(are_through_two_hooks(&trace.session, "_recipe"), "{}", trace.session);
    let lines = trace.print(&[]);
    let of_dd =
        |call: &str| lines.iter().filter(|line| line["event"] == call && line["comm"] == "dd").collect::<Vec<_>>();
    let reads = of_dd("syscall:read");
    assert!(reads.iter().any(|line| line["fields"]["count"] == 7 && line["fields"]["ret"] == 7), "{reads:?}");
    let opened = of_dd("syscall:openat");
    assert!(opened.iter().any(|line| line["fields"]["filename"] == "/dev/zero"), "{opened:?}");
}

/// x86-64's call 20 is `writev`; that of 32 bits is `getpid`.
pub(crate) fn system_calls_of_32_bits_are_no_others() {
    const TIMES: u32 = 1000;
    // mov ebp, TIMES; mov eax, 20; int 0x80; dec ebp; jnz mov; mov eax, 60; xor edi, edi; syscall
    let mut code = vec![0xbd];
    code.extend(TIMES.to_le_bytes());
    code.extend([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xff, 0xcd, 0x75, 0xf5, 0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]);
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("relay32");
    write_program(&program, &image(62, &code, (0, 0)));
    let program = program.to_str().unwrap();
    let trace: Trace = record(&["-e", "syscalls:*", "--bpf-stats", "-n", "16", "--", program]);
    trace.adds_up();
    let mut lines = trace.print(&[]);
    lines.retain(|line| line["comm"] == "relay32");
    let others: Vec<_> = lines.iter().filter(|line| line["event"] == "syscalls:sys_enter_writev").collect();
    assert_eq!(others, Vec::<&Value>::new());
    for event in ["compat:sys_enter", "compat:sys_exit"] {
        let own = lines.iter().filter(|line| line["event"] == event && line["words"]["id"] == "getpid").count();
        assert_eq!(own, TIMES as usize, "{event}");
    }
    // A condition is of calls that have what it asks for; the others are counted.
    let events = "syscalls:sys_exit_* if ret < 0";
    let trace: Trace = record(&["-e", events, "--bpf-stats", "-n", "16", "--", program]);
    trace.adds_up();
    assert!(trace.total("compat_calls") >= u64::from(TIMES), "{}", trace.summary);
}

pub(crate) fn an_event_of_many_is_removed_from_a_session() {
    const REMOVED: &str = "syscalls:sys_enter_openat";
    let folder = tempfile::tempdir().unwrap();
    let flight = Flight::start("test-calls", &["-e", "syscalls:*", "-n", "16"]);
    let run = || succeed(&mut Command::new("true"));
    run();
    succeed(relayd().args(["start", "test-calls", "--remove", "-e", REMOVED]));
    run();
    let path = folder.path().join("snapshot");
    flight.snapshot(&path);
    let lines = print(&path, &[]);
    let at = |name: &str| (0..lines.len()).filter(|index| lines[*index]["event"] == name).collect::<Vec<_>>();
    let change = at("relayd:change")[0];
    let removed = at(REMOVED);
    assert!(
        removed.iter().any(|index| *index < change),
        "{REMOVED} was not recorded before it was removed, at line {change}"
    );
    assert!(
        removed.iter().all(|index| *index < change),
        "{REMOVED} is at lines {removed:?}, and was removed at {change}"
    );
    assert!(at("syscalls:sys_exit_openat").iter().any(|index| *index > change));
}
