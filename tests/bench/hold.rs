//! Recorders to compare with: a program of `tests/ebpf/src/bench.rs` on `raw_syscalls:sys_enter`, and for the ring buffer what reads it. It
//! records until its standard input ends.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{PerCpuArray, RingBuf},
    programs::TracePoint,
};
use relay_common::{Geometry, Mode, Plain};
use relay_daemon::{
    channel::{self, Channel},
    machine,
};

use crate::recorders::Outcome;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench"));

/// As much as relayd has on each CPU by default.
pub(crate) const SUBBUF_SIZE: u64 = 256 << 10;
pub(crate) const N_SUBBUFS: u64 = 8;
/// How often the ring buffer's reader looks, and how much it writes at once.
pub(crate) const POLL: Duration = Duration::from_millis(1);
const WRITE: usize = 256 << 10;

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

    pub(crate) fn ring(&mut self) -> Result<RingBuf<aya::maps::MapData>> {
        Ok(self.ebpf.take_map("RING").context("the object has no map RING")?.try_into()?)
    }
}

pub(crate) fn run(program: &str, output: &Path) -> Result<()> {
    machine::raise_limits();
    let mut bench = Bench::load()?;
    let attached: &mut TracePoint =
        bench.ebpf.program_mut(program).with_context(|| format!("no program {program}"))?.try_into()?;
    attached.load()?;
    attached.attach("raw_syscalls", "sys_enter")?;
    let mut ring = bench.ring()?;
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
        while let Some(record) = ring.next() {
            batch.extend_from_slice(&record);
            records += 1;
            if batch.len() >= WRITE {
                bytes += batch.len() as u64;
                file.write_all(&batch)?;
                batch.clear();
            }
        }
        if is_last {
            break;
        }
        thread::sleep(if program == "ring_buffer" { POLL } else { 100 * POLL });
    }
    bytes += batch.len() as u64;
    file.write_all(&batch)?;
    let outcome = Outcome { records, lost: bench.lost()?, bytes };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}
