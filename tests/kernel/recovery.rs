//! Recorders that are killed: what the kernel side holds is not lost, and nothing is written twice.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use relay_daemon::{
    machine,
    reading::packet::{HEADER, Record, Records},
    tracer::standing::Standing,
};
use relay_tests::{
    channel::{Numbers, numbers_condition},
    fail, relayd, succeed, text, wait_until,
};
use serde_json::Value;

/// How many recorders are killed.
const KILLS: u32 = 200;

/// Numbers that look random and are the same at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
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

pub(crate) fn session(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path.join(".relayd/session.json")).unwrap()).unwrap()
}

pub(crate) fn total(session: &Value, key: &str) -> u64 {
    session["cpus"].as_array().unwrap().iter().map(|cpu| cpu[key].as_u64().unwrap()).sum()
}

/// The numbers of our own calls, by thread, in the order of the files.
pub(crate) fn numbers(path: &Path) -> BTreeMap<u32, Vec<u64>> {
    let mut found: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for cpu in machine::online_cpus().unwrap() {
        for_each_record(path, cpu, |record| {
            // Not what kills the recorder.
            if record.pid == std::process::id() && record.tid != record.pid {
                // After the system call's number.
                let number = u64::from_le_bytes(record.payload[8..16].try_into().unwrap());
                found.entry(record.tid).or_default().push(number);
            }
        });
    }
    found
}

/// Looks at the records of a CPU, in the order of its file.
pub(crate) fn for_each_record(path: &Path, cpu: u32, mut look: impl FnMut(&Record<'_>)) {
    let file = fs::read(path.join(format!("cpu{cpu}"))).unwrap_or_default();
    let mut rest = &file[..];
    while !rest.is_empty() {
        let bits = u64::from_le_bytes(rest[40..48].try_into().unwrap());
        let (packet, next) = rest.split_at(usize::try_from(bits / 8).unwrap());
        Records::new(packet, HEADER).for_each(|record| look(&record.unwrap()));
        rest = next;
    }
}

/// Checks a recovered trace; returns how many records it has and how many were lost.
fn check(path: &Path) -> (u64, u64) {
    let verified = text(&succeed(relayd().arg("verify").arg(path)).stdout);
    assert!(verified.contains("all adds up"), "{verified}");
    let session = session(path);
    assert!(session["error"].is_null(), "{session}");
    let lost = total(&session, "lost_full") + total(&session, "lost_nested");
    let missed: u64 =
        session["programs"].as_array().unwrap().iter().filter_map(|program| program["recursion_misses"].as_u64()).sum();
    let (mut records, mut gaps) = (0, 0);
    for numbers in numbers(path).values() {
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "written twice, or out of order");
        records += numbers.len() as u64;
        gaps += numbers[numbers.len() - 1] - numbers[0] + 1 - numbers.len() as u64;
    }
    assert!(gaps <= lost + missed, "{gaps} numbers are missing, and {lost} were lost, {missed} missed: {session}");
    (records, lost)
}

