//! The real writer, in the kernel, against the golden vectors: the same scripts that `relay-common` runs on plain memory.

use std::{fs, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData},
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use relay_common::{Geometry, HEADER, Mode, Plain, Word as _};
use relay_daemon::{
    channel::{self, Channel},
    consumer::{Consumer, CpuFile},
    machine,
};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bytes"));
/// The most that the program writes at once.
const MOST: usize = 16384;

#[derive(Deserialize)]
struct Vector {
    name: String,
    subbuf_size: u64,
    n_subbufs: u64,
    mode: String,
    ops: Vec<Vec<Value>>,
    expect: Value,
}

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

/// Byte `j` of the `i`-th write of a script, as the vectors define it.
fn pattern(i: usize, len: usize) -> Vec<u8> {
    (0..len).map(|j| u8::try_from((1 + 31 * i + 7 * j) % 256).unwrap()).collect()
}

fn last_cpu() -> u32 {
    *machine::online_cpus().unwrap().last().unwrap()
}

fn run(vector: &Vector) {
    let mode = if vector.mode == "overwrite" { Mode::Overwrite } else { Mode::NoOverwrite };
    let mut kernel = Kernel::new(Geometry::new(vector.subbuf_size, vector.n_subbufs).unwrap(), mode, last_cpu());
    let mut accepted = String::new();
    for op in &vector.ops {
        let number = op.get(1).and_then(Value::as_u64);
        match (op[0].as_str().unwrap(), number) {
            ("write", Some(len)) => {
                let record = pattern(accepted.len(), usize::try_from(len).unwrap());
                accepted.push(if kernel.write(&record) { '1' } else { '0' });
            }
            ("flush", None) => kernel.flush(),
            ("drain", most) => drop(kernel.consumer.pass(most.unwrap_or(u64::MAX)).unwrap()),
            other => panic!("{}: operation {other:?}", vector.name),
        }
    }
    let row = kernel.channel.control().row(kernel.cpu).unwrap();
    let statistics = kernel.consumer.statistics();
    let load = |word: &std::sync::atomic::AtomicU64| word.load(std::sync::atomic::Ordering::Relaxed);
    let (consumed, processed) = (row.consumer.consumed.peek(), load(&statistics.subbufs_processed));
    let file = kernel.file();
    let sha256: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    let found = [
        ("accepted", Value::from(accepted)),
        ("produced", kernel.consumer.buffer().reader().produced().into()),
        ("consumed", consumed.into()),
        ("subbufs_processed", processed.into()),
        ("max_backlog", load(&statistics.max_backlog).into()),
        ("lost_full", row.producer.lost_full.peek().into()),
        ("lost_too_big", row.producer.lost_too_big.peek().into()),
        ("subbufs_overrun", (consumed - processed).into()),
        ("file_len", file.len().into()),
        ("file_sha256", sha256.into()),
    ];
    for (key, found) in found {
        assert_eq!(found, vector.expect[key], "{}: {key}", vector.name);
    }
    assert_eq!(row.producer.lost_nested.peek(), 0, "{}", vector.name);
    assert_eq!(row.consumer.file_len[usize::from(consumed & 1 == 1)].peek(), file.len() as u64, "{}", vector.name);
}

pub(crate) fn the_kernel_writes_the_golden_vectors_to_the_byte() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../relay-common/tests/vectors");
    let mut count = 0;
    for folder in [Some(own.into_os_string()), std::env::var_os("RELAY_VECTORS")].into_iter().flatten() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let vectors: Vec<Vector> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                vectors.iter().for_each(run);
                count += vectors.len();
            }
        }
    }
    assert!(count >= 73, "{count} vectors");
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
