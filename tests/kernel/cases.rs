//! What relayd shows is what happened: cases in which it, or another tracer, has shown something else. Each is recorded here, and held against
//! what another program shows of the same moment, or what the program recorded has done by its own account.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use relay_tests::{
    Recording, Trace,
    image::{BASE, CODE_32_AT, image_32, write_program},
    record, succeed, text,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    compare::field,
    probes::{NOTES, Work, beside_bpftrace},
};

/// The name of each record's thread, in order, by thread.
type Names = BTreeMap<u64, Vec<String>>;

fn names_in(lines: &[Value]) -> Names {
    let mut names = Names::new();
    for line in lines {
        names.entry(line["tid"].as_u64().unwrap()).or_default().push(line["comm"].as_str().unwrap().to_owned());
    }
    names
}

/// Has a shell call itself each of these, and open a file then.
fn renaming(names: &[&[u8]]) -> String {
    let mut script = String::new();
    for name in names {
        let escaped: String = name.iter().map(|byte| format!("\\{byte:03o}")).collect();
        script.push_str(&format!("printf '{escaped}' > /proc/$$/comm; read line < /proc/version; "));
    }
    script
}

/// perf takes names from the kernel's notices too, and puts them in order by itself.
pub(crate) fn a_thread_has_the_name_that_perf_shows_at_each_record() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("perf.data");
    let data = data.to_str().unwrap();
    // A fork before it executes another program, one that never does, renames, and a program in the place of another.
    let script = renaming(&[b"a [001] b", b"semi;colon 3", b"q\"uo\\te", b"a,b=c{d}"])
        + "cat < /proc/version | cat > /dev/null; (read line < /proc/version); exec sleep 0.01";
    let perf = ["perf", "record", "-q", "-m", "1024", "-k", "mono", "-e", "raw_syscalls:sys_enter", "-o", data];
    let command =
        [&["-n", "64", "-e", "raw_syscalls:sys_enter", "--"], &perf[..], &["--", "sh", "-c", &script]].concat();
    let trace = record(&command);
    assert_eq!(trace.total("lost"), 0, "{}", trace.summary);
    let told = text(&succeed(Command::new("perf").args(["report", "--stats", "-i", data])).stdout);
    assert!(told.contains("SAMPLE events:") && !told.contains("LOST"), "{told}");
    let ours = names_in(&trace.print(&[]));
    let script = text(&succeed(Command::new("perf").args(["script", "-F", "comm,tid", "--ns", "-i", data])).stdout);
    let mut theirs = Names::new();
    for line in script.lines() {
        let (name, tid) = line.trim().rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        theirs.entry(tid.parse().unwrap()).or_default().push(name.trim_end().to_owned());
    }
    assert!(theirs.len() >= 4, "{theirs:?}");
    for (tid, theirs) in &theirs {
        let ours = ours.get(tid).unwrap_or_else(|| panic!("nothing of {tid}: {theirs:?}"));
        // perf begins when the shell is executed.
        let same = ours.get(ours.len().saturating_sub(theirs.len())..).unwrap_or_default();
        let differs = same.iter().zip(theirs).position(|(ours, theirs)| ours != theirs);
        assert!(same.len() == theirs.len() && differs.is_none(), "{tid}, {differs:?}: {ours:?}\nperf: {theirs:?}");
    }
    let all: std::collections::BTreeSet<_> = theirs.values().flatten().map(String::as_str).collect();
    for name in ["sh", "a [001] b", "semi;colon 3", "q\"uo\\te", "a,b=c{d}", "cat", "sleep"] {
        assert!(all.contains(name), "{all:?}");
    }
}

/// By whatever a reader chooses, groups or shows.
pub(crate) fn a_name_may_be_any_bytes_and_every_reader_has_it() {
    const NAMES: [&[u8]; 10] = [
        b"Plex DLNA Serve",
        b"new\nline",
        b"tab\tx",
        b"\xc3\xa9t\xc3\xa9 \xe2\x82\xac",
        b"bad\xff\xfe\x80z",
        b"\x1b[31mred\x07",
        b"0123456789abcdef",
        b"trunc\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9",
        b"\"quoted\"",
        b"last",
    ];
    let script = renaming(&NAMES);
    let trace: Trace = record(&["-e", "syscalls:sys_enter_openat", "--", "sh", "-c", &script]);
    let shown: Vec<String> = NAMES.iter().map(|name| text(&name[..name.len().min(15)])).collect();
    let lines = trace.print(&[]);
    let shell = lines.iter().find(|line| line["comm"] == "last").unwrap_or_else(|| panic!("{lines:?}"))["tid"].as_u64();
    let mut names = names_in(&lines)[&shell.unwrap()].clone();
    // A name is opened to be changed under the one before it.
    names.dedup();
    assert_eq!(names[names.len().saturating_sub(NAMES.len())..], shown, "{names:?}");
    let filtered = trace.print(&["-e", "syscalls:sys_enter_openat if comm == \"0123456789abcde\""]);
    assert_eq!(filtered.len(), 2, "{filtered:?}");
    let csv = text(&succeed(trace.relayd("print").arg("--csv")).stdout);
    assert_eq!(csv.matches("Plex DLNA Serve").count(), 2, "{csv}");
    let folded = text(&succeed(trace.relayd("stat").args(["--by", "comm"])).stdout);
    assert!(folded.contains("0123456789abcde"), "{folded}");
}

