//! relay-daemon as a library: what the examples in its documentation show and say, on the running kernel.

use std::{fs, process::Command, sync::Arc};

use aya::{Ebpf, EbpfLoader, programs::RawTracePoint};
use bytes::BytesMut;
use relay_channel::{
    channel::{self, Channel},
    consumer::Consumer,
    klog::Klog,
    machine,
    output::{CpuFile, Output},
    pins::PinFolder,
    readers::{self, Readers},
    snapshot,
};
use relay_common::{Geometry, Mode, Plain, Word as _};
use relay_daemon::EXAMPLE;

fn geometry() -> Geometry {
    Geometry::new(4096, 4).unwrap()
}

/// A channel that no program knows yet.
fn channel(mode: Mode) -> Channel {
    Channel::create(geometry(), mode, Plain).unwrap()
}

/// Loads klog's example with a channel: that brings the programs which flush it and mark it.
fn load(channel: &Channel) -> Ebpf {
    channel::load(EXAMPLE, &[("KLOG", channel)], EbpfLoader::new()).unwrap()
}

fn consumer(channel: &Channel, folder: &tempfile::TempDir) -> Consumer {
    let output = Box::new(CpuFile::create(folder.path(), 0).unwrap());
    Consumer::new(channel.buffer(0).unwrap(), channel.mode(), output)
}

fn readers(channel: &Arc<Channel>, folder: &tempfile::TempDir) -> Readers {
    let path = folder.path().to_path_buf();
    Readers::start(Arc::clone(channel), move |cpu| Ok(Box::new(CpuFile::create(&path, cpu)?))).unwrap()
}

pub(crate) fn what_programs_write_is_in_the_files() {
    let (folder, channel) = (tempfile::tempdir().unwrap(), Arc::new(channel(Mode::NoOverwrite)));
    let mut ebpf = load(&channel);
    let readers = readers(&channel, &folder);
    let program: &mut RawTracePoint = ebpf.program_mut("on_exec").unwrap().try_into().unwrap();
    program.load().unwrap();
    let link = program.attach("sched_process_exec").unwrap();
    Command::new("true").status().unwrap();
    program.detach(link).unwrap();
    readers.drain().unwrap();
    let files = fs::read_dir(&folder).unwrap().map(|cpu| fs::read_to_string(cpu.unwrap().path()).unwrap());
    let lines: String = files.collect();
    assert!(lines.contains("true[") && lines.ends_with("started\n"), "{lines}");
}

pub(crate) fn a_new_channel_is_empty() {
    let channel = channel(Mode::NoOverwrite);
    assert_eq!((channel.geometry(), channel.mode()), (geometry(), Mode::NoOverwrite));
    let buffers = channel.buffers();
    assert!(!buffers.is_empty() && buffers.len() <= channel.possible().len());
    let cpus: Vec<u32> = buffers.iter().map(|buffer| buffer.cpu()).collect();
    assert_eq!(cpus, machine::online_cpus().unwrap());
    channel.add_buffers(&[0]).unwrap();
    assert!(Arc::ptr_eq(&channel.buffer(0).unwrap(), &buffers[0]), "a CPU that has a buffer keeps it");
    assert!(channel.add_buffers(&[100_000]).is_err() && channel.buffer(100_000).is_none());

    let row = channel.control().row(0).unwrap();
    assert_eq!((row.producer.reserved.peek(), row.consumer.consumed.peek()), (0, 0));
    assert!(channel.control().row(1_000_000).is_none() && channel.counters(1_000_000).is_none());
    let counters = channel.counters(0).unwrap();
    assert!(counters.is_empty() && !counters.is_full(geometry()) && counters.lost() == 0);
    assert!(channel.waker(0).unwrap().next().is_none());
    channel.wait_for_running_programs().unwrap();
    let refused = channel.flush(0).unwrap_err();
    assert!(format!("{refused:#}").contains("no eBPF object is loaded"), "{refused:#}");
}

