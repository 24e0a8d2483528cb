//! Reading a trace: print, stat, verify and repair, against babeltrace2, the account, and damage of every kind.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::Duration,
};

use relay_tests::{Trace, fail, record, relayd, succeed, text};
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

fn mixed(more: &[&str]) -> Trace {
    record(&[&["--bpf-stats", "-e", MIXED], more, &["--", "sh", "-c", ACTIVITY]].concat())
}

/// One that tests share, and leave as it is.
fn shared() -> &'static Trace {
    static TRACE: OnceLock<Trace> = OnceLock::new();
    TRACE.get_or_init(|| mixed(&[]))
}

/// A copy of it, to be damaged.
fn copied() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    succeed(Command::new("cp").arg("-r").arg(&shared().path).arg(&path));
    (folder, path)
}

/// `relayd COMMAND PATH`
fn relayd_on(command: &str, path: &Path) -> Command {
    let mut relayd = relayd();
    relayd.arg(command).arg(path);
    relayd
}

/// A trace in which records were lost: on one CPU all of some tenths of a second, while another, if there is one, recorded.
fn lossy() -> Trace {
    let dd = "dd if=/dev/zero of=/dev/null bs=1 count=200000 status=none";
    let both = format!("{dd} & chrt -f 10 {dd}; wait");
    record(&["-b", "4K", "-n", "2", "-e", "raw_syscalls:*", "--", "sh", "-c", &both])
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn assert_sorted(lines: &[Value]) {
    for pair in lines.windows(2) {
        assert!(number(&pair[0], "time") <= number(&pair[1], "time"), "{} comes before {}", pair[0], pair[1]);
    }
}

fn records(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line.get("event").is_some()).collect()
}

fn in_files(trace: &Trace) -> u64 {
    trace.total("recorded") - trace.total("overrun") - trace.total("unwritten")
}

pub(crate) fn print_shows_what_babeltrace_reads() {
    for context in ["uid,cgroup,comm", "kstack,ustack"] {
        let trace = mixed(&["--context", context]);
        let mut print = trace.relayd("print").arg("--json").stdout(Stdio::piped()).spawn().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/babeltrace.py");
        let compared =
            succeed_with(Command::new("/usr/bin/python3").arg(script).arg(&trace.path), print.stdout.take().unwrap());
        assert!(print.wait().unwrap().success());
        let counts: Vec<u64> = compared.split_whitespace().map(|count| count.parse().unwrap()).collect();
        assert_eq!(counts[0], in_files(&trace));
        assert!(counts[1] > 30, "only {} kinds of events", counts[1]);
    }
}

