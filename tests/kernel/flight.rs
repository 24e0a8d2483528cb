//! Sessions that record without a process: snapshots, triggers, changes, and what is said of those that cannot be used.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use relay_channel::{machine, pins::PinFolder};
use relay_common::recipe::choice;
use relay_daemon::session::PinnedSession;
use relay_tests::{
    babeltrace_named,
    channel::{Numbers, Storm, numbers_condition, run_on},
    fail,
    machine::{count_loaded, links_of, own_processes},
    relayd, repeats, session, session_file, succeed, text, total,
    trace::{for_each_record, numbers, print},
    verify, wait_until,
};
use rustix::process::{Pid, test_kill_process};
use serde_json::Value;

use crate::cli::SmallDisk;

/// A session that ends with the test, whatever becomes of that.
pub(crate) struct Flight(&'static str);

impl Flight {
    pub(crate) fn start(name: &'static str, arguments: &[&str]) -> Self {
        let _ = relayd().args(["stop", name]).output();
        let flight = Self(name);
        succeed(relayd().args(["start", name]).args(arguments));
        flight
    }

    pub(crate) fn snapshot(&self, path: &Path) -> Value {
        succeed(relayd().args(["snapshot", self.0, "-o"]).arg(path));
        verify(path);
        session(path)
    }

    fn status(&self) -> Value {
        let status = succeed(relayd().args(["status", self.0, "--json"]));
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        status["sessions"][0].clone()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let _ = relayd().args(["stop", self.0]).output();
    }
}

fn names(path: &Path) -> Vec<String> {
    print(path, &[]).iter().filter_map(|line| line["event"].as_str().map(str::to_owned)).collect()
}

fn sessions() -> Vec<String> {
    relay_daemon::session::names().unwrap()
}

pub(crate) fn a_session_records_without_a_process() {
    let folder = tempfile::tempdir().unwrap();
    let flight =
        Flight::start("test-alone", &["-e", "sched:sched_switch,sched:sched_process_exec", "-b", "64K", "-n", "4"]);
    assert_eq!(own_processes("relayd"), [] as [std::path::PathBuf; 0]);
    let first = flight.status();
    succeed(&mut Command::new("true"));
    let second = flight.status();
    assert!(second["recorded"].as_u64() > first["recorded"].as_u64(), "{first} {second}");
    assert!(second["age"].as_f64() > first["age"].as_f64() && second["span"].as_f64() <= second["age"].as_f64());
    let cpus = machine::online_cpus().unwrap().len() as u64;
    assert_eq!(second["memory"], cpus * ((256 << 10) + (64 << 10)));
    let path = folder.path().join("snapshot");
    let taken = flight.snapshot(&path);
    assert!(total(&taken, "recorded") >= second["recorded"].as_u64().unwrap());
    assert!(names(&path).iter().any(|name| name == "sched:sched_process_exec"));
    // It went on, and holds what the first snapshot had.
    let again = flight.snapshot(&folder.path().join("again"));
    assert!(total(&again, "recorded") > total(&taken, "recorded"));
    let shown = text(&succeed(relayd().arg("status")).stdout);
    assert!(shown.contains("test-alone: records\n"), "{shown}");
    let last = folder.path().join("last");
    succeed(relayd().args(["stop", "test-alone", "--snapshot", "-o"]).arg(&last));
    verify(&last);
    assert!(!sessions().contains(&"test-alone".to_owned()));
    for path in [&path, &path.join(".relayd"), &path.join("cpu0"), &path.join("metadata")] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o007, 0, "{}", path.display());
    }
}

