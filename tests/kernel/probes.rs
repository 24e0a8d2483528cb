//! Every kind of event but tracepoints: what is recorded is what happened, by another program's account or by arithmetic.

use std::{
    collections::HashMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use relay_tests::{
    Recording, Running, Trace, channel::run_on, fail, library_of, machine::files_of, record, relayd, succeed, text,
};
use rustix::process::Signal;

use crate::compare::field;

/// A copy of `dd` under a name of its own, so that its threads are told from others.
pub(crate) struct Work {
    pub(crate) folder: tempfile::TempDir,
}

impl Work {
    pub(crate) fn new(program: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(program, folder.path().join("relaywork")).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> String {
        self.folder.path().join("relaywork").display().to_string()
    }
}

/// Records while dd, named relaywork, copies `count` blocks of 16 bytes. Returns the lines of its own threads.
fn record_dd(count: u32, arguments: &[&str]) -> (Trace, Vec<String>) {
    let work = Work::new("/bin/dd");
    let (program, count) = (work.path(), format!("count={count}"));
    let command = ["--", &program, "if=/dev/zero", "of=/dev/null", "bs=16", &count, "status=none"];
    let trace = record(&[arguments, &["--comm", "relaywork", "--bpf-stats"], &command[..]].concat());
    adds_up(&trace);
    let lines = trace.named();
    (trace, lines)
}

/// The kernel's count of runs is what relayd accounts for, and babeltrace2 reads what is recorded.
pub(crate) fn adds_up(trace: &Trace) {
    trace.adds_up();
    assert_eq!(trace.babeltrace().len() as u64, trace.total("recorded") - trace.total("overrun"), "{}", trace.summary);
}

fn number(line: &str, name: &str) -> i128 {
    let value = field(line, name);
    match value.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16),
        None => value.parse(),
    }
    .unwrap_or_else(|_| panic!("{name} is {value:?} in {line}"))
}

pub(crate) fn system_calls_have_their_arguments_results_and_durations() {
    let (_, lines) = record_dd(1000, &["-e", "syscall:read if count == 16", "-e", "syscall:openat"]);
    let reads: Vec<_> = lines.iter().filter(|line| line.contains(" syscall:read:")).collect();
    assert_eq!(reads.len(), 1000);
    for line in reads {
        assert_eq!((number(line, "fd"), number(line, "count"), number(line, "ret")), (0, 16, 16), "{line}");
        assert!((1..1_000_000_000).contains(&number(line, "duration_ns")), "{line}");
    }
    let opened: Vec<_> = lines.iter().filter(|line| line.contains(" syscall:openat:")).collect();
    let find = |name: &str| opened.iter().filter(|line| field(line, "filename") == name).count();
    assert_eq!((find("/dev/zero"), find("/dev/null")), (1, 1), "{opened:#?}");
}

pub(crate) fn a_call_that_does_not_return_is_recorded_at_its_entry() {
    let trace = record(&["-e", "syscall:exit_group", "--follow", "--bpf-stats", "--", "sh", "-c", "(exit 3); exit 0"]);
    adds_up(&trace);
    let lines = trace.named();
    assert_eq!(lines.iter().map(|line| number(line, "error_code")).collect::<Vec<_>>(), [3, 0]);
}

/// It is under way at the end.
pub(crate) fn a_call_whose_return_never_comes_is_counted() {
    let script = "sleep 3 & sleep 0.5; exit 0";
    let trace = record(&["-e", "syscall:clock_nanosleep", "--comm", "sleep", "--bpf-stats", "--", "sh", "-c", script]);
    trace.adds_up();
    let counts = ["entries", "returned", "recorded"].map(|name| trace.total(name));
    assert_eq!(counts, [2, 1, 1], "{}", trace.summary);
}

pub(crate) fn an_execve_shows_the_program_that_was_run() {
    let trace = record(&["-e", "syscall:execve", "--bpf-stats", "--", "sh", "-c", "/bin/true; exit 0"]);
    adds_up(&trace);
    let lines = trace.named();
    let runs = lines.iter().filter(|line| field(line, "filename") == "/bin/true" && number(line, "ret") == 0);
    assert_eq!(runs.count(), 1, "{lines:#?}");
}