/// Runs a command with something to read, and returns what it prints.
fn succeed_with(command: &mut Command, input: impl Into<Stdio>) -> String {
    let output = command.stdin(input).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

pub(crate) fn print_is_in_the_order_of_time_and_complete() {
    let trace = shared();
    let lines = trace.print(&[]);
    let records = records(&lines);
    assert_eq!(records.len() as u64, in_files(trace));
    assert_sorted(&lines);
    let shown = text(&succeed(&mut trace.relayd("print")).stdout);
    assert_eq!(shown.lines().count(), lines.len());
    for (line, record) in shown.lines().zip(&records) {
        let seconds =
            format!("{}.{:09}", number(record, "time") / 1_000_000_000, number(record, "time") % 1_000_000_000);
        let place = format!("[{:03}] {seconds:>15}: {}:", number(record, "cpu"), record["event"].as_str().unwrap());
        let task = format!("{}-{}", record["comm"].as_str().unwrap(), number(record, "tid"));
        assert!(line.contains(&place) && line.trim_start().starts_with(&task), "{line}\n{record}");
    }
    let switch = shown.lines().find(|line| line.contains("sched:sched_switch: prev_comm=")).unwrap();
    let state = switch.split("prev_state=").nth(1).unwrap().split(' ').next().unwrap();
    assert!(state.starts_with(['R', 'S', 'D', 'I', 'Z', 'X', 'T', 't', 'P']), "{switch}");
}

pub(crate) fn print_shows_what_is_chosen() {
    let trace = shared();
    let all = trace.print(&[]);
    let of = |wanted: &dyn Fn(&Value) -> bool| {
        records(&all).into_iter().filter(|record| wanted(record)).cloned().collect::<Vec<_>>()
    };
    let is = |name: &'static str| move |record: &Value| record["event"] == name;
    assert_eq!(trace.print(&["-e", "sched:sched_switch"]), of(&is("sched:sched_switch")));
    assert_eq!(
        trace.print(&["-e", "sched:sched_switch if prev_prio < 120 || next_comm ~ \"*relay*\""]),
        of(&|record| {
            is("sched:sched_switch")(record)
                && (record["fields"]["prev_prio"].as_i64().unwrap() < 120
                    || record["fields"]["next_comm"].as_str().unwrap().contains("relay"))
        })
    );
    let pid = number(records(&all)[all.len() / 2], "pid");
    // What is not read tells no names.
    let nameless = |mut records: Vec<Value>| {
        records.iter_mut().for_each(|record| record["comm"] = Value::Null);
        records
    };
    let chosen = trace.print(&["--pid", &pid.to_string(), "--cpu", "0"]);
    assert_eq!(nameless(chosen), nameless(of(&|record| number(record, "pid") == pid && number(record, "cpu") == 0)));
    let (from, to) = (number(&all[all.len() / 3], "time"), number(&all[all.len() / 2], "time"));
    let moment = |time: u64| format!("@{}.{:09}", time / 1_000_000_000, time % 1_000_000_000);
    let chosen = trace.print(&["--since", &moment(from), "--until", &moment(to)]);
    assert_eq!(nameless(chosen), nameless(of(&|record| (from..=to).contains(&number(record, "time")))));
    let start = number(&trace.session["clock"]["start"], "monotonic");
    let chosen = trace.print(&["--since", "1ms", "--until", "2ms"]);
    assert_eq!(
        nameless(chosen),
        nameless(of(&|record| (start + 1_000_000..=start + 2_000_000).contains(&number(record, "time"))))
    );
    let fields = trace.print(&["-e", "sched:sched_switch", "--fields", "next_pid"]);
    assert!(fields.iter().all(|record| record["fields"].as_object().unwrap().keys().eq(["next_pid"])));
    let csv = text(
        &succeed(trace.relayd("print").args(["--csv", "-e", "sched:sched_switch", "--fields", "next_pid"])).stdout,
    );
    let columns = csv.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse::<u64>().unwrap());
    assert!(columns.eq(fields.iter().map(|record| number(&record["fields"], "next_pid"))));
}

