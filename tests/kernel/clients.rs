//! The channel as a library: other clients than the tracer, several at once, in every kind of program, interrupting one another.

use std::{collections::BTreeMap, sync::Arc};

use aya::{
    maps::PerCpuArray,
    programs::{
        FEntry, KProbe, PerfEvent, TracePoint, UProbe,
        perf_event::{PerfEventConfig, PerfEventLink, PerfEventScope, SamplePolicy, SoftwareEvent},
        uprobe::UProbeScope,
    },
    sys::{Stats, enable_stats},
};
use relay_channel::{channel::Channel, consumer::Consumer, machine, output::CpuFile, readers::Readers};
use relay_common::{Counters, Geometry, Mode};
use relay_tests::{
    channel::{Clients, Collected, OBJECT, Storm, words},
    repeats, wait_until,
};

const LARGE: u64 = 1 << 16;

fn clients(checked: Geometry) -> Clients {
    let numbered = Geometry::new(4096, 2).unwrap();
    Clients::load((numbered, Mode::NoOverwrite), (checked, Mode::NoOverwrite)).unwrap()
}

fn last_cpu() -> u32 {
    *machine::online_cpus().unwrap().last().unwrap()
}

/// Stops the readers and takes what is left; returns the records that were taken.
fn finish(readers: Readers) -> u64 {
    let records = |consumer: Consumer| consumer.statistics().records.load(std::sync::atomic::Ordering::Relaxed);
    readers.drain().unwrap().into_iter().map(records).sum()
}

fn lost(channel: &Channel) -> u64 {
    channel.possible().iter().map(|&cpu| channel.counters(cpu).unwrap().lost()).sum()
}

/// One record of the channel `CHECKED`.
#[derive(Debug)]
struct Checked {
    writer: u64,
    began: u64,
    ended: u64,
}

/// Takes a CPU's bytes apart; panics at the first record that is not intact.
fn checked(mut bytes: &[u8]) -> Vec<Checked> {
    let mut records = Vec::new();
    while let Some(first) = words(bytes).next() {
        let len = usize::try_from(first >> 32).unwrap();
        assert!((40..=256).contains(&len) && len <= bytes.len(), "record {}: length {len}", records.len());
        let (record, rest) = bytes.split_at(len);
        let record: Vec<u64> = words(record).collect();
        let (sum, content) = record.split_last().unwrap();
        let found = (0..).zip(content).fold(0, |sum, (at, word)| sum ^ word.rotate_left(at));
        assert_eq!(found, *sum, "record {} is not intact: {record:x?}", records.len());
        records.push(Checked { writer: first & 0xffff_ffff, began: record[1], ended: record[record.len() - 2] });
        bytes = rest;
    }
    assert!(bytes.is_empty(), "{} bytes that are not records", bytes.len());
    records
}

/// How many records each writer has.
fn by_writer(records: impl IntoIterator<Item = Checked>) -> BTreeMap<u64, usize> {
    let mut writers = BTreeMap::new();
    for record in records {
        *writers.entry(record.writer).or_default() += 1;
    }
    writers
}

/// Samples every CPU so many times a second.
fn sample(clients: &mut Clients, frequency: u64) -> Vec<PerfEventLink> {
    let program: &mut PerfEvent = clients.ebpf.program_mut("check_sample").unwrap().try_into().unwrap();
    program.load().unwrap();
    let attach = |cpu| {
        let (config, scope) =
            (PerfEventConfig::Software(SoftwareEvent::CpuClock), PerfEventScope::AllProcessesOneCpu { cpu });
        let link = program.attach(config, scope, SamplePolicy::Frequency(frequency), false).unwrap();
        program.take_link(link).unwrap()
    };
    machine::online_cpus().unwrap().into_iter().map(attach).collect()
}