pub(crate) fn a_raw_tracepoint_has_the_arguments_of_the_kernel() {
    let selected = "rawtracepoint:sched_switch(pid=prev->pid, prev->comm, to=next->pid, next->prio)";
    let work = Work::new("/bin/dd");
    // Not the last to end: while its last switch away is recorded, by one program and then by the other, the recording must go on. Nothing
    // tells when a task has been switched away for the last time.
    let rest = "sleep 0.2";
    let script = format!("{} if=/dev/zero of=/dev/null bs=16 count=10 status=none; {rest}", work.path());
    let command = ["--comm", "relaywork", "--bpf-stats", "--", "sh", "-c", &script];
    let trace = record(&[&["-e", selected, "-e", "sched:sched_switch"], &command[..]].concat());
    adds_up(&trace);
    let lines = trace.named();
    let raw: Vec<_> = lines.iter().filter(|line| line.contains("rawtracepoint:")).collect();
    let cooked: Vec<_> = lines.iter().filter(|line| !line.contains("rawtracepoint:")).collect();
    assert_eq!(raw.len(), cooked.len());
    assert!(!raw.is_empty());
    for (raw, cooked) in raw.iter().zip(cooked) {
        let here = |name| number(raw, name);
        let there = |name| number(cooked, name);
        // Threads have numbers of their own in a namespace, but not here.
        assert_eq!(
            (here("pid"), here("to"), here("next_prio")),
            (there("prev_pid"), there("next_pid"), there("next_prio"))
        );
        assert_eq!(field(raw, "prev_comm"), field(cooked, "prev_comm"));
    }
}

pub(crate) fn samples_come_at_their_rate_from_every_cpu() {
    let trace = record(&["-e", "profile:hz:100", "--self", "-d", "2s", "--bpf-stats"]);
    let lines = trace.named();
    // An idle CPU's clock sleeps: a busy one has 200 samples in that time, and never many more.
    assert!(lines.len() > 20 && lines.len() < 250 * 8, "{} samples", lines.len());
    let spinning = "for i in 1 2; do timeout 1 sh -c 'while :; do :; done'; done; true";
    let busy = record(&["-e", "profile:hz:100", "--bpf-stats", "--", "sh", "-c", spinning]);
    adds_up(&busy);
    let lines = busy.named();
    assert!((150..2000).contains(&lines.len()), "{} samples in 2 s of spinning", lines.len());
    assert!(lines.iter().all(|line| number(line, "ip") != 0));
}

/// Those whose timer interrupts another program. The kernel does not count them.
pub(crate) fn samples_that_fall_into_another_program_are_counted() {
    let storm = "timeout 2 dd if=/dev/zero of=/dev/null bs=1 status=none; exit 0";
    samples_are_accounted_for(&["taskset", "-c", "0", "sh", "-c", storm], true);
}

/// Records samples of the first CPU, beside its system calls, while a command keeps it busy: those that did not come were counted. Whether some must
/// have been missed.
pub(crate) fn samples_are_accounted_for(command: &[&str], are_missed: bool) {
    const RATE: u64 = 2000;
    let events = format!("profile:hz:{RATE},raw_syscalls:*");
    // With relayd's own samples, which would have to be known too.
    let chosen = ["-e", &events, "--cpu", "0", "--self", "--bpf-stats", "-b", "1M", "-n", "32", "--"];
    let trace = record(&[&chosen[..], command].concat());
    trace.adds_up();
    assert_eq!(trace.total("lost"), 0, "{}", trace.summary);
    let missed = trace.summary["samples_missed"].as_u64().unwrap();
    let times: Vec<u64> = trace
        .print(&["-e", &format!("profile:hz:{RATE}")])
        .iter()
        .filter_map(|line| line["event"].as_str().and(line["time"].as_u64()))
        .collect();
    let due = (times.last().unwrap() - times[0]) * RATE / 1_000_000_000;
    let came = times.len() as u64;
    println!("{command:?}: {came} samples came, {missed} were missed, {due} were due");
    assert!(!are_missed || came < due, "{came} of {due} samples came: none was missed");
    assert!(came + missed >= due - due / 50, "{missed} missed, {came} came, {due} were due");
}

