//! The channels of the tests' object `clients`, and what reads them.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd as _,
    process::{Child, Command},
    sync::{Arc, Mutex, atomic::AtomicBool, atomic::Ordering::Relaxed},
    thread,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _, raw_trace_point::RawTracePointLink},
};
use bytes::BytesMut;
use relay_channel::{
    channel::{self, Channel},
    machine,
    output::{Content, Output},
};
use relay_common::{Geometry, Mode, Plain};
use rustix::process::{Pid, Signal, kill_process};

/// The object.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/clients"));

/// The tests' object, loaded with a channel for each that it declares.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Clients {
    /// Records of 32 bytes with gapless numbers.
    pub numbered: Arc<Channel>,
    /// Records of many lengths with checksums.
    pub checked: Arc<Channel>,
    /// Small records, and callbacks that are counted.
    pub called: Arc<Channel>,
    /// The programs.
    pub ebpf: Ebpf,
}

impl Clients {
    /// Loads the object with these channels for numbered and for checked records.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn load(numbered: (Geometry, Mode), checked: (Geometry, Mode)) -> Result<Self> {
        let create = |(geometry, mode)| Channel::create(geometry, mode, Plain).map(Arc::new);
        let (numbered, checked) = (create(numbered)?, create(checked)?);
        let called = create((Geometry::new(64, 2)?, Mode::NoOverwrite))?;
        let channels = [("NUMBERED", &*numbered), ("CHECKED", &*checked), ("CALLED", &*called)];
        let ebpf = channel::load(OBJECT, &channels, EbpfLoader::new())?;
        Ok(Self { numbered, checked, called, ebpf })
    }

    /// Loads a raw tracepoint program.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn load_raw_tracepoint(&mut self, name: &str) -> Result<&mut RawTracePoint> {
        let program: &mut RawTracePoint = self.ebpf.program_mut(name).context("no such program")?.try_into()?;
        program.load().with_context(|| format!("loading {name}"))?;
        Ok(program)
    }

    /// Loads a raw tracepoint program and attaches it, until the link is dropped.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn attach(&mut self, name: &str, tracepoint: &str) -> Result<RawTracePointLink> {
        let program = self.load_raw_tracepoint(name)?;
        let link = program.attach(tracepoint).with_context(|| format!("attaching to {tracepoint}"))?;
        Ok(program.take_link(link)?)
    }

    /// Runs a raw tracepoint program that is loaded, on a CPU.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn run(&self, name: &str, cpu: u32, argument: u64) -> Result<()> {
        let program: &RawTracePoint = self.ebpf.program(name).context("no such program")?.try_into()?;
        let mut options = RawTracePointRunOptions { cpu: Some(cpu), ..RawTracePointRunOptions::default() };
        options.args[0] = argument;
        program.test_run(options)?;
        Ok(())
    }

    /// How often a program has run, by the kernel's count.
    ///
    /// # Errors
    /// When it is not loaded.
    pub fn runs(&self, name: &str) -> Result<u64> {
        let program = self.ebpf.program(name).context("no such program")?;
        Ok(machine::program_counts(program.fd()?.as_fd())?.runs)
    }
}

/// What CPUs have written, in memory.
#[derive(Clone, Debug, Default)]
pub struct Collected(Arc<Mutex<BTreeMap<u32, Collector>>>);

impl Collected {
    /// Bytes that there is room for without asking the system for memory, which would take longer than to copy them.
    const ROOM: usize = 64 << 10;

    /// The output of a CPU.
    ///
    /// # Panics
    /// When another thread has.
    #[must_use]
    pub fn output(&self, cpu: u32) -> Box<dyn Output> {
        let mut bytes = BytesMut::zeroed(Self::ROOM);
        // Not only reserved: every page is touched.
        bytes.fill(1);
        bytes.clear();
        let collector = Collector { cpu, bytes: Arc::new(Mutex::new(bytes)) };
        self.0.lock().expect("nobody panicked").insert(cpu, collector.clone());
        Box::new(collector)
    }

    /// What is there, by CPU.
    ///
    /// # Panics
    /// When another thread has.
    #[must_use]
    pub fn take(&self) -> BTreeMap<u32, BytesMut> {
        let taken =
            |(cpu, collector): (&u32, &Collector)| (*cpu, collector.bytes.lock().expect("nobody panicked").split());
        self.0.lock().expect("nobody panicked").iter().map(taken).collect()
    }
}

