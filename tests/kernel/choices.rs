//! Whose events are recorded, which of them, how many, and what stands with each.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use relay_tests::{Trace, fail, record, relayd, succeed};

use crate::{
    compare::field,
    probes::{Work, adds_up},
};

/// What a shell, named relaywork, starts: two programs, one after the other.
const SHELL: &str = "/bin/true; /bin/true; exit 0";

fn record_shell(arguments: &[&str]) -> (Trace, Vec<String>) {
    let work = Work::new("/bin/sh");
    let program = work.path();
    let trace = record(&[arguments, &["--bpf-stats", "--", &program, "-c", SHELL]].concat());
    adds_up(&trace);
    let lines = trace.named();
    (trace, lines)
}

pub(crate) fn one_process_is_recorded_and_the_rest_is_counted() {
    let mut child = Command::new("sleep").arg("30").spawn().unwrap();
    let pid = child.id().to_string();
    let storm = ["--bpf-stats", "--", "sh", "-c", "kill -CONT $0; /bin/true; /bin/true", &pid];
    let trace = record(&[&["-e", "raw_syscalls:*", "--pid", &pid], &storm[..]].concat());
    child.kill().unwrap();
    child.wait().unwrap();
    adds_up(&trace);
    let lines = trace.named();
    assert!(lines.iter().all(|line| field(line, "pid") == pid), "{lines:#?}");
    assert!(trace.total("filtered") > 50, "{}", trace.summary);
}

pub(crate) fn a_command_is_followed_to_the_processes_that_it_starts() {
    let (_, lines) = record_shell(&["--follow", "-e", "sched:sched_process_exec"]);
    let files: Vec<_> = lines.iter().map(|line| field(line, "filename")).collect();
    assert_eq!(files.len(), 3, "{lines:#?}");
    assert!(files[0].ends_with("relaywork") && files[1..] == ["/bin/true", "/bin/true"], "{files:?}");
}

pub(crate) fn names_users_and_cpus_choose_events() {
    let (trace, lines) =
        record_shell(&["--comm", "relayw*,nobody", "-e", "raw_syscalls:sys_enter", "--context", "comm"]);
    assert!(lines.len() > 20, "{}", trace.summary);
    assert!(lines.iter().all(|line| field(line, "comm") == "relaywork"));
    let (trace, lines) = record_shell(&["--uid", "4711", "-e", "raw_syscalls:sys_enter"]);
    assert!(lines.is_empty() && trace.total("filtered") > 20, "{}", trace.summary);
    let (_, lines) = record_shell(&["--cpu", "0", "-e", "sched:*"]);
    assert!(!lines.is_empty() && lines.iter().all(|line| field(line, "cpu_id") == "0"));
    let said = fail(relayd().args(["trace", "-e", "sched:*", "--cpu", "1-"]), 2);
    assert!(said.contains("is not a CPU's number"), "{said}");
}

/// The unified hierarchy of cgroups, mounted if it was not.
pub(crate) struct Hierarchy {
    path: PathBuf,
    own: Option<tempfile::TempDir>,
}

impl Hierarchy {
    pub(crate) fn find() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        if let Some(line) = mounts.lines().find(|line| line.contains(" - cgroup2 ")) {
            return Self { path: line.split(' ').nth(4).unwrap().into(), own: None };
        }
        let own = tempfile::tempdir().unwrap();
        succeed(Command::new("mount").args(["-t", "cgroup2", "none"]).arg(own.path()));
        // As every service manager does: before a controller is enabled once, the kernel tells nobody of new cgroups (kernel/cgroup/cgroup.c,
        // `cgroup_propagate_control` alone gives them what perf goes by).
        fs::write(own.path().join("cgroup.subtree_control"), "+pids").unwrap();
        Self { path: own.path().to_path_buf(), own: Some(own) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        if self.own.is_some() {
            succeed(Command::new("umount").arg(&self.path));
        }
    }
}

pub(crate) fn a_cgroup_and_those_below_it_choose_events() {
    let hierarchy = Hierarchy::find();
    let (root, own) = (hierarchy.path().display(), std::process::id());
    let (group, below) = (format!("{root}/relayd-test-{own}"), format!("{root}/relayd-test-{own}/below"));
    fs::create_dir_all(&below).unwrap();
    let inside = format!("echo $$ > {below}/cgroup.procs; exec /bin/true");
    let command = ["--bpf-stats", "--", "sh", "-c", "sh -c \"$0\"; /bin/true", &inside];
    let trace = record(
        &[&["--cgroup", &group, "--context", "cgroup", "-e", "sched:sched_process_exec"], &command[..]].concat(),
    );
    let id = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&below).unwrap()).to_string();
    fs::remove_dir(&below).unwrap();
    fs::remove_dir(&group).unwrap();
    adds_up(&trace);
    let lines = trace.named();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!((field(&lines[0], "filename"), field(&lines[0], "cgroup")), ("/bin/true", id.as_str()));
    let said = fail(relayd().args(["trace", "-e", "sched:*", "--cgroup", "/nosuch"]), 1);
    assert!(said.contains("there is no cgroup"), "{said}");
}