pub(crate) fn bpftrace_saw_the_same_calls_of_a_library() {
    let work = Work::new("/bin/cat");
    let library = library_of(&work.path());
    let program = format!("uprobe:{library}:read /comm == \"relaywork\"/ {{ printf(\"%d %d\\n\", arg0, arg2); }}");
    let (theirs, ours) =
        beside_bpftrace(&program, &["-e", &format!("uprobe:{library}:read(arg0, arg2)")], &work, "/etc/passwd");
    let ours: Vec<_> = ours.iter().map(|line| format!("{} {}", number(line, "arg0"), number(line, "arg2"))).collect();
    assert_eq!(ours, theirs);
    assert!(!ours.is_empty());
}

pub(crate) fn bpftrace_saw_the_same_returns_of_a_library() {
    let work = Work::new("/bin/cat");
    let library = library_of(&work.path());
    let program = format!("uretprobe:{library}:read /comm == \"relaywork\"/ {{ printf(\"%d\\n\", retval); }}");
    let event = format!("uretprobe:{library}:read(arg2, retval)");
    let (theirs, ours) = beside_bpftrace(&program, &["--latency", "-e", &event], &work, "/etc/passwd");
    assert!(ours.iter().all(|line| number(line, "duration_ns") > 0 && number(line, "arg2") > 0), "{ours:#?}");
    let ours: Vec<_> = ours.iter().map(|line| number(line, "retval").to_string()).collect();
    assert_eq!(ours, theirs);
    assert!(!ours.is_empty());
}

pub(crate) fn bpftrace_saw_the_same_kprobes() {
    let program = "kprobe:vfs_read /comm == \"relaywork\"/ { printf(\"%lx %lx %d\\n\", arg0, arg1, arg2); }";
    let (theirs, ours) =
        beside_bpftrace(program, &["-e", "kprobe:vfs_read"], &Work::new("/bin/cat"), "/proc/self/status");
    let essence =
        |line: &String| format!("{:x} {:x} {}", number(line, "file"), number(line, "buf"), number(line, "count"));
    let ours: Vec<_> = ours.iter().map(essence).collect();
    assert_eq!(ours, theirs);
    assert!(!theirs.is_empty());
}

pub(crate) fn bpftrace_saw_the_same_kretprobes() {
    let program = "kretprobe:vfs_read /comm == \"relaywork\"/ { printf(\"%d\\n\", retval); }";
    let arguments = ["--latency", "-e", "kretprobe:vfs_read(count, retval)"];
    let (theirs, ours) = beside_bpftrace(program, &arguments, &Work::new("/bin/cat"), "/proc/self/status");
    assert!(ours.iter().all(|line| number(line, "duration_ns") > 0 && number(line, "count") > 0), "{ours:#?}");
    let ours: Vec<_> = ours.iter().map(|line| number(line, "retval").to_string()).collect();
    assert_eq!(ours, theirs);
    assert!(!theirs.is_empty());
}

pub(crate) fn bpftrace_saw_the_same_functions_of_a_pattern() {
    let program =
        "kprobe:vfs_read,kprobe:vfs_write,kprobe:vfs_open /comm == \"relaywork\"/ { printf(\"%s\\n\", probe); }";
    let (theirs, ours) = beside_bpftrace(program, &["-e", "kprobe:vfs_*"], &Work::new("/bin/cat"), "/proc/self/status");
    let named = |line: &String| {
        let name = line.split(": {").next()?.split_whitespace().last()?.to_owned();
        ["kprobe:vfs_read", "kprobe:vfs_write", "kprobe:vfs_open"].contains(&&*name).then_some(name)
    };
    let ours: Vec<_> = ours.iter().filter_map(named).collect();
    assert_eq!(ours, theirs);
    assert!(!theirs.is_empty());
}

