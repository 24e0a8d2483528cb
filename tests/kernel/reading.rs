//! Reading a trace that has just been recorded, is being recorded, or was left by a killed recorder.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use relay_channel::machine;
use relay_tests::{
    Recording, Running, Trace, fail, record, relayd, session, succeed, text, trace::print, verify, wait_until,
    wait_until_it_records,
};
use serde_json::Value;

/// Events of many shapes: strings, arrays, addresses, flags, signed and unsigned numbers. Not more, since the kernel takes its time to
/// detach each.
const MIXED: &str = "sched:sched_switch,sched:sched_wakeup,sched:sched_waking,sched:sched_process_*,sched:sched_migrate_task,irq:softirq_*,\
                     task:*,signal:*,timer:hrtimer_start,timer:timer_start,kmem:kmalloc,kmem:kfree,kmem:mm_page_alloc,\
                     filemap:mm_filemap_add_to_page_cache,writeback:writeback_dirty_inode,workqueue:workqueue_execute_start,\
                     workqueue:workqueue_queue_work,rcu:rcu_utilization,raw_syscalls:*,syscalls:sys_enter_write,\
                     syscalls:sys_exit_write,syscalls:sys_enter_execve,syscall:openat";
/// Does a little of everything.
const ACTIVITY: &str = "ls / > /dev/null; echo x > /tmp/relayd-test-x; sync /tmp/relayd-test-x; rm /tmp/relayd-test-x; sh -c 'kill -USR1 $$' || true";

fn mixed(context: &str) -> Trace {
    record(&["--bpf-stats", "-e", MIXED, "--context", context, "--", "sh", "-c", ACTIVITY])
}

fn in_files(trace: &Trace) -> u64 {
    trace.total("recorded") - trace.total("overrun") - trace.total("unwritten")
}

pub(crate) fn print_shows_what_babeltrace_reads() {
    for context in ["uid,cgroup,comm", "kstack,ustack"] {
        let trace = mixed(context);
        let mut print = trace.relayd("print").arg("--json").stdout(Stdio::piped()).spawn().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/babeltrace.py");
        let compared =
            succeed_with(Command::new("/usr/bin/python3").arg(script).arg(&trace.path), print.stdout.take().unwrap());
        assert!(print.wait().unwrap().success());
        let counts: Vec<u64> = compared.split_whitespace().map(|count| count.parse().unwrap()).collect();
        assert_eq!(counts[0], in_files(&trace));
        assert!(counts[1] > 20, "only {} kinds of events", counts[1]);
        succeed(&mut trace.relayd("verify"));
    }
}

/// Runs a command with something to read, and returns what it prints.
fn succeed_with(command: &mut Command, input: impl Into<Stdio>) -> String {
    let output = command.stdin(input).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

pub(crate) fn a_trace_is_followed_while_it_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let mut recorder = relayd();
    recorder.args(["trace", "-q", "-e", "sched:sched_switch,sched:sched_wakeup", "-o"]).arg(&path).args(["-d", "3s"]);
    let mut recorder = recorder.spawn().unwrap();
    wait_until_it_records(&path);
    let mut printing = relayd();
    let mut printing = printing.args(["print", "--json", "-f"]).arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(printing.stdout.take().unwrap()).lines();
    let mut followed: Vec<Value> = Vec::new();
    let mut before_the_end = 0;
    for line in lines {
        followed.push(serde_json::from_str(&line.unwrap()).unwrap());
        if recorder.try_wait().unwrap().is_none() {
            before_the_end = followed.len();
        }
    }
    assert!(recorder.wait().unwrap().success() && printing.wait().unwrap().success());
    assert!(before_the_end > 0, "nothing was shown before the recording ended");
    // Names of threads are kept at the end: until then only those are known that records tell.
    // A name may be another by then, and each piece looks at the wall clock for itself.
    let unnamed = |mut record: Value| {
        for key in ["comm", "wall"] {
            record.as_object_mut().unwrap().remove(key);
        }
        record
    };
    let (followed, printed) = (followed.into_iter().map(unnamed), print(&path, &[]).into_iter().map(unnamed));
    let (followed, printed): (Vec<_>, Vec<_>) = (followed.collect(), printed.collect());
    let differs = followed.iter().zip(&printed).find(|(followed, printed)| followed != printed);
    assert_eq!((differs, followed.len()), (None, printed.len()));
}

