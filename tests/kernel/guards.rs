//! Programs that interrupt and preempt one another: each hook has a guard of its own against that, or none. Whatever is called is recorded, or
//! counted.
//!
//! The load is this program again, told by [`LOAD`] what to do: threads that all run on one CPU call `getppid`, which is a function of the C
//! library and a system call, while a thread that runs before them wakes every half millisecond.

use std::{os::unix::process::parent_id, sync::atomic::AtomicBool};

use relay_channel::machine;
use relay_daemon::host;
use relay_tests::{Trace, crowd::crowd, library_of, record, relayd, succeed, text};
use serde_json::Value;

/// How many threads, and how many calls of each.
const LOAD: &str = "RELAYD_TEST_CALLS";
/// The threads' name.
const NAME: &str = "relaycalls";

/// Whether this process is the load, which it has then been.
pub(crate) fn was_load() -> bool {
    let Ok(load) = std::env::var(LOAD) else { return false };
    let (threads, calls) = load.split_once(' ').unwrap();
    let (threads, calls): (usize, u64) = (threads.parse().unwrap(), calls.parse().unwrap());
    let cpu = *machine::online_cpus().unwrap().last().unwrap();
    let call = |_: &AtomicBool| {
        for _ in 0..calls {
            let _ = parent_id();
        }
    };
    crowd(cpu, threads, NAME, call, || true);
    true
}

fn this_program() -> String {
    std::env::current_exe().unwrap().display().to_string()
}

/// Where the load's `getppid` is.
fn library() -> String {
    if cfg!(target_env = "musl") { this_program() } else { library_of(&this_program()) }
}

/// Records events while so many threads call so many times.
fn record_calls(threads: u64, calls: u64, events: &[&str]) -> Trace {
    record_calls_with(threads, calls, events, &["--bpf-stats"])
}

fn record_calls_with(threads: u64, calls: u64, events: &[&str], options: &[&str]) -> Trace {
    let (load, program) = (format!("{LOAD}={threads} {calls}"), this_program());
    let command = ["-b", "1M", "-n", "16", "--", "env", &load, &program];
    let events = events.iter().flat_map(|event| ["-e", event]);
    let trace = record(&events.chain(options.iter().copied()).chain(command).collect::<Vec<_>>());
    assert_eq!(trace.session["error"].as_str(), None, "{}", trace.summary);
    succeed(&mut trace.relayd("verify"));
    trace
}

/// Records of the load, by the event's name.
fn recorded(trace: &Trace, event: &str) -> u64 {
    trace.print(&["-e", event]).len() as u64
}

/// What the kernel skipped, by the beginning of programs' names.
fn skipped(trace: &Trace, program: &str) -> u64 {
    let programs = trace.session["programs"].as_array().unwrap();
    let of_it = programs.iter().filter(|this| this["name"].as_str().unwrap().starts_with(program));
    of_it.map(|this| this["recursion_misses"].as_u64().unwrap_or(0)).sum()
}

fn nested(trace: &Trace) -> u64 {
    trace.session["cpus"].as_array().unwrap().iter().map(|cpu| cpu["lost_nested"].as_u64().unwrap()).sum()
}

/// The condition of the load's own.
fn of_load(event: &str) -> String {
    format!("{event} if comm == \"{NAME}\"")
}

pub(crate) fn a_function_that_many_threads_call_is_recorded_each_time() {
    for (threads, calls) in [(1, 20_000), (2, 10_000), (64, 500)] {
        let uprobe = of_load(&format!("uprobe:{}:getppid", library()));
        let trace = record_calls(threads, calls, &[&uprobe]);
        trace.adds_up();
        assert_eq!(nested(&trace), 0, "{}", trace.summary);
        assert_eq!(trace.total("recorded"), threads * calls, "{}", trace.summary);
    }
}

pub(crate) fn a_function_of_a_process_and_functions_of_the_kernel_have_programs_of_their_own() {
    let uprobe = of_load(&format!("uprobe:{}:getppid", library()));
    let trace = record_calls(1, 20_000, &[&uprobe, "kprobe:hrtimer_start_range_ns", "kprobe:try_to_wake_up"]);
    trace.adds_up();
    assert_eq!(recorded(&trace, "uprobe:*"), 20_000, "{}", trace.summary);
    let programs = trace.session["programs"].as_array().unwrap();
    assert_eq!(programs.iter().filter(|program| program["name"] == "on_probe").count(), 2, "{programs:?}");
}