pub(crate) fn the_functions_of_a_pattern_are_attached_at_once() {
    let start = std::time::Instant::now();
    let recording = Recording::start(&["-e", "kprobe:tcp_*,kprobe:inet_*,kprobe:udp*,kprobe:ip_*"]);
    let time = start.elapsed();
    let links = files_of(recording.relayd.pid(), "link_type");
    let trace = recording.stop();
    let events = trace.session["events"].as_array().unwrap().len();
    println!("{events} functions in {:.1} s from the command to recording", time.as_secs_f64());
    assert!(events > 500, "{events} functions");
    assert_eq!(links, ["kprobe_multi"]);
}

pub(crate) fn kprobes_and_trampolines_of_one_function_agree() {
    let path = "file->f_inode->i_ino, name=file->f_path.dentry->d_name.name:kstr, count";
    let events = [
        format!("kprobe:vfs_read({path})"),
        format!("fentry:vfs_read({path})"),
        "kretprobe:vfs_read(count, retval)".to_owned(),
        "fexit:vfs_read(count, retval)".to_owned(),
    ];
    let (_, lines) = record_dd(100, &["--latency", "-e", &events.join(",")]);
    let of = |kind: &str| -> Vec<&String> {
        lines.iter().filter(|line| line.contains(&format!(" {kind}:vfs_read:"))).collect()
    };
    let (kprobe, fentry, kretprobe, fexit) = (of("kprobe"), of("fentry"), of("kretprobe"), of("fexit"));
    assert!(kprobe.len() >= 100, "{}", kprobe.len());
    assert_eq!((kprobe.len(), kretprobe.len()), (fentry.len(), fexit.len()));
    for (one, other) in kprobe.iter().zip(&fentry) {
        for name in ["file_f_inode_i_ino", "name", "count"] {
            assert_eq!(field(one, name), field(other, name), "{one}\n{other}");
        }
    }
    for (one, other) in kretprobe.iter().zip(&fexit) {
        assert_eq!((number(one, "count"), number(one, "retval")), (number(other, "count"), number(other, "retval")));
        assert!(number(one, "duration_ns") > 0 && number(other, "duration_ns") > 0);
    }
    assert!(kprobe.iter().filter(|line| field(line, "name") == "zero").count() >= 100, "dd reads /dev/zero");
}

pub(crate) fn a_duration_is_the_time_between_entry_and_return() {
    let trace = record(&["--latency", "-e", "kretprobe:hrtimer_nanosleep", "--bpf-stats", "--", "sleep", "0.2"]);
    adds_up(&trace);
    let lines = trace.named();
    let slept = lines.iter().filter(|line| number(line, "duration_ns") >= 200_000_000);
    assert_eq!(slept.count(), 1, "{lines:#?}");
}