#[derive(Clone, Debug)]
struct Collector {
    cpu: u32,
    bytes: Arc<Mutex<BytesMut>>,
}

impl Output for Collector {
    fn append(&mut self, content: &Content<'_>) -> io::Result<()> {
        content.copy_to(&mut *self.bytes.lock().map_err(|_| io::Error::other("a thread panicked"))?)
    }

    fn name(&self) -> String {
        format!("memory for cpu {}", self.cpu)
    }
}

/// Native-endian words.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).map(|word| word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// The number of a record of the channel `NUMBERED`.
///
/// # Panics
/// When the record is not intact.
#[must_use]
pub fn number(record: &[u8]) -> u64 {
    let words: Vec<u64> = words(record).collect();
    let number = words[0];
    assert_eq!(
        words,
        [number, !number, number ^ 0x5555_5555_5555_5555, number.wrapping_mul(3)],
        "a torn record: {words:x?}"
    );
    number
}

/// A storm of system calls: on each of these CPUs a process that does nothing else, until this is dropped.
///
/// Not threads: whenever this process gives memory back, the kernel has every CPU that runs one of its threads take part, and an emulated
/// CPU in a storm takes milliseconds to.
#[derive(Debug)]
pub struct Storm(Vec<Child>);

impl Storm {
    /// Starts it.
    ///
    /// # Panics
    /// When a process cannot be started.
    #[must_use]
    pub fn start(cpus: &[u32]) -> Self {
        let storm = |&cpu: &u32| {
            let start = move || {
                // What a thread starts runs where it does.
                run_on(cpu);
                // Not for ever, should nobody come to end it.
                let dd = ["3600", "dd", "if=/dev/zero", "of=/dev/null", "bs=1", "status=none"];
                Command::new("timeout").args(dd).spawn().expect("timeout and dd are there")
            };
            thread::spawn(start).join().expect("it was started")
        };
        Self(cpus.iter().map(storm).collect())
    }

    /// Waits until each of its processes has read so often; it writes as often.
    ///
    /// # Panics
    /// When one does not get there.
    pub fn wait_for_reads(&self, least: u64) {
        for timeout in &self.0 {
            let timeout = timeout.id();
            let reads = || {
                // What timeout has started.
                let dd = std::fs::read_to_string(format!("/proc/{timeout}/task/{timeout}/children")).ok()?;
                let io = std::fs::read_to_string(format!("/proc/{}/io", dd.trim())).ok()?;
                io.lines().find_map(|line| line.strip_prefix("syscr: "))?.parse::<u64>().ok()
            };
            crate::wait_until("the storm", || reads() >= Some(least));
        }
    }
}

/// A load that can be told in a trace: on each CPU a thread makes system calls (`kill` without a signal), each with a number one higher than the last.
#[derive(Debug)]
pub struct Numbers {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// The condition under which `raw_syscalls:sys_enter` is one of [`Numbers`], of whatever process.
#[must_use]
pub fn numbers_condition() -> String {
    format!("id == {}", libc::SYS_kill)
}

impl Numbers {
    /// Starts it; `pause` is what a thread rests after a hundred calls.
    #[must_use]
    pub fn start(cpus: &[u32], pause: std::time::Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let work = |&cpu: &u32| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                run_on(cpu);
                let mut number = 0;
                while !stop.load(Relaxed) {
                    for _ in 0..100 {
                        number += 1;
                        if let Some(pid) = Pid::from_raw(number) {
                            let _ = rustix::process::test_kill_process(pid);
                        }
                    }
                    if !pause.is_zero() {
                        thread::sleep(pause);
                    }
                }
            })
        };
        let threads = cpus.iter().map(work).collect();
        Self { stop, threads }
    }

    /// Ends it.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // It does nothing that could fail.
            let _ = thread.join();
        }
    }
}

/// Lets the calling thread run on this CPU alone.
///
/// # Panics
/// When it is offline.
pub fn run_on(cpu: u32) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu as usize);
    rustix::thread::sched_setaffinity(None, &set).expect("the CPU is online");
}

impl Drop for Storm {
    fn drop(&mut self) {
        for process in &mut self.0 {
            // It may have ended before.
            let _ = kill_process(Pid::from_child(process), Signal::TERM);
            let _ = process.wait();
        }
    }
}
