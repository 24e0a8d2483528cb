//! Recorders that are killed: what the kernel side holds is not lost, and nothing is written twice.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use relay_channel::{machine, pins};
use relay_daemon::session::PinnedSession;
use relay_tests::{
    channel::{Numbers, numbers_condition},
    fail, relayd, repeats, session, session_file, succeed, text, total, trace, verify, wait_until,
    wait_until_it_records,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Numbers that look random and are the same at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Waits for a moment that is not known before.
    fn pause(&mut self, longest: Duration) {
        let micros = u64::try_from(longest.as_micros()).unwrap();
        sleep(Duration::from_micros(self.below(micros)));
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn kill(mut recorder: Child) {
    recorder.kill().unwrap();
    recorder.wait().unwrap();
}

fn start(path: &Path, size: [&str; 4]) -> Child {
    let event = format!("raw_syscalls:sys_enter if {}", numbers_condition());
    spawn(relayd().args(["trace", "-q", "-e", &event]).args(size).arg("-o").arg(path))
}

/// Checks a recovered trace; returns how many records it has and how many were lost.
fn check(path: &Path) -> (u64, u64) {
    verify(path);
    let session = session(path);
    assert!(session["error"].is_null(), "{session}");
    let lost = total(&session, "lost_full") + total(&session, "lost_nested");
    let missed: u64 =
        session["programs"].as_array().unwrap().iter().filter_map(|program| program["recursion_misses"].as_u64()).sum();
    let (mut records, mut gaps) = (0, 0);
    for numbers in trace::numbers(path).values() {
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "written twice, or out of order");
        records += numbers.len() as u64;
        gaps += numbers[numbers.len() - 1] - numbers[0] + 1 - numbers.len() as u64;
    }
    assert!(gaps <= lost + missed, "{gaps} numbers are missing, and {lost} were lost, {missed} missed: {session}");
    (records, lost)
}

/// Kills that are followed by recovery, and what came of them.
#[derive(Debug, Default)]
struct Killed {
    kills: u32,
    /// After going on with what an earlier one had begun.
    resumed: u32,
    /// Before it recorded.
    early: u32,
    records: u64,
    /// Traces without a loss, and with some.
    whole: u32,
    lossy: u32,
}

impl Killed {
    /// One recorder, killed at a random moment, and those that go on after it.
    fn kill_one(&mut self, random: &mut Random) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        // Every other time so slow that the buffers have room until the trace is recovered.
        let is_slow = self.kills.is_multiple_of(2);
        let pause = if is_slow { Duration::from_millis(1) } else { Duration::ZERO };
        let load = Numbers::start(&machine::online_cpus().unwrap(), pause);
        let size = if random.below(2) == 0 { ["-b", "256K", "-n", "8"] } else { ["-b", "4K", "-n", "64"] };
        let size = if is_slow { ["-b", "1M", "-n", "16"] } else { size };
        let recorder = start(&path, size);
        if random.below(8) > 0 {
            wait_until_it_records(&path);
        }
        random.pause(Duration::from_millis(150));
        // While it ends: then what comes before it is taken up again is left out, and not lost.
        let was_ending = random.below(4) == 0;
        if was_ending {
            kill_process(Pid::from_child(&recorder), Signal::INT).unwrap();
            random.pause(Duration::from_millis(60));
        }
        kill(recorder);
        self.kills += 1;
        if !session_file(&path).exists() {
            self.early += 1;
            load.stop();
            if path.exists() {
                let said = fail(relayd().arg("recover").arg(&path), 1);
                assert!(said.contains("before it began to record") || said.contains("is not a trace"), "{said}");
            }
            // Sweeps away what it had made.
            succeed(relayd().arg("status"));
            return;
        }
        while !was_ending && random.below(2) == 0 {
            let again = spawn(relayd().args(["trace", "-q", "--resume", "-o"]).arg(&path));
            random.pause(Duration::from_millis(200));
            kill(again);
            self.kills += 1;
            self.resumed += 1;
        }
        let recovered = relayd().args(["recover", "-q"]).arg(&path).output().unwrap();
        let said = text(&recovered.stderr);
        assert!(recovered.status.success() || said.contains("there is nothing to recover"), "{said}");
        load.stop();
        let (found, lost) = check(&path);
        self.records += found;
        self.whole += u32::from(lost == 0 && found > 0);
        self.lossy += u32::from(lost > 0);
    }
}