/// The kernel has half a megabyte for each CPU's notices, which nobody takes while the recorder is stopped.
pub(crate) fn notices_of_names_that_are_lost_are_said_to_be() {
    let recording = Recording::start(&["-e", "syscalls:sys_enter_getppid"]);
    recording.relayd.signal(Signal::STOP);
    let renames = "i=0; while [ $i -lt 40000 ]; do i=$((i + 1)); echo $i > /proc/$$/comm; done";
    succeed(Command::new("sh").args(["-c", renames]));
    recording.relayd.signal(Signal::CONT);
    recording.relayd.signal(Signal::INT);
    let (ended, trace) = recording.end();
    let lost = "of the kernel's notices of threads' names were lost";
    assert!(ended.code == Some(0) && ended.stderr.contains(lost), "{}", ended.stderr);
    let shown = succeed(&mut trace.relayd("print"));
    assert!(text(&shown.stderr).contains("a thread's name of another time"), "{}", text(&shown.stderr));
}

/// A program of 32 bits that makes a few system calls whose numbers are other calls' in 64 bits.
fn program_of_32_bits(folder: &Path) -> PathBuf {
    const NAME: &[u8] = b"/etc/hostname\0";
    // getpid, open, openat, remap_file_pages, getppid, exit; the second argument of openat is the name.
    const CALLS: [(u32, [u32; 2]); 6] =
        [(20, [0; 2]), (5, [1, 0]), (295, [0, 1]), (257, [0; 2]), (64, [0; 2]), (1, [7, 0])];
    const CALL: usize = 5 * 4 + 2;
    let name = u32::try_from(BASE + CODE_32_AT).unwrap() + u32::try_from(CALLS.len() * CALL).unwrap();
    let mut code = Vec::new();
    for (number, arguments) in CALLS {
        // mov eax, NUMBER; mov ebx, …; mov ecx, …; mov edx, 0; int 0x80
        let [first, second] = arguments.map(|argument| if argument == 1 { name } else { argument });
        for (register, value) in [(0xb8, number), (0xbb, first), (0xb9, second), (0xba, 0)] {
            code.push(register);
            code.extend(value.to_le_bytes());
        }
        code.extend([0xcd, 0x80]);
    }
    code.extend(NAME);
    let program = folder.join("relay-case-32");
    write_program(&program, &image_32(&code));
    program
}

/// What a program calls, and whether it is executed at all.
pub(crate) fn a_program_of_32_bits_makes_the_calls_that_strace_shows() {
    let folder = tempfile::tempdir().unwrap();
    let program = program_of_32_bits(folder.path());
    let shown = folder.path().join("strace");
    assert_eq!(Command::new("strace").arg("-o").arg(&shown).arg(&program).status().unwrap().code(), Some(7));
    let shown = fs::read_to_string(shown).unwrap();
    let names: Vec<&str> = shown.lines().filter_map(|line| Some(line.split_once('(')?.0)).collect();
    assert!(names.len() == 7 && names[0] == "execve", "{shown}");
    let recorded = folder.path().join("trace");
    let mut relayd = relay_tests::relayd();
    relayd
        .args(["trace", "-q", "--bpf-stats", "-n", "16", "-e", "syscall:*", "-o"])
        .arg(&recorded)
        .arg("--")
        .arg(&program);
    assert_eq!(relayd.output().unwrap().status.code(), Some(7));
    relay_tests::verify(&recorded);
    let mut lines = relay_tests::trace::print(&recorded, &[]);
    lines.retain(|line| line["comm"] == "relay-case-32");
    let of = |event: &str| -> Vec<&str> {
        lines.iter().filter(|line| line["event"] == event).map(|line| line["words"]["id"].as_str().unwrap()).collect()
    };
    assert_eq!(of("compat:sys_enter"), names[1..]);
    // The last does not return.
    assert_eq!(of("compat:sys_exit"), names[..6]);
    let executed: Vec<_> = lines.iter().filter(|line| line["event"] == "syscall:execve").collect();
    assert!(executed.len() == 1 && executed[0]["fields"]["ret"] == 0, "{executed:?}");
}

