//! `kleak record`: a channel, its programs, its readers, until told to stop.

use std::{fs, os::fd::AsFd as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{EbpfLoader, programs::TracePoint};
use relay_channel::{
    channel::{self, Channel},
    machine,
    output::CpuFile,
    readers::Readers,
};
use relay_common::{Geometry, Mode, Plain};
use tokio::signal::unix::{SignalKind, signal};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kleak"));

/// The programs, and the tracepoint of each.
const PROGRAMS: [(&str, &str); 4] = [
    ("on_kmalloc", "kmalloc"),
    ("on_cache_alloc", "kmem_cache_alloc"),
    ("on_kfree", "kfree"),
    ("on_cache_free", "kmem_cache_free"),
];

pub(crate) fn run(output: &Path, duration: Option<Duration>) -> Result<()> {
    machine::raise_limits();
    fs::create_dir_all(output).with_context(|| format!("making {}", output.display()))?;
    let channel = Channel::create(Geometry::new(1 << 20, 8)?, Mode::NoOverwrite, Plain)?;
    let (kmalloc_bytes_at, cache_bytes_at) = (bytes_at("kmalloc")?, bytes_at("kmem_cache_alloc")?);
    let mut loader = EbpfLoader::new();
    loader.override_global("KMALLOC_BYTES_AT", &kmalloc_bytes_at, true);
    loader.override_global("CACHE_BYTES_AT", &cache_bytes_at, true);
    let mut ebpf = channel::load(OBJECT, &[("ALLOCATIONS", &channel)], loader)?;
    let channel = Arc::new(channel);
    let folder = output.to_path_buf();
    let readers = Readers::start(Arc::clone(&channel), move |cpu| Ok(Box::new(CpuFile::create(&folder, cpu)?)))?;
    let mut links = Vec::new();
    for (name, tracepoint) in PROGRAMS {
        let program: &mut TracePoint = ebpf.program_mut(name).context("the object lacks a program")?.try_into()?;
        program.load().with_context(|| format!("loading {name} (run as root)"))?;
        let link = program.attach("kmem", tracepoint).with_context(|| format!("attaching to kmem:{tracepoint}"))?;
        links.push(program.take_link(link)?);
    }
    wait(duration)?;

    // Detach, then drain: every record is in the files.
    drop(links);
    let consumers = readers.drain()?;
    let records: u64 =
        consumers.iter().map(|consumer| consumer.statistics().records.load(std::sync::atomic::Ordering::Relaxed)).sum();
    let lost: u64 = channel.possible().iter().filter_map(|&cpu| channel.counters(cpu)).map(|cpu| cpu.lost()).sum();
    let mut skipped = 0;
    for (name, _) in PROGRAMS {
        let program: &TracePoint = ebpf.program(name).context("the object lacks a program")?.try_into()?;
        skipped += machine::program_counts(program.fd()?.as_fd())?.recursion_misses;
    }
    eprintln!("kleak: {records} records, {lost} lost, {skipped} skipped by the kernel while another program ran");
    if lost + skipped > 0 {
        eprintln!("kleak: as many entries of the report may be wrong");
    }
    Ok(())
}

/// Where a tracepoint has the bytes allocated, having seen that the other fields are where the programs read them.
fn bytes_at(tracepoint: &str) -> Result<u32> {
    let path = machine::tracefs()?.join("events/kmem").join(tracepoint).join("format");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {} (run as root)", path.display()))?;
    let offset = |name: &str| {
        let line = text.lines().find_map(|line| line.split_once(&format!(" {name};\toffset:")));
        let offset = line.and_then(|(_, rest)| rest.split(';').next()?.parse::<u32>().ok());
        offset.with_context(|| format!("kmem:{tracepoint} has no field {name} in this kernel"))
    };
    ensure!((offset("call_site")?, offset("ptr")?) == (8, 16), "kmem:{tracepoint} is different in this kernel: {text}");
    offset("bytes_alloc")
}

fn wait(duration: Option<Duration>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(async {
        let time_is_over = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
        eprintln!("kleak: ready: every allocation is recorded; Ctrl-C ends");
        tokio::select! {
            _ = interrupt.recv() => {}
            () = time_is_over => {}
        }
        Ok(())
    })
}