pub(crate) fn a_reader_that_has_enough_is_no_error() {
    let trace = shared();
    let mut print = trace.relayd("print").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::with_capacity(100, print.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let mut said = String::new();
    print.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(print.wait().unwrap().success() && said.is_empty(), "{said}");
    // And one that never wanted any.
    let folder = tempfile::tempdir().unwrap();
    let repaired = folder.path().join("repaired");
    let commands: [&[&str]; 3] = [&["verify"], &["stat"], &["repair", repaired.to_str().unwrap()]];
    for command in commands {
        let output = unread(relayd_on(command[0], &trace.path).args(&command[1..]));
        assert!(output.status.success() && !text(&output.stderr).contains("panicked"), "{command:?}: {output:?}");
    }
    // The status is for those who read nothing.
    let (_folder, damaged) = copied();
    fs::OpenOptions::new().append(true).open(damaged.join("cpu0")).unwrap().write_all(b"more").unwrap();
    let output = unread(&mut relayd_on("verify", &damaged));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

/// Runs a command whose standard output nobody reads.
fn unread(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child.wait_with_output().unwrap()
}

pub(crate) fn a_trace_is_followed_while_it_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let mut recorder = relayd();
    recorder.args(["trace", "-q", "-e", "sched:sched_switch,sched:sched_wakeup", "-o"]).arg(&path).args(["-d", "3s"]);
    let mut recorder = recorder.spawn().unwrap();
    relay_tests::wait_until("the trace is there", || path.join(".relayd/session.json").exists());
    let mut print = relayd();
    let mut print = print.args(["print", "--json", "-f"]).arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(print.stdout.take().unwrap()).lines();
    let mut followed: Vec<Value> = Vec::new();
    let mut before_the_end = 0;
    for line in lines {
        followed.push(serde_json::from_str(&line.unwrap()).unwrap());
        if recorder.try_wait().unwrap().is_none() {
            before_the_end = followed.len();
        }
    }
    assert!(recorder.wait().unwrap().success() && print.wait().unwrap().success());
    assert!(before_the_end > 0, "nothing was shown before the recording ended");
    let after = succeed(relayd().args(["print", "--json"]).arg(&path));
    let after: Vec<Value> = text(&after.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(followed, after);
}

pub(crate) fn losses_stand_where_they_happened() {
    let trace = lossy();
    let lines = trace.print(&[]);
    let told: u64 = lines.iter().filter_map(|line| line["lost"].as_u64()).sum();
    assert!(told > 0);
    let no_buffer: u64 =
        trace.session["cpus"].as_array().unwrap().iter().map(|cpu| number(cpu, "lost_no_buffer")).sum();
    assert_eq!(told, trace.total("lost") - no_buffer);
    assert_sorted(&lines);
    let shown = text(&succeed(&mut trace.relayd("print")).stdout);
    assert!(shown.lines().any(|line| line.contains("LOST ") && line.contains(" records in the last ")));
    let stat: Value = serde_json::from_slice(&succeed(trace.relayd("stat").arg("--json")).stdout).unwrap();
    let of_cpus = stat["traces"][0]["cpus"].as_array().unwrap().iter().map(|cpu| number(cpu, "lost")).sum::<u64>();
    assert_eq!(of_cpus, told);
    let enough = &stat["traces"][0]["enough"];
    assert!(number(enough, "subbuf_size") * number(enough, "n_subbufs") > 8192, "{enough}");
    succeed(&mut trace.relayd("verify"));

    let trace = record(&[
        "-b",
        "4K",
        "-n",
        "2",
        "--overwrite",
        "-e",
        "raw_syscalls:*",
        "--",
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=1",
        "count=20000",
    ]);
    let lines = trace.print(&[]);
    assert!(lines.iter().any(|line| line["overrun_subbufs"].as_u64() > Some(0)));
    assert_eq!(records(&lines).len() as u64, in_files(&trace));
    succeed(&mut trace.relayd("verify"));
}

pub(crate) fn stat_counts_what_print_shows() {
    let trace = shared();
    let lines = trace.print(&[]);
    let stat: Value = serde_json::from_slice(&succeed(trace.relayd("stat").arg("--json")).stdout).unwrap();
    let mut counts: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for record in records(&lines) {
        *counts.entry((record["event"].as_str().unwrap().to_owned(), number(record, "cpu"))).or_default() += 1;
    }
    let mut counted = BTreeMap::new();
    for event in stat["traces"][0]["events"].as_array().unwrap() {
        for (cpu, count) in event["cpus"].as_object().unwrap() {
            counted
                .insert((event["name"].as_str().unwrap().to_owned(), cpu.parse().unwrap()), number(count, "records"));
        }
    }
    assert_eq!(counted, counts);
    assert_eq!(
        stat["over_time"].as_array().unwrap().iter().map(|bar| bar.as_u64().unwrap()).sum::<u64>(),
        in_files(trace)
    );

    let by = ["--json", "-e", "syscall:openat", "--hist", "duration_ns", "--by", "comm"];
    let stat: Value = serde_json::from_slice(&succeed(trace.relayd("stat").args(by)).stdout).unwrap();
    let opens: Vec<_> = records(&lines).into_iter().filter(|record| record["event"] == "syscall:openat").collect();
    assert!(opens.len() > 3);
    let longest = opens.iter().map(|record| number(&record["fields"], "duration_ns")).max().unwrap();
    let groups = stat["groups"].as_array().unwrap();
    assert_eq!(groups.iter().map(|group| number(group, "records")).sum::<u64>(), opens.len() as u64);
    let max = groups.iter().map(|group| number(&group["spread"], "max")).max().unwrap();
    assert!(max >= longest && max - longest <= longest / 100, "{max} and {longest}");
    let said = fail(trace.relayd("stat").args(["--hist", "filename"]), 1);
    assert!(said.contains("--by filename"), "{said}");
    let said = fail(trace.relayd("stat").args(["--by", "filenam"]), 1);
    assert!(said.contains("did you mean filename"), "{said}");
}

pub(crate) fn verify_finds_what_was_changed() {
    let trace = shared();
    let (_folder, copy) = copied();
    succeed(&mut relayd_on("verify", &copy));
    let session = copy.join(".relayd/session.json");
    let good = fs::read_to_string(&session).unwrap();
    let cpu0 = trace.session["cpus"][0]["recorded"].as_u64().unwrap();
    let elsewhere = trace.total("recorded") - cpu0;
    let recorded = format!("\"recorded\": {cpu0}");
    fs::write(&session, good.replacen(&recorded, &format!("\"recorded\": {}", cpu0 + 1), 1)).unwrap();
    let said = fail(&mut relayd_on("verify", &copy), 1);
    assert!(said.contains("records and the account says"), "{said}");
    assert!(said.contains("the programs ran"), "{said}");
    fs::write(&session, &good).unwrap();

    let path = copy.join("cpu0");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    // The packet's magic number, UUID, sizes, number and CPU; the first record's time, event and length.
    for offset in [0, 10, 40, 50, 56, 72, 80 + 80 + 7, 80 + 80 + 8, 80 + 80 + 10] {
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x41], offset).unwrap();
        let said = fail(&mut relayd_on("verify", &copy), 1);
        assert!(said.contains("cpu0, byte "), "{offset}: {said}");
        let print = relayd_on("print", &copy).output().unwrap();
        if ![56].contains(&offset) {
            assert_eq!(print.status.code(), Some(1), "{offset}");
            assert!(text(&print.stderr).contains("cpu0, byte "), "{offset}");
        }
        let shown = text(&print.stdout).lines().count() as u64;
        assert!(shown >= elsewhere, "{offset}: {shown} lines, and {elsewhere} records of other CPUs are sound");
        file.write_all_at(&byte, offset).unwrap();
    }
    succeed(&mut relayd_on("verify", &copy));
    fs::remove_file(&path).unwrap();
    let said = fail(&mut relayd_on("verify", &copy), 1);
    assert!(said.contains("cpu0: it is missing"), "{said}");
}