/// Two threads on two CPUs make calls in turns: each makes its next when the other's is done. So of what is recorded up to one instant, the
/// first thread's last number is the second's, or one higher.
pub(crate) fn a_snapshot_is_cut_at_one_instant_on_all_cpus() {
    let cpus = machine::online_cpus().unwrap();
    let [first, .., second] = cpus[..] else { panic!("one CPU alone") };
    let event = format!("raw_syscalls:sys_enter if {}", numbers_condition());
    let flight = Flight::start("test-cut", &["-e", &event, "-b", "16K", "-n", "8"]);
    let (turn, stop) = (Arc::new(AtomicU32::new(2)), Arc::new(AtomicBool::new(false)));
    let player = |cpu: u32, side: u32| {
        let (turn, stop) = (Arc::clone(&turn), Arc::clone(&stop));
        thread::spawn(move || {
            run_on(cpu);
            while !stop.load(Ordering::Relaxed) {
                let now = turn.load(Ordering::Acquire);
                if now % 2 == side {
                    let _ = Pid::from_raw(i32::try_from(now / 2).unwrap()).map(test_kill_process);
                    turn.store(now + 1, Ordering::Release);
                }
            }
            rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
        })
    };
    let players = [player(first, 0), player(second, 1)];
    let (mut last, rounds) = (Vec::new(), repeats(50));
    for _ in 0..rounds {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        flight.snapshot(&path);
        last.push(numbers(&path).into_iter().map(|(tid, numbers)| (tid, *numbers.last().unwrap())).collect::<Vec<_>>());
    }
    stop.store(true, Ordering::Relaxed);
    let [a, b] = players.map(|player| player.join().unwrap());
    let of = |last: &[(u32, u64)], tid| last.iter().find(|(other, _)| *other == tid).map(|(_, number)| *number);
    for last in &last {
        let (a, b) = (of(last, a).unwrap(), of(last, b).unwrap());
        assert!(b <= a && a <= b + 1, "one CPU's last call is {a}, the other's {b}");
    }
    // Emulated CPUs run by turns too.
    assert!(last[last.len() - 1][0].1 > 50, "{last:?}");
    // And when all CPUs record all the time.
    let storm = Numbers::start(&cpus, Duration::ZERO);
    for _ in 0..rounds {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let end = flight.snapshot(&path)["clock"]["end"]["monotonic"].as_u64().unwrap();
        let newest: Vec<u64> = cpus.iter().filter_map(|cpu| newest(&path, *cpu)).collect();
        assert!(newest.iter().all(|newest| *newest <= end), "a record after the cut at {end}: {newest:?}");
    }
    storm.stop();
}

/// When a CPU's newest record was made.
fn newest(path: &Path, cpu: u32) -> Option<u64> {
    let mut newest = None;
    for_each_record(path, cpu, |record| newest = Some(record.timestamp));
    newest
}