pub(crate) fn tracepoints_of_system_calls_have_programs_of_their_own() {
    // Few: on an emulated CPU a newer kernel takes seconds to attach to one.
    const EVENTS: [&str; 4] =
        ["syscalls:sys_enter_getppid", "syscalls:sys_exit_getppid", "sched:sched_switch", "irq:softirq_entry"];
    for (program, condition) in [("on_tracepoint", ""), ("on_tp_recipe", " if pid != 999999")] {
        let events = EVENTS.map(|event| format!("{event}{condition}"));
        let trace = record_calls(4, 5_000, &events.each_ref().map(String::as_str));
        trace.adds_up();
        let programs = trace.session["programs"].as_array().unwrap();
        let is_of = |this: &Value, name: &str| this["name"].as_str().unwrap().starts_with(name);
        let names = [program, "on_fields", "on_call", "on_enter", "on_leave"];
        let of_it = programs.iter().filter(|this| names.iter().any(|name| is_of(this, name))).count();
        assert!(of_it >= 2, "one program for hooks with different guards: {programs:?}");
    }
}

/// Less than one in a hundred of the load's calls was skipped by the kernel.
fn few_are_skipped(event: &str, program: &str) {
    let trace = record_plainly(event);
    let (skipped, recorded) = (skipped(&trace, program), trace.total("recorded"));
    assert!(skipped * 100 < recorded + skipped, "{event}: {skipped} skipped, {recorded} recorded: {}", trace.summary);
}

/// Not with the kernel's statistics: to read its clock for them it switches preemption off, and on again inside the guard.
fn record_plainly(event: &str) -> Trace {
    let trace = record_calls_with(4, 5_000, &[event], &[]);
    assert_eq!(nested(&trace), 0, "{}", trace.summary);
    trace
}

pub(crate) fn hooks_that_are_not_preempted_skip_few() {
    few_are_skipped(&format!("raw_syscalls:sys_enter if id == {}", libc::SYS_getppid), "on_tp_recipe");
    few_are_skipped("syscalls:sys_enter_getppid", "on_");
    few_are_skipped("syscall:getppid", "on_");
    few_are_skipped(&format!("uprobe:{}:getppid", library()), "on_probe");
    if host::has_kprobes() {
        few_are_skipped("kprobe:__task_pid_nr_ns", "on_probe");
    }
}

pub(crate) fn calls_that_are_skipped_are_counted() {
    for (event, program) in [("syscalls:sys_enter_getppid", "on_tracepoint"), ("syscall:getppid", "on_tp_recipe")] {
        let trace = record_plainly(event);
        let (skipped, unpaired) = (skipped(&trace, program), trace.total("unpaired"));
        println!("{event}: {skipped} skipped, {unpaired} unpaired: {}", trace.total("recorded"));
        let entries_and_returns = if event.starts_with("syscall:") { 2 } else { 1 };
        let accounted = trace.total("recorded") + trace.total("entries") + unpaired + skipped;
        // Others call too, a little.
        let calls = 20_000 * entries_and_returns;
        assert!((calls..calls + calls / 100).contains(&accounted), "{event}: {accounted}: {}", trace.summary);
    }
}

pub(crate) fn much_that_is_skipped_is_warned_of_with_the_way_out() {
    let event = "rawtracepoint:sys_enter";
    let (load, program) = (format!("{LOAD}=4 5000"), this_program());
    let folder = tempfile::tempdir().unwrap();
    let mut command = relayd();
    command.args(["trace", "-e", event, "--bpf-stats", "-o"]).arg(folder.path().join("trace"));
    let said = text(&succeed(command.args(["--", "env", &load, &program])).stdout);
    let line = said.lines().find(|line| line.starts_with("  on_raw_tracepoint")).unwrap();
    let numbers: Vec<u64> = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let (runs, skipped) = (numbers[0], numbers[1]);
    let is_warned = said.contains("To miss none, record the tracepoint itself");
    assert_eq!(is_warned, skipped * 100 > runs + skipped, "{said}");
}