/// Threads that preempt one another on one CPU: where the kernel skips programs there, a return could find the entry of another call.
pub(crate) fn durations_of_one_thread_do_not_overlap() {
    const THREADS: usize = 8;
    let cpu = relay_channel::machine::online_cpus().unwrap()[0];
    let end = Arc::new(AtomicBool::new(false));
    let reader = |index: usize| {
        let end = Arc::clone(&end);
        thread::spawn(move || {
            run_on(cpu);
            if index == 0 {
                relay_channel::sys::run_ahead_of_tasks().unwrap();
            }
            let zeros = fs::File::open("/dev/zero").unwrap();
            while !end.load(Relaxed) {
                for _ in 0..20 {
                    (&zeros).read_exact(&mut [0; 16]).unwrap();
                }
                if index == 0 {
                    thread::sleep(Duration::from_micros(500));
                }
            }
        })
    };
    let readers: Vec<_> = (0..THREADS).map(reader).collect();
    let pid = std::process::id().to_string();
    let events = "fexit:vfs_read(count),kretprobe:vfs_read(count),syscall:read";
    let trace = record(&["--latency", "-e", events, "--pid", &pid, "-d", "2s", "--bpf-stats"]);
    end.store(true, Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    trace.adds_up();
    let mut ends: HashMap<(u64, String), u64> = HashMap::new();
    let (mut durations, mut overlapping) = (0, Vec::new());
    for line in trace.print(&[]).iter().filter(|line| line["fields"]["duration_ns"].is_u64()) {
        let number = |value: &serde_json::Value| value.as_u64().unwrap();
        let (time, tid) = (number(&line["time"]), number(&line["tid"]));
        let begin = time - number(&line["fields"]["duration_ns"]);
        let before = ends.insert((tid, line["event"].as_str().unwrap().to_owned()), time).unwrap_or(0);
        if begin < before {
            overlapping.push(format!("began {} ns before the thread's last call had ended: {line}", before - begin));
        }
        durations += 1;
    }
    println!("{} of {durations} overlap", overlapping.len());
    assert!(overlapping.is_empty(), "{} of {durations}: {overlapping:#?}", overlapping.len());
    assert!(durations > 1000, "{durations} calls: {}", trace.summary);
}

pub(crate) fn returns_that_the_kernel_had_no_room_for_are_counted() {
    // It watches for ten returns of a function at once, or for two on each CPU.
    const SLEEPERS: u64 = 200;
    let script = format!("for i in $(seq {SLEEPERS}); do sleep 5 & done; wait");
    let trace =
        record(&["-e", "kretprobe:hrtimer_nanosleep", "--comm", "sleep", "--bpf-stats", "--", "sh", "-c", &script]);
    adds_up(&trace);
    let recorded = trace.total("recorded");
    assert!(recorded < SLEEPERS, "{}", trace.summary);
    // Before Linux 6.7 it does not tell.
    if let Some(missed) = trace.summary["kprobes_missed"].as_u64() {
        assert!(recorded + missed >= SLEEPERS, "{}", trace.summary);
    } else {
        let release = text(&succeed(Command::new("uname").arg("-r")).stdout);
        assert!(release.starts_with("5.") || release.starts_with("6.1."), "{release}");
    }
}

pub(crate) fn a_system_call_takes_as_long_as_it_slept() {
    let trace = record(&["-e", "syscall:clock_nanosleep", "--bpf-stats", "--", "sleep", "0.2"]);
    adds_up(&trace);
    let lines = trace.named();
    let slept = lines.iter().filter(|line| (200_000_000..5_000_000_000).contains(&number(line, "duration_ns")));
    assert_eq!(slept.count(), 1, "{lines:#?}");
}

pub(crate) fn calls_inside_calls_are_paired_each_with_its_own() {
    // The kernel watches for 64 returns of a thread: of 200 calls inside one another it sees those of the outermost.
    const SOURCE: &str = "static int deep(int n) { return n <= 1 ? 1 : deep(n - 1) + 1; }
        int main(void) { deep(40); deep(200); for (int i = 0; i < 10; i++) deep(1); return 0; }";
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("deep.c"), folder.path().join("deep"));
    fs::write(&source, SOURCE).unwrap();
    succeed(Command::new("cc").args(["-O0", "-o"]).arg(&program).arg(&source));
    let program = program.display().to_string();
    let event = format!("uretprobe:{program}:deep(arg0:s32, retval:s32)");
    let trace = record(&["--latency", "-e", &event, "--bpf-stats", "--", &program]);
    adds_up(&trace);
    // Of those whose returns were not seen a bounded number is given up at a time.
    assert_eq!(trace.total("entries"), 250);
    assert_eq!(trace.total("returned"), trace.total("recorded"), "{}", trace.summary);
    assert!(trace.total("unpaired") < 5, "{}", trace.summary);
    let returned: Vec<_> = trace.named().iter().map(|line| (number(line, "arg0"), number(line, "retval"))).collect();
    assert!(returned.iter().all(|(argument, result)| argument == result), "{returned:?}");
    let (first, rest) = returned.split_at(40);
    assert_eq!(first, (1..=40).map(|n| (n, n)).collect::<Vec<_>>());
    assert_eq!(rest.last_chunk(), Some(&[(1, 1); 10]));
    assert!(rest[..rest.len() - 10].ends_with(&[(199, 199), (200, 200)]), "{rest:?}");
}

