//! Overwrite mode, read while it is written: snapshots of live buffers.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use relay_channel::{
    machine,
    output::{Content, Output},
    readers::snapshot_all,
    snapshot,
    sys::MappedBuffer,
};
use relay_common::{Geometry, Mode};
use relay_tests::{
    Ended, Recording, babeltrace,
    channel::{Clients, Collected, Storm, number},
    repeats, session, session_file, total, wait_until,
};
use rustix::process::Signal;

const RECORD: usize = 32;

/// Sub-buffers of 4 KiB, eight of them: the storm goes round in well under a millisecond.
fn clients() -> Clients {
    let geometry = Geometry::new(4096, 8).unwrap();
    Clients::load((geometry, Mode::Overwrite), (geometry, Mode::Overwrite)).unwrap()
}

/// Checks the records of one snapshot: whole, in order, none twice; and that those that are not there were counted.
fn check(bytes: &[u8], snapshot: &snapshot::Snapshot) -> u64 {
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

pub(crate) fn live_snapshots_are_consistent() {
    let mut clients = clients();
    let _link = clients.attach("number", "sys_enter").unwrap();
    let cpus = machine::online_cpus().unwrap();
    let storm = Storm::start(&cpus);
    let (mut newest, mut records, mut overtaken) = (BTreeMap::new(), 0, 0);
    let rounds = repeats(1000);
    for _ in 0..rounds {
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
    assert!(records > 100 * u64::from(rounds), "only {records} records in all snapshots");
    // On the CPU itself, before its tasks, nobody overtakes the copy, unless the kernel throttles it for having run too long.
    let snapshots = u64::from(rounds) * cpus.len() as u64;
    assert!(overtaken * 20 < snapshots, "{overtaken} of {snapshots} snapshots were overtaken");
    // Guests, which make a hundredth of the rounds, are slow.
    let least = if rounds < 100 { 10 } else { 100 };
    for cpu in cpus {
        assert!(newest[&cpu] > least * u64::from(rounds), "no storm on cpu {cpu}: {newest:?}");
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
    let wanted = repeats(100);
    for wait in [false, true].into_iter().cycle() {
        if overtaken >= wanted && whole >= wanted {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(100), "{overtaken} snapshots were overtaken, {whole} were not");
        let collected = Collected::default();
        let mut output = collected.output(writing);
        if wait {
            output = Box::new(Overtaken { output, buffer: Arc::clone(&buffer), has_waited: false });
        }
        if let Some(snapshot) = snapshot::snapshot(&buffer, &mut *output).unwrap() {
            let missing = check(&collected.take()[&writing], &snapshot);
            let nothing_yet = snapshot.produced == 0;
            overtaken += u32::from(!nothing_yet && (missing > 0 || snapshot.taken == 0));
            whole += u32::from(!nothing_yet && missing == 0 && snapshot.taken > 0);
        }
    }
    drop(storm);
    println!("{overtaken} snapshots were overtaken, {whole} were not");
}

pub(crate) fn sigusr1_writes_a_snapshot_and_recording_goes_on() {
    let recording = Recording::start(&["--overwrite", "-b", "16K", "-n", "8", "-e", "raw_syscalls:*"]);
    // Each time many times more than there is room for.
    let mut reads = 0;
    let storm = Storm::start(&machine::online_cpus().unwrap());
    let mut more = || {
        reads += 10_000;
        storm.wait_for_reads(reads);
    };
    let snapshot = |number: u32| recording.path.with_file_name(format!("trace-snapshot-{number}"));
    for number in 1..=2 {
        more();
        recording.relayd.signal(Signal::USR1);
        wait_until("there is a snapshot", || session_file(&snapshot(number)).exists());
    }
    more();
    recording.relayd.signal(Signal::INT);
    let (Ended { code, stderr: said, .. }, trace) = recording.end();
    drop(storm);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("relayd: snapshot of ") && said.contains("trace-snapshot-2"), "{said}");
    let mut before = 0;
    for name in ["trace-snapshot-1", "trace-snapshot-2", "trace"] {
        let path = trace.path.with_file_name(name);
        let session = session(&path);
        let (recorded, overrun) = (total(&session, "recorded"), total(&session, "overrun"));
        assert!(recorded > before && overrun > 0, "{session}");
        assert_eq!(babeltrace(&path).len() as u64, recorded - overrun, "{name}");
        before = recorded;
    }
}

pub(crate) fn a_snapshot_without_overwrite_is_refused_and_recording_goes_on() {
    let mut recording = Recording::start(&["-e", "sched:sched_switch"]);
    recording.relayd.signal(Signal::USR1);
    recording.relayd.wait_until_it_says("no snapshot: there is nothing to take a snapshot of");
    let trace = recording.stop();
    assert!(trace.session["error"].is_null() && trace.total("recorded") > 0, "{}", trace.summary);
}
