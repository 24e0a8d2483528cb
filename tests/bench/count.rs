//! What it costs in instructions: for a virtual machine whose clock is a count of them (`cargo xtask bench icount`). There is no noise in that,
//! and no cache either: it compares builds of one recorder, and says nothing of how long a recorder takes.

use anyhow::{Context as _, Result};
use relay_channel::machine;

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
/// So many records have room in any of their buffers.
const CALLS: u64 = 10_000;
/// The least of so many counts: the guest has other things to do now and then.
const TIMES: u32 = 3;

/// Prints instructions of a record, on the first CPU.
pub(crate) fn print() -> Result<()> {
    let cpus = machine::online_cpus()?;
    let first = &cpus[..1];
    println!("{:<28} {:>12}", "recorder", "instructions");
    let least = |kind: Recorder| -> Result<f64> {
        let mut least = f64::MAX;
        for _ in 0..TIMES {
            least =
                least.min(measure(kind, Events::FewCalls, first, CALLS, &[]).with_context(|| kind.name())?.per_call);
        }
        Ok(least)
    };
    let alone = least(Recorder::Nothing)?;
    for kind in KINDS {
        println!("{:<28} {:>12.0}", kind.name(), least(kind)? - alone);
    }
    for (name, instructions) in batches::count(first[0])? {
        println!("{name:<28} {instructions:>12.0}");
    }
    Ok(())
}