pub(crate) fn a_condition_keeps_what_it_says_and_nothing_else() {
    let work = Work::new("/bin/sh");
    let program = work.path();
    let all = tempfile::tempdir().unwrap();
    let path = all.path().join("all");
    let second = relayd();
    // A second relayd records everything meanwhile.
    let command = [
        "--bpf-stats",
        "--",
        second.get_program().to_str().unwrap(),
        "trace",
        "-q",
        "-e",
        "sched:sched_switch,sched:sched_process_exec",
        "-o",
        path.to_str().unwrap(),
        "--",
        &program,
        "-c",
        SHELL,
    ];
    let conditions = [
        "-e",
        "sched:sched_switch if next_prio < 121 && (next_comm ~ \"relay*\" || prev_comm == \"swapper/0\") && !(next_pid == 0)",
        "-e",
        "sched:sched_process_exec if filename ~ \"/*/true\"",
    ];
    let kept = record(&[&conditions[..], &command[..]].concat());
    adds_up(&kept);
    let holds = |line: &&String| {
        if line.contains("sched_process_exec") {
            let name = field(line, "filename");
            return name.starts_with('/') && name[1..].contains('/') && name.ends_with("/true");
        }
        let number = |name| field(line, name).parse::<i64>().unwrap();
        let named = field(line, "next_comm").starts_with("relay") || field(line, "prev_comm") == "swapper/0";
        number("next_prio") < 121 && named && number("next_pid") != 0
    };
    let essence = |line: &String| line.split_once("sched:").unwrap().1.to_owned();
    let all = relay_tests::babeltrace_named(&path);
    // The first relayd leaves out what happens while it is current itself; the second has left out its own.
    let is_own = |line: &&String| line.contains("sched_switch") && field(line, "prev_comm").starts_with("relayd");
    let expected: Vec<_> = all.iter().filter(holds).filter(|line| !is_own(line)).map(essence).collect();
    let kept: Vec<_> = kept.named();
    assert!(kept.iter().all(|line| holds(&line)), "{kept:#?}");
    // The inner recording begins later and ends earlier.
    let mut counts: HashMap<String, i64> = HashMap::new();
    kept.iter().map(essence).for_each(|line| *counts.entry(line).or_default() += 1);
    assert!(!expected.is_empty());
    for line in expected {
        let count = counts.entry(line.clone()).or_default();
        *count -= 1;
        assert!(*count >= 0, "the condition left out {line}");
    }
}

pub(crate) fn a_limit_is_kept_and_what_is_over_it_is_counted() {
    let work = Work::new("/bin/dd");
    let program = work.path();
    let command = [
        "--comm",
        "relaywork",
        "--bpf-stats",
        "--",
        &program,
        "if=/dev/zero",
        "of=/dev/null",
        "bs=1",
        "count=200000",
        "status=none",
    ];
    let trace = record(
        &[&["-e", "raw_syscalls:sys_enter,sched:sched_switch", "--limit", "raw_syscalls:*=1000/s"], &command[..]]
            .concat(),
    );
    adds_up(&trace);
    let calls = trace.named().iter().filter(|line| line.contains("raw_syscalls")).count();
    let seconds = trace.summary["seconds"].as_f64().unwrap();
    // A tenth of a second's worth may come at once on each CPU that the work has been on.
    let cpus = trace.summary["cpus"].as_array().unwrap().len() as f64;
    assert!((calls as f64) <= (seconds * 1000.0 + 101.0) * cpus, "{calls} in {seconds} s");
    assert!(calls > 100, "{calls}");
    assert!(trace.total("suppressed") + calls as u64 >= 400_000, "{}", trace.summary);
    let events = trace.session["events"].as_array().unwrap();
    assert_eq!(events[0]["suppressed"].as_u64(), Some(trace.total("suppressed")));
    let said = fail(relayd().args(["trace", "-e", "sched:*", "--limit", "sched:*=fast"]), 1);
    assert!(said.contains("EVENT=RATE/s"), "{said}");
    let said = fail(relayd().args(["trace", "-e", "sched:*", "--limit", "irq:*=10/s"]), 1);
    assert!(said.contains("no selected event"), "{said}");
}

