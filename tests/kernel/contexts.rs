//! Programs in every context that a kernel runs them in, by kind and all at once: with many threads on one CPU, preempted by one that runs
//! before them, in recursion, among signals, forks and CPUs that go. What the load has counted is what the account says.
//!
//! There is no compiler in a guest: this program runs itself as its load (`LOAD`).

use std::{
    env, fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
};

use relay_channel::machine;
use relay_common::{Geometry, Mode};
use relay_daemon::host;
use relay_tests::{
    Trace,
    channel::Clients,
    crowd::crowd,
    image::{BASE, CODE_AT, image, write_program},
    record, relayd, succeed, text,
    trace::print,
    wait_until,
};
use rustix::{
    process::{Pid, Signal, getppid, getpriority_process, kill_process},
    thread::set_name,
};
use serde_json::Value;

use crate::probes::samples_are_accounted_for;

/// The environment variable that makes this program a load: what each thread does, how many threads, how often the thread that runs before
/// them wakes, and the file for the number of calls.
const LOAD: &str = "RELAY_LOAD";
/// Calls inside calls, of what is called in recursion.
const DEPTH: u64 = 4;

#[inline(never)]
fn probed_function(depth: u64) -> u64 {
    if depth > 1 { std::hint::black_box(probed_function(depth - 1)) + 1 } else { 1 }
}

/// Does something once; returns how many calls that was.
fn work(what: &str) -> u64 {
    match what {
        "getppid" => {
            std::hint::black_box(getppid());
        }
        // The kernel's types describe no function that has no parameters.
        "getpriority" => {
            std::hint::black_box(getpriority_process(None).unwrap());
        }
        "rename" => set_name(c"relaywork").unwrap(),
        "call" => return probed_function(std::hint::black_box(DEPTH)),
        "all" => {
            work("getppid");
            work("getpriority");
            work("rename");
            work("call");
        }
        other => panic!("{other}: no such work"),
    }
    1
}

/// Whether this process is a load, which it has then been: until the thread that runs before the others has woken so often.
pub(crate) fn was_load() -> bool {
    let Ok(arguments) = env::var(LOAD) else { return false };
    let arguments: Vec<_> = arguments.split(' ').collect();
    let [what, threads, wakes, file] = arguments[..] else { panic!("{LOAD}: {arguments:?}") };
    let (threads, wakes): (usize, u32) = (threads.parse().unwrap(), wakes.parse().unwrap());
    let cpu = *machine::online_cpus().unwrap().first().unwrap();
    let (calls, mut left) = (AtomicU64::new(0), wakes);
    let call = |done: &AtomicBool| {
        let mut own = 0;
        while !done.load(Relaxed) {
            own += work(what);
        }
        calls.fetch_add(own, Relaxed);
    };
    let tick = || {
        calls.fetch_add(work(what), Relaxed);
        left -= 1;
        left > 0
    };
    crowd(cpu, threads, "relaywork", call, tick);
    fs::write(file, calls.into_inner().to_string()).unwrap();
    true
}

/// How often the task before the others wakes: half a millisecond each.
fn wakes() -> u32 {
    relay_tests::repeats(2000).max(200)
}

/// One kind of event: what is recorded, what causes it, and whether records come in pairs with a duration.
struct Kind {
    event: String,
    work: &'static str,
    is_timed: bool,
}

fn kind(event: &str, work: &'static str) -> Kind {
    let is_timed = ["syscall:", "kretprobe:", "fexit:", "uretprobe:"].iter().any(|kind| event.starts_with(kind));
    Kind { event: event.to_owned(), work, is_timed }
}

/// The name by which the kernel, and relayd, know a function of this program.
fn probed() -> String {
    let path = env::current_exe().unwrap();
    let listed = succeed(relayd().arg("list").arg(format!("uprobe:{}:*probed_function*", path.display())));
    let listed = text(&listed.stdout);
    listed.lines().next().expect("a function of this program").trim().strip_prefix("uprobe:").unwrap().to_owned()
}