pub(crate) fn a_record_stops_the_recording_and_what_led_to_it_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("led");
    let condition = "sched:sched_process_exec if filename ~ \"*/true\"";
    let flight = Flight::start(
        "test-until",
        &["-e", "sched:sched_switch,raw_syscalls:*", "-b", "64K", "-n", "4", "--until", condition],
    );
    let said = fail(relayd().args(["wait", "test-until", "--timeout", "100ms", "-o"]).arg(&path), 1);
    assert!(said.contains("the time is over"), "{said}");
    let waiting = relayd().args(["wait", "test-until", "-o"]).arg(&path).stderr(Stdio::piped()).spawn().unwrap();
    succeed(&mut Command::new("true"));
    // What would overwrite everything, many times over.
    let storm = Storm::start(&machine::online_cpus().unwrap());
    let waited = waiting.wait_with_output().unwrap();
    assert!(waited.status.success(), "{}", text(&waited.stderr));
    storm.wait_for_reads(100_000);
    drop(storm);
    let said = text(&waited.stderr);
    assert!(said.contains("was stopped by sched:sched_process_exec on cpu"), "{said}");
    verify(&path);
    let status = flight.status();
    let fired = status["stopped_by"].clone();
    let snapshot = folder.path().join("later");
    let later = flight.snapshot(&snapshot);
    assert_eq!(fired["end"], fired["time"]);
    assert_eq!(later["clock"]["end"]["monotonic"], fired["end"]);
    for trace in [&path, &snapshot] {
        let newest = print(trace, &["--time", "monotonic"]).into_iter().rfind(|line| line["event"].is_string());
        let newest = newest.unwrap();
        assert_eq!(
            (&newest["time"], &newest["event"]),
            (&fired["time"], &"sched:sched_process_exec".into()),
            "{newest}"
        );
    }
    // Again, and a while longer.
    succeed(relayd().args(["wait", "test-until", "--rearm", "-o"]).arg(folder.path().join("again")));
    let before = flight.status();
    assert!(before["stopped_by"].is_null(), "{before}");
    drop(flight);
    let flight = Flight::start(
        "test-until",
        &["-e", "sched:sched_switch", "--until", "sched:sched_process_exit if comm == \"true\"", "--after", "300ms"],
    );
    succeed(&mut Command::new("true"));
    succeed(relayd().args(["wait", "test-until", "-o"]).arg(folder.path().join("after")));
    let fired = flight.status()["stopped_by"].clone();
    assert_eq!(fired["end"].as_u64(), fired["time"].as_u64().map(|time| time + 300_000_000));
    let said = fail(relayd().args(["start", "test-never", "-e", "sched:*", "--after", "1s"]), 2);
    assert!(said.contains("--until"), "{said}");
    let _other = Flight::start("test-never", &["-e", "sched:sched_switch"]);
    let said = fail(relayd().args(["wait", "test-never"]), 1);
    assert!(said.contains("nothing stops test-never") && said.contains("--until"), "{said}");
}

pub(crate) fn a_running_sessions_events_change_and_the_trace_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let flight =
        Flight::start("test-change", &["-e", "sched:sched_process_exec,sched:sched_process_exit", "--context", "comm"]);
    let run = || succeed(&mut Command::new("true"));
    run();
    succeed(relayd().args([
        "start",
        "test-change",
        "--add",
        "-e",
        "sched:sched_process_fork,syscall:openat(filename:ustr)",
    ]));
    run();
    let links = {
        let _open = PinnedSession::open("test-change").unwrap_or_else(|error| panic!("{error}"));
        links_of(std::process::id())
    };
    succeed(relayd().args(["start", "test-change", "--remove", "-e", "sched:sched_process_e*"]));
    // The kernel may detach a while after the last file is closed.
    wait_until("two events are detached", || count_loaded(&links) == links.len() - 2);
    run();
    let session = flight.snapshot(&path);
    let notes: u64 = session["cpus"].as_array().unwrap().iter().map(|cpu| cpu["notes"].as_u64().unwrap()).sum();
    assert_eq!(notes, 2, "the changes are records without a run");
    let lines = babeltrace_named(&path);
    let at = |what: &str| -> Vec<usize> { (0..lines.len()).filter(|index| lines[*index].contains(what)).collect() };
    let changes = at(" relayd:change: ");
    let [added, removed] = changes[..] else { panic!("{changes:?}") };
    assert!(lines[added].contains("added = 2, removed = 0") && lines[removed].contains("added = 0, removed = 2"));
    assert!(
        at("sched:sched_process_fork:").iter().all(|line| *line > added)
            && at("syscall:openat:").iter().any(|line| *line > removed)
    );
    let kept = at("sched:sched_process_exec:");
    assert!(kept.iter().any(|line| *line > added) && kept.iter().all(|line| *line < removed), "{kept:?}");
    let event =
        |name: &str| session["events"].as_array().unwrap().iter().find(|event| event["name"] == name).unwrap().clone();
    assert!(
        event("sched:sched_process_fork")["added"].is_u64() && event("sched:sched_process_exec")["removed"].is_u64()
    );
    assert_eq!(flight.status()["events"], serde_json::json!(["sched:sched_process_fork", "syscall:openat"]));
    let said = fail(relayd().args(["start", "test-change", "--add", "-e", "syscall:openat"]), 1);
    assert!(said.contains("test-change records syscall:openat already"), "{said}");
    let said = fail(relayd().args(["start", "test-change", "--remove", "-e", "sched:sched_switch"]), 1);
    assert!(said.contains("records no event 'sched:sched_switch'"), "{said}");
    // What was refused has left nothing.
    let said = fail(relayd().args(["start", "test-change", "--add", "-e", "sched:nosuch"]), 1);
    assert!(said.contains("no tracepoint is named"), "{said}");
    succeed(relayd().args(["start", "test-change", "--add", "-e", "sched:sched_process_exec"]));
    run();
    flight.snapshot(&folder.path().join("once more"));
}

