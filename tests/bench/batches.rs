//! Records without a hook: programs that write records, of 8 bytes and of more, in batches of 500, as fast as they can, while a reader takes them and throws
//! them away. The shape is that of the kernel's own benchmark of ring buffers.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use aya::programs::RawTracePoint;
use relay_channel::{
    channel::Channel,
    output::{Content, Output},
    readers::Readers,
    sys::run_program,
};
use relay_tests::channel::run_on;

use crate::hold::{Bench, POLL};

/// Records of a batch.
const BATCH: u64 = 500;
/// How long each program writes.
const TIME: Duration = Duration::from_secs(1);

/// What is measured: its name, its program, and whether a ring buffer gets the records.
const PROGRAMS: [(&str, &str, bool); 10] = [
    ("relay channel", "batch_to_channel", false),
    ("BPF ring buffer", "batch_to_ring", true),
    ("relay channel, clock", "batch_to_channel_stamped", false),
    ("BPF ring buffer, clock", "batch_to_ring_stamped", true),
    ("relay channel, 64 bytes", "batch_of_64_to_channel", false),
    ("BPF ring buffer, 64 bytes", "batch_of_64_to_ring", true),
    ("relay channel, 256 bytes", "batch_of_256_to_channel", false),
    ("BPF ring buffer, 256 bytes", "batch_of_256_to_ring", true),
    ("relay channel, 1 KiB", "batch_of_1024_to_channel", false),
    ("BPF ring buffer, 1 KiB", "batch_of_1024_to_ring", true),
];

/// Millions of records that were not lost, a second and CPU: by name and number of CPUs, of every round.
pub(crate) type Rates = BTreeMap<(usize, &'static str), Vec<f64>>;

pub(crate) fn measure(cpus: &[u32], rounds: u64) -> Result<Rates> {
    let mut rates = Rates::new();
    let one = &cpus[cpus.len().saturating_sub(1)..];
    for round in 1..=rounds {
        eprintln!("bench: batches, round {round} of {rounds}");
        for cpus in [one, cpus] {
            for (name, program, is_ring) in PROGRAMS {
                rates.entry((cpus.len(), name)).or_default().push(rate(program, is_ring, cpus)?);
            }
        }
    }
    Ok(rates)
}

/// How long a record takes, in nanoseconds, beyond the loop that it is written in: of as many as have room.
pub(crate) fn count(cpu: u32) -> Result<Vec<(&'static str, f64)>> {
    const BATCHES: u64 = 3;
    run_on(cpu);
    let record = |program: &str| -> Result<f64> {
        let mut bench = Bench::load()?;
        let fd = load(&mut bench, program)?;
        let mut least = f64::MAX;
        for _ in 0..BATCHES {
            let start = Instant::now();
            run_program(fd.as_fd(), [0, 0], None)?;
            least = least.min(start.elapsed().as_nanos() as f64 / BATCH as f64);
        }
        let lost = bench.lost()? + lost(&bench.bare) + lost(&bench.stamped);
        if lost > 0 {
            bail!("{program}: {lost} records have no room");
        }
        Ok(least)
    };
    let alone = record("batch_of_nothing")?;
    PROGRAMS.into_iter().map(|(name, program, _)| Ok((name, record(program)? - alone))).collect()
}

fn load(bench: &mut Bench, program: &str) -> Result<OwnedFd> {
    let loaded: &mut RawTracePoint = bench.ebpf.program_mut(program).context("no such program")?.try_into()?;
    loaded.load().with_context(|| format!("loading {program}"))?;
    Ok(loaded.fd()?.as_fd().try_clone_to_owned()?)
}

struct Discard;

impl Output for Discard {
    fn append(&mut self, _: &Content<'_>) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        "nothing".to_owned()
    }
}

fn rate(program: &str, is_ring: bool, cpus: &[u32]) -> Result<f64> {
    let mut bench = Bench::load()?;
    let fd = load(&mut bench, program)?;
    let channel = Arc::clone(if program.ends_with("stamped") { &bench.stamped } else { &bench.bare });
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = None;
    let mut ring_reader = None;
    if is_ring {
        let (mut ring, stop) = (bench.ring()?, Arc::clone(&stop));
        ring_reader = Some(thread::spawn(move || {
            while !stop.load(Relaxed) {
                while ring.next().is_some() {}
                thread::sleep(POLL);
            }
        }));
    } else {
        readers = Some(Readers::start(Arc::clone(&channel), |_| Ok(Box::new(Discard) as Box<dyn Output>))?);
    }
    let all_are_there = Arc::new(Barrier::new(cpus.len()));
    let write = |&cpu: &u32| -> Result<thread::JoinHandle<io::Result<f64>>> {
        let (fd, all_are_there) = (fd.try_clone()?, Arc::clone(&all_are_there));
        Ok(thread::spawn(move || {
            run_on(cpu);
            all_are_there.wait();
            let (start, mut batches) = (Instant::now(), 0u64);
            while start.elapsed() < TIME {
                run_program(fd.as_fd(), [0, 0], None)?;
                batches += 1;
            }
            Ok((batches * BATCH) as f64 / start.elapsed().as_secs_f64())
        }))
    };
    let threads = cpus.iter().map(write).collect::<Result<Vec<_>>>()?;
    let mut written = 0.0;
    for thread in threads {
        written += thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
    }
    stop.store(true, Relaxed);
    if let Some(reader) = ring_reader {
        let _ = reader.join();
    }
    if let Some(readers) = readers {
        readers.stop()?;
    }
    let lost = if is_ring { bench.lost()? } else { lost(&channel) };
    Ok((written - lost as f64 / TIME.as_secs_f64()) / cpus.len() as f64 / 1e6)
}

fn lost(channel: &Channel) -> u64 {
    channel.possible().iter().filter_map(|cpu| Some(channel.counters(*cpu)?.lost())).sum()
}