fn in_tasks() -> Vec<Kind> {
    let (number, function) = (libc::SYS_getppid, probed());
    vec![
        kind("syscalls:sys_enter_getppid", "getppid"),
        kind(&format!("raw_syscalls:sys_enter if id == {number}"), "getppid"),
        kind("syscall:getppid", "getppid"),
        kind(&format!("rawtracepoint:sys_enter(id) if id == {number}"), "getppid"),
        kind("task:task_rename", "rename"),
        kind("rawtracepoint:task_rename", "rename"),
        kind(&format!("uprobe:{function}"), "call"),
        kind(&format!("uretprobe:{function}(retval)"), "call"),
    ]
}

fn in_functions() -> Vec<Kind> {
    let function = if cfg!(target_arch = "aarch64") { "__arm64_sys_getpriority" } else { "__x64_sys_getpriority" };
    ["kprobe", "kretprobe", "fentry", "fexit"]
        .map(|kind_of| kind(&format!("{kind_of}:{function}()"), "getpriority"))
        .into()
}

/// What [`LOAD`] is set to.
fn load(work: &str, threads: usize, calls: &Path) -> String {
    format!("{work} {threads} {} {}", wakes(), calls.display())
}

pub(crate) fn every_sample_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    for threads in [1, 2, 4, 64] {
        let load = format!("{LOAD}={}", load("getppid", threads, &folder.path().join("calls")));
        let program = env::current_exe().unwrap().display().to_string();
        samples_are_accounted_for(&["env", &load, &program], false);
    }
}

/// All threads' calls of `work` while `events` are recorded.
fn recorded(events: &[&str], work: &str, threads: usize) -> (Trace, u64) {
    recorded_with(&["--latency", "--bpf-stats"], events, work, threads)
}

fn recorded_with(options: &[&str], events: &[&str], work: &str, threads: usize) -> (Trace, u64) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calls");
    let load = format!("{LOAD}={}", load(work, threads, &file));
    let program = env::current_exe().unwrap().display().to_string();
    let events = events.iter().flat_map(|event| ["-e", event]);
    let arguments = options.iter().copied().chain(events).chain(["-b", "1M", "-n", "32", "--", "env", &load, &program]);
    let trace = record(&arguments.collect::<Vec<_>>());
    (trace, fs::read_to_string(file).unwrap().parse().unwrap())
}

/// All that relayd has counted as lost, and all that the kernel has as skipped.
fn lost(trace: &Trace) -> u64 {
    let skipped = |program: &Value| program["recursion_misses"].as_u64().unwrap_or(0);
    let skipped: u64 = trace.summary["programs"].as_array().unwrap().iter().map(skipped).sum();
    let missed = trace.summary["kprobes_missed"].as_u64().unwrap_or(0);
    ["lost", "unpaired", "suppressed"].iter().map(|name| trace.total(name)).sum::<u64>() + skipped + missed
}

/// What must hold of every recording. `calls` are those of the load, of one event.
fn check(trace: &Trace, what: &str) {
    succeed(&mut trace.relayd("verify"));
    trace.adds_up();
    for cpu in trace.session["cpus"].as_array().unwrap() {
        assert_eq!(cpu["lost_nested"], 0, "{what}: {cpu}");
    }
}

/// Durations of one thread's calls of one event: one after another, but for those inside the call. A record's time is a little after its
/// duration was taken, never after the next call has begun.
fn check_durations(lines: &[Value], what: &str) {
    let mut last: std::collections::HashMap<(u64, &str), Vec<(u64, u64)>> = std::collections::HashMap::new();
    for line in lines {
        let Some(duration) = line["fields"]["duration_ns"].as_u64() else { continue };
        let (end, thread) = (line["time"].as_u64().unwrap(), line["tid"].as_u64().unwrap());
        let event = line["event"].as_str().unwrap();
        // What is called in recursion returns how deep it is.
        let depth = if event.starts_with("uretprobe:") { line["fields"]["retval"].as_u64().unwrap() } else { 0 };
        let returned = last.entry((thread, event)).or_default();
        while returned.last().is_some_and(|(inside, _)| *inside < depth) {
            returned.pop();
        }
        let before = returned.last().map_or(0, |(_, end)| *end);
        assert!(before + duration <= end, "{what}: {line} overlaps the call that ended at {before}");
        returned.push((depth, end));
    }
}

