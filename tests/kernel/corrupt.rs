//! Shared memory that another process scribbles on: the kernel side stays inside its buffers, the daemon says what is wrong.

use std::{
    collections::BTreeSet,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use aya::maps::MapData;
use relay_channel::{machine, readers::Readers, sys::ControlMapping};
use relay_common::{Control, Geometry, MAX_RECORD, Mode};
use relay_tests::{
    Ended, PATIENCE, Recording,
    channel::{Clients, Collected, Storm, number},
    machine::files_of,
    repeats, wait_until,
};
use rustix::process::Signal;

/// Bytes of a row, and of what a map is looked at in here.
const ROW: u64 = size_of::<Control<u64>>() as u64;

/// The maps of this name that a process has open, seen as control rows. Not those of anybody else: they are scribbled on.
fn maps(pid: u32, name: &str) -> Vec<ControlMapping> {
    let open = |id: &u32| {
        let map = MapData::from_id(*id).unwrap();
        let info = map.info().unwrap();
        if info.name_as_str() != Some(name) {
            return None;
        }
        let rows = u64::from(info.value_size()).next_multiple_of(8) * u64::from(info.max_entries()) / ROW;
        Some(ControlMapping::new(map.fd().as_fd(), u32::try_from(rows).unwrap()).unwrap())
    };
    let ids: BTreeSet<u32> = files_of(pid, "map_id").iter().map(|id| id.parse().unwrap()).collect();
    let maps: Vec<_> = ids.iter().filter_map(open).collect();
    assert!(!maps.is_empty(), "process {pid} has no map {name}");
    maps
}

/// The consumer's words of every row, random until told to stop.
fn scribble(control: &ControlMapping, stop: &AtomicBool) {
    let mut random = 88_172_645_463_325_252_u64;
    while !stop.load(Relaxed) {
        for row in (0..).map_while(|cpu| control.row(cpu)) {
            let consumer = &row.consumer;
            let [even, odd] = &consumer.taken;
            for word in [&consumer.consumed, &consumer.waiting, &even.output, &odd.output, &odd.records, &odd.subbufs] {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                // Small ones too, which look as if they could be true.
                word.store(if random & 3 == 0 { random >> 58 } else { random }, Relaxed);
            }
        }
    }
}

pub(crate) fn writers_stay_inside_their_subbufs_whatever_the_reader_s_words_hold() {
    for mode in [Mode::NoOverwrite, Mode::Overwrite] {
        let geometry = Geometry::new(4096, 4).unwrap();
        let mut clients = Clients::load((geometry, mode), (Geometry::new(1 << 16, 2).unwrap(), mode)).unwrap();
        let link = clients.attach("number", "sys_enter").unwrap();
        let cpus = machine::online_cpus().unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| scribble(clients.numbered.control(), &stop));
            let storm = Storm::start(&cpus);
            wait_until("sub-buffers on every CPU", || {
                let produced = |cpu| clients.numbered.buffer(cpu).unwrap().reader().produced();
                cpus.iter().all(|&cpu| produced(cpu) > repeats(2000).max(100).into())
            });
            drop(storm);
            stop.store(true, Relaxed);
        });
        drop(link);
        clients.numbered.wait_for_running_programs().unwrap();
        for cpu in cpus {
            clients.numbered.flush(cpu).unwrap();
            let buffer = clients.numbered.buffer(cpu).unwrap();
            let recorded = buffer.reader().count().unwrap().recorded;
            assert!(recorded > 10_000, "cpu {cpu}: {recorded} records");
            // What is there is whole sub-buffers of whole records.
            let collected = Collected::default();
            let snapshot = relay_channel::snapshot::snapshot(&buffer, &mut *collected.output(cpu)).unwrap().unwrap();
            let bytes = collected.take().remove(&cpu).unwrap();
            assert_eq!((bytes.len() / 32) as u64, snapshot.taken);
            let numbers: Vec<u64> = bytes.chunks(32).map(number).collect();
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]) && !numbers.is_empty());
        }
        // And nothing after the last sub-buffer: the tail of every buffer is as it was made.
        let mut tails = 0;
        for map in maps(std::process::id(), "relay_buffer") {
            let rows = (0..).map_while(|row| map.row(row)).collect::<Vec<_>>();
            let tail = usize::try_from(MAX_RECORD / ROW).unwrap();
            for row in &rows[rows.len() - tail..] {
                let zero = |word: &AtomicU64| word.load(Relaxed) == 0;
                let producer = &row.producer;
                assert!(
                    [&producer.reserved, &producer.retired, &producer.full, &row.consumer.consumed]
                        .into_iter()
                        .all(zero)
                );
            }
            tails += 1;
        }
        assert!(tails >= machine::online_cpus().unwrap().len(), "{tails} buffers were looked at");
    }
}