pub(crate) fn programs_that_interrupt_one_another_write_whole_records() {
    const RAW: [(&str, &str); 4] = [
        ("check_enter", "sys_enter"),
        ("check_exit", "sys_exit"),
        ("check_timer", "hrtimer_expire_entry"),
        ("check_switch", "sched_switch"),
    ];
    let mut clients = clients(Geometry::new(LARGE, 8).unwrap());
    let collected = Collected::default();
    let output = {
        let collected = collected.clone();
        move |cpu| Ok(collected.output(cpu))
    };
    let readers = Readers::start(Arc::clone(&clients.checked), output).unwrap();
    let stats = enable_stats(Stats::RunTime).unwrap();
    // QEMU's CPUs hang when the kernel patches what others of them run, as attaching to the timers' own tracepoint does; and sampled so often
    // they would do nothing but take interrupts.
    let is_emulated = std::fs::read_to_string("/proc/cpuinfo").unwrap().contains("TCG");
    let raw: Vec<_> = RAW.into_iter().filter(|(program, _)| !(is_emulated && *program == "check_timer")).collect();
    let links: Vec<_> = raw.iter().map(|(program, tracepoint)| clients.attach(program, tracepoint).unwrap()).collect();
    let samples = sample(&mut clients, if is_emulated { 2_000 } else { 25_000 });
    let storm = Storm::start(&machine::online_cpus().unwrap());
    // Fewer would interrupt too few.
    let enough = u64::from(if is_emulated { 8_000 } else { repeats(50_000).max(8_000) });
    wait_until("all has been interrupted often", || clients.runs("check_sample").unwrap() > enough);
    drop((storm, samples, links));
    let taken = finish(readers);
    let programs = raw.into_iter().map(|(program, _)| program).chain(["check_sample"]);
    let runs: u64 = programs.map(|program| clients.runs(program).unwrap()).sum();
    drop(stats);
    let records: Vec<Checked> = collected.take().into_values().flat_map(|bytes| checked(&bytes)).collect();
    // A record that ended after its successor in the buffer was interrupted by it.
    let nested = records.windows(2).filter(|pair| pair[1].began >= pair[0].began && pair[1].ended < pair[0].ended);
    let nested = nested.count();
    assert_eq!(runs, taken + lost(&clients.checked));
    assert_eq!(records.len() as u64, taken);
    assert!(nested > 10, "only {nested} of {} records were interrupted by another", records.len());
    println!("{taken} records, {nested} of them interrupted, {} lost", lost(&clients.checked));
}

/// What the channel `CHECKED` holds after `cause`, by writer.
fn written_by(clients: &Clients, cause: impl FnOnce()) -> BTreeMap<u64, usize> {
    let collected = Collected::default();
    let output = {
        let collected = collected.clone();
        move |cpu| Ok(collected.output(cpu))
    };
    let readers = Readers::start(Arc::clone(&clients.checked), output).unwrap();
    cause();
    finish(readers);
    by_writer(collected.take().into_values().flat_map(|bytes| checked(&bytes)))
}

pub(crate) fn programs_of_every_kind_write() {
    machine::tracefs().unwrap();
    let mut clients = clients(Geometry::new(LARGE, 8).unwrap());
    let raw = clients.attach("check_switch", "sched_switch").unwrap();
    let samples = sample(&mut clients, 1000);
    let program: &mut TracePoint = clients.ebpf.program_mut("check_tracepoint").unwrap().try_into().unwrap();
    program.load().unwrap();
    let tracepoint = program.attach("sched", "sched_process_exec").unwrap();
    let tracepoint = program.take_link(tracepoint).unwrap();
    let program: &mut UProbe = clients.ebpf.program_mut("check_uprobe").unwrap().try_into().unwrap();
    program.load().unwrap();
    // Where this program is static, it is not itself a user of the library.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mine = maps.lines().find_map(|line| line.split_whitespace().nth(5).filter(|path| path.contains("/libc.so")));
    let libc = mine.map_or_else(|| relay_tests::library_of("/bin/ls"), str::to_owned);
    let uprobe = program.attach("getenv", libc, UProbeScope::AllProcesses).unwrap();
    let uprobe = program.take_link(uprobe).unwrap();
    let stats = enable_stats(Stats::RunTime).unwrap();
    let writers = written_by(&clients, || {
        relay_tests::succeed(&mut std::process::Command::new("true"));
        relay_tests::succeed(std::process::Command::new("ls").arg("/"));
        for program in ["check_sample", "check_switch", "check_tracepoint", "check_uprobe"] {
            wait_until(program, || clients.runs(program).unwrap() > 0);
        }
        drop((raw, samples, tracepoint, uprobe));
    });
    drop(stats);
    // Sampling, sched_switch, the tracepoint, the uprobe.
    assert_eq!(writers.keys().copied().collect::<Vec<_>>(), [1, 5, 6, 7], "{writers:?}");
}