pub(crate) fn context_is_that_of_the_task() {
    let (_, lines) = record_shell(&[
        "--context",
        "comm,uid,kstack,ustack",
        "-e",
        "syscall:execve if comm == \"true\"",
        "-e",
        "sched:sched_process_exec",
    ]);
    let exec: Vec<_> =
        lines.iter().filter(|line| line.contains("sched_process_exec") && line.contains("/bin/true")).collect();
    assert_eq!(exec.len(), 2, "{lines:#?}");
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap();
    let text = |name: &str| {
        let line = symbols.lines().find(|line| line.split_whitespace().nth(2) == Some(name));
        u64::from_str_radix(line.unwrap().split(' ').next().unwrap(), 16).unwrap()
    };
    let (start, end) = (text("_stext"), text("_etext"));
    for line in exec {
        assert_eq!((field(line, "comm"), field(line, "uid")), ("true", "0"));
        let frames = line.split("kstack = [").nth(1).unwrap().split(" ustack").next().unwrap();
        let frames: Vec<_> =
            frames.split("= 0x").skip(1).map(|hex| u64::from_str_radix(&hex[..16], 16).unwrap()).collect();
        assert!(frames.len() >= 3, "{line}");
        assert!(frames.iter().all(|frame| (start..=end).contains(frame)), "{frames:x?} are not in {start:x}..{end:x}");
    }
}

pub(crate) fn a_return_takes_its_entry_along_even_when_it_is_not_wanted() {
    // Each write names the shell anew: the second is chosen at its entry alone, the third at its return alone.
    let rename = "for name in relay-a relay-b relay-a; do printf $name > /proc/$$/comm; done";
    let trace = record(&["--comm", "relay-a", "-e", "syscall:write", "--bpf-stats", "--", "sh", "-c", rename]);
    adds_up(&trace);
    assert_eq!(trace.print(&[]), [] as [serde_json::Value; 0]);
    assert_eq!((trace.total("entries"), trace.total("unpaired")), (1, 2), "{}", trace.summary);
}

pub(crate) fn a_pair_has_all_its_bytes() {
    let event = "syscall:read(count, buf:buf:1024, ret) if comm == \"dd\" && ret == 2048";
    let trace =
        record(&["-e", event, "--bpf-stats", "--", "dd", "if=/dev/urandom", "of=/dev/null", "bs=2048", "count=20"]);
    adds_up(&trace);
    let lines = trace.print(&[]);
    assert_eq!((lines.len(), trace.babeltrace().len()), (20, 20));
    for line in &lines {
        let bytes = line["fields"]["buf"].as_array().unwrap();
        assert_eq!((bytes.len(), &line["fields"]["count"], &line["fields"]["ret"]), (1024, &2048.into(), &2048.into()));
        // Of random bytes few are zero.
        assert!(bytes.iter().filter(|byte| **byte == 0).count() < 64);
    }
}

/// Whether a record is kept, and whether a reader shows it, by the same condition.
pub(crate) fn the_recorder_and_the_reader_agree_on_texts_of_any_length() {
    const PROGRAM: &str = "#include <fcntl.h>\n#include <string.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n\
        int main(void) {\n\
            for (int len = 2; len < 262; len = len == 4 ? 250 : len + 1) {\n\
                char path[300] = \"/\";\n\
                memset(path + 1, 'a', len - 2);\n\
                path[len - 1] = 'z';\n\
                open(path, O_RDONLY);\n\
            }\n\
            syscall(SYS_openat, AT_FDCWD, 1L, O_RDONLY);\n\
            open(\"/\", O_RDONLY);\n\
            return 0;\n\
        }\n";
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("texts.c"), folder.path().join("relay-texts"));
    fs::write(&source, PROGRAM).unwrap();
    succeed(Command::new("cc").arg("-o").arg(&program).arg(&source));
    let program = program.to_str().unwrap();
    let run = |event: &str| record(&["--comm", "relay-texts", "-e", event, "--", program]);
    let names = |lines: Vec<serde_json::Value>| -> Vec<String> {
        lines.iter().map(|line| line["fields"]["filename"].as_str().unwrap().to_owned()).collect()
    };
    let all = run("syscall:openat(filename, ret)");
    let shown = names(all.print(&[]));
    // What the loader opens comes first.
    let lengths: Vec<usize> = shown[shown.len() - 17..].iter().map(String::len).collect();
    assert_eq!(lengths, [2, 3, 4, 250, 251, 252, 253, 254, 255, 256, 257, 258, 259, 260, 261, 7, 1], "{shown:?}");
    for condition in [
        r#"filename ~ "*z""#,
        r#"filename !~ "*z""#,
        r#"filename ~ "*a""#,
        r#"filename == "/az""#,
        r#"filename != "/az""#,
        r#"!(filename ~ "/*z")"#,
        r#"filename == "/az" && ret > 0"#,
        r#"ret > 0 && filename == "/az""#,
        r#"filename ~ "*z" || ret > 0"#,
    ] {
        let event = format!("syscall:openat(filename, ret) if {condition}");
        let kept = names(run(&event).print(&[]));
        let read = names(all.print(&["-e", &format!("syscall:openat if {condition}")]));
        assert_eq!(kept, read, "{condition}");
        let decides = !condition.starts_with("ret > 0 &&");
        assert_eq!(kept.iter().any(|name| name == "(fault)"), decides, "{condition}: {kept:?}");
    }
}