pub(crate) fn a_trace_in_pieces_is_followed_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let mut recorder = relayd();
    recorder
        .args(["trace", "-q", "-e", "raw_syscalls:sys_enter", "--rotate-time", "100ms", "-d", "3s", "-o"])
        .arg(&path);
    let mut recorder = recorder.spawn().unwrap();
    wait_until_it_records(&path);
    let mut printing = relayd();
    let printing = printing.args(["print", "--json", "-f"]).arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    // A thread that the trace names at its end.
    let late = "for i in $(seq 60); do ls / > /dev/null; sleep 0.05; done";
    let mut load = Command::new("bash").args(["-c", &format!("printf late > /proc/$$/comm; {late}")]).spawn().unwrap();
    let output = printing.wait_with_output().unwrap();
    load.wait().unwrap();
    assert!(recorder.wait().unwrap().success() && output.status.success());
    let followed: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |pid| followed.iter().find(|line| line["pid"] == pid).map(|line| line["comm"].clone());
    assert_eq!(named(load.id()), Some("late".into()));
    let mut pieces: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    pieces.sort();
    // The pieces' names are longer, so the newest is the first of them.
    pieces.rotate_left(1);
    assert!(pieces.len() > 10, "{pieces:?}");
    // A name may be another by then, and each piece looks at the wall clock for itself.
    let unnamed = |mut record: Value| {
        for key in ["comm", "wall"] {
            record.as_object_mut().unwrap().remove(key);
        }
        record
    };
    let followed: Vec<_> = followed.into_iter().map(unnamed).collect();
    let printed: Vec<_> = pieces.iter().flat_map(|piece| print(piece, &[])).map(unnamed).collect();
    assert!(followed.len() > 2000, "{} records", followed.len());
    // Each CPU's file ends at its own moment.
    for cpu in machine::online_cpus().unwrap() {
        let of = |all: &[Value]| all.iter().filter(|record| record["cpu"] == cpu).cloned().collect::<Vec<_>>();
        let (followed, printed) = (of(&followed), of(&printed));
        // What was recorded before the files were opened may be in a piece already.
        let printed = &printed[printed.len().saturating_sub(followed.len())..];
        let differs = followed.iter().zip(printed).find(|(followed, printed)| followed != printed);
        assert_eq!((differs, followed.len()), (None, printed.len()), "cpu {cpu}");
    }
}

pub(crate) fn times_before_now_are_of_a_trace_that_is_being_recorded() {
    let recording = Recording::start(&["-e", "sched:sched_switch", "--bpf-stats"]);
    let lately = |span: &str| {
        let mut relayd = relayd();
        let relayd = relayd.args(["print", "--json", "--since", span]).arg(&recording.path);
        text(&succeed(relayd).stdout).lines().count()
    };
    wait_until("records are in the files", || lately("-60s") > 0);
    wait_until("what came before is not shown", || lately("-10ms") < lately("-60s"));
    recording.stop().adds_up();
    let trace = record(&["-e", "sched:sched_switch", "-d", "0.5"]);
    let clock = &trace.session["clock"];
    let lasted = clock["end"]["monotonic"].as_u64().unwrap() - clock["start"]["monotonic"].as_u64().unwrap();
    assert!((500_000_000..5_000_000_000).contains(&lasted), "{lasted} ns");
}

pub(crate) fn what_a_killed_recorder_has_left_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let mut recorder = relayd();
    recorder.args(["trace", "-q", "-b", "4K", "-e", "raw_syscalls:*,sched:sched_switch", "-o"]).arg(&path);
    let mut recorder = Running::start(&mut recorder);
    recorder.wait_until("records are in the files", |_| {
        fs::metadata(path.join("cpu0")).is_ok_and(|file| file.len() > 100_000)
    });
    drop(recorder);
    let said = fail(relayd().arg("verify").arg(&path), 1);
    assert!(said.contains("was not ended in order"), "{said}");
    let repaired = folder.path().join("repaired");
    succeed(relayd().arg("repair").arg(&path).arg(&repaired));
    verify(&repaired);
    assert_eq!(session(&repaired)["repaired"]["had_account"], false);
    // Its session is still in the kernel.
    succeed(relayd().args(["recover", "-q"]).arg(&path));
}
