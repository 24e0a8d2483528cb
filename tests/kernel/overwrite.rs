//! Overwrite mode, read while it is written: snapshots of live buffers.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use relay_common::{Geometry, Mode};
use relay_daemon::{
    consumer::{self, Content, Output},
    machine,
    readers::snapshot_all,
    sys::MappedBuffer,
};
use relay_tests::{
    babeltrace,
    channel::{Clients, Collected, Storm, number},
    relayd, text, wait_until,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const RECORD: usize = 32;

/// Sub-buffers of 4 KiB, eight of them: the storm goes round in well under a millisecond.
fn clients() -> Clients {
    let geometry = Geometry::new(4096, 8).unwrap();
    Clients::load((geometry, Mode::Overwrite), (geometry, Mode::Overwrite)).unwrap()
}

/// Checks the records of one snapshot: whole, in order, none twice; and that those that are not there were counted.
fn check(bytes: &[u8], snapshot: &consumer::Snapshot) -> u64 {
    let numbers: Vec<u64> = bytes.chunks(RECORD).map(number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "repeated or out of order: {numbers:?}");
    assert!(numbers.last().is_none_or(|last| *last < snapshot.recorded), "{numbers:?} of {}", snapshot.recorded);
    assert_eq!(numbers.len() as u64, snapshot.taken);
    // Numbers have no gaps but what was overrun: the records that are missing are those that the snapshot does not count as
    // taken, and no others.
    let missing = snapshot.recorded - numbers.len() as u64;
    let gaps: u64 = numbers.windows(2).map(|pair| pair[1] - pair[0] - 1).sum();
    let (before, after) = match (numbers.first(), numbers.last()) {
        (Some(first), Some(last)) => (*first, snapshot.recorded - 1 - last),
        _ => (snapshot.recorded, 0),
    };
    assert_eq!(missing, before + gaps + after);
    gaps + after
}

pub(crate) fn a_thousand_live_snapshots_are_consistent() {
    let mut clients = clients();
    let _link = clients.attach("number", "sys_enter").unwrap();
    let cpus = machine::online_cpus().unwrap();
    let storm = Storm::start(&cpus);
    let (mut newest, mut records, mut overtaken) = (BTreeMap::new(), 0, 0);
    for _ in 0..1000 {
        let collected = Collected::default();
        let snapshots = snapshot_all(&clients.numbered, || {}, |cpu| Ok(collected.output(cpu))).unwrap();
        let collected = collected.take();
        for (cpu, snapshot) in &snapshots {
            overtaken += u64::from(check(&collected[cpu], snapshot) > 0);
            let before = newest.insert(*cpu, snapshot.recorded).unwrap_or(0);
            assert!(snapshot.recorded >= before, "cpu {cpu}: {before} records, then {}", snapshot.recorded);
            records += snapshot.taken;
        }
    }
    drop(storm);
    assert!(records > 100_000, "only {records} records in all snapshots");
    // On the CPU itself, before its tasks, nobody overtakes the copy, unless the kernel throttles it for having run too long.
    assert!(overtaken < 100, "{overtaken} of {} snapshots were overtaken", 1000 * cpus.len());
    for cpu in cpus {
        assert!(newest[&cpu] > 100_000, "no storm on cpu {cpu}: {newest:?}");
        assert_eq!(clients.numbered.counters(cpu).unwrap().lost(), 0);
    }
}

/// Takes its time over the first sub-buffer: until the writers have been round.
struct Overtaken {
    output: Box<dyn Output>,
    buffer: Arc<MappedBuffer>,
    has_waited: bool,
}

impl Output for Overtaken {
    fn append(&mut self, content: &Content<'_>) -> io::Result<()> {
        self.output.append(content)?;
        let lap = self.buffer.reader().produced() + self.buffer.reader().geometry.n_subbufs();
        if !std::mem::replace(&mut self.has_waited, true) {
            wait_until("the writers have been round", || self.buffer.reader().produced() >= lap);
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.output.name()
    }
}

/// From another CPU, with nothing that keeps the writers from overtaking the copy. Every other copy waits to be overtaken.
pub(crate) fn snapshots_that_are_overtaken_count_what_they_miss() {
    let geometry = Geometry::new(64 << 10, 4).unwrap();
    let mut clients = Clients::load((geometry, Mode::Overwrite), (geometry, Mode::Overwrite)).unwrap();
    let _link = clients.attach("number", "sys_enter").unwrap();
    let cpus = machine::online_cpus().unwrap();
    let writing = cpus[cpus.len() - 1];
    let storm = Storm::start(&[writing]);
    let buffer = clients.numbered.buffer(writing).unwrap();
    let (mut overtaken, mut whole, start) = (0, 0, Instant::now());
    for wait in [false, true].into_iter().cycle() {
        if overtaken >= 100 && whole >= 100 {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(100), "{overtaken} snapshots were overtaken, {whole} were not");
        let collected = Collected::default();
        let mut output = collected.output(writing);
        if wait {
            output = Box::new(Overtaken { output, buffer: Arc::clone(&buffer), has_waited: false });
        }
        if let Some(snapshot) = consumer::snapshot(&buffer, &mut *output).unwrap() {
            let missing = check(&collected.take()[&writing], &snapshot);
            let nothing_yet = snapshot.produced == 0;
            overtaken += u32::from(!nothing_yet && (missing > 0 || snapshot.taken == 0));
            whole += u32::from(!nothing_yet && missing == 0 && snapshot.taken > 0);
        }
    }
    drop(storm);
    println!("{overtaken} snapshots were overtaken, {whole} were not");
}

fn session(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path.join(".relayd/session.json")).unwrap()).unwrap()
}