pub(crate) fn bytes_are_stored_and_copied_inside_the_buffer_alone() {
    let (folder, channel) = (tempfile::tempdir().unwrap(), channel(Mode::NoOverwrite));
    let buffer = channel.buffer(0).unwrap();
    assert_eq!((buffer.cpu(), buffer.geometry()), (0, geometry()));
    assert_eq!((buffer.reader().produced(), buffer.taken().records), (0, 0));
    let (mut copy, end) = (BytesMut::new(), geometry().buffer_size());
    buffer.store(100, b"text").unwrap();
    buffer.copy_to(100, 4, &mut copy).unwrap();
    assert_eq!(&copy[..], b"text");
    let path = folder.path().join("copy");
    buffer.write_to(100, 4, &fs::File::create(&path).unwrap(), 0).unwrap();
    assert_eq!(fs::read(path).unwrap(), b"text");
    assert!(buffer.store(end - 2, b"text").is_err(), "past the end of the last sub-buffer");
    assert!(buffer.copy_to(end, 1, &mut copy).is_err(), "after the last sub-buffer");
}

pub(crate) fn a_consumer_takes_what_is_ready_and_a_reset_channel_has_nothing() {
    let (folder, mut channel) = (tempfile::tempdir().unwrap(), channel(Mode::NoOverwrite));
    let _ebpf = load(&channel);
    let mut consumer = consumer(&channel, &folder);
    assert_eq!((consumer.buffer().cpu(), consumer.consumed()), (0, 0));
    assert_eq!(consumer.statistics().bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
    channel.flush(0).unwrap();
    assert_eq!(consumer.pass(u64::MAX).unwrap(), 0, "nobody writes");
    channel.mark(0).unwrap();
    channel.mark(0).unwrap();
    assert_eq!((consumer.pass(1).unwrap(), consumer.pass(u64::MAX).unwrap()), (1, 1));
    assert_eq!(channel.counters(0).unwrap().produced, 2);
    channel.reset().unwrap();
    assert_eq!(channel.counters(0).unwrap().produced, 0);
}

pub(crate) fn readers_take_what_every_cpu_has() {
    let (folder, channel) = (tempfile::tempdir().unwrap(), Arc::new(channel(Mode::NoOverwrite)));
    let _ebpf = load(&channel);
    let readers = readers(&channel, &folder);
    let statistics = readers.statistics();
    assert!(statistics.len() == channel.buffers().len() && statistics.contains_key(&0));
    channel.mark(0).unwrap();
    let stopped = readers.stop().unwrap();
    assert!(stopped.iter().all(|reader| reader.result.is_ok()));
    assert_eq!(stopped[0].consumer.consumed(), 1);
}

pub(crate) fn a_snapshot_of_nothing_has_nothing() {
    let (folder, channel) = (tempfile::tempdir().unwrap(), channel(Mode::Overwrite));
    let _ebpf = load(&channel);
    let mut output = CpuFile::create(folder.path(), 0).unwrap();
    let snapshot = snapshot::snapshot(&channel.buffer(0).unwrap(), &mut output).unwrap().unwrap();
    assert_eq!((snapshot.produced, snapshot.recorded), (0, 0));
    let output = |cpu| Ok(Box::new(CpuFile::create(folder.path(), cpu)?) as Box<dyn Output>);
    let snapshots = readers::snapshot_all(&channel, || {}, output).unwrap();
    assert_eq!(snapshots.len(), channel.buffers().len());
    assert!(snapshots.values().all(|snapshot| snapshot.recorded == 0));
}

pub(crate) fn a_channel_that_is_pinned_is_opened_again() {
    let folder = Arc::new(PinFolder::create(&format!("test-library-{}", std::process::id())).unwrap());
    let open = || Channel::open(&folder, geometry(), Mode::NoOverwrite, Plain);
    assert!(open().is_err(), "nothing is pinned");
    let channel = channel(Mode::NoOverwrite);
    let ebpf = load(&channel);
    channel.pin(&folder).unwrap();
    channel.mark(0).unwrap();
    drop((channel, ebpf));
    assert_eq!(open().unwrap().counters(0).unwrap().produced, 1);
}

pub(crate) fn klog_gives_lines_as_they_come_and_the_rest_at_its_end() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        assert!(Klog::start(b"no object", geometry()).is_err());
        let mut klog = Klog::start(EXAMPLE, geometry()).unwrap();
        Command::new("true").status().unwrap();
        assert!(klog.next().await.unwrap().text.ends_with(b"\n"));
        assert!(klog.counters().count() > 0 && klog.counters().all(|(_, counters)| counters.lost() == 0));
        Command::new("true").status().unwrap();
        assert!(!klog.stop().unwrap().is_empty());
    });
}

pub(crate) fn the_file_systems_are_where_they_are_said_to_be() {
    assert!(machine::tracefs().unwrap().join("events").is_dir());
    assert!(machine::bpffs().unwrap().is_dir());
}