pub(crate) fn kprobes_and_fentry_write() {
    let mut clients = clients(Geometry::new(LARGE, 8).unwrap());
    let program: &mut KProbe = clients.ebpf.program_mut("check_kprobe").unwrap().try_into().unwrap();
    program.load().unwrap();
    let kprobe = program.attach("vfs_read", 0).unwrap();
    let kprobe = program.take_link(kprobe).unwrap();
    let program: &mut FEntry = clients.ebpf.program_mut("check_fentry").unwrap().try_into().unwrap();
    program.load("vfs_read", &aya::Btf::from_sys_fs().unwrap()).unwrap();
    let fentry = program.attach().unwrap();
    let fentry = program.take_link(fentry).unwrap();
    let writers = written_by(&clients, || {
        relay_tests::succeed(&mut std::process::Command::new("true"));
        drop((kprobe, fentry));
    });
    assert_eq!(writers.keys().copied().collect::<Vec<_>>(), [8, 9], "{writers:?}");
}

/// Numbers of calls of start, end, full and recovered.
fn calls(clients: &Clients, cpu: u32) -> [u64; 4] {
    let calls: PerCpuArray<_, [u64; 4]> = clients.ebpf.map("CALLS").unwrap().try_into().unwrap();
    let index = clients.called.possible().iter().position(|possible| *possible == cpu).unwrap();
    calls.get(&0, 0).unwrap()[index]
}

/// Sub-buffers of 64 bytes, two of them: 16 for the padding header, 8 for the client's, and five records of 8 bytes.
pub(crate) fn callbacks_are_called_once_for_each_transition() {
    let mut clients = clients(Geometry::new(LARGE, 2).unwrap());
    clients.load_raw_tracepoint("call").unwrap();
    let (cpu, folder) = (last_cpu(), tempfile::tempdir().unwrap());
    let output = Box::new(CpuFile::create(folder.path(), cpu).unwrap());
    let mut consumer = Consumer::new(clients.called.buffer(cpu).unwrap(), Mode::NoOverwrite, output);
    clients.run("call", cpu, 12).unwrap();
    assert_eq!(calls(&clients, cpu), [2, 2, 1, 0], "ten are stored, two lost");
    clients.run("call", cpu, 3).unwrap();
    assert_eq!(calls(&clients, cpu), [2, 2, 1, 0], "full is told once");
    assert_eq!(consumer.pass(1).unwrap(), 1);
    clients.run("call", cpu, 1).unwrap();
    assert_eq!(calls(&clients, cpu), [3, 2, 1, 1], "and so is the recovery");
    clients.run("call", cpu, 5).unwrap();
    assert_eq!(calls(&clients, cpu), [3, 3, 2, 1], "full again");
    assert_eq!(clients.called.counters(cpu).unwrap().lost_full, 2 + 3 + 1);
    assert_eq!(consumer.pass(u64::MAX).unwrap(), 2);
    let file = std::fs::read(folder.path().join(format!("cpu{cpu}"))).unwrap();
    let content: Vec<u64> = words(&file).collect();
    assert_eq!(content, [0, 0, 1, 2, 3, 4, 1, 5, 6, 7, 8, 9, 2, 0, 0, 1, 2, 3], "each begins with its number");
}