/// With a few events no program of relayd's runs at each call: the return of this one is seen where the program has been executed.
pub(crate) fn the_execve_of_a_program_of_32_bits_returns() {
    let folder = tempfile::tempdir().unwrap();
    let program = program_of_32_bits(folder.path());
    let program = program.to_str().unwrap();
    let script = format!("{program}; /bin/true; {program}; true");
    let trace = record(&["-e", "syscall:execve", "--bpf-stats", "--", "sh", "-c", &script]);
    trace.adds_up();
    let lines = trace.print(&["-e", "syscall:execve if ret == 0"]);
    let executed: Vec<&str> = lines.iter().map(|line| line["fields"]["filename"].as_str().unwrap()).collect();
    let ours: Vec<_> = executed.iter().filter(|name| **name == program || **name == "/bin/true").collect();
    assert_eq!(ours, [&program, &"/bin/true", &program], "{executed:?}");
    assert_eq!((trace.total("unpaired"), trace.total("entries")), (0, trace.total("returned")), "{}", trace.summary);
}

/// The thread takes the number of its process's first.
pub(crate) fn an_execve_of_a_thread_is_one_call_that_returns() {
    const PROGRAM: &str = "#include <pthread.h>\n#include <unistd.h>\n\
        static void *run(void *none) { execl(\"/bin/true\", \"true\", (char *)0); return none; }\n\
        int main(void) { pthread_t thread; pthread_create(&thread, 0, run, 0); pthread_join(thread, 0); return 1; }\n";
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("threads.c"), folder.path().join("relay-threads"));
    fs::write(&source, PROGRAM).unwrap();
    succeed(Command::new("cc").arg("-pthread").arg("-o").arg(&program).arg(&source));
    let shown = folder.path().join("strace");
    succeed(Command::new("strace").args(["-f", "-e", "trace=execve", "-o"]).arg(&shown).arg(&program));
    let shown = fs::read_to_string(shown).unwrap();
    assert!(shown.lines().any(|line| line.contains("superseded by execve")), "{shown}");
    let program = program.to_str().unwrap();
    // Through two hooks, and by tracepoints of its own.
    for events in ["syscall:*", "syscall:execve"] {
        let trace = record(&["-e", events, "--bpf-stats", "-n", "16", "--", program]);
        trace.adds_up();
        let lines = trace.print(&["-e", "syscall:execve"]);
        // Its name may lie where nobody has looked yet: then it cannot be read at the entry.
        let executed: Vec<_> = lines.iter().filter(|line| line["comm"] == "true").collect();
        let [line] = executed[..] else { panic!("{lines:?}") };
        assert!(line["fields"]["ret"] == 0 && line["tid"] == line["pid"], "{line}");
        if events == "syscall:execve" {
            assert_eq!(
                (trace.total("unpaired"), trace.total("entries")),
                (0, trace.total("returned")),
                "{}",
                trace.summary
            );
        }
    }
}

/// A function that is left in every way: by returning, with its thread, by a signal that kills, by a jump, by another program, and not before the end.
pub(crate) fn every_entry_has_returned_or_is_told_why_not() {
    const PROGRAM: &str = "#include <pthread.h>\n#include <setjmp.h>\n#include <signal.h>\n#include <stdlib.h>\n#include <sys/syscall.h>\n\
        #include <sys/wait.h>\n#include <unistd.h>\n\
        static jmp_buf out;\n\
        __attribute__((noinline)) int stay(int how) {\n\
            if (how == 1) syscall(SYS_exit, 0);\n\
            if (how == 2) raise(SIGKILL);\n\
            if (how == 3) longjmp(out, 1);\n\
            if (how == 4) execl(\"/bin/true\", \"true\", (char *)0);\n\
            if (how == 6) { for (int fd = 0; fd < 3; fd++) close(fd); execl(\"/bin/sleep\", \"sleep\", \"3\", (char *)0); }\n\
            if (how == 5) { for (int fd = 0; fd < 3; fd++) close(fd); sleep(3); _exit(0); }\n\
            __asm__ volatile(\"\");\n\
            return how;\n\
        }\n\
        static void *run(void *none) { stay(1); return none; }\n\
        int main(void) {\n\
            pthread_t thread;\n\
            for (int i = 0; i < 2; i++) { pthread_create(&thread, 0, run, 0); pthread_join(thread, 0); }\n\
            if (fork() == 0) stay(2);\n\
            wait(0);\n\
            if (!setjmp(out)) stay(3);\n\
            for (int i = 0; i < 7; i++) stay(0);\n\
            if (fork() == 0) stay(5);\n\
            if (fork() == 0) stay(6);\n\
            usleep(200000);\n\
            stay(4);\n\
            return 1;\n\
        }\n";
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("leaves.c"), folder.path().join("relay-leaves"));
    fs::write(&source, PROGRAM).unwrap();
    succeed(Command::new("cc").arg("-O1").arg("-pthread").arg("-o").arg(&program).arg(&source));
    let program = program.to_str().unwrap();
    let event = format!("uretprobe:{program}:stay(arg0:s32)");
    let events = ["-e", &event, "-e", "syscall:execve", "-e", "syscall:exit_group"];
    let command = [&["--latency", "--bpf-stats", "-n", "16"], &events[..], &["--", program]].concat();
    let trace = record(&command);
    trace.adds_up();
    let pairs = trace.summary["pairs"].as_object().unwrap();
    let of = |name: &str| {
        let counts = &pairs.iter().find(|(event, _)| event.starts_with(name)).unwrap_or_else(|| panic!("{pairs:?}")).1;
        ["entries", "returned", "ended", "executed", "under_way", "unseen", "no_room"]
            .map(|cause| counts[cause].as_u64().unwrap())
    };
    // Two threads that exited, one that was killed, and one whose program was replaced by one that has ended; one whose program was replaced
    // goes on.
    assert_eq!(of("uretprobe:"), [14, 7, 4, 1, 1, 1, 0], "{pairs:?}");
    // relayd's child, the program, and what took its place; other processes' calls may be under way.
    let [entries, returned, ended, executed, under_way, unseen, no_room] = of("syscall:execve");
    assert!(returned >= 2 && executed + unseen + no_room == 0, "{pairs:?}");
    assert_eq!(entries, returned + ended + under_way, "{pairs:?}");
    // Calls that never return are recorded at their entry, and are not pairs.
    assert!(!pairs.contains_key("syscall:exit_group"), "{pairs:?}");
    for (name, unreturned) in [("entries", 14 + entries), ("returned", 7 + returned)] {
        assert_eq!(trace.total(name), unreturned, "{}", trace.summary);
    }
    let shown = text(&succeed(&mut trace.relayd("stat")).stdout);
    let told = "14 entries, 7 returned, 7 unreturned (thread ended 4, program replaced 1, under way 1, return unseen 1, no room 0)";
    assert!(shown.contains(told), "{shown}");
}