/// A call that was under way when the recording stopped has returned unseen: the next one's return is not an end of it.
pub(crate) fn calls_that_return_while_it_is_stopped_have_no_return_later() {
    let stop = Arc::new(AtomicBool::new(false));
    const NAP: Duration = Duration::from_millis(300);
    let naps = {
        let stop = Arc::clone(&stop);
        let nap = move || {
            while !stop.load(Ordering::Relaxed) {
                sleep(NAP);
            }
        };
        thread::Builder::new().name("naps".to_owned()).spawn(nap).unwrap()
    };
    let slow = "syscall:clock_nanosleep if duration_ns > 1500ms && comm == \"naps\"";
    let exec = "sched:sched_process_exec if filename ~ \"*/true\"";
    let flight = Flight::start("test-rearm", &["-e", "sched:sched_switch", "--until", slow, "--until", exec]);
    // Of a CPU that has none, a count is left out.
    let of_all = |status: &Value, count: &str| -> u64 {
        status["cpus"].as_array().unwrap().iter().filter_map(|cpu| cpu[count].as_u64()).sum()
    };
    wait_until("a nap has begun", || of_all(&flight.status(), "entries") > 0);
    succeed(&mut Command::new("true"));
    // What is under way returns meanwhile, and would be too slow if its entry were taken for that of a later one.
    let too_slow = 5 * NAP + 2 * NAP;
    sleep(too_slow);
    let folder = tempfile::tempdir().unwrap();
    succeed(relayd().args(["wait", "test-rearm", "--rearm", "-o"]).arg(folder.path().join("led")));
    wait_until("a nap has returned", || {
        let status = flight.status();
        assert!(status["stopped_by"].is_null(), "{status}");
        of_all(&status, "unpaired") > 0
    });
    stop.store(true, Ordering::Relaxed);
    naps.join().unwrap();
}