pub(crate) fn what_is_readable_is_read_and_the_rest_is_named() {
    let all = shared().print(&[]);
    let (_folder, copy) = copied();
    let damaged = |file: &str, content: Option<&str>, expected: &str| {
        let path = copy.join(file);
        let good = fs::read(&path).unwrap();
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let print = relayd_on("print", &copy).arg("--json").output().unwrap();
        let said = text(&print.stderr);
        assert!(print.status.code() == Some(1) && said.contains(expected) && said.contains(file), "{file}: {said}");
        fs::write(&path, good).unwrap();
        text(&print.stdout).lines().count()
    };
    let of_cpu0 = all.iter().filter(|line| line["cpu"] == 0).count();
    assert_eq!(damaged("cpu0", None, "bytes are missing"), all.len() - of_cpu0);
    assert_eq!(damaged("cpu0", Some(""), "byte 0: "), all.len() - of_cpu0);
    assert_eq!(damaged("cpu0", Some("no packet at all"), "byte 0: "), all.len() - of_cpu0);
    assert_eq!(damaged(".relayd/tasks.json", Some("{"), "EOF while parsing"), all.len());
    let session = fs::read_to_string(copy.join(".relayd/session.json")).unwrap();
    let switches = all.iter().filter(|line| line["event"] == "sched:sched_switch").count();
    let session = session.replacen("field:char prev_comm[16];", "field:char prev_comm[16", 1);
    assert_eq!(damaged(".relayd/session.json", Some(&session), "sched:sched_switch"), all.len() - switches);
}

pub(crate) fn a_wrong_length_costs_no_other_packet() {
    let all = shared().print(&[]);
    let (_folder, copy) = copied();
    let file = File::options().write(true).open(copy.join("cpu0")).unwrap();
    // Of the first packet, which has no records: into the next one, and past the file's end.
    for bytes in [1080u64, 16 << 20] {
        for offset in [40, 48] {
            file.write_all_at(&(bytes * 8).to_le_bytes(), offset).unwrap();
        }
        let print = relayd_on("print", &copy).arg("--json").output().unwrap();
        assert!(
            print.status.code() == Some(1) && text(&print.stderr).contains("cpu0, byte 80: "),
            "{}",
            text(&print.stderr)
        );
        assert_eq!(text(&print.stdout).lines().count(), all.len(), "{bytes}");
    }
}