/// What makes static probes as `<sys/sdt.h>` does: without it, since it is not everywhere.
pub(crate) const NOTES: &str = r#"
        #define NOTE(name, semaphore, arguments) \
            ".pushsection .note.stapsdt,\"?\",\"note\"\n.balign 4\n.4byte 8f-7f, 10f-9f, 3\n7: .asciz \"stapsdt\"\n8: .balign 4\n" \
            "9: .8byte 990b, _.stapsdt.base, " semaphore "\n.asciz \"relay\"\n.asciz \"" name "\"\n.asciz \"" arguments "\"\n" \
            "10: .balign 4\n.popsection\n"
        __asm__(".ifndef _.stapsdt.base\n.pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n.weak _.stapsdt.base\n"
                "_.stapsdt.base: .space 1\n.popsection\n.endif\n");
"#;

pub(crate) fn static_probes_have_their_arguments() {
    // Two probes. One waits behind a semaphore.
    const SOURCE: &str = r#"
        unsigned short ready __attribute__((section(".probes")));
        int main(void) {
            /* What no one has looked at yet is not in memory, and a probe cannot wait for it. */
            volatile char first = *(volatile char *)"a text";
            for (long i = 0; i < 10; i++) {
                long address = (long)"a text";
                int small = -(int)i;
                __asm__ volatile("990: nop\n" NOTE("plain", "0", "-4@%1 8@%2 4@$7") :: "r"(i), "r"(small), "r"(address));
                if (ready) {
                    __asm__ volatile("990: nop\n" NOTE("guarded", "ready", "8@%0") :: "m"(i));
                }
            }
            return 0;
        }
    "#;
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("probes.c"), folder.path().join("probes"));
    fs::write(&source, [NOTES, SOURCE].concat()).unwrap();
    succeed(Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(&source));
    let program = program.display().to_string();
    let event = format!("usdt:{program}:relay:plain(arg0, arg1:ustr, arg2),usdt:{program}:relay:guarded");
    let trace = record(&["-e", &event, "--bpf-stats", "--", &program]);
    adds_up(&trace);
    let lines = trace.named();
    let of = |name: &str| lines.iter().filter(move |line| line.contains(name)).collect::<Vec<_>>();
    let (plain, guarded) = (of(":relay:plain"), of(":relay:guarded"));
    assert_eq!((plain.len(), guarded.len()), (10, 10), "{lines:#?}");
    for (index, (plain, guarded)) in (0..).zip(plain.iter().zip(guarded)) {
        assert_eq!((number(plain, "arg0"), field(plain, "arg1"), number(plain, "arg2")), (-index, "a text", 7));
        assert_eq!(number(guarded, "arg0"), index);
    }
}

pub(crate) fn static_probes_have_arguments_in_memory_and_those_left_out_are_named() {
    const SOURCE: &str = r#"
        static volatile long table[5] = { 10, 20, 30, 40, 50 };
        static volatile int pair[2] __attribute__((used)) = { -5, 77 };
        int main(void) {
            const char *volatile text = "a text";
            volatile char first = *text;
            for (long i = 0; i < 4; i++) {
        #ifdef __x86_64__
                __asm__ volatile("990: nop\n" NOTE("places", "0", "8@(%0,%1,8) 8@8(%0,%1,8) -4@pair(%%rip) 4@pair+4(%%rip) 8@%2 8f@%%xmm0 4@nowhere(%%rip)")
                                 :: "r"(table), "r"(i), "m"(text));
        #else
                __asm__ volatile("990: nop\n" NOTE("places", "0", "8@[%0, %1, lsl 3] 8f@d0") :: "r"(table), "r"(i), "m"(text));
        #endif
            }
            return 0;
        }
    "#;
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("places.c"), folder.path().join("places"));
    fs::write(&source, [NOTES, SOURCE].concat()).unwrap();
    succeed(Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(&source));
    let program = program.display().to_string();
    let event = format!("usdt:{program}:relay:places");
    let is_x86 = cfg!(target_arch = "x86_64");
    let arguments = if is_x86 { "(arg0, arg1, arg2, arg3, arg4:ustr)" } else { "(arg0)" };
    let recording = Recording::start(&["--comm", "places", "--bpf-stats", "-e", &format!("{event}{arguments}")]);
    succeed(&mut Command::new(&program));
    recording.relayd.signal(Signal::INT);
    let (ended, trace) = recording.end();
    adds_up(&trace);
    let lines = trace.named();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    for (index, line) in (0..).zip(&lines) {
        assert_eq!(number(line, "arg0"), 10 * (index + 1), "{line}");
        if is_x86 {
            let others = ["arg1", "arg2", "arg3"].map(|name| number(line, name));
            assert_eq!((others, field(line, "arg4")), ([10 * (index + 2), -5, 77], "a text"), "{line}");
        }
    }
    let listed = text(&succeed(relayd().args(["list", "-v", &event])).stdout);
    let left_out = if is_x86 { &["arg5 at 8f@%xmm0", "arg6 at nowhere(%rip)"][..] } else { &["arg1 at 8f@d0"] };
    for left_out in left_out {
        assert!(listed.contains(&format!("not recorded: {left_out}")), "{listed}");
    }
    let said = format!("relay:places: {}", left_out[0]);
    assert!(ended.stderr.contains(&said), "{}", ended.stderr);
}