pub(crate) fn readers_report_a_consumed_count_that_is_not_theirs() {
    let geometry = Geometry::new(4096, 4).unwrap();
    let mut clients = Clients::load((geometry, Mode::NoOverwrite), (geometry, Mode::NoOverwrite)).unwrap();
    let collected = Collected::default();
    let output = {
        let collected = collected.clone();
        move |cpu| Ok(collected.output(cpu))
    };
    let mut readers = Readers::start(Arc::clone(&clients.numbered), output).unwrap();
    let link = clients.attach("number", "sys_enter").unwrap();
    let stop = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| scribble(clients.numbered.control(), &stop));
        let all_have_failed = async {
            for _ in machine::online_cpus().unwrap() {
                readers.failed().await;
            }
        };
        let failed = runtime.block_on(async { tokio::time::timeout(PATIENCE, all_have_failed).await });
        stop.store(true, Relaxed);
        failed.expect("the reader of every CPU has noticed");
    });
    drop(link);
    for stopped in readers.stop().unwrap() {
        let (cpu, error) = (stopped.consumer.buffer().cpu(), stopped.result.unwrap_err().to_string());
        assert!(error.starts_with(&format!("the buffer of cpu {cpu} is corrupt: ")), "{error}");
    }
    // What was taken until then is whole.
    for bytes in collected.take().into_values() {
        assert!(bytes.chunks(32).map(number).is_sorted());
    }
}

/// relayd, recording execs, which are few, into sub-buffers of a page.
fn start(arguments: &[&str]) -> Recording {
    Recording::start(&[&["-e", "sched:sched_process_exec", "-b", "4K", "-d", "30s"], arguments].concat())
}

pub(crate) fn relayd_stops_in_order_when_its_control_page_is_scribbled_on() {
    let recording = start(&[]);
    for control in maps(recording.relayd.pid(), "relay_control") {
        let consumed = |cpu| Some(&control.row(cpu)?.consumer.consumed);
        wait_until("the first packets are taken", || {
            machine::online_cpus().unwrap().into_iter().all(|cpu| consumed(cpu).unwrap().load(Relaxed) == 1)
        });
        (0..).map_while(consumed).for_each(|consumed| consumed.store(77, Relaxed));
    }
    let (Ended { code, stderr: said, .. }, trace) = recording.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("the buffer of cpu 0 is corrupt: 1 sub-buffers were consumed, and the control row says 77"),
        "{said}"
    );
    assert!(trace.session["error"].as_str().unwrap().contains("corrupt"), "{}", trace.session);
    // Nothing has been recorded: what is there is the first, empty packet.
    assert_eq!(trace.babeltrace().len(), 0);
}

pub(crate) fn relayd_reports_a_corrupt_padding_by_cpu_and_subbuf() {
    // In overwrite mode nobody has read by the time that it is scribbled on.
    let recording = start(&["--overwrite"]);
    for buffer in maps(recording.relayd.pid(), "relay_buffer") {
        // Sub-buffer 0, closed before recording began: the padding is its first word.
        let header = &buffer.row(0).unwrap().producer.reserved;
        header.fetch_or(0xffff_ffff, Relaxed);
    }
    recording.relayd.signal(Signal::INT);
    let (Ended { code, stderr: said, .. }, _) = recording.end();
    assert_eq!(code, Some(1), "{said}");
    let expected =
        "the buffer of cpu 0 is corrupt: sub-buffer 0 is closed with an impossible padding of 4294967295 bytes";
    assert!(said.contains(expected), "{said}");
}