pub(crate) fn a_program_sees_full_empty_and_what_was_lost() {
    let mut clients = clients(Geometry::new(LARGE, 2).unwrap());
    clients.load_raw_tracepoint("call").unwrap();
    clients.load_raw_tracepoint("state").unwrap();
    let cpu = last_cpu();
    let collected = Collected::default();
    let mut checked = Consumer::new(clients.checked.buffer(cpu).unwrap(), Mode::NoOverwrite, collected.output(cpu));
    let mut state = |clients: &Clients| {
        clients.run("state", cpu, 0).unwrap();
        checked.pass(u64::MAX).unwrap();
        words(&collected.take()[&cpu]).collect::<Vec<_>>()
    };
    assert_eq!(state(&clients), [0, 1, 0, 0, 0], "empty");
    clients.run("call", cpu, 7).unwrap();
    assert_eq!(state(&clients), [0, 0, 1, 0, 0], "one sub-buffer waits, one is open");
    clients.run("call", cpu, 7).unwrap();
    assert_eq!(state(&clients), [1, 0, 2, 0, 4], "full");
}

pub(crate) fn a_reset_channel_is_as_new() {
    let mut clients = clients(Geometry::new(LARGE, 2).unwrap());
    clients.load_raw_tracepoint("call").unwrap();
    let (cpu, folder) = (last_cpu(), tempfile::tempdir().unwrap());
    clients.run("call", cpu, 64).unwrap();
    assert_eq!(clients.called.counters(cpu).unwrap().lost_full, 54);
    let channel = Arc::get_mut(&mut clients.called).unwrap();
    channel.reset().unwrap();
    assert_eq!(channel.counters(cpu), Some(Counters::default()));
    clients.run("call", cpu, 5).unwrap();
    let output = Box::new(CpuFile::create(folder.path(), cpu).unwrap());
    let mut consumer = Consumer::new(clients.called.buffer(cpu).unwrap(), Mode::NoOverwrite, output);
    assert_eq!(consumer.pass(u64::MAX).unwrap(), 1);
    let file = std::fs::read(folder.path().join(format!("cpu{cpu}"))).unwrap();
    assert_eq!(words(&file).collect::<Vec<_>>(), [0, 0, 1, 2, 3, 4]);
}

pub(crate) fn an_object_is_given_the_channels_that_it_declares() {
    let geometry = Geometry::new(4096, 2).unwrap();
    let channel = Channel::create(geometry, Mode::NoOverwrite, relay_common::Plain).unwrap();
    let load = |names: &[&str]| {
        let channels: Vec<_> = names.iter().map(|name| (*name, &channel)).collect();
        let error = relay_channel::channel::load(OBJECT, &channels, aya::EbpfLoader::new()).err().unwrap();
        format!("{error:#}")
    };
    assert_eq!(load(&["CHECKED", "CALLED"]), "the eBPF object declares a channel NUMBERED, and none was given for it");
    let unknown = load(&["CHECKED", "CALLED", "NUMBERED", "CHEKED"]);
    assert!(unknown.starts_with("the eBPF object declares no channel CHEKED, but "), "{unknown}");
}

/// Records that are not clamped rely on it.
pub(crate) fn the_clock_of_a_cpu_does_not_fall() {
    let geometry = (Geometry::new(4096, 2).unwrap(), Mode::Overwrite);
    let mut clients = Clients::load(geometry, geometry).unwrap();
    clients.load_raw_tracepoint("read_clock").unwrap();
    let runs = repeats(10_000);
    let cpus = machine::online_cpus().unwrap();
    for cpu in &cpus {
        (0..runs).for_each(|_| clients.run("read_clock", *cpu, 0).unwrap());
    }
    let falls: PerCpuArray<_, [u64; 2]> = clients.ebpf.map("FALLS").unwrap().try_into().unwrap();
    let falls = falls.get(&0, 0).unwrap();
    println!("{} CPUs, {runs} thousand readings on each: falls, and by how much at most: {falls:?}", cpus.len());
    assert!(falls.iter().all(|falls| *falls == [0, 0]), "{falls:?}");
}