/// Whether a task can be preempted between the kernel's count of an event's program and the program's first instruction, where nothing of ours
/// can prevent it; it then closes the program for the CPU, and for longer the more tasks there are.
fn may_close(event: &str) -> bool {
    event.starts_with("rawtracepoint:") && host::kernel_version().is_none_or(|version| version >= (7, 0))
}

fn kinds_alone(kinds: Vec<Kind>) {
    for Kind { event, work, is_timed } in kinds {
        for &threads in if relay_tests::repeats(100) > 1 { &[1, 2, 4, 64][..] } else { &[2, 64] } {
            let (trace, calls) = recorded(&[&event], work, threads);
            let what = format!("{event}, {threads} threads");
            check(&trace, &what);
            if is_timed {
                let lines = trace.print(&[]);
                check_durations(&lines, &what);
                assert!(lines.iter().all(|line| line["fields"]["duration_ns"].is_u64()), "{what}");
            }
            let (recorded, lost) = (trace.total("recorded"), lost(&trace));
            println!("{what}: {calls} calls, {recorded} recorded, {lost} lost");
            // Others call too, a little.
            assert!(
                recorded + lost >= calls,
                "{what}: {calls} calls, {recorded} recorded, {lost} lost: {}",
                trace.summary
            );
            assert!(recorded <= calls + 100, "{what}: {calls} calls, {recorded} recorded: {}", trace.summary);
            // Tasks that are preempted inside a function take all the room that the kernel has for returns.
            let no_room = trace.summary["kprobes_missed"].as_u64().unwrap_or(0);
            let few = (lost - no_room) * 100 <= calls;
            assert!(few || may_close(&event), "{what}: {lost} of {calls} lost: {}", trace.summary);
        }
    }
}

pub(crate) fn every_call_is_accounted_for_by_kind() {
    kinds_alone(in_tasks());
}

pub(crate) fn every_call_of_a_function_of_the_kernel_is_accounted_for() {
    kinds_alone(in_functions());
}

/// Without the kernel's statistics, with which tasks are preempted at the program's end; and how often a program is skipped that does nothing.
pub(crate) fn every_call_of_a_raw_tracepoint_is_accounted_for_without_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calls");
    let geometry = (Geometry::new(4096, 2).unwrap(), Mode::Overwrite);
    for threads in [2, 64] {
        let (trace, calls) = recorded_with(&[], &["rawtracepoint:task_rename"], "rename", threads);
        let (recorded, lost) = (trace.total("recorded"), lost(&trace));
        println!("{threads} threads: {calls} calls, {recorded} recorded, {lost} lost");
        assert!(recorded + lost >= calls, "{threads} threads: {calls} calls, {recorded} recorded: {}", trace.summary);
        let mut clients = Clients::load(geometry, geometry).unwrap();
        let _link = clients.attach("nothing", "task_rename").unwrap();
        succeed(Command::new(env::current_exe().unwrap()).env(LOAD, load("rename", threads, &file)));
        let calls = fs::read_to_string(&file).unwrap();
        let nothing = clients.ebpf.program("nothing").unwrap().fd().unwrap();
        let skipped = machine::program_counts(nothing.as_fd()).unwrap().recursion_misses;
        println!("{threads} threads: {calls} calls, of which a program that does nothing has {skipped} skipped");
    }
}