pub(crate) fn an_address_in_an_integer_is_followed() {
    let event = "rawtracepoint:sched_process_exec(text=p->mm->arg_start:ustr, at=p->mm->arg_start:hex, bytes=p->mm->arg_start:buf:4)";
    let trace = record(&["-e", event, "--bpf-stats", "--follow", "--", "sh", "-c", "/bin/true one; exit 0"]);
    adds_up(&trace);
    let lines = trace.print(&[]);
    let run = lines.iter().find(|line| line["comm"] == "true").unwrap_or_else(|| panic!("{lines:?}"));
    assert_eq!(run["fields"]["text"], "/bin/true", "{run}");
    assert_eq!(run["fields"]["bytes"], serde_json::json!(b"/bin"), "{run}");
}

pub(crate) fn a_string_that_cannot_be_read_is_recorded_as_a_fault() {
    // The first argument of malloc is a length: no string is there.
    let (trace, lines) = record_dd(1, &["-e", "uprobe:libc:malloc(text=arg0:ustr, arg0)"]);
    let faults =
        lines.iter().filter(|line| field(line, "text") == "(fault)" && line.contains("{ off = 65535, len = 8 }"));
    let faults = faults.count();
    assert!(faults > 0, "{lines:#?}");
    assert_eq!(trace.total("faults"), faults as u64);
    // What a condition would have said of it is not known.
    let (_, kept) = record_dd(1, &["-e", "uprobe:libc:malloc(text=arg0:ustr, arg0) if text == \"nothing like it\""]);
    assert!(kept.iter().any(|line| field(line, "text") == "(fault)"), "{kept:#?}");
}

/// Runs `relaywork FILE` while both bpftrace and relayd record. Returns what bpftrace printed, and relayd's lines.
pub(crate) fn beside_bpftrace(
    program: &str,
    arguments: &[&str],
    work: &Work,
    file: &str,
) -> (Vec<String>, Vec<String>) {
    let program = format!("BEGIN {{ printf(\"ready\\n\"); }} {program}");
    let mut bpftrace = Running::start(Command::new("bpftrace").args(["-e", &program]));
    bpftrace.wait_until("bpftrace is ready", |bpftrace| bpftrace.printed().lines().any(|line| line == "ready"));
    let program = work.path();
    let command = ["--comm", "relaywork", "--bpf-stats", "--", &program, file];
    let trace = record(&[arguments, &command].concat());
    adds_up(&trace);
    bpftrace.signal(Signal::INT);
    let printed = bpftrace.end().stdout;
    let lines = printed.lines().filter(|line| !line.is_empty() && *line != "ready" && !line.starts_with("Attaching"));
    (lines.map(str::to_owned).collect(), trace.named())
}

