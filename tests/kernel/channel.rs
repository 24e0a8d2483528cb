//! The real writer, in the kernel, against the golden vectors: the same scripts that `relay-common` runs on plain memory.

#[path = "../../relay-common/tests/script/mod.rs"]
mod script;

use std::fs;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData},
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use relay_channel::{
    channel::{self, Channel},
    consumer::Consumer,
    machine,
    output::CpuFile,
};
use relay_common::{Geometry, HEADER, Mode, Plain, Word as _};
use script::{Expect, Step, Vector, pattern};

use crate::trace::Offline;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bytes"));
/// The most that the program writes at once.
const MOST: usize = 16384;

/// A channel with the tests' program, and a reader for one CPU.
struct Kernel {
    channel: Channel,
    ebpf: Ebpf,
    bytes: Array<MapData, [u8; MOST]>,
    consumer: Consumer,
    cpu: u32,
    folder: tempfile::TempDir,
}

impl Kernel {
    fn new(geometry: Geometry, mode: Mode, cpu: u32) -> Self {
        let channel = Channel::create(geometry, mode, Plain).unwrap();
        let mut ebpf = channel::load(OBJECT, &[("BYTES", &channel)], EbpfLoader::new()).unwrap();
        let program: &mut RawTracePoint = ebpf.program_mut("on_write").unwrap().try_into().unwrap();
        program.load().unwrap();
        let bytes = ebpf.take_map("SOURCE").unwrap().try_into().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let output = CpuFile::create(folder.path(), cpu).unwrap();
        let consumer = Consumer::new(channel.buffer(cpu).unwrap(), mode, Box::new(output));
        Self { channel, ebpf, bytes, consumer, cpu, folder }
    }

    /// Writes a record and says whether it was stored: then nothing was lost.
    fn write(&mut self, record: &[u8]) -> bool {
        if record.is_empty() {
            return true;
        }
        let mut bytes = [0; MOST];
        bytes[..record.len()].copy_from_slice(record);
        self.bytes.set(0, bytes, 0).unwrap();
        let lost = || self.channel.counters(self.cpu).unwrap().lost();
        let before = lost();
        let program: &RawTracePoint = self.ebpf.program("on_write").unwrap().try_into().unwrap();
        let mut options = RawTracePointRunOptions { cpu: Some(self.cpu), ..RawTracePointRunOptions::default() };
        options.args[0] = record.len() as u64;
        program.test_run(options).unwrap();
        lost() == before
    }

    fn flush(&self) {
        self.channel.flush(self.cpu).unwrap();
    }

    fn file(&self) -> Vec<u8> {
        fs::read(self.folder.path().join(format!("cpu{}", self.cpu))).unwrap()
    }
}

fn last_cpu() -> u32 {
    *machine::online_cpus().unwrap().last().unwrap()
}

fn run(vector: &Vector) {
    let mut kernel = Kernel::new(vector.geometry(), vector.mode(), last_cpu());
    let mut accepted = String::new();
    for step in vector.steps() {
        match step {
            Step::Write(bytes) => accepted.push(if kernel.write(&bytes) { '1' } else { '0' }),
            Step::Flush => kernel.flush(),
            Step::Drain(most) => drop(kernel.consumer.pass(most).unwrap()),
        }
    }
    let counters = kernel.channel.counters(kernel.cpu).unwrap();
    let statistics = kernel.consumer.statistics();
    let load = |word: &std::sync::atomic::AtomicU64| word.load(std::sync::atomic::Ordering::Relaxed);
    let processed = load(&statistics.subbufs_processed);
    let found = Expect {
        accepted,
        produced: counters.produced,
        consumed: counters.consumed,
        subbufs_processed: processed,
        max_backlog: load(&statistics.max_backlog),
        lost_full: counters.lost_full,
        lost_too_big: counters.lost_too_big,
        subbufs_overrun: counters.consumed - processed,
        ..Expect::default()
    };
    let file = kernel.file();
    assert_eq!(vector.with_file(found, &file), vector.expect, "{}", vector.name);
    assert_eq!(counters.lost_nested, 0, "{}", vector.name);
    let taken =
        &kernel.channel.control().row(kernel.cpu).unwrap().consumer.taken[usize::from(counters.consumed & 1 == 1)];
    assert_eq!((taken.output.peek(), taken.subbufs.peek()), (file.len() as u64, processed), "{}", vector.name);
}

pub(crate) fn the_kernel_writes_the_golden_vectors_to_the_byte() {
    let step = (100 / relay_tests::repeats(1000)).max(1) as usize;
    script::vectors().iter().step_by(step).for_each(run);
}

pub(crate) fn a_write_on_one_cpu_leaves_the_others_alone() {
    let cpus = machine::online_cpus().unwrap();
    let mut kernel = Kernel::new(Geometry::new(4096, 2).unwrap(), Mode::NoOverwrite, cpus[0]);
    assert!(kernel.write(b"here"));
    kernel.flush();
    assert_eq!(kernel.consumer.pass(u64::MAX).unwrap(), 1);
    assert_eq!(kernel.file(), b"here");
    for buffer in kernel.channel.buffers().iter().filter(|buffer| buffer.cpu() != cpus[0]) {
        assert_eq!(buffer.reader().produced(), 0, "cpu {}", buffer.cpu());
        assert!(!buffer.reader().is_open(), "cpu {}", buffer.cpu());
    }
}

pub(crate) fn a_closed_subbuf_ends_with_the_padding_its_header_says() {
    let mut kernel = Kernel::new(Geometry::new(4096, 2).unwrap(), Mode::NoOverwrite, last_cpu());
    assert!(kernel.write(&pattern(0, 1000)));
    assert!(kernel.write(&pattern(1, 2000)));
    kernel.flush();
    // librelay reads the first u32 of the sub-buffer and takes so many bytes off its end.
    let mut header = bytes::BytesMut::new();
    kernel.consumer.buffer().copy_to(0, 4, &mut header).unwrap();
    let padding = u32::from_ne_bytes(header[..].try_into().unwrap());
    assert_eq!(u64::from(padding), 4096 - HEADER - 3000);
    let subbuf = kernel.consumer.buffer().reader().subbuf(0).unwrap().unwrap();
    assert_eq!((subbuf.place, subbuf.len, subbuf.records), (HEADER, 3000, 2));
}

/// It always runs to its end: no process that is killed leaves the buffer half closed.
pub(crate) fn the_channel_s_program_closes_the_buffer_of_a_cpu_that_is_offline() {
    let cpu = last_cpu();
    let mut kernel = Kernel::new(Geometry::new(4096, 4).unwrap(), Mode::NoOverwrite, cpu);
    assert!(kernel.write(b"before "));
    let offline = Offline::new(cpu);
    kernel.flush();
    let produced = |kernel: &Kernel| kernel.channel.counters(cpu).unwrap().produced;
    assert_eq!(produced(&kernel), 1);
    kernel.channel.mark(cpu).unwrap();
    assert_eq!(produced(&kernel), 2, "the program did not run");
    drop(offline);
    assert!(kernel.write(b"and after"));
    kernel.flush();
    while kernel.consumer.pass(u64::MAX).unwrap() > 0 {}
    assert_eq!(String::from_utf8(kernel.file()).unwrap(), "before and after");
}