/// A program of a few instructions with a static probe, which it passes so many times.
fn static_probes(path: &Path, times: u32) {
    // The probe is the second instruction.
    let (machine, code, probe): (u16, Vec<u8>, u64) = if cfg!(target_arch = "aarch64") {
        // movz x1, low; movk x1, high, lsl 16; nop; subs x1, x1, 1; b.ne nop; movz x8, 93; movz x0, 0; svc 0
        let (low, high) = (times & 0xffff, times >> 16);
        let words = [
            0xd280_0001 | low << 5,
            0xf2a0_0001 | high << 5,
            0xd503_201f,
            0xf100_0421,
            0x54ff_ffc1,
            0xd280_0ba8,
            0xd280_0000,
            0xd400_0001,
        ];
        (183, words.into_iter().flat_map(u32::to_le_bytes).collect(), 8)
    } else {
        // mov ecx, times; nop; dec ecx; jnz nop; mov eax, 60; xor edi, edi; syscall
        let mut code = vec![0xb9];
        code.extend(times.to_le_bytes());
        code.extend([0x90, 0xff, 0xc9, 0x75, 0xfb, 0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]);
        (62, code, 5)
    };
    let mut note = Vec::new();
    let description: Vec<u8> =
        [BASE + CODE_AT + probe, 0, 0].into_iter().flat_map(u64::to_le_bytes).chain(*b"relay\0hit\0\0").collect();
    for number in [8, u32::try_from(description.len()).unwrap(), 3] {
        note.extend(number.to_le_bytes());
    }
    note.extend(*b"stapsdt\0");
    note.extend(&description);
    note.resize(note.len().next_multiple_of(4), 0);
    let names = b"\0.text\0.note.stapsdt\0.shstrtab\0";
    let (text_len, note_len) = (code.len() as u64, note.len() as u64);
    let note_at = (CODE_AT + text_len).next_multiple_of(8);
    let names_at = note_at + note_len;
    let sections_at = (names_at + names.len() as u64).next_multiple_of(8);
    let mut image = image(machine, &code, (sections_at, 4));
    image.resize(usize::try_from(note_at).unwrap(), 0);
    image.extend(&note);
    image.extend(names);
    image.resize(usize::try_from(sections_at).unwrap(), 0);
    // Name, type, flags, address, place, length, link, info, alignment, size of an entry.
    for [name, kind, flags, address, place, len] in [
        [0, 0, 0, 0, 0, 0],
        [1, 1, 6, BASE + CODE_AT, CODE_AT, text_len],
        [7, 7, 0, 0, note_at, note_len],
        [21, 3, 0, 0, names_at, names.len() as u64],
    ] {
        let mut put = |value: u64, len: usize| image.extend(&value.to_le_bytes()[..len]);
        put(name, 4);
        put(kind, 4);
        [flags, address, place, len].into_iter().for_each(|value| put(value, 8));
        put(0, 8);
        put(4, 8);
        put(0, 8);
    }
    write_program(path, &image);
}

pub(crate) fn every_pass_of_a_static_probe_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("relaywork");
    for tasks in [1, 2, 4, 64] {
        let times = wakes() * 10 / tasks;
        static_probes(&program, times);
        let event = format!("usdt:{}:relay:hit", program.display());
        let script = format!("for i in $(seq {tasks}); do taskset -c 0 {} & done; wait", program.display());
        let trace = record(&["-e", &event, "--bpf-stats", "-n", "32", "--", "sh", "-c", &script]);
        let what = format!("usdt, {tasks} tasks");
        check(&trace, &what);
        let calls = u64::from(times * tasks);
        assert_eq!(trace.total("recorded") + lost(&trace), calls, "{what}: {}", trace.summary);
    }
}

/// Events of every kind at once: how many are called, which the load counts; then those that only disturb.
fn mixture() -> (usize, Vec<String>) {
    let mut events: Vec<_> = in_tasks().into_iter().map(|kind| kind.event).collect();
    if Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        events.extend(in_functions().into_iter().map(|kind| kind.event));
    }
    let called = events.len();
    events.extend(["sched:*", "irq:*", "signal:*", "rawtracepoint:sched_switch", "profile:hz:500"].map(str::to_owned));
    (called, events)
}

