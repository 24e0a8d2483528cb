//! What it costs in instructions: for a virtual machine whose clock is a count of them (`cargo xtask bench icount`). There is no noise in that,
//! and no cache either: it compares builds of one recorder, and says nothing of how long a recorder takes.

use std::env;

use anyhow::{Context as _, Result};
use relay_channel::machine;
use relay_tests::{relayd, succeed, text};

use crate::{
    batches, measure,
    recorders::{Events, Recorder},
};

/// Those whose reader, if they have one, can wait until the last call.
const KINDS: [Recorder; 6] = [
    Recorder::Empty,
    Recorder::EmptyRaw,
    Recorder::Bound,
    Recorder::Flight,
    Recorder::RingBuffer,
    Recorder::PerfBuffer,
];
/// What relayd records at a call, or at a function of the kernel that it calls; with `--latency` where that makes a pair of it.
const EVENTS: [(&[&str], &str); 11] = [
    (&[], "raw_syscalls:sys_enter if id >= 0"),
    (&[], "syscalls:sys_enter_getppid"),
    (&[], "syscall:getppid"),
    (&[], "rawtracepoint:sys_enter"),
    (&[], "rawtracepoint:sys_enter(id)"),
    (&[], "kprobe:__task_pid_nr_ns"),
    (&[], "kretprobe:__task_pid_nr_ns"),
    (&["--latency"], "kretprobe:__task_pid_nr_ns"),
    (&[], "fentry:__task_pid_nr_ns"),
    (&[], "fexit:__task_pid_nr_ns"),
    (&["--latency"], "fexit:__task_pid_nr_ns"),
];
/// The same at a function of this program.
const PROBES: [(&[&str], &str); 3] = [(&[], "uprobe"), (&[], "uretprobe"), (&["--latency"], "uretprobe")];
/// So many calls, and the least of so many counts: the guest has other things to do now and then. All of their records have room in any of the buffers.
const CALLS: (u64, u64) = (4000, 4);

/// Prints instructions of a record, on the first CPU.
pub(crate) fn print() -> Result<()> {
    let cpus = machine::online_cpus()?;
    let least = |kind: Recorder, events: Events<'_>, options: &[&str]| -> Result<f64> {
        let options: Vec<_> = options.iter().map(ToString::to_string).collect();
        let run = measure(kind, events, &cpus[..1], CALLS, &options);
        Ok(run.with_context(|| format!("{} {events:?}", kind.name()))?.per_call)
    };
    let mut counts = Vec::new();
    for kind in KINDS {
        counts.push((kind.name().to_owned(), least(kind, Events::FewCalls, &[])?));
    }
    let function = measured_call()?;
    let probes = PROBES.map(|(options, kind)| (options, format!("{kind}:{function}"), kind));
    let events = EVENTS.map(|(options, event)| (options, event.to_owned(), event));
    for (options, event, name) in events.into_iter().chain(probes) {
        counts.push(([options, &[name]].concat().join(" "), least(Recorder::Flight, Events::Of(&event), options)?));
    }
    // Not first: a guest that has just been booted has other things to do.
    let alone = least(Recorder::Nothing, Events::FewCalls, &[])?;
    println!("{:<52} {:>12}", "recorder", "instructions");
    let batches = batches::count(cpus[0])?.into_iter().map(|(name, instructions)| (name.to_owned(), instructions));
    for (name, instructions) in counts.into_iter().map(|(name, count)| (name, count - alone)).chain(batches) {
        println!("{name:<52} {instructions:>12.0}");
    }
    Ok(())
}

/// Where the function that makes the calls is: the executable, and the name that relayd knows it by.
fn measured_call() -> Result<String> {
    let pattern = format!("uprobe:{}:*measured_call*", env::current_exe()?.display());
    let listed = text(&succeed(relayd().arg("list").arg(pattern)).stdout);
    let first = listed.lines().next().context("no function makes the calls")?;
    Ok(first.trim().trim_start_matches("uprobe:").to_owned())
}