/// What is between brackets in a line of strace, as its words.
fn words_of_strace(line: &str, list: usize) -> Vec<String> {
    let list = line.split(", [").nth(list).unwrap_or_else(|| panic!("{line}"));
    let list = &list[..list.find("\"]").map_or(0, |at| at + 1)];
    serde_json::from_str(&format!("[{list}]")).unwrap_or_else(|error| panic!("{error}: {line}"))
}

pub(crate) fn an_execve_has_the_arguments_that_strace_shows() {
    const SCRIPT: &str =
        "/bin/true 'a b' 'c,d' '' 'q\"uo\\te' [x]; /bin/true $(seq 100 220); env -i A=1 'B=2 3' /bin/true last; exit 0";
    let folder = tempfile::tempdir().unwrap();
    let shown = folder.path().join("strace");
    let strace = ["strace", "-f", "-v", "-s", "400", "-e", "trace=execve", "-o", shown.to_str().unwrap()];
    let run = |events: &str| {
        let command = [&["-e", events, "--bpf-stats", "--"], &strace[..], &["sh", "-c", SCRIPT]].concat();
        let trace = record(&command);
        trace.adds_up();
        let mut lines = trace.print(&[]);
        lines.retain(|line| line["comm"] == "true");
        let shown = fs::read_to_string(&shown).unwrap();
        let shown: Vec<String> =
            shown.lines().filter(|line| line.contains("execve(\"/bin/true\"")).map(str::to_owned).collect();
        assert_eq!((lines.len(), shown.len()), (3, 3), "{shown:?}\n{lines:?}");
        (trace, lines, shown)
    };
    let texts = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    for events in ["syscall:execve", "syscall:execve(argv, ret)"] {
        let (trace, lines, shown) = run(events);
        for at in [0, 2] {
            assert_eq!(texts(&lines[at]["fields"]["argv"]), words_of_strace(&shown[at], 1), "{events}");
            assert_eq!(lines[at]["fields"]["argv_cut"], Value::Null);
        }
        let (cut, whole) = (texts(&lines[1]["fields"]["argv"]), words_of_strace(&shown[1], 1));
        assert!(whole.starts_with(&cut) && lines[1]["fields"]["argv_cut"] == true, "{cut:?}");
        // 64 texts of four bytes, or as many as there is room for beside the name.
        assert_eq!(cut.len(), if events == "syscall:execve" { 56 } else { 64 }, "{cut:?}");
        let printed = text(&succeed(&mut trace.relayd("print")).stdout);
        assert!(printed.contains(r#"argv=["/bin/true","a b","c,d","","q\"uo\\te","[x]"]"#), "{printed}");
        assert!(printed.contains(r#"argv=["/bin/true","100","101","#) && printed.contains("...]"), "{printed}");
        let csv = text(&succeed(trace.relayd("print").arg("--csv")).stdout);
        assert!(csv.contains(r#"[""/bin/true"",""last""]"#), "{csv}");
    }
    let (_, lines, shown) = run("syscall:execve(filename, envp:strv, ret)");
    assert_eq!(texts(&lines[2]["fields"]["envp"]), ["A=1", "B=2 3"]);
    assert_eq!(words_of_strace(&shown[2], 2), ["A=1", "B=2 3"]);
}

/// A program of this source, made in the folder.
fn made(folder: &Path, name: &str, source: &str, options: &[&str]) -> String {
    let (text, program) = (folder.join(format!("{name}.c")), folder.join(name));
    fs::write(&text, source).unwrap();
    succeed(Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(&text).args(options));
    program.display().to_string()
}

/// Real-time signals and those with a value, too.
pub(crate) fn signals_are_those_that_perf_shows() {
    const SOURCE: &str = "#define _GNU_SOURCE\n#include <signal.h>\n#include <unistd.h>\n\
        static void on(int s, siginfo_t *i, void *u) {}\n\
        int main(void) {\n\
            struct sigaction act = { .sa_sigaction = on, .sa_flags = SA_SIGINFO | SA_RESTART };\n\
            union sigval value = { .sival_int = -7 };\n\
            sigaction(SIGUSR1, &act, 0); sigaction(SIGRTMIN + 3, &act, 0); sigaction(SIGALRM, &act, 0);\n\
            kill(getpid(), SIGUSR1); raise(SIGUSR1); sigqueue(getpid(), SIGRTMIN + 3, value);\n\
            ualarm(1000, 0); pause();\n\
            return 0;\n\
        }\n";
    let folder = tempfile::tempdir().unwrap();
    let program = made(folder.path(), "relay-signals", SOURCE, &[]);
    let data = folder.path().join("perf.data");
    let data = data.to_str().unwrap();
    let perf = ["perf", "record", "-q", "-e", "signal:*", "-o", data, "--", &program];
    let trace = record(&[&["-e", "signal:*", "--"], &perf[..]].concat());
    let script = text(&succeed(Command::new("perf").args(["script", "-F", "event,trace", "-i", data])).stdout);
    let theirs: Vec<String> = script
        .lines()
        .filter(|line| !line.contains("sig=17 "))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").replacen(": ", " ", 1))
        .collect();
    let mut lines = trace.print(&[]);
    lines.retain(|line| line["comm"] == "relay-signals");
    let fields = |line: &Value| {
        let of = &line["fields"];
        match line["event"].as_str().unwrap() {
            "signal:signal_generate" => format!(
                "signal:signal_generate sig={} errno={} code={} comm={} pid={} grp={} res={}",
                of["sig"],
                of["errno"],
                of["code"],
                of["comm"].as_str().unwrap(),
                of["pid"],
                of["group"],
                of["result"]
            ),
            _ => format!(
                "signal:signal_deliver sig={} errno={} code={} sa_handler={:x} sa_flags={:x}",
                of["sig"],
                of["errno"],
                of["code"],
                of["sa_handler"].as_u64().unwrap(),
                of["sa_flags"].as_u64().unwrap()
            ),
        }
    };
    // That of a timer is made where another task may run, which perf does not look at here.
    let of_timer = |line: &Value| line["fields"]["sig"] == 14 && line["event"] == "signal:signal_generate";
    let ours = lines.iter().filter(|line| line["fields"]["sig"] != 17 && !of_timer(line));
    let ours: Vec<String> = ours.map(fields).collect();
    assert!(theirs.len() == 7 && script.contains("sig=37"), "{script}");
    assert_eq!(ours, theirs);
}

pub(crate) fn a_function_has_its_name_however_long_it_is() {
    let name = format!("f{}", "x".repeat(700));
    let source = format!(
        "__attribute__((noinline)) int {name}(int a) {{ __asm__ volatile(\"\"); return a + 1; }}\nint main(void) {{ return {name}(1) - 2; }}\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let program = made(folder.path(), "relay-long", &source, &[]);
    let known = text(&succeed(Command::new("nm").arg(&program)).stdout);
    let known = known.lines().find(|line| line.contains("fxx")).unwrap().rsplit_once(' ').unwrap().1;
    let trace = record(&["-e", &format!("uprobe:{program}:fxx*(arg0:s32)"), "--context", "ustack", "--", &program]);
    let lines = trace.print(&[]);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(
        (&line["event"], &line["fields"]["arg0"]),
        (&Value::from(format!("uprobe:{program}:{known}")), &Value::from(1))
    );
    let frame = line["ustack"][0]["name"].as_str().unwrap();
    assert!(frame.contains(known), "{frame}");
    let output = folder.path().join("parquet");
    succeed(trace.relayd("export").args(["--to", "parquet", "-o"]).arg(&output));
    assert_eq!(fs::read_dir(output).unwrap().count(), 2);
}

pub(crate) fn arguments_of_a_program_are_those_that_bpftrace_shows() {
    const SOURCE: &str = "#include <string.h>\n\
        struct s { char name[32]; int arr[4]; const char *p; };\n\
        __attribute__((noinline)) int target(struct s *s, long neg, unsigned char c, const char **v) {\n\
            __asm__ volatile(\"\" :: \"r\"(s), \"r\"(v) : \"memory\"); return neg;\n\
        }\n\
        int main(void) {\n\
            static struct s x; strcpy(x.name, \"na me\"); x.p = \"poin\\ted\";\n\
            const char *v[4] = { \"one\", \"two\", \"three\", 0 }; volatile char first; int r = 0;\n\
            for (int i = 0; i < 3; i++) first = *(const volatile char *)v[i];\n\
            for (int i = 0; i < 5; i++) r += target(&x, -5 - i, 'A' + i, v);\n\
            return 0;\n\
        }\n";
    let folder = tempfile::tempdir().unwrap();
    let work = Work::new(&made(folder.path(), "relay-target", SOURCE, &[]));
    let path = work.path();
    let program = format!("uprobe:{path}:target {{ printf(\"%s|%d|%d\\n\", str(arg0), (int64)arg1, arg2 & 0xff); }}");
    let event = format!("uprobe:{path}:target(name=arg0:ustr, arg1:s64, arg2:u8, list=arg3:strv)");
    let (theirs, ours) = beside_bpftrace(&program, &["-e", &event], &work, "/dev/null");
    let ours: Vec<String> = ours
        .iter()
        .map(|line| format!("{}|{}|{}", field(line, "name"), field(line, "arg1"), field(line, "arg2")))
        .collect();
    assert_eq!(ours, theirs);
    assert!(theirs.len() == 5 && theirs[0] == "na me|-5|65", "{theirs:?}");
    let trace = record(&["-e", &event, "--", &path]);
    let lists: Vec<_> = trace.print(&[]).iter().map(|line| line["fields"]["list"].clone()).collect();
    assert_eq!(lists, vec![serde_json::json!(["one", "two", "three"]); 5]);
}

/// Of texts around the longest that there is room for, one that fits is whole, and one that does not is cut where that ends.
pub(crate) fn a_list_that_just_fits_is_not_said_to_be_cut() {
    const SOURCE: &str = "#include <string.h>\n\
        __attribute__((noinline)) int target(const char **v) { __asm__ volatile(\"\" :: \"r\"(v) : \"memory\"); return 0; }\n\
        int main(void) {\n\
            static char text[5000]; for (int at = 0; at < 5000; at++) ((volatile char *)text)[at] = 0; memset(text, 'x', 4000); const char *v[3] = { \"first\", text, 0 };\n\
            for (int len = 4000; len < 4100; len++) { target(v); text[len] = 'x'; }\n\
            return 0;\n\
        }\n";
    let folder = tempfile::tempdir().unwrap();
    let program = made(folder.path(), "relay-lists", SOURCE, &[]);
    let trace = record(&["-e", &format!("uprobe:{program}:target(list=arg0:strv)"), "--", &program]);
    let lines = trace.print(&[]);
    let shown = |line: &Value| (line["fields"]["list"][1].as_str().unwrap().len(), line["fields"]["list_cut"] == true);
    let shown: Vec<_> = lines.iter().map(shown).collect();
    let whole = shown.iter().filter(|(_, is_cut)| !is_cut).count();
    assert!(shown.len() == 100 && (1..100).contains(&whole), "{shown:?}");
    for (at, (len, is_cut)) in shown.iter().enumerate() {
        assert_eq!((*len, *is_cut), (4000 + at.min(whole - 1), at >= whole), "{at}: {shown:?}");
    }
}

/// What strace shows of a call by a file descriptor, of one that fails, and of one of a thread. The kernel shows the return of one that succeeds as that of
/// `execve` (x86-64).
pub(crate) fn an_execveat_has_what_strace_shows() {
    const PROGRAM: &str = "#define _GNU_SOURCE\n#include <fcntl.h>\n#include <pthread.h>\n#include <sys/syscall.h>\n#include <sys/wait.h>\n#include <unistd.h>\n\
        static char *arguments[] = { \"true\", \"a b\", \"c\", 0 };\n\
        static void *run(void *fd) { syscall(SYS_execveat, *(int *)fd, \"\", arguments, environ, AT_EMPTY_PATH); return 0; }\n\
        int main(void) {\n\
            int fd = open(\"/bin/true\", O_PATH); pthread_t thread;\n\
            syscall(SYS_execveat, AT_FDCWD, \"/nowhere\", arguments, environ, AT_SYMLINK_NOFOLLOW);\n\
            if (fork() == 0) run(&fd);\n\
            wait(0);\n\
            pthread_create(&thread, 0, run, &fd); pthread_join(thread, 0);\n\
            return 1;\n\
        }\n";
    let folder = tempfile::tempdir().unwrap();
    let program = made(folder.path(), "relay-execveat", PROGRAM, &["-pthread"]);
    let shown = folder.path().join("strace");
    let strace = ["strace", "-f", "-e", "trace=execveat", "-o", shown.to_str().unwrap()];
    for events in ["syscall:execveat", "syscall:execve,syscall:execveat", "syscall:*"] {
        let trace = record(&[&["-e", events, "--bpf-stats", "-n", "16", "--"], &strace[..], &[&program]].concat());
        trace.adds_up();
        let shown = fs::read_to_string(&shown).unwrap();
        let mut theirs: Vec<&str> = shown.lines().filter(|line| line.contains("execveat(")).collect();
        theirs.sort_by_key(|line| line.contains("AT_EMPTY_PATH"));
        let lines = trace.print(&["-e", "syscall:execveat"]);
        assert_eq!((lines.len(), theirs.len()), (3, 3), "{events}: {lines:?}\n{shown}");
        for (line, theirs) in lines.iter().zip(theirs) {
            let fields = &line["fields"];
            let has = |text: String| assert!(theirs.contains(&text), "{events}: {text} of {line} is not in {theirs}");
            let argv: Vec<String> = serde_json::from_value(fields["argv"].clone()).unwrap();
            has(format!(
                "{}, [{}]",
                fields["filename"],
                argv.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ")
            ));
            assert_eq!(argv, ["true", "a b", "c"]);
        }
        // Of all calls, some were under way when recording began.
        let paired = (trace.total("unpaired"), trace.total("entries"));
        assert!(events == "syscall:*" || paired == (0, trace.total("returned")), "{events}: {}", trace.summary);
    }
}

/// A library's variables are where the loader has put it.
pub(crate) fn static_probes_of_a_library_have_its_variables() {
    const LIBRARY: &str = r#"
        unsigned short ready __attribute__((section(".probes"), visibility("hidden")));
        struct p { char c; signed char sc; short s; int i; long l; };
        static volatile struct p g = { 'x', -5, -300, -70000, -1L << 40 };
        int hits;
        void work(const char *text) {
            /* A probe cannot wait for what nobody has looked at yet. */
            volatile char first = *text;
            if (__builtin_expect(*(volatile unsigned short *)&ready, 0)) {
                hits++;
                __asm__ volatile("990: nop\n" NOTE("sem", "ready", "1@%0 -1@%1 -2@%2 -4@%3 -8@%4 8@%5 -4@%6")
                                 :: "m"(g.c), "m"(g.sc), "m"(g.s), "m"(g.i), "m"(g.l), "r"(text), "n"(-1));
            }
        }
    "#;
    const PROGRAM: &str = "#include <stdio.h>\nvoid work(const char *text);\nextern int hits;\n\
        int main(void) { for (int i = 0; i < 6; i++) work(\"a string\"); printf(\"%d\\n\", hits); return 0; }\n";
    let folder = tempfile::tempdir().unwrap();
    let source = [NOTES, LIBRARY].concat();
    let library = made(folder.path(), "librelayprobes.so", &source, &["-shared", "-fPIC"]);
    let program = made(folder.path(), "relay-uses", PROGRAM, &[&library, "-Wl,-rpath,$ORIGIN"]);
    let unwatched = text(&succeed(&mut Command::new(&program)).stdout);
    let event = format!("usdt:{library}:relay:sem(arg0, arg1, arg2, arg3, arg4, arg5:ustr, arg6)");
    let recording = Recording::start(&["-e", &event]);
    let hits = text(&succeed(&mut Command::new(&program)).stdout);
    let trace = recording.stop();
    assert_eq!((unwatched.trim(), hits.trim()), ("0", "6"));
    let lines = trace.print(&[]);
    assert_eq!(lines.len(), 6, "{lines:?}");
    for line in &lines {
        let of = &line["fields"];
        let numbers: Vec<i64> = (0..5).map(|index| of[format!("arg{index}")].as_i64().unwrap()).collect();
        assert_eq!(numbers, [120, -5, -300, -70000, -1 << 40], "{line}");
        assert_eq!((&of["arg5"], &of["arg6"]), (&Value::from("a string"), &Value::from(-1)), "{line}");
    }
}

/// The vDSO of this process, which every process has.
fn own_vdso() -> Vec<u8> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
    let (begin, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
    let [begin, end] = [begin, end].map(|address| u64::from_str_radix(address, 16).unwrap());
    let mut vdso = vec![0; usize::try_from(end - begin).unwrap()];
    fs::File::open("/proc/self/mem").unwrap().read_exact_at(&mut vdso, begin).unwrap();
    vdso
}

/// A process of an ordinary user, in a place of its own, that has ended when the recording does.
pub(crate) fn code_of_a_process_that_has_ended_has_its_names() {
    const SOURCE: &str = "#include <stdio.h>\n#include <string.h>\n#include <sys/mman.h>\n#include <time.h>\n#include <unistd.h>\n\
        int main(void) {\n\
            /* push rbp; mov rbp, rsp; mov ecx, 0x1000000; dec ecx; jnz; pop rbp; ret */\n\
            unsigned char c[] = { 0x55, 0x48, 0x89, 0xe5, 0xb9, 0, 0, 0, 1, 0xff, 0xc9, 0x75, 0xfc, 0x5d, 0xc3 };\n\
            char *p = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); memcpy(p, c, sizeof c);\n\
            char name[64]; sprintf(name, \"/tmp/perf-%d.map\", getpid()); FILE *f = fopen(name, \"w\"); if (!f) return 1;\n\
            fprintf(f, \"%lx 100 my_jitted\\n\", (unsigned long)p); fclose(f);\n\
            for (time_t end = time(0) + 3; time(0) < end; ) ((void (*)(void))p)();\n\
            return 0;\n\
        }\n";
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = made(folder.path(), "relay-made", SOURCE, &[]);
    let user = format!("setpriv --reuid=65534 --clear-groups {program}");
    for script in [format!("unshare -m sh -c 'mount -t tmpfs none /tmp && {user}'"), user.clone()] {
        let script = format!("{script}; sleep 0.2");
        let trace =
            record(&["-e", "profile:hz:49", "--context", "ustack", "--comm", "relay-made", "--", "sh", "-c", &script]);
        succeed(Command::new("find").args([
            "/tmp",
            "-maxdepth",
            "1",
            "-name",
            "perf-*.map",
            "-uid",
            "65534",
            "-delete",
        ]));
        let lines = trace.print(&[]);
        let inner: Vec<&str> = lines.iter().filter_map(|line| line["ustack"][0]["name"].as_str()).collect();
        assert!(inner.iter().filter(|name| name.starts_with("my_jitted+0x")).count() > 20, "{script}: {inner:?}");
    }
}

/// What a program has made while it ran has the name that it has told perf, and the kernel's vDSO those that nm shows. perf 6.1 ends itself when it is
/// to name the vDSO of Linux 6.18.
pub(crate) fn code_in_no_file_has_the_names_that_it_has_told() {
    const SOURCE: &str = "#include <stdio.h>\n#include <string.h>\n#include <sys/mman.h>\n#include <time.h>\n#include <unistd.h>\n\
        int main(void) {\n\
            struct timespec t; for (long i = 0; i < 12000000; i++) clock_gettime(CLOCK_MONOTONIC, &t);\n\
            /* push rbp; mov rbp, rsp; mov ecx, 0x20000000; dec ecx; jnz; pop rbp; ret */\n\
            unsigned char c[] = { 0x55, 0x48, 0x89, 0xe5, 0xb9, 0, 0, 0, 0x20, 0xff, 0xc9, 0x75, 0xfc, 0x5d, 0xc3 };\n\
            char *p = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); memcpy(p, c, sizeof c);\n\
            char name[64]; sprintf(name, \"/tmp/perf-%d.map\", getpid()); FILE *f = fopen(name, \"w\");\n\
            fprintf(f, \"%lx 100 my_jitted\\n\", (unsigned long)p); fclose(f);\n\
            ((void (*)(void))p)(); printf(\"%s\\n\", name); return 0;\n\
        }\n";
    let folder = tempfile::tempdir().unwrap();
    let program = made(folder.path(), "relay-made", SOURCE, &[]);
    let told = folder.path().join("told");
    let script = format!("{program} > {}; true", told.display());
    let trace =
        record(&["-e", "profile:hz:199", "--context", "ustack", "--comm", "relay-made", "--", "sh", "-c", &script]);
    let map = fs::read_to_string(told).unwrap();
    fs::remove_file(map.trim()).unwrap();
    let exported = folder.path().join("vdso");
    fs::write(&exported, own_vdso()).unwrap();
    let known = text(&succeed(Command::new("nm").arg("-D").arg(exported)).stdout);
    let known = known.lines().filter_map(|line| line.rsplit_once(" T ")?.1.split('@').next());
    let clock = known.into_iter().find(|name| name.ends_with("_clock_gettime")).unwrap();
    let lines = trace.print(&[]);
    let inner: Vec<&str> = lines.iter().filter_map(|line| line["ustack"][0]["name"].as_str()).collect();
    let count =
        |begin: &str, place: &str| inner.iter().filter(|name| name.starts_with(begin) && name.ends_with(place)).count();
    let place = format!("({})", map.trim().trim_start_matches("/tmp/"));
    assert!(count("my_jitted+0x", &place) > 5, "{place}: {inner:?}");
    assert!(count(&format!("{clock}+0x"), "([vdso])") > 2, "{clock}: {inner:?}");
    let folded = text(&succeed(trace.relayd("stat").args(["--by", "ustack"])).stdout);
    assert!(folded.contains("my_jitted") && folded.contains(clock), "{folded}");
}
