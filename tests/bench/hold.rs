//! Recorders to compare with: a program of `tests/ebpf/src/bench.rs` on `raw_syscalls:sys_enter`, and for the two buffers of the kernel's what
//! reads them. It records until its standard input ends; `late` it reads no sooner.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray, RingBuf},
    programs::{Program, TracePoint},
};
use perf_event::{Builder, SampleFlag, Sampler, data::Record, events::Software};
use relay_channel::{
    channel::{self, Channel},
    machine,
    sys::set_file,
};
use relay_common::{Geometry, Mode, Plain};
use relay_daemon::sys::{link_perf_event, open_tracepoint};

use crate::recorders::Outcome;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench"));

/// As much as relayd has on each CPU by default.
pub(crate) const SUBBUF_SIZE: u64 = 256 << 10;
pub(crate) const N_SUBBUFS: u64 = 8;
/// How often the readers of the kernel's buffers look, and how much they write at once.
pub(crate) const POLL: Duration = Duration::from_millis(1);
const WRITE: usize = 256 << 10;
/// include/uapi/linux/perf_event.h
const PERF_RECORD_SAMPLE: u32 = 9;

/// The object, with its channels; the ring buffer is as large as all buffers of a channel.
pub(crate) struct Bench {
    pub(crate) ebpf: Ebpf,
    pub(crate) bare: Arc<Channel>,
    pub(crate) stamped: Arc<Channel>,
}

impl Bench {
    pub(crate) fn load() -> Result<Self> {
        let geometry = Geometry::new(SUBBUF_SIZE, N_SUBBUFS)?;
        let create = || Channel::create(geometry, Mode::NoOverwrite, Plain).map(Arc::new);
        let (bare, stamped) = (create()?, create()?);
        let size = geometry.buffer_size() * machine::online_cpus()?.len() as u64;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("RING", u32::try_from(size.next_power_of_two())?);
        let ebpf = channel::load(OBJECT, &[("BARE", &bare), ("STAMPED", &stamped)], loader)?;
        Ok(Self { ebpf, bare, stamped })
    }

    /// Records that did not fit into the ring buffer.
    pub(crate) fn lost(&self) -> Result<u64> {
        let map = self.ebpf.map("LOST").context("the object has no map LOST")?;
        let lost: PerCpuArray<_, u64> = map.try_into()?;
        Ok(lost.get(&0, 0)?.iter().sum())
    }

    /// A perf buffer for each CPU, as large as a channel's, that wakes nobody.
    fn perf_buffers(&mut self) -> Result<Vec<Sampler>> {
        let map = self.ebpf.map("PERF").context("the object has no map PERF")?;
        let aya::maps::Map::PerfEventArray(map) = map else { bail!("PERF is not a perf event array") };
        let open = |cpu: u32| {
            let mut builder = Builder::new(Software::BPF_OUTPUT);
            builder.any_pid().one_cpu(cpu as usize).include_kernel().include_hv();
            builder.sample_period(1).sample(SampleFlag::RAW).wakeup_watermark(usize::MAX >> 33);
            let mut counter = builder.build().with_context(|| format!("opening the perf buffer of cpu {cpu}"))?;
            counter.enable()?;
            set_file(map.fd().as_fd(), cpu, counter.as_raw_fd()).context("handing it to the program")?;
            counter.sampled(usize::try_from(SUBBUF_SIZE * N_SUBBUFS)?).context("mapping a perf buffer")
        };
        machine::online_cpus()?.into_iter().map(open).collect()
    }

    pub(crate) fn ring(&mut self) -> Result<RingBuf<MapData>> {
        Ok(self.ebpf.take_map("RING").context("the object has no map RING")?.try_into()?)
    }
}

pub(crate) fn run(program: &str, output: &Path, late: bool) -> Result<()> {
    machine::raise_limits();
    let mut bench = Bench::load()?;
    let attached = bench.ebpf.program_mut(program).with_context(|| format!("no program {program}"))?;
    let _link = attach(attached)?;
    let mut source = Source::open(program, &mut bench)?;
    let mut file = File::create(output).with_context(|| format!("making {}", output.display()))?;
    let stop = Arc::new(AtomicBool::new(false));
    {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            stop.store(true, Relaxed);
        });
    }
    println!("ready");
    let (mut records, mut bytes, mut batch) = (0, 0, Vec::with_capacity(2 * WRITE));
    loop {
        let is_last = stop.load(Relaxed);
        if late && !is_last {
            thread::sleep(100 * POLL);
            continue;
        }
        records += source.drain(|record| {
            batch.extend_from_slice(record);
            if batch.len() >= WRITE {
                bytes += batch.len() as u64;
                file.write_all(&batch)?;
                batch.clear();
            }
            Ok(())
        })?;
        if is_last {
            break;
        }
        thread::sleep(if matches!(source, Source::Nowhere) { 100 * POLL } else { POLL });
    }
    bytes += batch.len() as u64;
    file.write_all(&batch)?;
    let outcome = Outcome { records, lost: bench.lost()? + source.lost(), bytes };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// Attaches as relayd does, so that perf's own event costs as little.
fn attach(program: &mut Program) -> Result<Option<OwnedFd>> {
    match program {
        Program::RawTracePoint(program) => {
            program.load()?;
            program.attach("sys_enter")?;
            Ok(None)
        }
        program => {
            let program: &mut TracePoint = program.try_into()?;
            program.load()?;
            let id = machine::tracefs()?.join("events/raw_syscalls/sys_enter/id");
            let event = open_tracepoint(fs::read_to_string(id)?.trim().parse()?)?;
            Ok(Some(link_perf_event(program.fd()?.as_fd(), event.as_fd(), 0)?))
        }
    }
}

/// Where a program's records come from.
enum Source {
    Nowhere,
    Ring(RingBuf<MapData>),
    Perf { buffers: Vec<Sampler>, lost: u64 },
}

impl Source {
    fn open(program: &str, bench: &mut Bench) -> Result<Self> {
        match program {
            "ring_buffer" => Ok(Self::Ring(bench.ring()?)),
            "perf_buffer" => Ok(Self::Perf { buffers: bench.perf_buffers()?, lost: 0 }),
            _ => Ok(Self::Nowhere),
        }
    }

    /// Hands over the records that there are, and counts them.
    fn drain(&mut self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let mut records = 0;
        match self {
            Self::Nowhere => {}
            Self::Ring(ring) => {
                while let Some(record) = ring.next() {
                    take(&record)?;
                    records += 1;
                }
            }
            Self::Perf { buffers, lost } => {
                for buffer in buffers {
                    while let Some(record) = buffer.next_record() {
                        if record.ty() == PERF_RECORD_SAMPLE {
                            record.data().iter().try_for_each(|bytes| take(bytes))?;
                            records += 1;
                        } else if let Ok(Record::Lost(told)) = record.parse_record() {
                            *lost += told.lost;
                        }
                    }
                }
            }
        }
        Ok(records)
    }

    fn lost(&self) -> u64 {
        match self {
            Self::Perf { lost, .. } => *lost,
            _ => 0,
        }
    }
}