/// What is added to a session records the processes that it follows by then, too.
pub(crate) fn added_events_are_recorded_of_followed_processes() {
    let mut outer = Command::new("sh")
        .args(["-c", "read a; sh -c 'read b; exec true'; true"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = outer.id().to_string();
    let flight = Flight::start("test-follow", &["-e", "sched:sched_process_fork", "--pid", &pid, "--follow"]);
    let mut line = || outer.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    line();
    let children = format!("/proc/{pid}/task/{pid}/children");
    wait_until("its child is a shell of its own", || {
        let child = fs::read_to_string(&children).unwrap();
        fs::read(format!("/proc/{}/cmdline", child.trim())).is_ok_and(|line| line.starts_with(b"sh\0-c\0read b"))
    });
    succeed(relayd().args(["start", "test-follow", "--add", "-e", "sched:sched_process_exec"]));
    line();
    assert!(outer.wait().unwrap().success());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    flight.snapshot(&path);
    assert!(names(&path).iter().any(|name| name == "sched:sched_process_exec"), "{:?}", names(&path));
}

/// While programs run at many events, also in the interrupts in which processes come to their end.
pub(crate) fn processes_that_have_ended_are_no_longer_chosen() {
    let mut shell = Command::new("sh")
        .args(["-c", "read a; for i in $(seq 300); do /bin/true & /bin/true; wait; done; echo; read b"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = shell.id().to_string();
    let flight =
        Flight::start("test-ended", &["-e", "raw_syscalls:*,sched:*,irq:*,timer:*", "--pid", &pid, "--follow"]);
    shell.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let chosen = || -> Vec<u64> {
        let map = aya::maps::MapData::from_pin("/sys/fs/bpf/relayd/test-ended/chosen").unwrap();
        let map: aya::maps::HashMap<_, u64, u64> = aya::maps::Map::HashMap(map).try_into().unwrap();
        map.keys().map(|key| key.unwrap() & 0xffff_ffff).collect()
    };
    let mut done = [0];
    shell.stdout.as_mut().unwrap().read_exact(&mut done).unwrap();
    // A task is freed some time after it has ended: RCU's callbacks come when there is time for them. Now and then the kernel does not run a raw
    // tracepoint's program for a millisecond, and does not count that (docs/contexts.md): so a few may stay.
    let few = 12;
    wait_until("of 600 processes few are chosen that have ended", || {
        let is_dead = |pid: &u64| !Path::new(&format!("/proc/{pid}")).exists();
        chosen().iter().filter(|pid| is_dead(pid)).count() <= few
    });
    let folder = tempfile::tempdir().unwrap();
    let session = flight.snapshot(&folder.path().join("snapshot"));
    let helpers = session["helpers"].as_array().unwrap();
    assert_eq!(helpers.len(), 2, "{session}");
    drop(shell.stdin.take());
    shell.wait().unwrap();
}

/// As if the kernel had not told that the last process of that number has ended.
pub(crate) fn the_number_of_an_ended_process_is_chosen_for_no_other() {
    let mut chosen = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = chosen.id().to_string();
    let flight = Flight::start("test-number", &["-e", "sched:sched_process_exec", "--pid", &pid, "--follow"]);
    let ended = Command::new("true").spawn().and_then(|mut ended| ended.wait().map(|_| ended.id())).unwrap();
    let map = aya::maps::MapData::from_pin("/sys/fs/bpf/relayd/test-number/chosen").unwrap();
    let mut map: aya::maps::HashMap<_, u64, u64> = aya::maps::Map::HashMap(map).try_into().unwrap();
    map.insert(choice::key(choice::PID, ended.into()), 0, 0).unwrap();
    let mut run = |_| {
        // Others may take the number before.
        fs::write("/proc/sys/kernel/ns_last_pid", (ended - 1).to_string()).unwrap();
        let mut other = Command::new("true").spawn().unwrap();
        other.wait().unwrap();
        other.id() == ended
    };
    assert!((0..100).any(&mut run), "no process got the number {ended}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    flight.snapshot(&path);
    let lines = print(&path, &[]);
    assert!(lines.iter().all(|line| line["pid"] != ended), "{lines:?}");
    chosen.kill().unwrap();
    chosen.wait().unwrap();
}

pub(crate) fn sessions_that_cannot_be_used_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = |expected: &str| {
        let path = folder.path().join("none");
        let said = fail(relayd().args(["snapshot", "test-bad", "-o"]).arg(&path), 1);
        assert!(said.contains(expected), "{said}");
        assert!(!path.exists());
    };
    for name in ["a/b", "..", "trace-x", ""] {
        let said = fail(relayd().args(["start", name, "-e", "sched:sched_switch"]), 1);
        assert!(said.contains("can be no session's name"), "{said}");
    }
    let said = fail(relayd().args(["start", "test-bad"]), 1);
    assert!(said.contains("no event is given"), "{said}");
    // Nothing elsewhere is looked at, let alone removed.
    fs::write(folder.path().join("file"), "mine").unwrap();
    for name in [folder.path().to_str().unwrap(), "..", ".", "a/../..", ""] {
        for command in ["stop", "snapshot", "status", "wait"] {
            let said = fail(relayd().args([command, name]), 1);
            assert!(said.contains("is not a name"), "{command} {name}: {said}");
        }
    }
    assert!(folder.path().join("file").exists());
    let flight = Flight::start("test-bad", &["-e", "sched:sched_switch"]);
    let said = fail(relayd().args(["start", "test-bad", "-e", "sched:sched_switch"]), 1);
    assert!(said.contains("there is a session test-bad already") && said.contains("relayd stop test-bad"), "{said}");
    let said = fail(relayd().args(["snapshot", "test-bed"]), 1);
    assert!(said.contains("there is no session test-bed; did you mean test-bad?"), "{said}");
    let mut ours = PinnedSession::open("test-bad").unwrap_or_else(|error| panic!("{error}"));
    snapshot("another relayd is at work on test-bad");
    let version = std::mem::replace(&mut ours.description.version, "0.0.1".to_owned());
    ours.save().unwrap();
    drop(ours);
    snapshot("relayd 0.0.1 has made the session test-bad, and this is");
    snapshot("relayd stop test-bad removes it");
    let pins = machine::bpffs().unwrap().join("relayd/test-bad");
    let mode = |mode| fs::set_permissions(&pins, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(fs::metadata(&pins).unwrap().mode() & 0o007, 0);
    for pin in fs::read_dir(&pins).unwrap() {
        assert_eq!(pin.unwrap().metadata().unwrap().mode() & 0o007, 0);
    }
    mode(0o777);
    snapshot("others may write to it");
    mode(0o700);
    std::os::unix::fs::chown(&pins, Some(1), None).unwrap();
    snapshot("belongs to user 1");
    std::os::unix::fs::chown(&pins, Some(0), None).unwrap();
    let removed = text(&succeed(relayd().args(["stop", "test-bad"])).stderr);
    assert!(removed.contains("removed what was left of test-bad"), "{removed}");
    assert!(!sessions().contains(&"test-bad".to_owned()));
    drop(flight);
    let flight = Flight::start("test-bad", &["-e", "sched:sched_switch"]);
    let mut ours = PinnedSession::open("test-bad").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(ours.description.version, version);
    ours.description.session.boot_id = "another".to_owned();
    ours.save().unwrap();
    drop(ours);
    snapshot("is of another boot");
    drop(flight);
    // What a process has left that was killed while it made one is in nobody's way.
    PinFolder::create("test-bad").unwrap().keep();
    let flight = Flight::start("test-bad", &["-e", "sched:sched_switch"]);
    drop(flight);
    assert!(!sessions().contains(&"test-bad".to_owned()));
}

pub(crate) fn a_snapshot_that_fills_the_disk_leaves_nothing_and_the_session_goes_on() {
    let flight = Flight::start("test-full", &["-e", "raw_syscalls:*", "-b", "256K", "-n", "8"]);
    let storm = Storm::start(&machine::online_cpus().unwrap());
    // More than the disk has room for.
    storm.wait_for_reads(50_000);
    drop(storm);
    let disk = SmallDisk::new("2M");
    let path = disk.0.path().join("snapshot");
    let said = fail(relayd().args(["snapshot", "test-full", "-o"]).arg(&path), 1);
    assert!(said.contains("No space left on device"), "{said}");
    assert!(!path.exists());
    let said = fail(relayd().args(["stop", "test-full", "--snapshot", "-o"]).arg(&path), 1);
    assert!(said.contains("test-full was not stopped") && said.contains("No space left on device"), "{said}");
    assert!(!path.exists());
    drop(disk);
    let before = flight.status()["recorded"].as_u64().unwrap();
    succeed(&mut Command::new("true"));
    assert!(flight.status()["recorded"].as_u64().unwrap() > before);
    let folder = tempfile::tempdir().unwrap();
    flight.snapshot(&folder.path().join("whole"));
}

pub(crate) fn a_snapshot_that_is_killed_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let flight = Flight::start("test-killed", &["-e", "raw_syscalls:*", "-b", "256K", "-n", "16"]);
    let storm = Storm::start(&machine::online_cpus().unwrap());
    storm.wait_for_reads(100_000);
    let path = folder.path().join("snapshot");
    let begin = Instant::now();
    flight.snapshot(&path);
    let whole = begin.elapsed();
    fs::remove_dir_all(&path).unwrap();
    let entries = || fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let (mut killed, rounds) = (0, repeats(50));
    for round in 0..rounds {
        let before = entries().len();
        let mut relayd =
            relayd().args(["snapshot", "test-killed", "-o"]).arg(&path).stderr(Stdio::null()).spawn().unwrap();
        // Half of them when something of it is there.
        while round % 2 == 1 && entries().len() == before && relayd.try_wait().unwrap().is_none() {}
        sleep(whole / 2 * round / rounds);
        relayd.kill().unwrap();
        killed += u32::from(!relayd.wait().unwrap().success());
        if path.exists() {
            verify(&path);
            fs::remove_dir_all(&path).unwrap();
        }
    }
    assert!(killed > 0, "each was quicker than its kill");
    drop(storm);
    // The session goes on, and what is left behind is said.
    let left = entries();
    let output = succeed(relayd().args(["snapshot", "test-killed", "-o"]).arg(&path));
    verify(&path);
    for left in left {
        let named = format!("{} was left by a relayd that was killed", left.display());
        assert!(text(&output.stderr).contains(&named), "{}", text(&output.stderr));
    }
}

/// As the unit file has it: nothing more is needed.
pub(crate) fn a_session_needs_no_more_capabilities_than_its_unit_names() {
    let unit = include_str!("../../relay-daemon/systemd/relayd@.service");
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let set: Vec<String> = set.split(' ').map(|name| name.to_lowercase().replacen("cap_", "+", 1)).collect();
    let set = format!("-all,{}", set.join(","));
    let limited = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", &set, "--inh-caps", &set]).arg(relayd().get_program()).args(arguments);
        command
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let _ends = Flight("test-unit");
    succeed(&mut limited(&[
        "start",
        "test-unit",
        "-e",
        "sched:*,syscall:openat",
        "--context",
        "kstack",
        "--group",
        "daemon",
    ]));
    succeed(&mut limited(&["snapshot", "test-unit", "-o", path.to_str().unwrap()]));
    verify(&path);
    // Debian's number of that group.
    let group = 1;
    let pins = machine::bpffs().unwrap().join("relayd/test-unit");
    for place in [&path, &path.join("cpu0"), &session_file(&path), &pins, &pins.join("control")] {
        let metadata = fs::metadata(place).unwrap();
        let mode = if metadata.is_dir() { 0o750 } else { 0o640 };
        assert_eq!((metadata.gid(), metadata.mode() & 0o777), (group, mode), "{}", place.display());
    }
    succeed(&mut limited(&["stop", "test-unit"]));
    let said = fail(relayd().args(["start", "test-unit", "-e", "sched:sched_switch", "--group", "nosuchgroup"]), 1);
    assert!(said.contains("there is no group 'nosuchgroup'"), "{said}");
    wait_until("it is gone", || !pins.exists());
}

/// The classic one: a call that took too long.
pub(crate) fn a_slow_call_stops_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slow");
    let condition = "kretprobe:hrtimer_nanosleep if duration_ns > 150ms && comm == \"sleep\"";
    let flight = Flight::start("test-slow", &["-e", "sched:sched_switch", "--until", condition]);
    let sleep_for = |time: &str| succeed(Command::new("sleep").arg(time));
    sleep_for("0.05");
    assert!(flight.status()["stopped_by"].is_null());
    sleep_for("0.3");
    succeed(relayd().args(["wait", "test-slow", "-o"]).arg(&path));
    verify(&path);
    let last = print(&path, &[]).pop().unwrap();
    assert_eq!(last["event"], "kretprobe:hrtimer_nanosleep", "{last}");
    assert!(last["fields"]["duration_ns"].as_u64().is_some_and(|duration| duration > 150_000_000), "{last}");
}
