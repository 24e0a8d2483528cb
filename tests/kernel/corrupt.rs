//! Shared memory that another process scribbles on: the kernel side stays inside its buffers, the daemon says what is wrong.

use std::{
    os::fd::AsFd as _,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use aya::maps::{MapData, loaded_maps};
use relay_common::{Control, Geometry, MAX_RECORD, Mode};
use relay_daemon::{machine, readers::Readers, sys::ControlMapping};
use relay_tests::{
    channel::{Clients, Collected, Storm, number},
    relayd, text,
};

/// Bytes of a row, and of what a map is looked at in here.
const ROW: u64 = size_of::<Control<u64>>() as u64;

/// The maps of this name that the machine has now, seen as control rows.
fn maps(name: &str) -> Vec<(u32, ControlMapping)> {
    let named = |map: &aya::maps::MapInfo| map.name_as_str() == Some(name);
    let open = |map: aya::maps::MapInfo| {
        let fd = MapData::from_id(map.id()).unwrap();
        let rows = u64::from(map.value_size()).next_multiple_of(8) * u64::from(map.max_entries()) / ROW;
        (map.id(), ControlMapping::new(fd.fd().as_fd(), u32::try_from(rows).unwrap()).unwrap())
    };
    loaded_maps().flatten().filter(named).map(open).collect()
}

/// The maps of this name that have come since `before`.
fn new_maps(name: &str, before: &[u32]) -> Vec<ControlMapping> {
    maps(name).into_iter().filter(|(id, _)| !before.contains(id)).map(|(_, map)| map).collect()
}

fn ids(name: &str) -> Vec<u32> {
    maps(name).into_iter().map(|(id, _)| id).collect()
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
        let before = ids("relay_buffer");
        let mut clients = Clients::load((geometry, mode), (Geometry::new(1 << 16, 2).unwrap(), mode)).unwrap();
        let link = clients.attach("number", "sys_enter").unwrap();
        let cpus = machine::online_cpus().unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| scribble(clients.numbered.control(), &stop));
            let storm = Storm::start(&cpus);
            std::thread::sleep(Duration::from_secs(1));
            // An emulated CPU needs longer.
            relay_tests::wait_until("a hundred sub-buffers on every CPU", || {
                cpus.iter().all(|&cpu| clients.numbered.buffer(cpu).unwrap().reader().produced() > 100)
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
            let snapshot = relay_daemon::consumer::snapshot(&buffer, &mut *collected.output(cpu)).unwrap().unwrap();
            let bytes = collected.take().remove(&cpu).unwrap();
            assert_eq!((bytes.len() / 32) as u64, snapshot.taken);
            let numbers: Vec<u64> = bytes.chunks(32).map(number).collect();
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]) && !numbers.is_empty());
        }
        // And nothing after the last sub-buffer: the tail of every buffer is as it was made.
        let mut tails = 0;
        for map in new_maps("relay_buffer", &before) {
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
    let readers = Readers::start(Arc::clone(&clients.numbered), output).unwrap();
    let link = clients.attach("number", "sys_enter").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| scribble(clients.numbered.control(), &stop));
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Relaxed);
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
fn start(folder: &tempfile::TempDir, arguments: &[&str]) -> Child {
    let path = folder.path().join("trace");
    let mut command = relayd();
    command.args(["trace", "-e", "sched:sched_process_exec", "-b", "4K", "-d", "30s", "-o"]).arg(&path).args(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    relay_tests::wait_until("the recording has begun", || path.join(".relayd/session.json").exists());
    std::thread::sleep(Duration::from_millis(100));
    child
}

pub(crate) fn relayd_stops_in_order_when_its_control_page_is_scribbled_on() {
    let (folder, before) = (tempfile::tempdir().unwrap(), ids("relay_control"));
    let child = start(&folder, &[]);
    for control in new_maps("relay_control", &before) {
        for row in (0..).map_while(|cpu| control.row(cpu)) {
            row.consumer.consumed.store(77, Relaxed);
        }
    }
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the buffer of cpu 0 is corrupt: 1 sub-buffers were consumed, and the control row says 77"),
        "{said}"
    );
    let session = std::fs::read(folder.path().join("trace/.relayd/session.json")).unwrap();
    let session: serde_json::Value = serde_json::from_slice(&session).unwrap();
    assert!(session["error"].as_str().unwrap().contains("corrupt"), "{session}");
    // Nothing has been recorded: what is there is the first, empty packet.
    assert_eq!(relay_tests::babeltrace(&folder.path().join("trace")).len(), 0);
}

pub(crate) fn relayd_reports_a_corrupt_padding_by_cpu_and_subbuf() {
    let (folder, before) = (tempfile::tempdir().unwrap(), ids("relay_buffer"));
    // In overwrite mode nobody has read by the time that it is scribbled on.
    let child = start(&folder, &["--overwrite"]);
    for buffer in new_maps("relay_buffer", &before) {
        // Sub-buffer 0, closed before recording began: the padding is its first word.
        let header = &buffer.row(0).unwrap().producer.reserved;
        header.fetch_or(0xffff_ffff, Relaxed);
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let expected =
        "the buffer of cpu 0 is corrupt: sub-buffer 0 is closed with an impossible padding of 4294967295 bytes";
    assert!(said.contains(expected), "{said}");
}
