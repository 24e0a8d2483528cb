//! Folded stacks: a line for each stack, outermost first, and how often it was seen, for flame graphs.

use std::{collections::HashMap, io::Write};

use anyhow::{Result, bail};

use super::{Exported, Job};
use crate::{
    read::{
        choice::comm,
        slices::{Item, Slice},
    },
    show::stack::{clean, folded},
};

/// Trace, thread name, kernel stack and user stack, as they lie in the records.
type Key = (usize, Vec<u8>, Vec<u8>, (u32, Vec<u8>));

/// Writes the stacks of the traces.
///
/// # Errors
/// When a file cannot be read, `output` not be written, or no record has a stack.
pub fn write(job: Job<'_>, output: &mut dyn Write) -> Result<Exported> {
    let (traces, choice) = (job.traces, job.choice);
    let mut stacks: HashMap<Key, u64> = HashMap::new();
    let mut without = 0;
    let worker = || {
        move |slice: &Slice| {
            let (mut stacks, mut without): (HashMap<Key, u64>, u64) = (HashMap::new(), 0);
            choice.show(slice, traces, |item, names| {
                let Item::Record(seen) = item else { return };
                let (kernel, user) = (seen.context.kstack, seen.context.ustack);
                if kernel.is_empty() && user.is_empty() {
                    without += 1;
                } else {
                    let name = comm(&seen, names).to_vec();
                    *stacks
                        .entry((seen.source.trace, name, kernel.to_vec(), (seen.record.pid, user.to_vec())))
                        .or_default() += 1;
                }
            });
            (stacks, without)
        }
    };
    let damages = job.run(worker, |(part, stackless)| {
        without += stackless;
        for (stack, count) in part {
            *stacks.entry(stack).or_default() += count;
        }
        Ok(())
    })?;
    if stacks.is_empty() {
        bail!("no record has a stack: record with --context kstack,ustack");
    }
    let mut symbols: Vec<_> = traces.iter().map(crate::read::trace::Trace::symbols).collect();
    let mut lines: HashMap<String, u64> = HashMap::new();
    for ((trace, name, kernel, (process, user)), count) in stacks {
        let (name, stack) =
            (clean(&String::from_utf8_lossy(&name)), folded(&kernel, (process, &user), &mut symbols[trace]));
        *lines.entry(format!("{name};{stack}")).or_default() += count;
    }
    let mut lines: Vec<_> = lines.into_iter().collect();
    lines.sort_unstable();
    for (line, count) in lines {
        writeln!(output, "{line} {count}")?;
    }
    Ok(Exported { damages, left_out: vec![("records without a stack", without)] })
}