pub(crate) fn every_whole_record_is_saved_wherever_the_file_was_cut() {
    let (folder, copy) = copied();
    let path = copy.join("cpu0");
    let whole = fs::read(&path).unwrap();
    let all = shared().print(&["--cpu", "0"]);
    let output = folder.path().join("repaired");
    let mut saved_before = 0;
    for part in 0..24 {
        // Near and far from packets' and records' ends.
        let cut = whole.len() * part / 24 + part * 7 % 13;
        fs::write(&path, &whole[..cut]).unwrap();
        succeed(relayd_on("repair", &copy).arg(&output));
        succeed(relayd().arg("verify").arg(&output));
        let saved = succeed(relayd().args(["print", "--json", "--cpu", "0"]).arg(&output));
        let saved: Vec<Value> = text(&saved.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records(&saved), records(&all)[..records(&saved).len()], "cut at {cut}");
        // No more is missing than what the cut has touched.
        assert!(saved.len() >= saved_before);
        saved_before = saved.len();
        let bytes = fs::read(output.join("cpu0")).unwrap().len();
        assert!(bytes + 8300 > cut, "cut at {cut}, {bytes} bytes saved");
        fs::remove_dir_all(&output).unwrap();
    }
    assert!(saved_before > records(&all).len() * 9 / 10);
}

pub(crate) fn what_a_killed_recorder_has_left_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let mut recorder = relayd();
    let mut recorder =
        recorder.args(["trace", "-q", "-b", "4K", "-e", "raw_syscalls:*,sched:*", "-o"]).arg(&path).spawn().unwrap();
    relay_tests::wait_until("records are in the files", || {
        sleep(Duration::from_millis(50));
        fs::metadata(path.join("cpu0")).is_ok_and(|file| file.len() > 100_000)
    });
    recorder.kill().unwrap();
    recorder.wait().unwrap();
    let said = fail(relayd().arg("verify").arg(&path), 1);
    assert!(said.contains("was not ended in order"), "{said}");
    let repaired = folder.path().join("repaired");
    succeed(relayd().arg("repair").arg(&path).arg(&repaired));
    let verified = text(&succeed(relayd().arg("verify").arg(&repaired)).stdout);
    assert!(verified.contains("all adds up"), "{verified}");
    let session: Value = serde_json::from_slice(&fs::read(repaired.join(".relayd/session.json")).unwrap()).unwrap();
    assert_eq!(session["repaired"]["had_account"], false);
    // Its session is still in the kernel.
    succeed(relayd().args(["recover", "-q"]).arg(&path));
}

pub(crate) fn what_is_no_trace_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let commands: [&[&str]; 5] =
        [&["print"], &["stat"], &["verify"], &["repair"], &["export", "--to", "json", "-o", "-"]];
    let refused = |path: &Path, expected: &str| {
        for command in commands {
            let output = path.with_extension("out");
            let more = if command == ["repair"] { vec![output.as_path()] } else { Vec::new() };
            let said = fail(relayd().args(command).arg(path).args(more), 1);
            assert!(said.contains(expected) && said.contains(path.to_str().unwrap()), "{command:?}: {said}");
        }
    };
    refused(&path.join("nowhere"), "opening the trace");
    refused(path, "is not a trace of relayd");
    let file = path.join("file");
    fs::write(&file, "x").unwrap();
    refused(&file, "is not a trace of relayd");
    let empty = path.join("empty");
    fs::create_dir_all(empty.join(".relayd")).unwrap();
    refused(&empty, "session.json");
    for (session, expected) in [
        ("", "damaged"),
        ("{}", "damaged"),
        ("[1, 2", "damaged"),
        (r#"{"format": 2, "version": "9.9"}"#, "use a newer one"),
    ] {
        fs::write(empty.join(".relayd/session.json"), session).unwrap();
        refused(&empty, expected);
    }
}

pub(crate) fn traces_of_two_machines_are_merged_by_wall_time() {
    let trace = shared();
    let (_folder, other) = copied();
    // The same, as if it were of a machine that had booted an hour before, and 5 ms later.
    let mut session = trace.session.clone();
    session["boot_id"] = "another".into();
    session["host"] = "other".into();
    for end in ["start", "end"] {
        let realtime = number(&session["clock"][end], "realtime");
        session["clock"][end]["realtime"] = (realtime + 5_000_000).into();
    }
    fs::write(other.join(".relayd/session.json"), session.to_string()).unwrap();
    let lines = trace.print(&[other.to_str().unwrap()]);
    assert_sorted(&lines);
    let times = |host: &Value| {
        lines.iter().filter(|line| line["host"] == *host).map(|line| number(line, "time")).collect::<Vec<_>>()
    };
    let (first, second) = (times(&trace.session["host"]), times(&"other".into()));
    assert_eq!(first.len(), second.len());
    // The anchors of a short trace are as good as two readings of the clock.
    let apart = |(first, second): (&u64, &u64)| (first + 5_000_000).abs_diff(*second);
    assert!(first.iter().zip(&second).map(apart).all(|apart| apart < 20_000));
}