/// At random moments, before and while it records, and while it ends.
pub(crate) fn what_was_recorded_survives_kills() {
    let least = repeats(200);
    let mut random = Random(88_172_645_463_325_252);
    let mut killed = Killed::default();
    let is_enough = |killed: &Killed| {
        killed.kills >= least && killed.whole > least / 10 && killed.lossy > least / 20 && killed.resumed > least / 10
    };
    while !is_enough(&killed) {
        assert!(killed.kills < 5 * least, "of one kind there are too few: {killed:?}");
        killed.kill_one(&mut random);
    }
    println!("{killed:?}");
    // The mounts are the tests' own: nobody else's session is among these.
    let left = pins::list().unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// What outlives a recorder leaves out no other process that gets its number.
pub(crate) fn the_number_of_a_killed_recorder_is_no_reason_to_leave_events_out() {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let recorder = start(&path, ["-b", "64K", "-n", "8"]);
    wait_until("it records", || path.join(".relayd/session.json").exists());
    let number = recorder.id();
    kill(recorder);
    let calls = format!("for i in 1 2 3; do kill -0 {number}; done; exit 0");
    // Others may take the number before.
    let mut other = None;
    for _ in 0..100 {
        fs::write(LAST, (number - 1).to_string()).unwrap();
        let mut process = spawn(Command::new("sh").args(["-c", &calls]));
        let is_it = process.id() == number;
        process.wait().unwrap();
        if is_it {
            other = Some(process);
            break;
        }
    }
    assert!(other.is_some(), "no process got the number {number}");
    succeed(relayd().args(["recover", "-q"]).arg(&path));
    let mut seen = 0;
    for cpu in machine::online_cpus().unwrap() {
        trace::for_each_record(&path, cpu, |record| seen += usize::from(record.pid == number));
    }
    assert!(seen >= 3, "{seen} events of the process that got the number {number}");
}

pub(crate) fn names_of_what_is_gone_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let gone = spawn(Command::new("sleep").arg("60"));
    let id = gone.id();
    let recorder = start(&path, ["-b", "64K", "-n", "8"]);
    wait_until_it_records(&path);
    kill(recorder);
    kill(gone);
    let name = || relay_trace::read::trace::Trace::open(&path, &mut |_, _| ()).unwrap().names.last(id).map(text);
    let bytes = || -> u64 {
        let files = (0..).map(|cpu| fs::metadata(path.join(format!("cpu{cpu}"))));
        files.map_while(|file| Some(file.ok()?.len())).sum()
    };
    let before = bytes();
    let again = spawn(relayd().args(["trace", "-q", "--resume", "-o"]).arg(&path));
    // What it writes are our own kills.
    wait_until("it goes on", || bytes() > before);
    kill(again);
    succeed(relayd().args(["recover", "-q"]).arg(&path));
    assert_eq!(name().as_deref(), Some("sleep"));
}

pub(crate) fn what_cannot_be_recovered_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let recover = |path: &Path| fail(relayd().arg("recover").arg(path), 1);
    let said = recover(&path);
    assert!(said.contains("opening the trace") && said.contains("No such file"), "{said}");
    let mut recorder = start(&path, ["-b", "64K", "-n", "8"]);
    wait_until_it_records(&path);
    let said = recover(&path);
    assert!(said.contains("is being recorded by process") && said.contains("its recorder lives"), "{said}");
    let said = fail(relayd().args(["trace", "--resume", "-o"]).arg(&path), 1);
    assert!(said.contains("is being recorded by process") && said.contains("its recorder lives"), "{said}");
    let said = fail(relayd().args(["trace", "--resume", "-e", "sched:sched_switch", "-o"]).arg(&path), 2);
    assert!(said.contains("--event"), "{said}");
    recorder.kill().unwrap();
    recorder.wait().unwrap();
    let said = text(&succeed(relayd().arg("status")).stdout);
    assert!(said.contains(&format!("relayd recover {}", path.display())), "{said}");
    // Killed once more, while it ended the trace: nothing would be recorded.
    let name = relay_daemon::session::trace_name(session(&path)["uuid"].as_str().unwrap());
    PinnedSession::open(&name).unwrap_or_else(|error| panic!("{error}")).detach().unwrap();
    let said = fail(relayd().args(["trace", "--resume", "-o"]).arg(&path), 1);
    assert!(said.contains("was killed while it ended the trace; relayd recover"), "{said}");
    // Its file was cut meanwhile: what was there is gone, and that is not an end of a packet.
    let cpu = fs::read_dir(&path).unwrap().map(|file| file.unwrap().path()).find(|file| {
        file.file_name().unwrap().to_str().unwrap().starts_with("cpu") && fs::metadata(file).unwrap().len() > 0
    });
    let cpu = cpu.unwrap();
    let len = fs::metadata(&cpu).unwrap().len();
    fs::OpenOptions::new().write(true).open(&cpu).unwrap().set_len(len - 1).unwrap();
    let said = recover(&path);
    assert!(said.contains("somebody has cut it") && said.contains(cpu.to_str().unwrap()), "{said}");
    fs::OpenOptions::new().write(true).open(&cpu).unwrap().set_len(len).unwrap();
    succeed(relayd().args(["recover", "-q"]).arg(&path));
    let said = recover(&path);
    assert!(said.contains("is complete: there is nothing to recover"), "{said}");
    // As after a boot: nothing is in the kernel.
    let mut unfinished = session(&path);
    (unfinished["clock"]["end"], unfinished["cpus"]) = (Value::Null, Value::Array(Vec::new()));
    unfinished["boot_id"] = "of another boot".into();
    fs::write(session_file(&path), unfinished.to_string()).unwrap();
    let said = recover(&path);
    assert!(said.contains("was booted since") && said.contains("relayd repair"), "{said}");
}