/// At random moments, before and while it records, and while it ends.
pub(crate) fn what_was_recorded_survives_two_hundred_kills() {
    let cpus = machine::online_cpus().unwrap();
    let mut random = Random(88_172_645_463_325_252);
    let (mut kills, mut resumed, mut early, mut records, mut whole, mut lossy) = (0, 0, 0, 0, 0, 0);
    while kills < KILLS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        // Every other time so slow that the buffers have room until the trace is recovered.
        let is_slow = kills % 2 == 0;
        let load = Numbers::start(&cpus, if is_slow { Duration::from_millis(1) } else { Duration::ZERO });
        let size = if random.below(2) == 0 { ["-b", "256K", "-n", "8"] } else { ["-b", "4K", "-n", "64"] };
        let size = if is_slow { ["-b", "1M", "-n", "16"] } else { size };
        let recorder = start(&path, size);
        if random.below(8) > 0 {
            wait_until("it records", || path.join(".relayd/session.json").exists());
        }
        sleep(Duration::from_millis(random.below(150)));
        // While it ends: then what comes before it is taken up again is left out, and not lost.
        let was_ending = random.below(4) == 0;
        if was_ending {
            rustix::process::kill_process(rustix::process::Pid::from_child(&recorder), rustix::process::Signal::INT)
                .unwrap();
            sleep(Duration::from_micros(random.below(60_000)));
        }
        kill(recorder);
        kills += 1;
        if !path.join(".relayd/session.json").exists() {
            early += 1;
            load.stop();
            if path.exists() {
                let said = fail(relayd().arg("recover").arg(&path), 1);
                assert!(said.contains("before it began to record") || said.contains("is not a trace"), "{said}");
            }
            // Sweeps away what it had made.
            succeed(relayd().arg("status"));
            continue;
        }
        while !was_ending && random.below(2) == 0 {
            let again = spawn(relayd().args(["trace", "-q", "--resume", "-o"]).arg(&path));
            sleep(Duration::from_millis(random.below(200)));
            kill(again);
            kills += 1;
            resumed += 1;
        }
        let recovered = relayd().args(["recover", "-q"]).arg(&path).output().unwrap();
        let said = text(&recovered.stderr);
        assert!(recovered.status.success() || said.contains("there is nothing to recover"), "{said}");
        let (found, lost) = check(&path);
        load.stop();
        records += found;
        whole += u32::from(lost == 0 && found > 0);
        lossy += u32::from(lost > 0);
    }
    println!(
        "{kills} kills, {resumed} after going on, {early} before recording; {records} records; {whole} traces whole, {lossy} with losses"
    );
    assert!(whole > KILLS / 10 && lossy > KILLS / 20 && resumed > KILLS / 10);
    let left = relay_daemon::pins::list().unwrap();
    assert!(left.is_empty(), "{left:?}");
}

pub(crate) fn names_of_what_is_gone_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let gone = spawn(Command::new("sleep").arg("60"));
    let id = gone.id().to_string();
    let recorder = start(&path, ["-b", "64K", "-n", "8"]);
    wait_until("it records", || path.join(".relayd/session.json").exists());
    kill(recorder);
    kill(gone);
    let name = || -> Value {
        serde_json::from_slice::<Value>(&fs::read(path.join(".relayd/tasks.json")).unwrap()).unwrap()[&id].clone()
    };
    let again = spawn(relayd().args(["trace", "-q", "--resume", "-d", "100ms", "-o"]).arg(&path));
    sleep(Duration::from_millis(50));
    kill(again);
    succeed(relayd().args(["recover", "-q"]).arg(&path));
    assert_eq!(name(), "sleep");
}

pub(crate) fn what_cannot_be_recovered_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let recover = |path: &Path| fail(relayd().arg("recover").arg(path), 1);
    let said = recover(&path);
    assert!(said.contains("is not a trace of relayd"), "{said}");
    let mut recorder = start(&path, ["-b", "64K", "-n", "8"]);
    wait_until("it records", || path.join(".relayd/session.json").exists());
    let said = recover(&path);
    assert!(said.contains("is being recorded: its recorder lives"), "{said}");
    let said = fail(relayd().args(["trace", "--resume", "-o"]).arg(&path), 1);
    assert!(said.contains("is being recorded: its recorder lives"), "{said}");
    let said = fail(relayd().args(["trace", "--resume", "-e", "sched:sched_switch", "-o"]).arg(&path), 2);
    assert!(said.contains("--event"), "{said}");
    recorder.kill().unwrap();
    recorder.wait().unwrap();
    let said = text(&succeed(relayd().arg("status")).stdout);
    assert!(said.contains(&format!("relayd recover {}", path.display())), "{said}");
    // Killed once more, while it ended the trace: nothing would be recorded.
    let name = relay_daemon::tracer::standing::trace_name(session(&path)["uuid"].as_str().unwrap());
    Standing::open(&name).unwrap_or_else(|error| panic!("{error}")).detach().unwrap();
    let said = fail(relayd().args(["trace", "--resume", "-o"]).arg(&path), 1);
    assert!(said.contains("was killed while it ended the trace; relayd recover"), "{said}");
    // Its file was cut meanwhile: what was there is gone, and that is no end of a packet.
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
    fs::write(path.join(".relayd/session.json"), unfinished.to_string()).unwrap();
    let said = recover(&path);
    assert!(said.contains("was booted since") && said.contains("relayd repair"), "{said}");
}