pub(crate) fn what_is_wrong_with_an_event_is_said() {
    for (event, message) in [
        ("rawtracepoint:sched_swich", "did you mean sched_switch"),
        ("rawtracepoint:sched_switch(nxt)", "there is no argument 'nxt'; there are: preempt, prev, next"),
        ("rawtracepoint:sched_switch(prev->pidd)", "did you mean pid"),
        ("rawtracepoint:sched_switch(prev->pid:ustr)", "it is not an address"),
        ("rawtracepoint:sched_switch(prev->in_execve:ustr)", "it is not an address"),
        ("syscall:opanat", "did you mean openat"),
        ("syscall:openat(path)", "there are: dfd, filename, flags, mode, ret, duration_ns"),
        ("uprobe:libc:mallok", "did you mean"),
        ("uprobe:/etc/passwd:main", "ELF"),
        ("uprobe:/nosuch:main", "/nosuch"),
        ("uretprobe:libc:malloc(arg0)", "--latency"),
        ("usdt:/bin/true:a:b", "no USDT probes"),
        ("profile:hz:0", "from 1 to"),
        ("profile:99", "profile:hz:RATE"),
        ("sched:sched_switch(prev_pid)", "leave out the parentheses"),
        ("sched:sched_switch if next_comm == 5", "column 1"),
        ("sched:sched_switch if next_pid == \"x\"", "column"),
        ("sched:sched_switch if next_pidd > 1", "no field 'next_pidd'; did you mean next_pid"),
        ("sched:sched_switch if next_pid <", "column"),
        ("sched:sched_switch if next_pid > 1,sched:sched_switch", "selected twice"),
        ("syscall:close if fd == -1", "from 0 to 4294967295 here: this never holds"),
        ("syscall:close(fd) when fd == 1", "a condition begins with if"),
        ("uprobe:libc:malloc+1", "no instruction begins there"),
        ("uprobe:libc:0x1", "no probe is put there"),
    ] {
        let said = fail(relayd().args(["trace", "-o", "/nosuch/x", "-d", "1ms", "-e", event]), 1);
        assert!(said.contains(message), "{event}: {said}");
    }
}

pub(crate) fn what_is_wrong_with_a_function_is_said() {
    // The kernel says beforehand where it allows none, if debugfs is mounted.
    let is_told = Path::new("/sys/kernel/debug/kprobes/blacklist").exists();
    let refused = if is_told { "kprobes are not allowed in exc_int3" } else { "no probe may be put there" };
    for (event, message) in [
        ("kprobe:vfs_raed", "did you mean vfs_read"),
        ("kprobe:vfs_read(cuont)", "there is no argument 'cuont'; there are: file, buf, count, pos"),
        ("kprobe:vfs_read+1", "no instruction begins"),
        ("kprobe:vfs_read+100000", "no instruction begins"),
        // Handles the breakpoints that kprobes are made of.
        ("kprobe:exc_int3", refused),
        // A static inline of include/linux/fs.h.
        ("kprobe:file_inode", "inlined"),
        ("kprobe:nosuchmodule:function", "module"),
        ("kretprobe:vfs_read(count)", "--latency"),
        ("fentry:vfs_raed", "did you mean vfs_read"),
        ("kprobe:nosuch_*", "no function of the kernel matches"),
        ("kprobe:vfs_read(file->f_inod)", "did you mean f_inode"),
    ] {
        let said = fail(relayd().args(["trace", "-o", "/tmp/relayd-refused", "-d", "1ms", "-e", event]), 1);
        assert!(said.contains(message), "{event}: {said}");
    }
}

pub(crate) fn a_kind_that_the_kernel_lacks_is_refused_with_one_that_works() {
    for event in ["kprobe:vfs_read", "fentry:vfs_read"] {
        let said = fail(relayd().args(["trace", "-o", "/tmp/relayd-refused", "-d", "1ms", "-e", event]), 1);
        assert!(said.contains("would work here") || said.contains("work here"), "{event}: {said}");
    }
    assert!(!PathBuf::from("/tmp/relayd-refused").exists());
    let said = text(&succeed(relayd().arg("check")).stdout);
    let fentry = said.lines().find(|line| line.contains("fentry, fexit")).unwrap();
    assert!(fentry.contains("not for want of capabilities") && fentry.contains("instead"), "{fentry}");
}