pub(crate) fn all_kinds_at_once_account_for_every_call() {
    for threads in [1, 2, 4, 64] {
        all_kinds_at_once(threads);
    }
}

/// Records events of every kind while so many threads cause all of them: whichever of an event's calls is not recorded was counted.
fn all_kinds_at_once(threads: usize) {
    let (called, events) = mixture();
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    let (trace, calls) = recorded(&events, "all", threads);
    let what = format!("all kinds, {threads} threads");
    check(&trace, &what);
    let lines = trace.print(&[]);
    check_durations(&lines, &what);
    let mut counts: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    lines.iter().for_each(|line| *counts.entry(line["event"].as_str().unwrap()).or_default() += 1);
    let disturbs = |event: &&str| {
        ["sched:", "irq:", "signal:", "profile:"].iter().any(|kind| event.starts_with(kind))
            || event.ends_with("sched_switch")
    };
    let counted: Vec<_> = counts.iter().filter(|(event, _)| !disturbs(event)).collect();
    assert_eq!(counted.len(), called, "{what}: of an event there is no record: {counted:?}");
    let missing: u64 = counted
        .iter()
        .map(|(event, count)| {
            (if event.contains("probed_function") { calls * DEPTH } else { calls }).saturating_sub(**count)
        })
        .sum();
    let lost = lost(&trace);
    println!("{what}: {calls} times, {missing} missing of {counted:?}, {lost} lost");
    assert!(missing <= lost, "{what}: {calls} times, {missing} missing, {lost} lost: {counted:?} {}", trace.summary);
}

/// Ends a child, by interrupt, and waits for it.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Everything at once, in a buffer that is overwritten, while snapshots are taken, processes come and go, and a CPU too. Beside it another recorder
/// accounts for every call of the load.
pub(crate) fn snapshots_of_all_kinds_are_sound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let mut command = relayd();
    command.args(["trace", "--overwrite", "--latency", "-b", "64K", "-n", "8", "-o"]).arg(&path);
    for event in mixture().1 {
        command.args(["-e", &event]);
    }
    // It ends with this process, also when that is killed.
    let storm = "while kill -0 $0 2> /dev/null; do /bin/true; kill -WINCH $$; done";
    let this = std::process::id().to_string();
    let child =
        command.args(["--", "sh", "-c", storm, &this]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let child = Ends(child);
    wait_until("the recording has begun", || path.join(".relayd/session.json").exists());
    let switch = Path::new("/sys/devices/system/cpu/cpu1/online");
    let mut snapshots: Vec<PathBuf> = Vec::new();
    let least = relay_tests::repeats(30) as usize;
    thread::scope(|scope| {
        let load = scope.spawn(|| all_kinds_at_once(8));
        while snapshots.len() < least || !load.is_finished() {
            kill_process(Pid::from_child(&child.0), Signal::USR1).unwrap();
            let number = snapshots.len() + 1;
            let snapshot = folder.path().join(format!("trace-snapshot-{number}"));
            wait_until("there is a snapshot", || snapshot.join(".relayd/session.json").exists());
            snapshots.push(snapshot);
            if switch.exists() {
                fs::write(switch, if number % 2 == 1 { "0" } else { "1" }).unwrap();
            }
        }
    });
    if switch.exists() {
        fs::write(switch, "1").unwrap();
    }
    kill_process(Pid::from_child(&child.0), Signal::INT).unwrap();
    wait_until("the recording has ended", || !Path::new(&format!("/proc/{}/exe", child.0.id())).exists());
    for trace in snapshots.iter().chain([&path]) {
        succeed(relayd().arg("verify").arg(trace));
        check_durations(&print(trace, &[]), &trace.display().to_string());
    }
}