fn total(session: &Value, key: &str) -> u64 {
    session["cpus"].as_array().unwrap().iter().map(|cpu| cpu[key].as_u64().unwrap()).sum()
}

pub(crate) fn sigusr1_writes_a_snapshot_and_recording_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let storm = ["--", "dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=1000000000", "status=none"];
    let mut command = relayd();
    command.args(["trace", "--overwrite", "-b", "16K", "-n", "8", "-e", "raw_syscalls:*", "-o"]).arg(&path).args(storm);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let signal = |signal| kill_process(Pid::from_child(&child), signal).unwrap();
    wait_until("the recording has begun", || path.join(".relayd/session.json").exists());
    std::thread::sleep(Duration::from_millis(500));
    for number in 1..=2 {
        signal(Signal::USR1);
        let snapshot = folder.path().join(format!("trace-snapshot-{number}"));
        wait_until("there is a snapshot", || snapshot.join(".relayd/session.json").exists());
        std::thread::sleep(Duration::from_millis(200));
    }
    signal(Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(said.contains("relayd: snapshot of ") && said.contains("trace-snapshot-2"), "{said}");
    let traces = ["trace-snapshot-1", "trace-snapshot-2", "trace"].map(|name| folder.path().join(name));
    let mut before = 0;
    for trace in &traces {
        let session = session(trace);
        let (recorded, overrun) = (total(&session, "recorded"), total(&session, "overrun"));
        assert!(recorded > before && overrun > 0, "{session}");
        assert_eq!(babeltrace(trace).len() as u64, recorded - overrun, "{}", trace.display());
        before = recorded;
    }
}

/// Text on a machine where a snapshot has no meaning.
pub(crate) fn a_snapshot_without_overwrite_is_refused_and_recording_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let mut command = Command::new("timeout");
    command.args(["-s", "USR1", "-k", "10", "0.7"]).arg(relayd().get_program());
    command.args(["trace", "-e", "sched:sched_switch", "-d", "1500ms", "-o"]).arg(&path);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("no snapshot: there is nothing to take a snapshot of"), "{said}");
    assert!(session(&path)["error"].is_null() && total(&session(&path), "recorded") > 0);
}
